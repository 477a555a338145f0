//! `rotate` in a door: a sequence that both sides derive from a secret and the time.

use std::{
    fmt,
    ops::Range,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use knock_common::spa::key::SpaKey;
use toml::{Spanned, de::DeValue};

use super::{
    MAX_STEPS,
    keys::{Secret, secret_in},
    problem::Findings,
    section::{DurationKey, Section},
    show_duration,
    spelling::ROTATE_KEYS,
};
use crate::service;

/// The shortest is what clocks in step and a sequence of a few steps keep to; the longest still ends what was overheard.
const EVERY: DurationKey = DurationKey {
    name: "every",
    min: Duration::from_secs(10),
    max: Duration::from_secs(3600),
    examples: "\"30s\" or \"1m\"",
};

/// How a rotating sequence opens a door.
#[derive(Clone, PartialEq, Eq)]
pub struct Rotate {
    /// What it is derived from.
    pub secret: Secret,
    /// The file that it is read from.
    pub file: PathBuf,
    /// How many steps it has.
    pub steps: u8,
    /// How long one sequence is for.
    pub every: Duration,
    /// Where its ports lie.
    pub ports: RangeInclusive<u16>,
}

impl fmt::Debug for Rotate {
    /// The secret shows its id alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} steps every {}, {:?}>", self.steps, show_duration(self.every), self.secret)
    }
}

impl Rotate {
    /// Returns the bits of secret in a sequence: the ports alone, as for one that stays.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let ports = f64::from(u32::from(*self.ports.end()) - u32::from(*self.ports.start()) + 1);
        // No port comes twice.
        (0..self.steps).map(|before| (ports - f64::from(before)).max(1.0).log2()).sum()
    }
}

/// The same as read, with its place.
pub(super) struct Draft {
    pub(super) span: Range<usize>,
    pub(super) ports_span: Range<usize>,
    /// `None` where something in it is wrong, which has been told.
    pub(super) rotate: Option<Rotate>,
}

impl Draft {
    /// Reads `rotate` of a door, where it has one. `folder` is what the name of the secret's file begins from.
    pub(super) fn read(door: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Self> {
        let value = door.value("rotate")?;
        let DeValue::Table(table) = value.get_ref() else {
            let help = "write rotate = { secret_file = \"vpn.secret\", steps = 4, every = \"30s\", ports = \"10000-32767\" }";
            found.error(value.span(), format!("{}: `rotate` is not a table", door.title), help);
            return None;
        };
        let section = Section::new(format!("{}: rotate", door.title), value.span(), table);
        section.refuse_unknown(ROTATE_KEYS, found);
        for (key, example) in EXAMPLES {
            if !section.has(key) {
                let message = format!("{}: no `{key}`", section.title);
                found.error(value.span(), message, format!("add one, as {key} = {example}"));
            }
        }
        let read = secret_in("secret_file", &section, folder, found);
        let (file, secret) = read.map(|(_, file, secret)| (file, secret)).unzip();
        let steps = section.count("steps", 1, MAX_STEPS as u32, found);
        let every = section.duration(&EVERY, found);
        let ports = ports(&section, found);
        let ports_span = ports.as_ref().map_or(value.span(), Spanned::span);
        let rotate = rotate(file, secret, steps, every, ports);
        Some(Self { span: value.span(), ports_span, rotate })
    }
}

const EXAMPLES: [(&str, &str); 4] = [
    ("secret_file", "\"vpn.secret\", which `xdp-knock keygen` writes"),
    ("steps", "4"),
    ("every", "\"30s\""),
    ("ports", "\"10000-32767\""),
];

fn rotate(
    file: Option<PathBuf>,
    secret: Option<Secret>,
    steps: Option<u32>,
    every: Option<Spanned<Duration>>,
    ports: Option<Spanned<RangeInclusive<u16>>>,
) -> Option<Rotate> {
    Some(Rotate {
        secret: secret?,
        file: file?,
        steps: u8::try_from(steps?).ok()?,
        every: every?.into_inner(),
        ports: ports?.into_inner(),
    })
}

fn ports(section: &Section<'_, '_>, found: &mut Findings) -> Option<Spanned<RangeInclusive<u16>>> {
    let text = section.text("ports", found)?;
    match service::ports(text.get_ref()) {
        Ok(ports) if ports.start() < ports.end() => Some(Spanned::new(text.span(), ports)),
        _ => {
            let message = format!("{}: `ports` is \"{}\"", section.title, text.get_ref());
            found.error(text.span(), message, "it must be a range of ports, as \"10000-32767\"");
            None
        }
    }
}

impl Rotate {
    /// Returns the key of the derivation.
    #[must_use]
    pub fn key(&self) -> &SpaKey {
        &self.secret.0
    }
}
