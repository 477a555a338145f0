//! What was accepted before the maps were lost is not accepted after it, whatever the file knows; what is new is.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use knock_common::spa::verdict::Refusal;
use knock_tests::{
    asker::{Asker, ahead_by},
    instance::Instance,
    netns::Network,
    process::{PATIENCE, Process},
    program::poll,
};
use serde_json::{Value, json};

/// The longest that can be configured: nothing here outlasts it.
const WINDOW: &str = "10m";
const WINDOW_S: Duration = Duration::from_secs(600);

/// A state file of a gate, and what to do to it.
struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the state"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("grants.json")
    }

    /// Leaves what a gate leaves that ended in order long ago and had accepted nothing.
    fn end_in_order(&self) {
        self.write(&json!({"v": 1, "saved": "2026-01-02T03:04:05Z", "ended_since": "2026-01-02T03:04:05Z", "grants": [], "bans": []}));
    }

    fn table(&self) -> String {
        format!("[state]\nfile = {:?}\n", self.path())
    }

    fn read(&self) -> Value {
        let text = fs::read_to_string(self.path()).expect("a state file");
        serde_json::from_str(&text).expect("JSON")
    }

    fn write(&self, value: &Value) {
        fs::write(self.path(), value.to_string()).expect("ours");
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// Waits until the file has a counter, and returns it.
    fn with_floor(&self, counter: u64) -> Value {
        poll("the counter in the file", PATIENCE, || {
            let saved = fs::read_to_string(self.path()).ok()?;
            saved.contains(&counter.to_string()).then(|| self.read())
        })
    }

    /// Has it say that it comes from the machine's run before this one.
    fn age_by_a_boot(&self) {
        let mut saved = self.read();
        saved["boot"] = json!("another");
        self.write(&saved);
    }
}

/// Kills a daemon, and takes its maps away as the end of the machine does.
fn crash(daemon: Process, gate: &Instance<'_>) {
    daemon.kill();
    remove_all(gate.pins().path());
}

fn remove_all(folder: &Path) {
    fs::remove_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

fn assert_refused(daemon: &mut Process, refusal: Refusal) {
    let event = daemon.event("spa_rejected", |_| true);
    let detail = event["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with(refusal.name()), "refused as {detail}, not as {}", refusal.name());
}

fn count(gate: &Instance<'_>, name: &str) -> u64 {
    let counts = gate.state().counts().expect("readable");
    counts.into_iter().find(|(known, _)| *known == name).expect("a counter").1
}

/// One that the floors of a gate without a past cannot have accepted. Returns one that was accepted.
fn assert_accepts_the_newest(daemon: &mut Process, gate: &Instance<'_>, asker: &Asker<'_>) -> Vec<u8> {
    let before = count(gate, "spa_accepted");
    let accepted = poll("a packet of the edge of the window to be accepted", PATIENCE, || {
        let packet = asker.packet(ahead_by(WINDOW_S - Duration::from_millis(50)));
        asker.send(&packet);
        (count(gate, "spa_accepted") > before).then_some(packet)
    });
    let _ = daemon.event("promoted", |_| true);
    accepted
}

#[test]
fn no_copy_gets_in_while_a_gate_comes_up_after_a_reboot() {
    let network = Network::new();
    let (asker, file) = (Asker::new(&network.client), File::new());
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, &file.table()));
    file.end_in_order();
    let mut daemon = gate.serve(&["--persist"]);
    // Of a client whose clock is ahead: the time of the start does not make it old.
    let counter = ahead_by(Duration::from_secs(300));
    let copy = asker.packet(counter);
    asker.send(&copy);
    let _ = daemon.event("promoted", |_| true);
    let _ = file.with_floor(counter);
    crash(daemon, &gate);
    file.age_by_a_boot();

    let stop = AtomicBool::new(false);
    let mut daemon = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                asker.send(&copy);
            }
        });
        let daemon = gate.serve(&["--persist"]);
        poll("copies to be refused", PATIENCE, || (count(&gate, "spa_replayed") > 10).then_some(()));
        stop.store(true, Ordering::Relaxed);
        daemon
    });

    assert_eq!(count(&gate, "spa_accepted"), 0);
    assert_refused(&mut daemon, Refusal::Replayed);
    asker.send(&asker.packet(counter + 1));
    let _ = daemon.event("promoted", |_| true);
}

#[test]
fn what_a_file_had_no_time_to_learn_is_refused_by_its_date() {
    let network = Network::new();
    let (asker, file) = (Asker::new(&network.client), File::new());
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, &file.table()));
    let mut daemon = gate.serve(&["--persist"]);
    let _ = assert_accepts_the_newest(&mut daemon, &gate, &asker);
    let before = poll("a file", PATIENCE, || Some(file.read()).filter(|saved| saved["floors"].is_object()));
    let counter = ahead_by(WINDOW_S - Duration::from_millis(50));
    let copy = asker.packet(counter);
    asker.send(&copy);
    let _ = daemon.event("promoted", |_| true);
    crash(daemon, &gate);
    // The power went before the file was written.
    file.write(&before);

    let mut daemon = gate.serve(&["--persist"]);

    assert!(daemon.errors().contains("are accepted that are made in"), "{}", daemon.errors());
    asker.send(&copy);
    assert_refused(&mut daemon, Refusal::Stale);
    assert_eq!(count(&gate, "spa_accepted"), 0);
    let _ = assert_accepts_the_newest(&mut daemon, &gate, &asker);
}

#[test]
fn without_a_file_a_packet_of_before_is_refused_by_its_date() {
    let network = Network::new();
    let asker = Asker::new(&network.client);
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, "# no [state]\n"));
    let mut daemon = gate.serve(&["--persist"]);
    let copy = assert_accepts_the_newest(&mut daemon, &gate, &asker);
    let detached = gate.run("detach", &[]);
    assert!(detached.is_success(), "{detached}");

    let mut daemon = gate.serve(&[]);

    assert!(daemon.errors().contains("are accepted that are made in"), "{}", daemon.errors());
    asker.send(&copy);
    assert_refused(&mut daemon, Refusal::Stale);
    let _ = assert_accepts_the_newest(&mut daemon, &gate, &asker);
}

#[test]
fn while_a_file_cannot_be_read_no_secret_of_it_opens_and_once_it_is_removed_it_begins_anew() {
    let network = Network::new();
    let (asker, file) = (Asker::new(&network.client), File::new());
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, &file.table()));
    fs::write(file.path(), "{\"v\":1").expect("ours");

    let mut daemon = gate.serve(&[]);

    let said = daemon.diagnostics("are refused as replayed");
    assert!(said.contains("damaged") && said.contains("remove the file"), "{said}");
    asker.send(&asker.packet(ahead_by(WINDOW_S - Duration::from_millis(50))));
    assert_refused(&mut daemon, Refusal::Replayed);
    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.is_success(), "{reloaded}");
    assert_eq!(gate.state().floors.expect("a map").count().expect("readable"), 0, "after a reload too");
    assert_eq!(fs::read_to_string(file.path()).expect("it stays"), "{\"v\":1");

    fs::remove_file(file.path()).expect("ours");
    daemon.diagnostics("it is known again");
    asker.send(&asker.packet(ahead_by(Duration::ZERO)));
    assert_refused(&mut daemon, Refusal::Stale);
    let _ = assert_accepts_the_newest(&mut daemon, &gate, &asker);
}

#[test]
fn a_file_of_the_future_gives_its_counters_and_is_not_written_over() {
    let network = Network::new();
    let (asker, file) = (Asker::new(&network.client), File::new());
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, &file.table()));
    let counter = ahead_by(2 * WINDOW_S);
    let id = knock_user::secret::hex(&asker.id());
    file.write(&json!({"v": 1, "saved": "2999-01-01T00:00:00Z", "grants": [], "bans": [], "floors": {id.clone(): counter}}));

    let mut daemon = gate.serve(&[]);

    let said = daemon.diagnostics("until the clock is right");
    assert!(!said.contains("refused as replayed"), "{said}");
    asker.send(&asker.packet(ahead_by(WINDOW_S - Duration::from_millis(50))));
    assert_refused(&mut daemon, Refusal::Replayed);
    let detached = gate.run("detach", &[]);
    assert!(detached.is_success(), "{detached}");
    let left = file.read();
    assert_eq!((&left["floors"][&id], &left["grants"]), (&json!(counter), &json!([])));
    assert!(left["ended_since"].is_string(), "{left}");
}

#[test]
fn what_a_gate_without_a_daemon_accepted_is_known_after_detach_and_new_packets_need_not_wait() {
    let network = Network::new();
    let (asker, file) = (Asker::new(&network.client), File::new());
    let gate = Instance::new(&network.server, &["srv0"], &asker.config(WINDOW, &file.table()));
    file.end_in_order();
    let attached = gate.run("attach", &[]);
    assert!(attached.is_success() && file.read()["ended_since"].is_null(), "{attached}: {}", file.read());
    // Of a client whose clock is ahead: the time of the next start does not make it old.
    let counter = ahead_by(Duration::from_secs(300));
    let copy = asker.packet(counter);
    asker.send(&copy);
    poll("the packet to be accepted", PATIENCE, || (count(&gate, "spa_accepted") == 1).then_some(()));

    let detached = gate.run("detach", &[]);

    assert!(detached.is_success(), "{detached}");
    gate.assert_nothing("after detach");
    let left = file.read();
    assert!(left["ended_since"].is_string() && left.to_string().contains(&counter.to_string()), "{left}");
    let mut daemon = gate.serve(&[]);
    asker.send(&copy);
    assert_refused(&mut daemon, Refusal::Replayed);
    asker.send(&asker.packet(counter + 1));
    let _ = daemon.event("promoted", |_| true);
}
