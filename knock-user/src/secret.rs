//! The secret of a key: 64 hex digits in a file that nobody else can read, or through a pipe. Never an argument.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use knock_common::spa::key::{SECRET, SpaKey};

/// More than this is no secret, whatever it is.
const LONGEST: u64 = 256;

/// Where a secret is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file that its owner alone can read.
    File(PathBuf),
    /// A descriptor that the caller has opened: `fd:3`.
    Descriptor(i32),
    /// Standard input: `-`.
    Input,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Input);
        }
        let Some(number) = text.strip_prefix("fd:") else { return Ok(Self::File(text.into())) };
        let number = number.parse().ok().filter(|number| *number >= 0);
        number.map(Self::Descriptor).ok_or_else(|| format!("`{text}` names no descriptor: write fd:3"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Descriptor(number) => write!(f, "descriptor {number}"),
            Self::Input => f.write_str("standard input"),
        }
    }
}

/// Why there is no secret. No text in it comes from the file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("the secret in {place} cannot be read: {cause}; make one with `xdp-knock keygen`")]
    Read {
        /// Where.
        place: Place,
        /// Why.
        cause: io::Error,
    },
    /// Others can read it.
    #[error(
        "the secret in {0} can be read by others (mode {1:04o}): `chmod 600 {0}`, and make a new one if they may have"
    )]
    Open(Place, u32),
    /// It is something else.
    #[error("{0} holds no secret: it must be 64 hex digits, as `xdp-knock keygen` writes them")]
    Malformed(Place),
}

/// Reads the secret of a key.
///
/// # Errors
///
/// [`SecretError`]: it cannot be read, or by others too, or is no secret.
pub fn read(place: &Place) -> Result<SpaKey, SecretError> {
    let failed = |cause| SecretError::Read { place: place.clone(), cause };
    let text = match place {
        Place::File(path) => read_text(path, LONGEST)?,
        Place::Descriptor(number) => {
            descriptor(*number).and_then(|file| bounded(file, LONGEST)).map_err(failed)?
        }
        Place::Input => bounded(io::stdin().lock(), LONGEST).map_err(failed)?,
    };
    parse(&text).map(|secret| SpaKey::new(&secret)).ok_or_else(|| SecretError::Malformed(place.clone()))
}

/// Reads a file that holds a secret, no more than `longest` bytes of it.
///
/// # Errors
///
/// [`SecretError`]: it cannot be read, or by others too.
pub fn read_text(path: &Path, longest: u64) -> Result<String, SecretError> {
    let place = || Place::File(path.to_owned());
    let failed = |cause| SecretError::Read { place: place(), cause };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(SecretError::Open(place(), mode & 0o777));
    }
    bounded(file, longest).map_err(failed)
}

fn bounded(from: impl Read, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    from.take(longest).read_to_string(&mut text)?;
    Ok(text)
}

/// Opens what the descriptor is once more, so that a number that is none is an error and not somebody else's file.
fn descriptor(number: i32) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{number}"))
}

fn parse(text: &str) -> Option<[u8; SECRET]> {
    let digits = text.trim().as_bytes();
    if digits.len() != 2 * SECRET {
        return None;
    }
    let mut secret = [0; SECRET];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(secret)
}

/// Returns bytes as the hex digits that they are kept and shown in.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F\n";

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, Place::File(path))
    }

    #[test]
    fn a_file_of_its_owner_alone_is_read() {
        for mode in [0o600, 0o400] {
            let (_folder, place) = written(TEXT, mode);

            // The id of the vector in docs/spa.md.
            assert_eq!(hex(&read(&place).unwrap_or_else(|error| panic!("{error}")).id()), "aa32145b693ec6c0");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o666, 0o620] {
            let (_folder, place) = written(TEXT, mode);

            let error = read(&place).err().expect("refused").to_string();

            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        for text in [
            "",
            "0001",
            &TEXT[1..],
            &format!("{}00", TEXT.trim()),
            &TEXT.replace('a', "g"),
            &TEXT.replace("0a", "+a"),
        ] {
            let (_folder, place) = written(text, 0o600);

            let error = read(&place).err().unwrap_or_else(|| panic!("{text} was taken")).to_string();

            assert!(error.contains("64 hex digits") && !error.contains("0405"), "{error}");
        }
    }

    #[test]
    fn a_place_is_a_file_unless_it_says_otherwise() {
        assert_eq!("-".parse(), Ok(Place::Input));
        assert_eq!("fd:3".parse(), Ok(Place::Descriptor(3)));
        assert_eq!("a/b.key".parse(), Ok(Place::File("a/b.key".into())));
        assert!("fd:-1".parse::<Place>().is_err());
        assert!(read(&Place::Descriptor(9999)).is_err());
    }
}
