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

use crate::{config::hosts::is_door_name, secret::hex};

/// What a rotating sequence is made of unless somebody wants another: 58 bits, below the ports that clients get from a system.
const STEPS: u8 = 4;
const EVERY: &str = "30s";
const PORTS: &str = "10000-32767";

/// Makes a key for single packet authorization, or the secret of a rotating sequence.
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
    /// The name that the server is configured with; the client's stanza calls it so too
    #[arg(long, value_name = "NAME", default_value = "box")]
    pub server: String,
    /// The door
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    pub door: String,
    /// For a door with a rotating sequence instead of single packets
    #[arg(long)]
    pub rotate: bool,
    /// Show the client's part as a QR code too; the secret is in it
    #[arg(long)]
    pub qr: bool,
}

/// Writes the secret to a file that only its owner can read, and prints what to do with it.
///
/// # Errors
///
/// When a name is none, the file is there already or cannot be written, there are no random numbers, or the QR code would
/// not go to a terminal.
pub fn run(args: &Args) -> Result<()> {
    for (name, what) in [(&args.name, "key"), (&args.server, "server")] {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            bail!("`{name}` is no name for a {what}: use letters, digits, `-`, `_` and `.`");
        }
    }
    if !is_door_name(&args.door) {
        bail!("`{}` is no name for a door: use a-z, 0-9, `-` and `_`, and not digits alone", args.door);
    }
    if args.qr && !io::stdout().is_terminal() {
        bail!("--qr shows the secret: only to a terminal, not into a file or a pipe");
    }
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).context("the system gives no random numbers for a secret")?;
    let path = args.dir.join(format!("{}.key", args.name));
    write(&path, &secret)?;
    let mut text = advice(args, &path, &SpaKey::new(&secret));
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

fn advice(args: &Args, path: &Path, key: &SpaKey) -> String {
    let (shown, id) = (path.display(), hex(&key.id()));
    format!(
        "wrote {shown}: the secret; only you can read it (key id {id}, which may be shown)\n\
         \n\
         # On the server, in its configuration, with {name}.key beside it:\n\
         {server}\n\
         # On the client, in ~/.config/xdp-knock/hosts.toml, with {name}.key beside it:\n\
         {client}\n\
         # Then: xdp-knock knock {host} {door}\n\
         # Whoever has the file can open the door: copy it over ssh, never by mail.\n",
        name = args.name,
        server = server(args),
        client = client(args),
        host = args.server,
        door = args.door,
    )
}

fn server(args: &Args) -> String {
    let (name, door) = (quoted(&args.name), quoted(&args.door));
    let begins = format!("[[door]]\nname = {door}\nopens = [\"tcp/22\"]\n");
    if args.rotate {
        return format!("{begins}{}\n", rotate(args));
    }
    format!(
        "[spa]\nidentity = {identity}\n\
         [[key]]\nname = {name}\nsecret_file = {file}\n\
         # nat = true    # if its owner is behind a NAT\n\
         {begins}spa = {{ listen = \"udp/62201\", keys = [{name}] }}\n",
        identity = quoted(&args.server),
        file = file(args),
    )
}

fn client(args: &Args) -> String {
    let (host, door) = (key_of_table(&args.server), key_of_table(&args.door));
    let way = if args.rotate {
        rotate(args)
    } else {
        format!("spa = {{ key = {}, server = {} }}", file(args), quoted(&args.server))
    };
    format!("[{host}]\naddress = {}\n[{host}.door.{door}]\n{way}\n", quoted(&args.host))
}

/// The same on either side.
fn rotate(args: &Args) -> String {
    format!(
        "rotate = {{ secret_file = {}, steps = {STEPS}, every = \"{EVERY}\", ports = \"{PORTS}\" }}",
        file(args)
    )
}

fn file(args: &Args) -> String {
    quoted(&format!("{}.key", args.name))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A dot would make two names of one.
fn key_of_table(name: &str) -> String {
    if name.contains('.') { quoted(name) } else { name.to_owned() }
}

/// The client's part for a telephone, where there is no folder for files: a link with all that it takes.
fn link(args: &Args, secret: &[u8; SECRET]) -> String {
    let Args { host, server, door, .. } = args;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let way = if args.rotate {
        format!("steps={STEPS}&every={EVERY}&ports={PORTS}")
    } else {
        format!("server={server}")
    };
    format!("xdp-knock://{host}/?door={door}&{way}&secret={}", hex(secret))
}

fn qr(args: &Args, secret: &[u8; SECRET]) -> Result<String> {
    let link = link(args, secret);
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
    use crate::{
        config::{
            Config,
            hosts::{Hosts, Way},
        },
        secret::{Place, read},
    };

    fn args(dir: &Path, name: &str) -> Args {
        let text = |text: &str| text.to_owned();
        Args {
            name: text(name),
            dir: dir.into(),
            host: text("h"),
            server: text("s"),
            door: text("d"),
            rotate: false,
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
        let text = advice(&args(Path::new("."), "alice"), Path::new("alice.key"), &SpaKey::new(&secret));

        assert!(!text.contains("abab"), "{text}");
    }

    #[test]
    fn the_client_s_stanza_opens_the_door_it_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, server, rotate) in
            [("alice", "box", false), ("bob.b", "box.example", false), ("vpn", "box", true)]
        {
            let args = Args { server: server.to_owned(), rotate, ..args(folder.path(), name) };
            run(&args).unwrap();
            let profile = folder.path().join("hosts.toml");
            fs::write(&profile, client(&args)).unwrap();
            fs::set_permissions(&profile, fs::Permissions::from_mode(0o600)).unwrap();

            let (hosts, _) = Hosts::read(&profile).unwrap_or_else(|error| panic!("{error}"));

            let host = &hosts.0[server];
            let key = Place::File(folder.path().join(format!("{name}.key")));
            assert_eq!(host.address, "h");
            match &host.doors["d"].way {
                Way::Spa(spa) => assert_eq!((&spa.key, spa.server.as_str(), rotate), (&key, server, false)),
                Way::Rotate(it) => assert_eq!((&it.key, it.door.as_str(), rotate), (&key, "d", true)),
                way @ (Way::Knock(_) | Way::List(_)) => panic!("{way:?}"),
            }
        }
    }

    #[test]
    fn the_server_s_stanza_is_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        for (name, rotate) in [("alice", false), ("vpn", true)] {
            let args = Args { rotate, ..args(folder.path(), name) };
            run(&args).unwrap();
            let path = folder.path().join("config.toml");
            fs::write(&path, server(&args)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

            let (config, warnings) = Config::read(&path).unwrap_or_else(|error| panic!("{error}"));

            let spa = config.doors[0].spa.as_ref().map(|spa| (spa.listen, spa.keys.clone()));
            assert_eq!(spa, (!rotate).then(|| (62_201, vec!["alice".to_owned()])));
            let steps = config.doors[0].rotate.as_ref().map(|rotate| rotate.shape.steps);
            assert_eq!(steps, rotate.then_some(STEPS));
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }

    #[test]
    fn a_link_has_all_that_a_client_needs() {
        let mut args = Args { host: "2001:db8::7".to_owned(), ..args(Path::new("."), "alice") };
        let secret = "ab".repeat(SECRET);
        let of = |args: &Args| link(args, &[0xab; SECRET]);

        assert_eq!(of(&args), format!("xdp-knock://[2001:db8::7]/?door=d&server=s&secret={secret}"));
        args.rotate = true;
        let expected =
            format!("xdp-knock://[2001:db8::7]/?door=d&steps=4&every=30s&ports=10000-32767&secret={secret}");
        assert_eq!(of(&args), expected);
    }
}
