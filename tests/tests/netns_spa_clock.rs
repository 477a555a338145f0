//! The daemon's clock is set while it serves: nothing opens that must not, and what is refused says by how much it is off.
//! The clock is one of the daemon's own, by libfaketime: that of this machine is nobody's to set.

use std::{fs, path::PathBuf, time::Duration};

use knock_common::spa::verdict::{self, Refusal};
use knock_tests::{
    asker::{Asker, ahead_by},
    instance::Instance,
    netns::Network,
    process::{PATIENCE, Process},
    program::poll,
};
use knock_user::clock;
use tempfile::{TempDir, tempdir};

const HOUR_S: i64 = 3600;

/// A wall clock of one process, which can be set; the others of that process are the machine's.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(tempdir().expect("a folder for the clock"));
        clock.set(0);
        clock
    }

    /// Sets it to so many seconds ahead of the machine's.
    fn set(&self, ahead_s: i64) {
        let fresh = self.0.path().join("fresh");
        fs::write(&fresh, format!("{ahead_s:+}")).expect("our own folder");
        fs::rename(&fresh, self.0.path().join("clock")).expect("our own folder");
    }

    fn serve(&self, gate: &Instance<'_>) -> Process {
        let mut command = gate.command("run", &["--json"]);
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.0.path().join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let mut daemon = Process::spawn(command);
        let _ = daemon.event("attached", |_| true);
        daemon
    }
}

/// Where Debian has it: in a folder of the architecture.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
    let mut found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is not installed: apt-get install libfaketime")
}

/// The time of a clock that is so many seconds ahead of the machine's.
fn at(ahead_s: i64) -> u64 {
    let now = i128::from(ahead_by(Duration::ZERO));
    u64::try_from(now + i128::from(ahead_s) * 1_000_000_000).expect("after 1970")
}

/// Sends packets of a time until one is accepted, or is refused for a reason; returns what is told of the refusal.
fn sent(asker: &Asker<'_>, daemon: &mut Process, ahead_s: i64, refusal: Option<Refusal>) -> String {
    let (event, begins) = match refusal {
        None => ("promoted", ""),
        Some(refusal) => ("spa_rejected", refusal.name()),
    };
    asker.send(&asker.packet(at(ahead_s)));
    let event = daemon.event(event, |_| true);
    let detail = event["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.starts_with(begins), "{ahead_s} s: {event}");
    if let Some(skew_ms) = event["skew_ms"].as_i64() {
        assert!(skew_ms.abs() > 1000 * (HOUR_S - 60), "{event}");
    }
    detail
}

/// Waits until the kernel goes by the clock as it is set.
fn until_told(gate: &Instance<'_>, ahead_s: i64) {
    poll("the kernel to be told the time", PATIENCE, || {
        let told = gate.state().told_time().expect("readable")?;
        let apart_ns = i128::from(verdict::wall_ns(&told, clock::now_ns())?) - i128::from(at(ahead_s));
        (apart_ns.abs() < 5_000_000_000).then_some(())
    });
}

#[test]
fn a_clock_that_is_set_by_an_hour_or_a_day_opens_nothing_twice_and_says_how_far_it_is_off() {
    let network = Network::new();
    for step_s in [HOUR_S, -HOUR_S, 24 * HOUR_S, -24 * HOUR_S] {
        let asker = Asker::new(&network.client);
        let gate = Instance::new(&network.server, &["srv0"], &asker.config("10m", ""));
        let clock = Clock::new();
        let mut daemon = clock.serve(&gate);
        let before = asker.packet(at(0));
        asker.send(&before);
        let _ = daemon.event("promoted", |_| true);

        clock.set(step_s);
        until_told(&gate, step_s);

        // Of a client whose clock is right, and of the one before.
        let refusal = if step_s > 0 { Refusal::Stale } else { Refusal::Future };
        let said = sent(&asker, &mut daemon, 0, Some(refusal));
        let which = if step_s > 0 { "behind this machine's" } else { "ahead of this machine's" };
        assert!(said.contains(which) && said.contains("set the client's clock, or this machine's"), "{said}");
        asker.send(&before);
        let _ = daemon.event("spa_rejected", |event| {
            event["detail"].as_str().is_some_and(|told| told.starts_with(refusal.name()))
        });
        // Of a client whose clock goes with the server's: on it opens, and back it is below what was accepted.
        let moved = if step_s > 0 { None } else { Some(Refusal::Replayed) };
        let _ = sent(&asker, &mut daemon, step_s, moved);

        clock.set(0);
        until_told(&gate, 0);

        // What was accepted stays refused; what is new opens, unless something of a later time was accepted meanwhile.
        asker.send(&before);
        let _ = daemon.event("spa_rejected", |event| event["detail"] == "replayed");
        let back = if step_s > 0 { Some(Refusal::Replayed) } else { None };
        let _ = sent(&asker, &mut daemon, 0, back);
        let detached = gate.run("detach", &[]);
        assert!(detached.is_success(), "{detached}");
    }
}
