//! The client's profile, `hosts.toml`: hosts by name, with their doors and how each is opened.

mod door;
#[cfg(test)]
mod tests;
mod way;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(crate) use self::door::is_name as is_door_name;
use super::{
    document, permissions,
    problem::{ConfigError, Findings, Warning},
    section::{DurationKey, Section},
    text_of,
};
use crate::{rotating::Shape, secret::Place, step::Step};

/// Keys of a host, and of its doors too but for `address`, `family` and `door`.
const HOST_KEYS: &[&str] = &["address", "family", "door", "verify", "timeout", "retry", "delay"];

const DELAY: DurationKey = DurationKey {
    name: "delay",
    min: Duration::ZERO,
    max: Duration::from_secs(60),
    examples: "\"100ms\" or \"1s\"",
};
const TIMEOUT: DurationKey = DurationKey {
    name: "timeout",
    min: Duration::from_millis(1),
    max: Duration::from_secs(600),
    examples: "\"3s\" or \"500ms\"",
};
const MAX_RETRY: u32 = 1000;

/// The hosts of a profile, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Host>);

/// A host to knock on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name or an address.
    pub address: String,
    /// Which of its addresses, if not all.
    pub family: Option<Family>,
    /// What holds for its doors unless they say otherwise.
    pub settings: Settings,
    /// Its doors, by name.
    pub doors: BTreeMap<String, Door>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ipv4`.
    V4,
    /// `ipv6`.
    V6,
}

/// A door of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// How it is opened.
    pub way: Way,
    /// What differs from the host's.
    pub settings: Settings,
}

/// What options of the command line say too; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The TCP port to try afterwards.
    pub verify: Option<NonZeroU16>,
    /// How long a try may take.
    pub timeout: Option<Duration>,
    /// How often to knock again while it is shut.
    pub retry: Option<u32>,
    /// The pause after each knock.
    pub delay: Option<Duration>,
}

impl Settings {
    /// Fills in what is not said here.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            verify: self.verify.or(other.verify),
            timeout: self.timeout.or(other.timeout),
            retry: self.retry.or(other.retry),
            delay: self.delay.or(other.delay),
        }
    }
}

/// How a door is opened.
#[derive(Clone, PartialEq, Eq)]
pub enum Way {
    /// A sequence that is always the same.
    Knock(Vec<Step>),
    /// One packet.
    Spa(Spa),
    /// A sequence that changes with time.
    Rotate(Rotate),
    /// Sequences of a file, each used once.
    List(PathBuf),
}

impl fmt::Debug for Way {
    /// Leaves a sequence out: it is a secret, and debug output ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knock(steps) => write!(f, "<{} steps>", steps.len()),
            Self::Spa(spa) => spa.fmt(f),
            Self::Rotate(rotate) => rotate.fmt(f),
            Self::List(path) => path.fmt(f),
        }
    }
}

/// What a single packet is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spa {
    /// Where the secret is.
    pub key: Place,
    /// What the server is configured as.
    pub server: String,
    /// What the door is called there.
    pub door: String,
    /// Where the door listens; the client's default if `None`.
    pub port: Option<NonZeroU16>,
    /// Whom it lets in, if that is not left to the client.
    pub whom: Option<Whom>,
    /// For how many seconds; as long as the door gives if `None`.
    pub open_for: Option<NonZeroU32>,
}

/// Whom a single packet lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This address.
    Named(IpAddr),
    /// Whoever sends it.
    Sender,
}

/// What a rotating sequence is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// Where the secret is.
    pub key: Place,
    /// What the door is called at the server.
    pub door: String,
    /// The rest.
    pub shape: Shape,
}

/// Why a profile is not in use.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read at all.
    #[error("cannot read the profile {path}: {cause}; name another file with --profile")]
    Io {
        /// The file, as named by the caller.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It was read, and is wrong.
    #[error(transparent)]
    Bad(#[from] ConfigError),
}

impl Hosts {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, may be changed by everybody, or has problems: all of them, each with its place.
    pub fn read(path: &Path) -> Result<(Self, Vec<Warning>), ReadError> {
        let name = path.display().to_string();
        let (text, mode, mut found) =
            text_of(path).map_err(|cause| ReadError::Io { path: name.clone(), cause })?;
        let Some(text) = text else { return Err(found.into_error().into()) };
        // A pipe, or /dev/null for no profile at all, is nobody's to change later.
        if mode & libc::S_IFMT == libc::S_IFREG {
            permissions(mode, &name, &mut found);
        }
        Ok(parse(&text, path.parent().unwrap_or(Path::new(".")), found)?)
    }
}

/// `folder` is where the names of files in the text begin.
fn parse(text: &str, folder: &Path, mut found: Findings) -> Result<(Hosts, Vec<Warning>), ConfigError> {
    let Some(document) = document(text, &mut found) else { return Err(found.into_error()) };
    let mut hosts = BTreeMap::new();
    for (name, value) in document.get_ref() {
        let name: &str = name.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("`{name}` is not a host");
            found.error(value.span(), message, "a host is a table, as [home] with address = \"203.0.113.7\"");
            continue;
        };
        hosts.extend(host(name, value.span(), table, folder, &mut found).map(|host| (name.to_owned(), host)));
    }
    found.verdict(Hosts(hosts))
}

fn host(
    name: &str,
    span: std::ops::Range<usize>,
    table: &DeTable<'_>,
    folder: &Path,
    found: &mut Findings,
) -> Option<Host> {
    let section = Section::new(format!("host \"{name}\""), span, table);
    section.refuse_unknown(HOST_KEYS, found);
    let address = section.text("address", found).map_or(name, Spanned::into_inner);
    if address.is_empty() || address.contains(char::is_whitespace) {
        let span = section.value("address").map_or(section.span.clone(), Spanned::span);
        let message = format!("{}: the address is \"{address}\"", section.title);
        found.error(span, message, "it must be a name or an address, as \"box.example\" or \"203.0.113.7\"");
        return None;
    }
    Some(Host {
        address: address.to_owned(),
        family: family(&section, found),
        settings: settings(&section, found),
        doors: door::read_all(&section, folder, found),
    })
}

fn family(section: &Section<'_, '_>, found: &mut Findings) -> Option<Family> {
    let text = section.text("family", found)?;
    match *text.get_ref() {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        other => {
            let message = format!("{}: `family` is \"{other}\"", section.title);
            found.error(
                text.span(),
                message,
                "it must be one of: ipv4, ipv6; leave it out for all addresses",
            );
            None
        }
    }
}

fn settings(section: &Section<'_, '_>, found: &mut Findings) -> Settings {
    Settings {
        verify: port("verify", section, found),
        timeout: section.duration(&TIMEOUT, found).map(Spanned::into_inner),
        retry: section.count("retry", 0, MAX_RETRY, found),
        delay: section.duration(&DELAY, found).map(Spanned::into_inner),
    }
}

fn port(key: &str, section: &Section<'_, '_>, found: &mut Findings) -> Option<NonZeroU16> {
    let port = section.count(key, 1, u32::from(u16::MAX), found)?;
    u16::try_from(port).ok().and_then(NonZeroU16::new)
}
