//! A gate that stands on `srv0`, with and without a daemon, and the verbs that are used on it.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    daemon::{Daemon, Gate},
    netns::{Family, Namespace, Network, address, unique},
    program::{self, Finished, poll, xdp_knock},
};

/// What becomes of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// It serves.
    Daemon,
    /// It was killed with SIGKILL.
    Killed,
    /// There never was one: `attach`.
    Never,
}

impl Keeper {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Daemon, Self::Killed, Self::Never];
}

/// A gate that stands, its pins gone when dropped, and its network after it.
#[derive(Debug)]
pub struct Standing {
    /// The daemon, dead or alive.
    pub daemon: Option<Daemon>,
    /// Where its pins are.
    pub pins: PathBuf,
    /// Holds the configuration.
    folder: TempDir,
    /// The server and the client.
    pub network: Network,
}

impl Standing {
    /// Puts a gate on `srv0` of a network with one link.
    pub fn new(keeper: Keeper, config: &str) -> Self {
        Self::on(Network::new(), keeper, config, &["srv0"])
    }

    /// Puts a gate on interfaces of a network.
    pub fn on(network: Network, keeper: Keeper, config: &str, interfaces: &[&str]) -> Self {
        if keeper == Keeper::Never {
            let standing = Self::without_gate(network, config);
            let _ = standing.attach(interfaces, &[]).succeeded();
            return standing;
        }
        let mut daemon = Gate::new(&network.server, interfaces).config(config).start();
        if keeper == Keeper::Killed {
            signal(&daemon, Signal::SIGKILL);
            poll("the daemon to die", Duration::from_secs(10), || (!daemon.is_running()).then_some(()));
        }
        let pins = daemon.pins().to_owned();
        Self { daemon: Some(daemon), pins, folder: folder(config), network }
    }

    /// A network without a gate, and a place for one.
    pub fn without_gate(network: Network, config: &str) -> Self {
        let pins = Path::new("/sys/fs/bpf").join(unique("pins"));
        Self { daemon: None, pins, folder: folder(config), network }
    }

    /// Runs `attach` with the configuration and more arguments.
    pub fn attach(&self, interfaces: &[&str], args: &[&str]) -> Finished {
        let config = self.folder.path().join("config.toml").display().to_string();
        let ifaces = interfaces.iter().flat_map(|name| ["--iface", name]);
        let words: Vec<&str> = ["attach", "--config", &config].into_iter().chain(ifaces).collect();
        self.verb(&[&words[..], args].concat())
    }

    /// A verb on this gate, to be run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.network.server.bounded(xdp_knock());
        command.args(words).arg("--pin-dir").arg(&self.pins);
        command
    }

    /// Runs a verb on this gate.
    pub fn verb(&self, words: &[&str]) -> Finished {
        program::run(&mut self.command(words))
    }

    /// Runs a verb with `--json`, whatever its status, and returns what it printed.
    pub fn json(&self, words: &[&str]) -> Value {
        let finished = self.verb(&[words, &["--json"]].concat());
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {finished}"))
    }

    /// The daemon that serves.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a gate with a daemon")
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, which: Signal) {
        signal(self.daemon.as_ref().expect("a gate with a daemon"), which);
    }

    /// The server's IPv4 address.
    pub fn server(&self) -> IpAddr {
        address(Family::V4, 0, 1)
    }

    /// The namespace of the client.
    pub fn client(&self) -> &Namespace {
        &self.network.client
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // A daemon's own end takes its pins away.
        if self.daemon.is_none() {
            let _ = fs::remove_dir_all(&self.pins);
        }
    }
}

fn signal(daemon: &Daemon, which: Signal) {
    let id = i32::try_from(daemon.id()).expect("process ids are positive");
    kill(Pid::from_raw(id), which).expect("it runs");
}

fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the configuration");
    let file = folder.path().join("config.toml");
    fs::write(&file, config).expect("a writable folder");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a file of our own");
    folder
}
