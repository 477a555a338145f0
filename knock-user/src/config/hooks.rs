//! The `[hooks]` table: programs that the daemon runs when something happens.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{
    problem::Findings,
    section::{DurationKey, Section},
    spelling::HOOKS_KEYS,
    table,
};

const DEFAULT_USER: &str = "nobody";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_AT_ONCE: u32 = 8;
const MAX_AT_ONCE: u32 = 64;

const TIMEOUT: DurationKey = DurationKey {
    name: "timeout",
    min: Duration::from_millis(100),
    max: Duration::from_secs(600),
    examples: "\"10s\" or \"1m\"",
};

/// Which programs are run, as whom, for how long and how many at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Run when a source may pass a door, by knocking or by hand.
    pub on_promote: Option<Argv>,
    /// Run when a grant ends: it expired or was revoked.
    pub on_expire: Option<Argv>,
    /// Run when a source is banned.
    pub on_ban: Option<Argv>,
    /// Name of the user whose rights the programs have.
    pub user: String,
    /// A program that takes longer is killed, with all of its process group.
    pub timeout: Duration,
    /// How many run at the same time; never 0.
    pub at_once: usize,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            on_promote: None,
            on_expire: None,
            on_ban: None,
            user: DEFAULT_USER.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            at_once: DEFAULT_AT_ONCE as usize,
        }
    }
}

impl Hooks {
    /// The programs that are configured, with the names of their keys.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &Argv)> {
        let all =
            [("on_promote", &self.on_promote), ("on_expire", &self.on_expire), ("on_ban", &self.on_ban)];
        all.into_iter().filter_map(|(key, argv)| Some((key, argv.as_ref()?)))
    }

    /// Whether nothing is to be run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands().next().is_none()
    }
}

/// A program and its arguments, in which facts of the event stand for placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv {
    program: PathBuf,
    arguments: Vec<Word>,
}

impl Argv {
    /// The program, by an absolute path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments, with each placeholder replaced by its fact. One word stays one argument, whatever is in it.
    #[must_use]
    pub fn arguments(&self, fact: impl Fn(Fact) -> String) -> Vec<String> {
        self.arguments.iter().map(|word| word.fill(&fact)).collect()
    }
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `{door}`: the door's name.
    Door,
    /// `{source}`: the address.
    Source,
    /// `{event}`: the word of the event stream.
    Event,
    /// `{via}`: how the grant came about.
    Via,
    /// `{expires}`: when it ends, RFC 3339 in UTC.
    Expires,
    /// `{iface}`: the interface's name.
    Iface,
}

impl Fact {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Door, "door"),
        (Self::Source, "source"),
        (Self::Event, "event"),
        (Self::Via, "via"),
        (Self::Expires, "expires"),
        (Self::Iface, "iface"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(fact, _)| fact)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Fact(Fact),
}

/// One word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word(Vec<Piece>);

impl Word {
    fn fill(&self, fact: &impl Fn(Fact) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Fact(known) => fact(*known),
        });
        pieces.collect()
    }

    /// The word itself, when it has no placeholder.
    fn plain(&self) -> Option<String> {
        let texts = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Fact(_) => None,
        });
        texts.collect()
    }
}

/// Why a word is none.
struct WordError(String);

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads text and placeholders; a brace that means itself is written twice, as in Rust's format strings.
fn word(text: &str) -> Result<Word, WordError> {
    let known = Fact::ALL.map(|(_, name)| format!("{{{name}}}")).join(" ");
    let explain = |what: String| {
        WordError(format!("{what}; the placeholders are {known}, and a brace itself is written twice"))
    };
    if text.contains('\0') {
        return Err(WordError("a word of a command cannot hold a zero byte".to_owned()));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        pieces.push(Piece::Text(before.to_owned()));
        let doubled = ["{{", "}}"].into_iter().find(|pair| brace.starts_with(pair));
        if let Some(pair) = doubled {
            pieces.push(Piece::Text(pair[1..].to_owned()));
            rest = &brace[2..];
            continue;
        }
        let Some((name, after)) = brace.strip_prefix('{').and_then(|open| open.split_once('}')) else {
            return Err(explain("a brace without its partner".to_owned()));
        };
        let fact = Fact::named(name).ok_or_else(|| explain(format!("unknown placeholder {{{name}}}")))?;
        pieces.push(Piece::Fact(fact));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(Word(pieces))
}

pub(super) fn read(root: &Section<'_, '_>, found: &mut Findings) -> Hooks {
    let Some((value, table)) = table(root, "hooks", found) else { return Hooks::default() };
    let section = Section::new("[hooks]".to_owned(), value.span(), table);
    section.refuse_unknown(HOOKS_KEYS, found);
    if !["on_promote", "on_expire", "on_ban"].iter().any(|key| section.has(key)) {
        let help = "add `on_promote`, `on_expire` or `on_ban`, or leave the table out";
        found.warning(section.span.clone(), "[hooks]: no hook: nothing is run", help);
    }
    let default = Hooks::default();
    Hooks {
        on_promote: argv("on_promote", &section, found),
        on_expire: argv("on_expire", &section, found),
        on_ban: argv("on_ban", &section, found),
        user: user(&section, found).unwrap_or(default.user),
        timeout: section.duration(&TIMEOUT, found).map_or(default.timeout, Spanned::into_inner),
        at_once: section.count("at_once", 1, MAX_AT_ONCE, found).unwrap_or(DEFAULT_AT_ONCE) as usize,
    }
}

fn argv(key: &str, section: &Section<'_, '_>, found: &mut Findings) -> Option<Argv> {
    let words = section.list(key, "words of a command", word, found)?;
    let mut words = words.into_iter();
    let first = words.next()?;
    let program = first.get_ref().plain().map(PathBuf::from);
    let Some(program) = program.filter(|program| program.is_absolute() && program.file_name().is_some())
    else {
        let message = format!("[hooks]: the program of `{key}` is no absolute path");
        let help = "write where it is, as \"/usr/local/bin/tell\": neither a shell nor PATH is asked, and \
                    placeholders belong in the arguments";
        found.error(first.span(), message, help);
        return None;
    };
    Some(Argv { program, arguments: words.map(Spanned::into_inner).collect() })
}

fn user(section: &Section<'_, '_>, found: &mut Findings) -> Option<String> {
    let text = section.text("user", found)?;
    let name = *text.get_ref();
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control()) {
        let help = "it must be the name of a user of this machine, as \"nobody\"";
        found.error(text.span(), format!("[hooks]: `user` is \"{name}\""), help);
        return None;
    }
    if name == "root" {
        let help = "whoever can change a hook's program has this machine: give hooks a user of their own";
        found.warning(text.span(), "[hooks]: `user` is \"root\"", help);
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let word = word(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        word.fill(&|fact| format!("<{fact:?}>"))
    }

    #[test]
    fn placeholders_are_filled_and_doubled_braces_are_braces() {
        for (text, expected) in [
            ("", ""),
            ("--now", "--now"),
            ("{door}", "<Door>"),
            ("{source}@{iface}:{via}", "<Source>@<Iface>:<Via>"),
            ("{{{event}}}", "{<Event>}"),
            (r#"{{"until":"{expires}"}}"#, r#"{"until":"<Expires>"}"#),
            ("{{door}}", "{door}"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_placeholder_is_refused_with_the_ones_there_are() {
        for (text, reason) in [
            ("{ip}", "unknown placeholder {ip}"),
            ("{}", "unknown placeholder {}"),
            ("{Door}", "unknown placeholder {Door}"),
            ("{door", "a brace without its partner"),
            ("door}", "a brace without its partner"),
            ("a\0b", "zero byte"),
        ] {
            let error = word(text).err().unwrap_or_else(|| panic!("{text} was taken")).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let error = word("{ip}").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("{door} {source} {event} {via} {expires} {iface}"), "{error}");
    }
}
