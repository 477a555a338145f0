//! One gate by its pins, its configuration and its interfaces. Whoever serves it comes, goes and is killed.

use std::{
    collections::BTreeMap,
    fs, mem,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use knock_common::{
    abi::{Grant, GrantKey, mapped},
    counter::Counter,
    door::door_id,
};
use knock_user::{pins::Pins, present, state::State, survey};
use tempfile::TempDir;

use crate::{
    netns::{Namespace, unique},
    process::{PATIENCE, Process},
    program::{self, Finished, poll},
};

/// The text of a door whose sequence may be weak.
pub fn door(name: &str, opens: &[&str], knock: &[&str], more: &str) -> String {
    format!("[[door]]\nname = \"{name}\"\nallow_weak = true\nopens = {opens:?}\nknock = {knock:?}\n{more}\n")
}

/// The text of a configuration in guard mode with these doors.
pub fn guard(doors: &[String]) -> String {
    format!("[xdp]\nmode = \"guard\"\n\n{}", doors.join("\n"))
}

/// What judges on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Number of the generation.
    pub generation: u32,
    /// Id of its program.
    pub program: u32,
    /// Names of its doors.
    pub doors: Vec<String>,
}

/// What one look at an interface finds.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    interface: String,
    /// Behind its pinned link; `None` if that is dead.
    in_force: Option<InForce>,
    /// Id of the program that the interface itself is said to carry.
    carried: Option<u32>,
}

/// One gate; its pins are gone when it is dropped.
#[derive(Debug)]
pub struct Instance<'a> {
    /// Where its interfaces are.
    pub namespace: &'a Namespace,
    interfaces: Vec<String>,
    folder: TempDir,
    pins: PathBuf,
}

impl<'a> Instance<'a> {
    /// Names a gate; nothing is started.
    pub fn new(namespace: &'a Namespace, interfaces: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let pins = Path::new("/sys/fs/bpf").join(unique("pins"));
        let interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
        let instance = Self { namespace, interfaces, folder, pins };
        instance.end_in_order();
        instance.configure(config.as_bytes());
        instance
    }

    /// Leaves the state file of a gate that ended in order long ago and had accepted no single packet: one that knows nothing
    /// of former ones waits before it accepts any.
    fn end_in_order(&self) {
        let ended = r#"{"v":1,"saved":"2026-01-02T03:04:05Z","ended_since":"2026-01-02T03:04:05Z","grants":[],"bans":[]}"#;
        fs::write(self.state_file(), ended).expect("a writable folder");
        fs::set_permissions(self.state_file(), fs::Permissions::from_mode(0o600)).expect("a file of our own");
    }

    fn state_file(&self) -> PathBuf {
        self.folder.path().join("grants.json")
    }

    /// Writes the configuration anew, in one step. One that opens by single packets keeps its state, unless it says anything
    /// of `[state]`.
    pub fn configure(&self, text: &[u8]) {
        let fresh = self.folder.path().join("fresh.toml");
        let keeps = |text: &&str| text.contains("\n[spa]\n") && !text.contains("[state]");
        let more = match std::str::from_utf8(text).ok().filter(keeps) {
            Some(_) => format!("\n[state]\nfile = {:?}\n", self.state_file()),
            None => String::new(),
        };
        fs::write(&fresh, [text, more.as_bytes()].concat()).expect("a writable folder");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("a file of our own");
        fs::rename(&fresh, self.config_file()).expect("a writable folder");
    }

    /// Where its configuration is.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Its pins.
    pub fn pins(&self) -> Pins {
        Pins::at(&self.pins)
    }

    /// The words that start a verb; `run` and `attach` are told of the interfaces and the configuration.
    pub fn words(&self, verb: &str, args: &[&str]) -> Vec<String> {
        let mut words = vec![verb.to_owned(), "--pin-dir".to_owned(), self.pins.display().to_string()];
        if matches!(verb, "run" | "attach") {
            words.extend(["--config".to_owned(), self.config_file().display().to_string()]);
            for interface in &self.interfaces {
                words.extend(["--iface".to_owned(), interface.clone()]);
            }
        }
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        words
    }

    /// The command of a verb.
    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = self.namespace.command(program::xdp_knock());
        command.args(self.words(verb, args));
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, verb: &str, args: &[&str]) -> Finished {
        let mut command = self.namespace.bounded(program::xdp_knock());
        program::run(command.args(self.words(verb, args)))
    }

    /// Starts `run --json` with more arguments, and waits until it is attached everywhere.
    pub fn serve(&self, args: &[&str]) -> Process {
        let mut process = self.start(args);
        for _ in &self.interfaces {
            process.event("attached", |_| true);
        }
        process
    }

    /// Starts `run --json` with more arguments, and does not wait.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.command("run", &[&["--json"], args].concat()))
    }

    /// Returns what judges on each interface; panics unless every interface of the gate has a pinned link that is alive,
    /// and carries the program behind it. A daemon that swaps meanwhile is waited for.
    pub fn in_force(&self) -> BTreeMap<String, InForce> {
        // The link and the interface are asked one after the other, and a swap may come between: what they say holds if
        // it is the same a second time, since no program's id comes twice.
        let mut looked = self.look();
        let looked = poll("two looks at the links that agree", PATIENCE, || {
            let before = mem::replace(&mut looked, self.look());
            (before == looked).then_some(before)
        });
        let mut found = BTreeMap::new();
        for look in looked.unwrap_or_else(|error| panic!("{error}")) {
            let in_force = look.in_force.unwrap_or_else(|| panic!("the link of {} is dead", look.interface));
            assert_eq!(look.carried, Some(in_force.program), "on {}", look.interface);
            found.insert(look.interface, in_force);
        }
        let missing = self.interfaces.iter().find(|name| !found.contains_key(*name));
        assert_eq!(missing, None, "no link is pinned for it; there are {found:?}");
        found
    }

    /// Looks once, at each link and then at its interface; an error in words, to be compared.
    fn look(&self) -> Result<Vec<Look>, String> {
        let links = survey::links(&self.pins()).map_err(|error| format!("{error:#}"))?;
        let look = |link: survey::Link| {
            let about = link.about().expect("a link that was looked into has a program");
            let in_force = (!link.is_dead()).then(|| InForce {
                generation: about.generation,
                program: link.program_id,
                doors: about.doors.keys().cloned().collect(),
            });
            let carried = in_force.as_ref().and_then(|_| self.carried(&link.interface));
            Look { interface: link.interface, in_force, carried }
        };
        Ok(links.into_iter().map(look).collect())
    }

    /// Returns what judges, which is the same on all interfaces. Asked while nothing is being brought in: on the way from one
    /// generation to the next, interfaces differ.
    pub fn one_in_force(&self) -> InForce {
        let all: Vec<InForce> = self.in_force().into_values().collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "interfaces differ: {all:?}");
        all.into_iter().next().expect("a gate has an interface")
    }

    /// Returns the id of the XDP program that the kernel says an interface carries.
    pub fn carried(&self, interface: &str) -> Option<u32> {
        let asked = self.namespace.within(|| present::carried(interface));
        asked.unwrap_or_else(|error| panic!("{error:#}"))?.program
    }

    /// Panics if anything is attached or pinned.
    pub fn assert_nothing(&self, when: &str) {
        for interface in &self.interfaces {
            assert_eq!(self.carried(interface), None, "{when}: {interface} carries a program");
        }
        assert!(!self.pins.exists(), "{when}: pins are left: {:?}", tree(&self.pins));
    }

    /// Returns a counter of the kernel's.
    pub fn count(&self, counter: Counter) -> u64 {
        self.state().count(counter).expect("a pinned counter")
    }

    /// Returns when the grant of a source at a door ends.
    pub fn grant_until_ns(&self, source: [u8; 4], door: &str) -> Option<u64> {
        let key = GrantKey { source: mapped(source), door: door_id(door.as_bytes()) };
        let grant: Option<Grant> = self.state().grants.get(&key).expect("a pinned map");
        grant.map(|grant| grant.until_ns)
    }

    /// Opens the pinned state.
    pub fn state(&self) -> State {
        State::open(&self.pins()).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Everything in a folder, for messages.
pub fn tree(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        all.push(path.display().to_string());
        all.extend(tree(&path));
    }
    all
}
