//! A scanner sees nothing: not one packet of a box comes out, by capture, whatever nmap sends. Without a gate the same scans
//! are answered, each kind of them.
//!
//! What no interface can do without is left out of the count: ARP, neighbour discovery, reports of group membership.

use std::{collections::BTreeMap, net::IpAddr};

use knock_tests::{
    capture::Capture,
    instance::{Instance, door},
    netns::{Family, Namespace, Network, address},
    program::run,
    raw::link_address,
    service::{Echo, Proto},
    sshd::Sshd,
};

/// Ports with a service behind a door, ports with a service that nothing names, and closed ones.
const PORTS: &str = "22,53,80,443,2000-2060,4500,7007,33434,51820";
/// What the door of guard mode hides, with one service of each protocol in it.
const HIDDEN: [&str; 2] = ["tcp/2000-2060", "udp/2000-2060"];
const HIDDEN_PORTS: &str = "2000-2060";

/// The kinds of scan that go to ports, and the one that asks what system it is.
const SCANS: [&str; 6] = ["-sS", "-sA", "-sF", "-sN", "-sX", "-sU"];
const FINGERPRINT: &str = "-O";

struct Scene {
    network: Network,
    _sshd: Sshd,
    _echoes: [Echo; 4],
}

impl Scene {
    fn new() -> Self {
        let network = Network::new();
        // A closed UDP port answers often enough for every scan to see it (`icmp_ratelimit`).
        network.server.run("sysctl -qw net.ipv4.icmp_ratemask=0 net.ipv6.icmp.ratelimit=0");
        let echo = |proto, port| Echo::start_dual(&network.server, proto, port);
        let echoes =
            [echo(Proto::Tcp, 2022), echo(Proto::Udp, 2053), echo(Proto::Tcp, 7007), echo(Proto::Udp, 4500)];
        Self { _sshd: Sshd::start(&network.server), _echoes: echoes, network }
    }

    /// Runs scans of some ports over both families; returns the packets that came out of the box for each.
    fn scan(&self, kinds: &[&str], ports: &str) -> BTreeMap<String, Vec<String>> {
        let sender = link_address(&self.network.server, "srv0");
        let mut seen = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            for kind in kinds {
                let capture = Capture::of_sent(&self.network.client, "cli0", sender);
                nmap(&self.network.client, address(family, 0, 1), kind, ports);
                seen.insert(format!("{kind} over {family:?}"), capture.stop());
            }
        }
        seen
    }
}

fn nmap(from: &Namespace, to: IpAddr, kind: &str, ports: &str) {
    let family = if to.is_ipv6() { "-6" } else { "-4" };
    let mut nmap = from.bounded("nmap");
    nmap.args([family, "-Pn", "-n", "-T5", "--max-retries", "1", "--max-os-tries", "1", "--min-rate", "500"]);
    // To ask for the system alone is to scan TCP ports first.
    nmap.args([kind, "-p", ports, &to.to_string()]);
    let report = run(&mut nmap).succeeded();
    assert!(report.contains("1 host up"), "{report}");
}

fn assert_answered(seen: &BTreeMap<String, Vec<String>>) {
    for (scan, packets) in seen {
        println!("{scan}: {} packets out", packets.len());
        assert!(!packets.is_empty(), "{scan} is not answered without a gate");
    }
}

fn assert_silent(seen: &BTreeMap<String, Vec<String>>) {
    for (scan, packets) in seen {
        assert!(
            packets.is_empty(),
            "{scan} is answered: {} packets, {:#?}",
            packets.len(),
            &packets[..packets.len().min(5)]
        );
    }
}

#[test]
fn hidden_ports_are_silent_to_every_scan_in_guard_mode() {
    let scene = Scene::new();
    assert_answered(&scene.scan(&SCANS, HIDDEN_PORTS));
    let config =
        format!("[xdp]\nmode = \"guard\"\n\n{}", door("hidden", &HIDDEN, &["tcp/20011", "udp/5017"], ""));
    let gate = Instance::new(&scene.network.server, &["srv0"], &config);
    let _ = gate.run("attach", &[]).succeeded();

    assert_silent(&scene.scan(&SCANS, HIDDEN_PORTS));
}

#[test]
fn a_box_in_deny_mode_is_silent_to_every_scan() {
    let scene = Scene::new();
    let all = [&SCANS[..], &[FINGERPRINT]].concat();
    assert_answered(&scene.scan(&all, PORTS));
    let config =
        format!("[xdp]\nmode = \"deny\"\n\n{}", door("hidden", &["tcp/22"], &["tcp/20011", "udp/5017"], ""));
    let gate = Instance::new(&scene.network.server, &["srv0"], &config);
    let _ = gate.run("attach", &[]).succeeded();

    assert_silent(&scene.scan(&all, PORTS));
}
