//! The program under test: `xdp-knock run` in a namespace, its events and its end.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    netns::{Namespace, unique},
    process::{PATIENCE, Process},
    program::{self, Finished},
};

/// A gate that is about to be started.
#[derive(Debug)]
pub struct Gate<'a> {
    namespace: &'a Namespace,
    interfaces: Vec<String>,
    args: Vec<String>,
    folder: TempDir,
    pins: PathBuf,
}

impl<'a> Gate<'a> {
    /// A gate on interfaces of a namespace, with pins of its own.
    pub fn new(namespace: &'a Namespace, interfaces: &[&str]) -> Self {
        let interfaces: Vec<_> = interfaces.iter().map(|&name| name.to_owned()).collect();
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let pins = Path::new("/sys/fs/bpf").join(unique("pins"));
        Self { namespace, interfaces, args: Vec::new(), folder, pins }
    }

    /// With a configuration.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        let file = self.config_file();
        fs::write(&file, text).expect("a writable folder");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a file of our own");
        self.args.extend(["--config".to_owned(), file.display().to_string()]);
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Where its configuration is.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Where its pins go.
    pub fn pins(&self) -> PathBuf {
        self.pins.clone()
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = self.namespace.command(program::xdp_knock());
        self.give_args(&mut command);
        command
    }

    /// Adds `run` and its arguments to a command that ends in the program.
    pub fn give_args(&self, command: &mut Command) {
        command.arg("run");
        for interface in &self.interfaces {
            command.args(["--iface", interface]);
        }
        command.arg("--pin-dir").arg(&self.pins).args(&self.args);
    }

    /// Runs it to an end that is expected to come by itself.
    pub fn refused(&self) -> Finished {
        let mut command = self.namespace.bounded(program::xdp_knock());
        self.give_args(&mut command);
        let finished = program::run(&mut command);
        assert!(!finished.is_success(), "expected to be refused: {finished}");
        finished
    }

    /// Starts it and waits until it is attached everywhere.
    pub fn start(self) -> Daemon {
        let count = self.interfaces.len();
        let mut daemon = Daemon::spawn(self);
        for _ in 0..count {
            daemon.event("attached", |_| true);
        }
        daemon
    }
}

/// A gate that runs.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    pins: PathBuf,
    /// Holds the configuration.
    _folder: TempDir,
}

impl Daemon {
    fn spawn(gate: Gate<'_>) -> Self {
        let mut command = gate.command();
        command.arg("--json");
        Self { process: Process::spawn(command), pins: gate.pins, _folder: gate.folder }
    }

    /// Waits for the next event of a kind that is as wanted, and returns it. Events before it are passed over.
    pub fn event(&mut self, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.process.event(kind, is_wanted)
    }

    /// Waits for the promotion of a source at a door.
    pub fn promotion(&mut self, source: IpAddr, door: &str) -> Value {
        self.event("promoted", |event| event["source"] == source.to_string() && event["door"] == door)
    }

    /// Waits until its diagnostics have a word in them, and returns them.
    pub fn diagnostics(&self, word: &str) -> String {
        self.process.diagnostics(word)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where its pins are.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Stops it as Ctrl-C does, and returns its events; panics unless it ends well.
    pub fn stop(mut self) -> Vec<Value> {
        self.process.signal(Signal::SIGINT);
        let ended = self.process.wait();
        assert!(ended.success(), "{ended}\n{}", self.process.said());
        self.process.take_events()
    }

    /// Panics if any source was promoted; stops the gate.
    pub fn stop_without_promotion(self) {
        let events = self.stop();
        let promoted = events.iter().find(|event| event["event"] == "promoted");
        assert!(promoted.is_none(), "{promoted:?}");
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGINT);
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        self.process.end();
        // A clean stop took them away already.
        let _ = fs::remove_dir_all(&self.pins);
    }
}
