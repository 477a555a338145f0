//! The verb `keygen`: a new secret, and what to write on either side of it.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use knock_common::spa::key::{SECRET, SpaKey};
use qrcode::{QrCode, render::unicode};

use crate::secret::hex;

/// Makes a key for single packet authorization.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What the key is called, such as the person who has it
    pub name: String,
    /// The folder for the file with the secret
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The name or address of the server, for the client's stanza
    #[arg(long, value_name = "HOST", default_value = "box.example")]
    pub host: String,
    /// The name that the server is configured with
    #[arg(long, value_name = "NAME", default_value = "box")]
    pub server: String,
    /// The door, for the client's stanza
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    pub door: String,
    /// Show the client's part as a QR code too; the secret is in it
    #[arg(long)]
    pub qr: bool,
}

/// Writes the secret to a file that only its owner can read, and prints what to do with it.
///
/// # Errors
///
/// When the name is none for a file, the file is there already or cannot be written, there are no random numbers, or the
/// QR code would not go to a terminal.
pub fn run(args: &Args) -> Result<()> {
    if args.name.is_empty() || !args.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        bail!("`{}` is no name for a key: use letters, digits, `-`, `_` and `.`", args.name);
    }
    if args.qr && !io::stdout().is_terminal() {
        bail!("--qr shows the secret: only to a terminal, not into a file or a pipe");
    }
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).context("the system gives no random numbers for a secret")?;
    let path = args.dir.join(format!("{}.key", args.name));
    write(&path, &secret)?;
    let mut text = stanzas(args, &path, &SpaKey::new(&secret));
    if args.qr {
        text += &qr(args, &secret)?;
    }
    anstream::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn write(path: &Path, secret: &[u8; SECRET]) -> Result<()> {
    let shown = path.display();
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!(
                "{shown} is there already, and somebody may use it: give the new key another name, or remove the file"
            )
        }
        opened => opened.with_context(|| format!("cannot write {shown}"))?,
    };
    writeln!(file, "{}", hex(secret))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {shown}"))
}

fn stanzas(args: &Args, path: &Path, key: &SpaKey) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let (shown, id) = (path.display(), hex(&key.id()));
    let Args { name, host, server, door, .. } = args;
    format!(
        "wrote {shown}: the secret; only you can read it (key id {id}, which may be shown)\n\
         \n\
         # on the server, beside its configuration; and copy the file there:\n\
         [spa]\n\
         identity = {server}\n\
         [[key]]\n\
         name = {name}\n\
         secret_file = {file}\n\
         # and in the door: spa = {{ listen = \"udp/62201\", keys = [{name}] }}\n\
         \n\
         # on the client; and copy the file there too:\n\
         xdp-knock knock {host} --spa --server {server} --door {door} --key {shown}\n\
         \n\
         Whoever has the file can open the door: copy it over ssh, never by mail.\n",
        server = quoted(server),
        name = quoted(name),
        file = quoted(&format!("{name}.key")),
        door = quoted(door),
    )
}

/// The same for a telephone: a link with all that a packet is made of.
fn qr(args: &Args, secret: &[u8; SECRET]) -> Result<String> {
    let link = format!(
        "xdp-knock://{}/?server={}&door={}&secret={}",
        args.host,
        args.server,
        args.door,
        hex(secret)
    );
    let code = QrCode::new(link.as_bytes()).context("the names are too long for a QR code")?;
    let mut renderer = code.render::<unicode::Dense1x2>();
    // Terminals are dark more often than not, and a code must be dark on light.
    let picture = renderer.dark_color(unicode::Dense1x2::Light).light_color(unicode::Dense1x2::Dark).build();
    Ok(format!("\n{picture}\n"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::secret::{Place, read};

    fn args(dir: &Path, name: &str) -> Args {
        let text = |text: &str| text.to_owned();
        Args {
            name: text(name),
            dir: dir.into(),
            host: text("h"),
            server: text("s"),
            door: text("d"),
            qr: false,
        }
    }

    #[test]
    fn each_key_is_a_new_secret_in_a_file_of_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let id = |name: &str| {
            run(&args(folder.path(), name)).unwrap();
            let path = folder.path().join(format!("{name}.key"));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            read(&Place::File(path)).unwrap_or_else(|error| panic!("{error}")).id()
        };

        assert_ne!(id("alice"), id("bob"));
    }

    #[test]
    fn a_secret_that_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        run(&args(folder.path(), "alice")).unwrap();
        let before = fs::read(folder.path().join("alice.key")).unwrap();

        let error = run(&args(folder.path(), "alice")).unwrap_err().to_string();

        assert!(error.contains("there already"), "{error}");
        assert_eq!(fs::read(folder.path().join("alice.key")).unwrap(), before);
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../alice", "", "a b", "/etc/x"] {
            assert!(run(&args(folder.path(), name)).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_printed_has_no_secret_in_it() {
        let secret = [0xab; SECRET];
        let text = stanzas(&args(Path::new("."), "alice"), Path::new("alice.key"), &SpaKey::new(&secret));

        assert!(!text.contains("abab"), "{text}");
    }
}
