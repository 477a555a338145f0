//! The configuration: its model, and reading it from TOML with every problem shown at its place.

pub mod check;
mod door;
mod duration;
mod hooks;
pub mod hosts;
pub mod init;
pub mod keys;
mod lint;
pub mod list;
mod listeners;
mod metrics;
mod prefix;
mod problem;
mod programs;
pub mod rotate;
mod rules;
mod secret;
mod section;
mod shape;
pub mod spa;
mod spelling;
mod state;
mod xdp;

use std::{
    fmt,
    fs::File,
    io::Read,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub use self::{
    duration::show_duration,
    hooks::{Argv, Fact, Hooks},
    problem::{ConfigError, Problem, Warning},
    secret::bits,
};
use self::{listeners::Listeners, problem::Findings, section::Section};
use crate::{generation::host_ephemeral, service::Service, step::Step};

/// More doors than this are refused; the kernel's tables are built for it.
pub const MAX_DOORS: usize = 64;
/// More steps in one sequence are refused.
pub const MAX_STEPS: usize = 16;
/// More prefixes in `allow`, `from` and `to` together, those of keys included, are refused.
pub const MAX_PREFIXES: usize = 4096;
/// More doors that begin with the same step are refused: the kernel follows this many attempts of a source.
pub const MAX_SAME_FIRST_STEP: usize = 8;

/// A larger file is no configuration; the limit keeps `/dev/zero` from being read for ever.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One whole configuration that passed every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces to guard; empty when the command line names them.
    pub interfaces: Vec<String>,
    /// What happens to a packet for a hidden service.
    pub mode: Mode,
    /// How a hidden service looks from outside.
    pub hide_as: HideAs,
    /// What becomes of packets that are not addressed to the host, in deny mode.
    pub forward: Forward,
    /// How long a UDP conversation with a hidden service may rest.
    pub udp_idle: Duration,
    /// Sources that are never judged.
    pub allow: Vec<IpNet>,
    /// Services open to everybody: never a wrong knock.
    pub public: Vec<Service>,
    /// The doors, in the order of the file.
    pub doors: Vec<Door>,
    /// What is said of single packets as a whole; there where a door opens by them.
    pub spa: Option<spa::Server>,
    /// Who may send them.
    pub keys: Vec<keys::Key>,
    /// Programs that the daemon runs when something happens.
    pub hooks: Hooks,
    /// The loopback address at which metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The file, by its absolute path, that keeps grants and bans across a reboot; `None`: they end with it.
    pub state: Option<PathBuf>,
}

/// What happens to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Judges, counts and reports; drops nothing.
    #[default]
    Observe,
    /// Drops what is addressed to a hidden service, unless a grant lets it in.
    Guard,
    /// Drops everything addressed to the host that is neither public, granted, in a session nor a reply.
    Deny,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Guard => "guard",
            Self::Deny => "deny",
        })
    }
}

/// How a hidden service looks to a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HideAs {
    /// No answer at all.
    #[default]
    Filtered,
    /// The answer of a closed port.
    Closed,
}

impl fmt::Display for HideAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filtered => "filtered",
            Self::Closed => "closed",
        })
    }
}

/// What becomes of packets that are not addressed to the host, in deny mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// They pass.
    #[default]
    Pass,
    /// They are judged as if they were addressed to the host.
    Deny,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Deny => "deny",
        })
    }
}

/// What becomes of a conversation with a hidden service when the grant that let it in ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionRule {
    /// It goes on.
    #[default]
    Keep,
    /// It ends too.
    Cut,
}

impl fmt::Display for SessionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Cut => "cut",
        })
    }
}

/// A named set of hidden services, the way to open it, and for how long.
#[derive(Clone, PartialEq, Eq)]
pub struct Door {
    /// Unique, 1 to 31 characters of `a-z`, `0-9`, `-` and `_`.
    pub name: String,
    /// What it hides from strangers and opens to those who knock; never empty.
    pub opens: Vec<Service>,
    /// The sequence, in order; empty where it has another way alone.
    pub knock: Vec<Step>,
    /// Longest time between two steps.
    pub step_timeout: Duration,
    /// Longest time from the first step to the last.
    pub total_timeout: Duration,
    /// How long a grant lasts.
    pub open_for: Duration,
    /// What becomes of what it let in when the grant ends.
    pub sessions: SessionRule,
    /// Sources that may use this door; empty means any.
    pub from: Vec<IpNet>,
    /// Destinations at which this door may be knocked; empty means any.
    pub to: Vec<IpNet>,
    /// How many new attempts a second the kernel records, over all sources.
    pub new_attempts_per_s: u32,
    /// How single packets open it, if they do.
    pub spa: Option<spa::DoorSpa>,
    /// The sequence that changes with time, if it has one.
    pub rotate: Option<rotate::Rotate>,
    /// Sequences that open it once each, if it has any.
    pub list: Vec<list::Line>,
    /// The file that they are read from.
    pub list_file: Option<PathBuf>,
}

impl fmt::Debug for Door {
    /// Leaves the sequence out: it is a secret, and debug output ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("name", &self.name)
            .field("opens", &self.opens)
            .field("knock", &format_args!("<{} steps>", self.knock.len()))
            .finish_non_exhaustive()
    }
}

/// Why a configuration file is not in use.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read at all.
    #[error(
        "cannot read the configuration {path}: {source}; name another file, or write one with `xdp-knock init`"
    )]
    Io {
        /// The file, as named by the caller.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read, and is wrong.
    #[error(transparent)]
    Bad(#[from] ConfigError),
}

impl ReadError {
    /// Returns what is wrong with the text, if that is it.
    #[must_use]
    pub const fn as_bad(&self) -> Option<&ConfigError> {
        match self {
            Self::Io { .. } => None,
            Self::Bad(bad) => Some(bad),
        }
    }
}

impl Config {
    /// Reads a configuration from its text; `name` is what errors call it.
    ///
    /// # Errors
    /// Every problem of the text at once, each with its place.
    pub fn parse(name: &str, text: &str) -> Result<(Self, Vec<Warning>), ConfigError> {
        let found = Findings::new(name, text);
        parse(text, Path::new("."), found)
    }

    /// Returns what listens on this machine, to others too, and what deny mode leaves nobody a way to; nothing in another mode.
    #[must_use]
    pub fn unreachable(&self) -> Vec<Service> {
        Listeners::of_this_machine().unreachable(self, &host_ephemeral())
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// When the file cannot be read, may be changed by everybody, or has problems.
    pub fn read(path: &Path) -> Result<(Self, Vec<Warning>), ReadError> {
        let name = path.display().to_string();
        let read = text_of(path).map_err(|source| ReadError::Io { path: name.clone(), source });
        let (text, mode, mut found) = read?;
        let Some(text) = text else { return Err(found.into_error().into()) };
        permissions(mode, &name, &mut found);
        Ok(parse(&text, path.parent().unwrap_or(Path::new(".")), found)?)
    }
}

/// Returns the text of a file, its permission bits and what is wrong with it as a text; no text if it is too large for one.
fn text_of(path: &Path) -> std::io::Result<(Option<String>, u32, Findings)> {
    let (bytes, mode) = contents(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Findings::new(&path.display().to_string(), &text);
    if bytes.len() as u64 > MAX_FILE_BYTES {
        found.file_error("larger than 1 MiB", "a configuration is a short text: name the right file");
        return Ok((None, mode, found));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        let at = error.valid_up_to();
        found.error(at..at + 1, "a byte that is not UTF-8", "save the file as UTF-8 text");
    }
    Ok((Some(text.into_owned()), mode, found))
}

/// The file's bytes, one more than allowed at most, and its permission bits.
fn contents(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    // Asked of the open file, not of the path: what is judged is what is read.
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

fn permissions(mode: u32, name: &str, found: &mut Findings) {
    let shown = format!("{:04o}", mode & 0o7777);
    if mode & 0o002 != 0 {
        let message = format!("mode {shown} lets every user of this machine change the doors");
        found.file_error(message, format!("run: chmod 600 {name}"));
    } else if mode & 0o004 != 0 {
        let message = format!("mode {shown} lets every user of this machine read the sequences");
        found.file_warning(message, format!("run: chmod 600 {name}"));
    }
}

/// `folder` is where the names of files in the text begin.
fn parse(text: &str, folder: &Path, mut found: Findings) -> Result<(Config, Vec<Warning>), ConfigError> {
    let Some(document) = document(text, &mut found) else { return Err(found.into_error()) };
    let root = Section::new("this file".to_owned(), 0..0, document.get_ref());
    root.refuse_unknown(spelling::ROOT_KEYS, &mut found);
    let xdp = xdp::Draft::read(&root, &mut found);
    let doors = door::Draft::read_all(&root, folder, &mut found);
    rules::judge(&xdp, &doors, &mut found);
    lint::judge(&xdp, &doors, &mut found);
    let (spa, keys) = spa::read(&root, &xdp, &doors, folder, &mut found);
    let config = Config {
        spa,
        keys,
        hooks: hooks::read(&root, &mut found),
        metrics: metrics::read(&root, &mut found),
        state: state::read(&root, &mut found),
        ..xdp.config(doors.into_iter().map(door::Draft::door).collect())
    };
    found.verdict(config)
}

fn document<'d>(text: &'d str, found: &mut Findings) -> Option<Spanned<DeTable<'d>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut told = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = found.line_of(&span);
        // One missing bracket makes the rest of its line wrong too: the first word about a line is the true one.
        if told.replace(line) == Some(line) {
            continue;
        }
        let value = text.get(span.clone()).filter(|value| !value.is_empty());
        let shown = value.or_else(|| text.lines().nth(line - 1)).unwrap_or_default().trim();
        let message = format!("not TOML: {}: {shown}", error.message());
        found.error(
            span,
            message,
            "a line is [table], [[table]] or key = value; texts stand in double quotes",
        );
    }
    // A tree with holes in it would be blamed for keys that are there, on the broken line.
    (!found.has_errors()).then_some(document)
}

/// The table at `key`, when it is one.
fn table<'t, 'd>(
    root: &Section<'t, 'd>,
    key: &str,
    found: &mut Findings,
) -> Option<(&'t Spanned<DeValue<'d>>, &'t DeTable<'d>)> {
    let value = root.value(key)?;
    let DeValue::Table(table) = value.get_ref() else {
        found.error(value.span(), format!("`{key}` is not a table"), format!("write it as [{key}]"));
        return None;
    };
    Some((value, table))
}
