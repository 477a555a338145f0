//! `rotate` in a door: a sequence that both sides derive from a secret and the time.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::DeValue;

use super::{
    keys::{Secret, secret_in},
    problem::Findings,
    section::Section,
    shape, show_duration,
    spelling::ROTATE_KEYS,
};
use crate::rotating::Shape;

/// How a rotating sequence opens a door.
#[derive(Clone, PartialEq, Eq)]
pub struct Rotate {
    /// What it is derived from.
    pub secret: Secret,
    /// The file that it is read from.
    pub file: PathBuf,
    /// What both sides agree on besides.
    pub shape: Shape,
}

impl fmt::Debug for Rotate {
    /// The secret shows its id alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { steps, every, ports } = &self.shape;
        write!(f, "<{steps} steps every {} on ports {ports}, {:?}>", show_duration(*every), self.secret)
    }
}

impl Rotate {
    /// Returns the bits of secret in a sequence: the ports alone, as for one that stays.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let ports = self.shape.ports.count() as f64;
        // No port comes twice.
        (0..self.shape.steps).map(|before| (ports - f64::from(before)).max(1.0).log2()).sum()
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
        if !section.has("secret_file") {
            let help = "add the file that `xdp-knock keygen --rotate` wrote, as secret_file = \"vpn.secret\"";
            found.error(value.span(), format!("{}: no `secret_file`", section.title), help);
        }
        let secret = secret_in("secret_file", &section, folder, found);
        let (shape, ports_span) = shape::read(&section, found).unzip();
        let rotate = secret.zip(shape).map(|((_, file, secret), shape)| Rotate { secret, file, shape });
        Some(Self { span: value.span(), ports_span: ports_span.unwrap_or(value.span()), rotate })
    }
}
