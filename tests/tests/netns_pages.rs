//! Rotating sequences and one-time lists in front of a real sshd, with the stock client: each opens once, whatever becomes of
//! the daemon, the generation and the machine's memory.

use std::{fs, net::IpAddr, time::Duration};

use knock_common::abi::{Proto, StepRule};
use knock_tests::{
    client::{Tool, stock},
    instance::Instance,
    netns::{Family, Namespace, Network, address},
    pages::{DOOR, config_every, list_config, sequence},
    process::Process,
    program::poll,
    sshd::Sshd,
};
use tempfile::TempDir;

/// Seconds of a time step in these tests: the shortest that there is.
const EVERY_S: u64 = 10;
/// Longer than two time steps, after which a gate without memory takes the first sequence.
const PATIENCE: Duration = Duration::from_secs(40);

struct Bed {
    network: Network,
    sshd: Sshd,
    folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        let network = Network::new();
        let sshd = Sshd::start(&network.server);
        Self { network, sshd, folder: tempfile::tempdir().expect("a folder") }
    }

    fn state(&self) -> String {
        format!("[state]\nfile = \"{}/state.json\"\n", self.folder.path().display())
    }

    fn rotating(&self) -> String {
        config_every(self.folder.path(), "10s", "") + &self.state()
    }

    fn client(&self) -> &Namespace {
        &self.network.client
    }

    fn server(&self, family: Family) -> IpAddr {
        address(family, 0, 1)
    }

    /// Comes from another address, and knocks.
    fn knock_as(&self, host: u8, family: Family, steps: &[String]) {
        self.network.be_host("cli0", 0, host);
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        stock(self.client(), self.server(family), &steps);
    }

    fn is_open(&self, family: Family) -> bool {
        self.sshd.opens(self.client(), self.server(family))
    }

    fn is_shut(&self, family: Family) -> bool {
        !self.sshd.opens_soon(self.client(), self.server(family), None)
    }
}

fn now_step() -> u64 {
    knock_user::clock::unix_ns() / 1_000_000_000 / EVERY_S
}

/// Waits until a time step has begun.
fn wait_for(step: u64) {
    poll("a time step to begin", PATIENCE, || (now_step() >= step).then_some(()));
}

fn words(steps: &[StepRule]) -> Vec<String> {
    let proto = |step: &StepRule| if step.proto == Proto::Tcp.bit() { "tcp" } else { "udp" };
    steps.iter().map(|step| format!("{}/{}", proto(step), step.port)).collect()
}

fn assert_spent(daemon: &mut Process, via: &str) {
    let event = daemon.event("spent", |_| true);
    assert_eq!((&event["door"], &event["via"]), (&DOOR.into(), &via.into()), "{event}");
}

#[test]
fn a_rotating_sequence_opens_ssh_by_the_stock_client_over_both_families() {
    let bed = Bed::new();
    let gate = Instance::new(&bed.network.server, &["srv0"], &bed.rotating());
    let started = now_step();
    let mut daemon = gate.serve(&[]);
    assert!(bed.is_shut(Family::V4) && bed.is_shut(Family::V6));

    for (family, host, wait) in [(Family::V4, 20, 3), (Family::V6, 21, 5)] {
        wait_for(started + wait);
        let steps = words(&sequence(now_step()));
        bed.knock_as(host, family, &steps);

        let promoted = daemon.event("promoted", |_| true);
        assert_eq!((&promoted["via"], &promoted["door"]), (&"rotating".into(), &DOOR.into()), "{promoted}");
        assert_eq!(promoted["source"], address(family, 0, host).to_string(), "{promoted}");
        assert!(bed.is_open(family));
        // Overheard, and sent again by somebody else.
        bed.knock_as(99, family, &steps);
        assert_spent(&mut daemon, "rotating");
        assert!(bed.is_shut(family));
    }
    let said = gate.run("status", &["--json"]).succeeded() + &daemon.said();
    assert!(said.contains("rotating") && !said.contains("4242"), "the secret is told: {said}");
}

#[test]
fn what_was_used_stays_used_through_a_reload_a_kill_and_a_reboot_and_the_next_sequence_opens() {
    let bed = Bed::new();
    let gate = Instance::new(&bed.network.server, &["srv0"], &bed.rotating());
    let started = now_step();
    let mut daemon = gate.serve(&["--persist"]);
    // The step that comes next is taken, so that it is live for as long as it can be.
    wait_for(started + 3);
    let used = now_step() + 1;
    let steps = words(&sequence(used));
    bed.knock_as(20, Family::V4, &steps);
    let _ = daemon.event("promoted", |_| true);

    assert!(gate.run("reload", &[]).is_success());
    bed.knock_as(21, Family::V4, &steps);
    assert_spent(&mut daemon, "rotating");

    daemon.kill();
    bed.knock_as(22, Family::V4, &steps);
    assert!(bed.is_shut(Family::V4), "with the daemon dead");
    let daemon = gate.serve(&[]);
    if now_step() <= used + 1 {
        bed.knock_as(23, Family::V4, &steps);
        assert!(bed.is_shut(Family::V4), "with a new daemon");
    }

    // Off, pins and all, and on again: the file knows all that was used.
    let detached = gate.run("detach", &[]);
    assert!(detached.is_success(), "{detached}");
    drop(daemon);
    let mut daemon = gate.serve(&["--persist"]);
    wait_for(used + 1);
    bed.knock_as(24, Family::V4, &steps);
    assert!(bed.is_shut(Family::V4), "by the state file");
    bed.knock_as(25, Family::V4, &words(&sequence(now_step())));
    let _ = daemon.event("promoted", |_| true);

    // As after a power cut: what was used last may not be in the file.
    daemon.kill();
    fs::remove_dir_all(gate.pins().path()).expect("pins");
    let started = now_step();
    let mut daemon = gate.serve(&[]);
    for ahead in 0..=1 {
        bed.knock_as(26 + ahead, Family::V4, &words(&sequence(started + u64::from(ahead))));
        assert!(bed.is_shut(Family::V4), "it may have been used before, by a memory that is gone");
    }
    wait_for(started + 3);
    bed.knock_as(28, Family::V4, &words(&sequence(now_step())));
    let _ = daemon.event("promoted", |_| true);
    assert!(bed.is_open(Family::V4));
}

#[test]
fn with_the_daemon_dead_time_steps_to_come_open_the_door() {
    let bed = Bed::new();
    let gate = Instance::new(&bed.network.server, &["srv0"], &bed.rotating());
    let started = now_step();
    gate.serve(&["--persist"]).kill();

    wait_for(started + 3);
    bed.knock_as(20, Family::V4, &words(&sequence(now_step())));

    assert!(bed.is_open(Family::V4));
}

#[test]
fn each_line_of_a_list_opens_ssh_once_whatever_becomes_of_the_gate() {
    let bed = Bed::new();
    let lines: Vec<[String; 3]> = (1..=4)
        .map(|line| [format!("tcp/7{line}01"), format!("udp/8{line}02"), format!("tcp/9{line}03")])
        .collect();
    let text: String = lines.iter().map(|line| line.join(" ") + "\n").collect();
    let gate = Instance::new(
        &bed.network.server,
        &["srv0"],
        &(list_config(bed.folder.path(), &text) + &bed.state()),
    );
    let mut daemon = gate.serve(&["--persist"]);

    bed.knock_as(20, Family::V4, &lines[0]);
    let promoted = daemon.event("promoted", |_| true);
    assert_eq!(promoted["via"], "list", "{promoted}");
    assert!(bed.is_open(Family::V4));
    bed.knock_as(21, Family::V4, &lines[0]);
    assert!(bed.is_shut(Family::V4));

    assert!(gate.run("reload", &[]).is_success());
    bed.knock_as(22, Family::V4, &lines[0]);
    assert!(bed.is_shut(Family::V4), "after a reload");
    bed.knock_as(23, Family::V4, &lines[1]);
    let _ = daemon.event("promoted", |_| true);

    daemon.kill();
    bed.knock_as(24, Family::V4, &lines[1]);
    assert!(bed.is_shut(Family::V4), "with the daemon dead");
    let daemon = gate.serve(&[]);
    let detached = gate.run("detach", &[]);
    assert!(detached.is_success(), "{detached}");
    drop(daemon);

    // As after a reboot.
    let mut daemon = gate.serve(&[]);
    for (host, used) in [(25, 0), (26, 1)] {
        bed.knock_as(host, Family::V4, &lines[used]);
        assert!(bed.is_shut(Family::V4), "line {used}, by the state file");
    }
    Tool::Knock.knock(bed.client(), bed.server(Family::V4), &lines[2].each_ref().map(String::as_str));
    let _ = daemon.event("promoted", |_| true);
    assert!(bed.is_open(Family::V4));
}
