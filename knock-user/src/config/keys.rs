//! The `[[key]]` tables: secrets, and what each may ask for.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use knock_common::spa::{abi::KeyId, key::SpaKey};
use toml::{Spanned, de::DeValue};

use super::{
    prefix,
    problem::Findings,
    section::{DurationKey, Section},
    show_duration,
    spelling::KEY_KEYS,
};
use crate::secret;

/// Longest name of a server or a key.
const MAX_NAME: usize = 63;
const DEFAULT_MAX_OPEN: Duration = Duration::from_secs(3600);
const MAX_OPEN: DurationKey = DurationKey {
    name: "max_open",
    min: Duration::from_secs(1),
    max: Duration::from_secs(365 * 24 * 3600),
    examples: "\"30m\", \"8h\" or \"7d\"",
};

/// Who may send single packets, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What the configuration calls it.
    pub name: String,
    /// Its secret, and the one before while that is still accepted; none where a file could not be read.
    pub secrets: Vec<Secret>,
    /// The files that they are read from.
    pub files: Vec<PathBuf>,
    /// The longest that it opens a door for.
    pub max_open: Duration,
    /// It may ask for whoever sends the packet.
    pub nat: bool,
    /// It may ask for another address than the one that it sends from.
    pub any_address: bool,
    /// Sources that it may open for; empty means any.
    pub from: Vec<IpNet>,
}

/// A secret in a configuration; it is in no debug output, and two are the same if they have one id.
#[derive(Clone)]
pub struct Secret(pub SpaKey);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<secret {}>", secret::hex(&self.0.id()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Secret {}

/// Keys as read, with the places of their names and secrets.
pub(super) struct Draft {
    pub(super) name: Spanned<String>,
    pub(super) from: Vec<Spanned<IpNet>>,
    pub(super) secrets: Vec<Range<usize>>,
    pub(super) key: Key,
}

/// Reads the tables. `folder` is what names of files begin from.
pub(super) fn read(root: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Vec<Draft> {
    let Some(value) = root.value("key") else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        found.error(value.span(), "`key` is not a list of tables", "write [[key]], in double brackets");
        return Vec::new();
    };
    let mut keys = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let DeValue::Table(table) = item.get_ref() else {
            let message = format!("key {} is not a table", number + 1);
            found.error(item.span(), message, "write it under [[key]]");
            continue;
        };
        keys.extend(key(&Section::new(format!("key {}", number + 1), item.span(), table), folder, found));
    }
    keys
}

fn key(section: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Draft> {
    section.refuse_unknown(KEY_KEYS, found);
    let name = name("name", section, found);
    if !section.has("secret_file") {
        let help = "add the file that `xdp-knock keygen` wrote, as secret_file = \"alice.key\"";
        found.error(section.span.clone(), format!("{}: no `secret_file`", section.title), help);
    }
    let read = ["secret_file", "old_secret_file"].into_iter();
    let read: Vec<_> = read.filter_map(|which| secret_in(which, section, folder, found)).collect();
    let places = read.iter().map(|(span, _, _)| span.clone()).collect();
    let (files, secrets) = read.into_iter().map(|(_, file, secret)| (file, secret)).unzip();
    let max_open = section.duration(&MAX_OPEN, found).map_or(DEFAULT_MAX_OPEN, Spanned::into_inner);
    let nat = section.boolean("nat", found).unwrap_or(false);
    let any_address = section.boolean("any_address", found).unwrap_or(false);
    let from = section.list("from", "address prefixes", prefix::parse, found).unwrap_or_default();
    let name = name?;
    let bare = from.iter().map(|net| *net.get_ref()).collect();
    let key = Key { name: name.get_ref().clone(), secrets, files, max_open, nat, any_address, from: bare };
    Some(Draft { name, from, secrets: places, key })
}

/// Reads a name.
pub(super) fn name(key: &str, section: &Section<'_, '_>, found: &mut Findings) -> Option<Spanned<String>> {
    if !section.has(key) {
        let message = format!("{}: no `{key}`", section.title);
        let example = if key == "identity" { "box" } else { "alice" };
        found.error(section.span.clone(), message, format!("add one, as {key} = \"{example}\""));
    }
    let text = section.text(key, found)?;
    let name = *text.get_ref();
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        let message = format!("{}: `{key}` is \"{name}\"", section.title);
        let help = format!("a name is 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`");
        found.error(text.span(), message, help);
        return None;
    }
    Some(Spanned::new(text.span(), name.to_owned()))
}

/// Reads the secret in a file, with the place of its name and its path.
pub(super) fn secret_in(
    which: &str,
    section: &Section<'_, '_>,
    folder: &Path,
    found: &mut Findings,
) -> Option<(Range<usize>, PathBuf, Secret)> {
    let text = section.text(which, found)?;
    let path: PathBuf = folder.join(text.get_ref());
    match secret::read(&secret::Place::File(path.clone())) {
        Ok(key) => Some((text.span(), path, Secret(key))),
        Err(error) => {
            let message = format!("{}: `{which}` is \"{}\"", section.title, text.get_ref());
            found.error(text.span(), message, error.to_string());
            None
        }
    }
}

/// Neither a name nor a secret may stand for two keys.
pub(super) fn apart(keys: &[Draft], found: &mut Findings) {
    let mut names: HashMap<&str, Range<usize>> = HashMap::new();
    let mut ids: HashMap<KeyId, Range<usize>> = HashMap::new();
    for draft in keys {
        let name = draft.name.get_ref();
        if let Some(first) = names.insert(name, draft.name.span()) {
            let line = found.line_of(&first);
            let message = format!("a second key has the name \"{name}\"");
            let help = format!("the first stands on line {line}: each name must be unique");
            found.error(draft.name.span(), message, help);
        }
        for (secret, place) in draft.key.secrets.iter().zip(&draft.secrets) {
            if let Some(first) = ids.insert(secret.0.id(), place.clone()) {
                let line = found.line_of(&first);
                let message = format!(
                    "key \"{name}\": this secret (id {}) is there already",
                    secret::hex(&secret.0.id())
                );
                let help = format!(
                    "it is that of line {line}: make another with `xdp-knock keygen`, or take one out"
                );
                found.error(place.clone(), message, help);
            }
        }
    }
}

/// Returns a key in words that hold no secret.
#[must_use]
pub fn in_words(key: &Key) -> String {
    let ids: Vec<String> = key.secrets.iter().map(|secret| secret::hex(&secret.0.id())).collect();
    let rights = [
        (key.nat, "whoever sends it (a packet held back on the way can be raced once)"),
        (key.any_address, "any address"),
    ];
    let rights: Vec<&str> = rights.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect();
    let lets_in = if rights.is_empty() { "its sender's address".to_owned() } else { rights.join(", ") };
    let from: Vec<String> = key.from.iter().map(ToString::to_string).collect();
    let within = if from.is_empty() { String::new() } else { format!(", within {}", from.join(", ")) };
    format!(
        "id {}; opens for {} at most, for {lets_in}{within}",
        ids.join(" and "),
        show_duration(key.max_open)
    )
}
