//! The secret of a key: 64 hex digits in a file that nobody else can read, or through a pipe. Never an argument.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::{fcntl::OFlag, unistd::geteuid};

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
        match number.parse() {
            Ok(0) => Err("`fd:0` is standard input: write -".to_owned()),
            Ok(1 | 2) => Err(format!("`{text}` is for output: open another, and write fd:3")),
            Ok(number @ 3..) => Ok(Self::Descriptor(number)),
            Ok(_) | Err(_) => Err(format!("`{text}` names no descriptor: write fd:3")),
        }
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
    #[error("the secret in {place} cannot be read: {cause}; {}", next_step(cause))]
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
    /// Another user can change it.
    #[error(
        "the secret in {0} is of another user (id {1}), who can read and change it: `chown {2} {0}`, and make a new one if it is not yours"
    )]
    Foreign(Place, u32, u32),
    /// It is no file.
    #[error("{0} is not a file: name the one that `xdp-knock keygen` wrote, or give a pipe as fd:3 or -")]
    NoFile(Place),
    /// It holds something else.
    #[error("{0} holds no secret: it must be 64 hex digits, as `xdp-knock keygen` writes them")]
    Malformed(Place),
}

fn next_step(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::NotFound {
        return "make one with `xdp-knock keygen`, or name another";
    }
    if cause.kind() == io::ErrorKind::PermissionDenied {
        return "see to it that its folder may be entered by who runs this, and that the file is theirs";
    }
    "name another"
}

/// Reads the secret of a key.
///
/// # Errors
///
/// [`SecretError`]: it cannot be read, or by others too, or another user's, or is no secret.
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
    let me = geteuid().as_raw();
    let is_foreign = |facts: &Metadata| facts.uid() != 0 && facts.uid() != me;
    let file = open(path).map_err(|cause| match fs::metadata(path) {
        // Of another user, who keeps it closed: as under a service without the right to read every file.
        Ok(facts) if is_foreign(&facts) => SecretError::Foreign(place(), facts.uid(), me),
        Ok(_) | Err(_) => failed(cause),
    })?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(SecretError::NoFile(place()));
    }
    if is_foreign(&facts) {
        return Err(SecretError::Foreign(place(), facts.uid(), me));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(SecretError::Open(place(), facts.mode() & 0o777));
    }
    bounded(file, longest).map_err(failed)
}

fn bounded(from: impl Read, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    from.take(longest).read_to_string(&mut text)?;
    Ok(text)
}

/// Without waiting for a writer, should it be a pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Returns what the descriptor is, under a number of its own: the caller's stays open, and one that is none is an error.
fn descriptor(number: i32) -> io::Result<File> {
    // SAFETY: takes numbers alone; one that is no descriptor gives EBADF.
    let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(own) }.into())
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
    use std::os::unix::fs::PermissionsExt as _;

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
        for (text, help) in
            [("fd:0", "write -"), ("fd:1", "fd:3"), ("fd:2", "fd:3"), ("fd:-1", "fd:3"), ("fd:", "fd:3")]
        {
            let refused = text.parse::<Place>().expect_err(text);
            assert!(refused.contains(help), "{refused}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused_without_waiting() {
        let (folder, ours) = written(TEXT, 0o600);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refusal = |place: Place| read(&place).err().expect("refused").to_string();

        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(refusal(Place::File(pipe))));

        let refused = told.recv_timeout(std::time::Duration::from_secs(10)).expect("an answer, and soon");
        assert!(refused.contains("is not a file") && refused.contains("fd:3"), "{refused}");
        assert!(refusal(Place::File(folder.path().into())).contains("is not a file"));
        assert!(read(&ours).is_ok());
        if geteuid().is_root() {
            std::os::unix::fs::chown(folder.path().join("alice.key"), Some(12_345), None).unwrap();
            let refused = refusal(ours);
            assert!(refused.contains("(id 12345)") && refused.contains("alice.key`, and"), "{refused}");
        }
    }

    #[test]
    fn a_descriptor_is_read_from_where_it_stands_and_stays_open() {
        use std::{
            io::{Seek as _, Write as _},
            os::fd::AsRawFd as _,
        };
        let mut file = tempfile::tempfile().unwrap();
        write!(file, "{TEXT}{TEXT}").unwrap();
        file.seek(io::SeekFrom::Start(65)).unwrap();
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.write_all(TEXT.as_bytes()).unwrap();
        drop(theirs);

        for number in [file.as_raw_fd(), ours.as_raw_fd()] {
            assert!(read(&Place::Descriptor(number)).is_ok(), "a file that stands at a secret, and a socket");
            let again = read(&Place::Descriptor(number)).err().expect("its end").to_string();
            assert!(again.contains("holds no secret"), "{again}");
        }
        let none = read(&Place::Descriptor(9999)).err().expect("there is none").to_string();
        assert!(none.contains("descriptor 9999 cannot be read"), "{none}");
        let folder = tempfile::tempdir().unwrap();
        let written = File::create(folder.path().join("written")).unwrap();
        assert!(matches!(read(&Place::Descriptor(written.as_raw_fd())), Err(SecretError::Read { .. })));
    }
}
