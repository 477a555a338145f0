//! Interfaces that go and come back, change, and come late: the gate is on them by their names.

use std::{env, time::Duration};

use knock_tests::{
    hosts::{friend, network, server, stranger},
    instance::{Instance, door, guard},
    netns::Network,
    reach::Reach,
};

/// How often the interface is made anew.
fn rounds() -> usize {
    env::var("KNOCK_INTERFACES").ok().and_then(|count| count.parse().ok()).unwrap_or(50)
}

fn config() -> String {
    guard(&[door("one", &["udp/7000"], &["udp/6101", "udp/5017"], "open_for = \"1h\"")])
}

fn reach(network: &Network) -> Reach<'_> {
    Reach::new(network, server(), &[7000])
}

/// Deletes the pair of link 0 and makes it anew, with its addresses.
fn make_anew(network: &Network) {
    network.server.run("ip link del srv0");
    network.add_link(0, 1500);
    network.add_host("cli0", 0, 3);
}

#[test]
fn an_interface_that_is_made_anew_has_the_gate_again_each_time() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &config());
    let mut daemon = gate.serve(&["--persist"]);
    reach(&network).knock(friend(), &[6101, 5017]);
    daemon.event("promoted", |_| true);

    let mut took = Vec::new();
    for _ in 0..rounds() {
        network.server.run("ip link del srv0");
        daemon.event("detached", |event| event["iface"] == "srv0");
        let asked = std::time::Instant::now();
        network.add_link(0, 1500);
        let (back, _) = daemon.timed_event("attached", |event| event["iface"] == "srv0");
        took.push(back.saturating_duration_since(asked));
        network.add_host("cli0", 0, 3);
        assert!(!reach(&network).is_open(stranger(), 7000), "open to a stranger after {} rounds", took.len());
        assert!(reach(&network).is_open(friend(), 7000), "the grant is gone after {} rounds", took.len());
        gate.one_in_force();
    }

    took.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "made anew {} times; from the command that makes it to the gate: median {:.1} ms, most {:.1} ms",
        took.len(),
        milliseconds(took[took.len() / 2]),
        milliseconds(took[took.len() - 1])
    );
}

#[test]
fn a_change_of_the_interface_takes_nothing_off() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &config());
    let _daemon = gate.serve(&[]);
    let before = gate.one_in_force();
    let reach = reach(&network);
    for change in [
        "ip link set srv0 down",
        "ip link set srv0 up",
        "ip link set srv0 mtu 1280",
        "ip link set srv0 mtu 1500",
    ] {
        network.server.run(change);
        assert_eq!(gate.one_in_force(), before, "after {change}");
    }
    assert!(!reach.is_open(stranger(), 7000));
}

#[test]
fn an_interface_that_comes_late_is_guarded_when_it_comes() {
    let network = Network::without_links();
    let gate = Instance::new(&network.server, &["srv0"], &config());
    let refused = gate.run("attach", &[]);
    assert!(!refused.is_success() && refused.stderr.contains("--wait"), "{refused}");

    let mut daemon = gate.start(&["--wait"]);
    daemon.diagnostics("srv0");
    network.add_link(0, 1500);
    daemon.event("attached", |event| event["iface"] == "srv0");
    network.add_host("cli0", 0, 3);

    assert!(!reach(&network).is_open(stranger(), 7000));
    gate.one_in_force();
}

#[test]
fn the_next_run_replaces_a_link_that_died_with_its_interface_and_keeps_the_grants() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &config());
    let mut daemon = gate.serve(&["--persist"]);
    reach(&network).knock(friend(), &[6101, 5017]);
    daemon.event("promoted", |_| true);
    daemon.kill();
    make_anew(&network);
    assert!(reach(&network).is_open(stranger(), 7000), "nobody is there to put the gate on");
    let status = gate.run("status", &[]);
    assert_eq!(status.status, Some(3), "{status}");

    let _daemon = gate.serve(&["--persist"]);

    assert!(!reach(&network).is_open(stranger(), 7000));
    assert!(reach(&network).is_open(friend(), 7000));
    assert_eq!(gate.run("status", &[]).status, Some(0));
}

#[test]
fn a_pin_that_another_process_removed_is_not_put_back() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &config());
    let mut daemon = gate.serve(&["--persist"]);

    std::fs::remove_file(gate.pins().link("srv0")).expect("its pin");

    daemon.event("detached", |event| event["iface"] == "srv0");
    assert_eq!(daemon.wait().code(), Some(3));
    assert!(reach(&network).is_open(stranger(), 7000), "taken off, and left alone");
}
