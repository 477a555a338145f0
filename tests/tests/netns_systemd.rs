//! The unit that is shipped, under a live systemd: what its restrictions allow is not to be read off it.

use std::{fs, path::Path, time::Duration};

use knock_tests::{
    asker::Asker,
    client::ours,
    machine::Machine,
    netns::{Family, Network, address},
    program::poll,
    scene::{STEPS, guarded},
    sshd::Sshd,
};
use serde_json::Value;

const UNIT: &str = "xdp-knock.service";
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine whose `srv0` is to be guarded, with a hidden sshd, a client, and the unit, not started.
struct Site {
    machine: Machine,
    sshd: Sshd,
    network: Network,
}

impl Site {
    fn new(config: &str, drop_in: &str) -> Self {
        let network = Network::new();
        let sshd = Sshd::start(&network.server);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy").join(UNIT);
        let unit = fs::read_to_string(path).expect("it is shipped");
        let files = [
            ("/etc/systemd/system/xdp-knock.service", unit.as_str()),
            ("/etc/systemd/system/xdp-knock.service.d/test.conf", drop_in),
            ("/etc/xdp-knock/config.toml", config),
            ("/etc/xdp-knock/alice.key", &"42".repeat(32)),
        ];
        let machine = Machine::boot(&network.server, &files);
        let _ = machine.run("chmod 600 /etc/xdp-knock/config.toml /etc/xdp-knock/alice.key").succeeded();
        Self { machine, sshd, network }
    }

    fn systemctl(&self, verb: &str) {
        let _ = self.machine.run(&format!("systemctl {verb} {UNIT}")).succeeded();
    }

    fn knock(&self) {
        let sent = ours(&self.network.client, address(Family::V4, 0, 1), &STEPS);
        assert!(sent.is_success(), "{sent}");
    }

    fn assert_open(&self) {
        assert!(self.sshd.opens(&self.network.client, address(Family::V4, 0, 1)), "the door is shut");
    }

    fn assert_shut(&self) {
        let is_open = self.sshd.opens_soon(&self.network.client, address(Family::V4, 0, 1), None);
        assert!(!is_open, "the door is open");
    }

    /// Waits for an entry of the journal, and returns the first.
    fn entry(&self, filter: &str) -> Value {
        poll(&format!("an entry of {filter}"), PATIENCE, || {
            let lines = self.machine.journal(&format!("{filter} --output=json"));
            lines.lines().next().map(|line| serde_json::from_str(line).expect("JSON"))
        })
    }
}

fn config(tables: &str) -> String {
    guarded("interfaces = [\"srv0\"]", "open_for = \"1h\"") + tables
}

#[test]
fn the_gate_serves_as_a_service_and_outlives_it() {
    let tables = "[metrics]\n[state]\n[hooks]\non_promote = [\"/usr/bin/logger\", \"-t\", \"hooked\", \"{door} {source}\"]\n";
    let site = Site::new(&config(tables), "");
    let machine = &site.machine;

    site.systemctl("start");
    site.assert_shut();
    site.knock();
    let promoted = site.entry("MESSAGE_ID=88e4913b272640ec9a9efdb3b64ddeba");
    let source = address(Family::V4, 0, 2).to_string();
    for (field, value) in [
        ("DOOR", "ssh"),
        ("SRC", &source),
        ("RESULT", "promoted"),
        ("IFACE", "srv0"),
        ("VIA", "sequence"),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "xdp-knock"),
        ("_SYSTEMD_UNIT", UNIT),
    ] {
        assert_eq!(promoted[field], *value, "{field} of {promoted}");
    }
    site.assert_open();

    let hooked = site.entry("--identifier=hooked");
    assert_eq!(hooked["MESSAGE"], format!("ssh {source}"), "{hooked}");
    assert_eq!(hooked["_UID"], "65534", "{hooked}");
    poll("the state file", PATIENCE, || {
        machine.run("cat /var/lib/xdp-knock/grants.json").stdout.contains(&source).then_some(())
    });
    let health = machine.run("curl --silent --fail http://127.0.0.1:9477/healthz").succeeded();
    assert_eq!(health, "ok\n");

    let process = machine.property(UNIT, "MainPID");
    site.systemctl("reload");
    assert_eq!(machine.property(UNIT, "MainPID"), process);
    assert!(machine.property(UNIT, "StatusText").contains("generation 2"));

    let _ = machine.run(&format!("kill -9 {process}")).succeeded();
    site.assert_open();
    poll("another process", PATIENCE, || (machine.property(UNIT, "NRestarts") == "1").then_some(()));
    machine.until(UNIT, "ActiveState", "active");
    site.assert_open();

    site.systemctl("stop");
    site.assert_open();
    site.network.be_host("cli0", 0, 3);
    site.assert_shut();
    let _ = machine.run("xdp-knock status").succeeded();
}

#[test]
fn a_gate_that_is_detached_stays_off() {
    let site = Site::new(&config(""), "");
    site.systemctl("start");
    site.assert_shut();

    let _ = site.machine.run("xdp-knock detach").succeeded();

    site.machine.until(UNIT, "ActiveState", "inactive");
    assert_eq!(site.machine.property(UNIT, "Result"), "success");
    site.assert_open();
    // And on again.
    site.systemctl("start");
    site.assert_shut();
}

#[test]
fn a_bad_configuration_fails_the_start_once_and_for_all() {
    let site = Site::new("[xdp]\nmode = \"gaurd\"\n", "");

    let started = site.machine.run(&format!("systemctl start {UNIT}"));

    assert!(!started.is_success(), "{started}");
    site.machine.until(UNIT, "ActiveState", "failed");
    assert_eq!(site.machine.property(UNIT, "NRestarts"), "0");
    assert!(site.machine.journal(&format!("--unit={UNIT}")).contains("did you mean \"guard\"?"));
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_the_gate_stays() {
    let site = Site::new(&config(""), "[Service]\nWatchdogSec=2\n");
    site.systemctl("start");
    let process = site.machine.property(UNIT, "MainPID");

    let _ = site.machine.run(&format!("kill -STOP {process}")).succeeded();

    poll("another process", PATIENCE, || {
        let now = site.machine.property(UNIT, "MainPID");
        (now != process && now != "0").then_some(())
    });
    site.assert_shut();
    assert_eq!(site.machine.property(UNIT, "NRestarts"), "1");
}

#[test]
fn secrets_are_read_at_the_start_and_at_a_reload_and_only_root_s_own() {
    let network = Network::without_links();
    let asker = Asker::new(&network.client);
    let text = asker.config("30s", "[state]\n").replace("[xdp]\n", "[xdp]\ninterfaces = [\"srv0\"]\n");
    let key = asker.folder().join("alice.key").display().to_string();
    let site = Site::new(&text.replace(&key, "alice.key"), "");
    let machine = &site.machine;
    let _ = machine.run("chown 65534 /etc/xdp-knock/alice.key").succeeded();
    let started = machine.run(&format!("systemctl start {UNIT}"));
    assert!(!started.is_success(), "{started}");
    let journal = machine.journal(&format!("--unit={UNIT}"));
    assert!(journal.contains("alice.key") && journal.contains("chown 0"), "{journal}");

    let _ = machine.run("chown root /etc/xdp-knock/alice.key").succeeded();
    site.systemctl("start");
    site.systemctl("reload");

    assert!(machine.property(UNIT, "StatusText").contains("generation 2"));
    site.assert_shut();
    let _ = machine.run("xdp-knock status").succeeded();
}
