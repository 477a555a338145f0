//! A port scan opens no door that `xdp-knock check` accepts; the right sequence does, right afterwards.
//!
//! Scans go up and in random order with nmap, and down with connections of our own, since nmap cannot.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use knock_tests::{
    client::Tool,
    daemon::Gate,
    netns::{Family, Namespace, Network, address},
    program::{run, xdp_knock},
    scene::Scene,
    sshd::Sshd,
};
use nix::sched::{CloneFlags, setns};

/// Sequences that lie in the way of each kind of scan: up, down, and with neighbours.
const CONFIG: &str = r#"
[xdp]
mode = "guard"

[[door]]
name = "up"
opens = ["tcp/22"]
knock = ["tcp/11003", "tcp/11005", "tcp/41007"]
total_timeout = "1m"
step_timeout = "1m"

[[door]]
name = "down"
opens = ["tcp/22"]
knock = ["tcp/42007", "tcp/12005", "tcp/12004"]
total_timeout = "1m"
step_timeout = "1m"

[[door]]
name = "mixed"
opens = ["tcp/22"]
knock = ["udp/13003", "tcp/13003", "udp/13009"]
total_timeout = "1m"
step_timeout = "1m"
"#;

const UP: [&str; 3] = ["tcp/11003", "tcp/11005", "tcp/41007"];
const DOWN: [&str; 3] = ["tcp/42007", "tcp/12005", "tcp/12004"];

fn scene() -> Scene {
    let network = Network::new();
    let gate = Gate::new(&network.server, &["srv0"]).config(CONFIG);
    let checked = run(network.server.bounded(xdp_knock()).arg("check").arg(gate.config_file()));
    assert!(checked.is_success(), "{checked}");
    let sshd = Sshd::start(&network.server);
    Scene { daemon: gate.start(), sshd, network }
}

/// The door is shut after the scan, opens to the right sequence at once, and the scan promoted nobody.
fn stays_shut_and_then_opens(mut scene: Scene, door: &str, steps: &[&str]) {
    scene.assert_shut();

    Tool::Ours.knock(&scene.network.client, scene.server(), steps);

    scene.daemon.promotion(scene.host(2), door);
    scene.assert_open();
    let events = scene.daemon.stop();
    let promoted = events.iter().filter(|event| event["event"] == "promoted").count();
    assert_eq!(promoted, 1, "{events:#?}");
    let reset = events.iter().any(|event| event["event"] == "reset");
    assert!(reset, "the scan met no first step: {events:#?}");
}

/// nmap at all ports, at 50,000 packets a second at most.
fn nmap(scene: &Scene, options: &str) {
    let mut nmap = scene.network.client.bounded("nmap");
    nmap.args(["-Pn", "-n", "-T5", "--max-rate", "50000"]).args(options.split(' '));
    let report = run(nmap.arg(scene.server().to_string())).succeeded();
    assert!(report.contains("1 host up"), "{report}");
}

#[test]
fn a_scan_upwards_opens_nothing() {
    let scene = scene();
    nmap(&scene, "-sS -p- -r --max-retries 0");
    stays_shut_and_then_opens(scene, "up", &UP);
}

#[test]
fn a_scan_in_random_order_opens_nothing() {
    let scene = scene();
    nmap(&scene, "-sS -p- --max-retries 0");
    stays_shut_and_then_opens(scene, "down", &DOWN);
}

#[test]
fn a_scan_that_tries_silent_ports_again_opens_nothing() {
    let scene = scene();
    // Ports of the door `up` and around it never answer, so nmap sends to them again.
    for ports in ["11000-11010", "41000-41010"] {
        scene.network.server.run(&format!("ip rule add ipproto tcp sport {ports} blackhole"));
    }

    nmap(&scene, "-sS -p- -r --max-retries 2");

    stays_shut_and_then_opens(scene, "up", &UP);
}

#[test]
fn a_scan_of_tcp_and_udp_at_once_opens_nothing() {
    let scene = scene();
    nmap(&scene, "-sS -sU -r --max-retries 0 --min-rate 5000 -p T:13000-13100,U:13000-13100");
    stays_shut_and_then_opens(scene, "mixed", &["udp/13003", "tcp/13003", "udp/13009"]);
}

#[test]
fn a_scan_by_connections_downwards_opens_nothing() {
    let scene = scene();
    connect(&scene.network.client, scene.server(), (1..=u16::MAX).rev());
    stays_shut_and_then_opens(scene, "down", &DOWN);
}

#[test]
fn a_scan_by_connections_upwards_opens_nothing() {
    let scene = scene();
    connect(&scene.network.client, scene.server(), 1..=u16::MAX);
    stays_shut_and_then_opens(scene, "up", &UP);
}

#[test]
fn a_scan_over_ipv6_opens_nothing() {
    let mut scene = scene();
    let (client, server) = (&scene.network.client, address(Family::V6, 0, 1));
    connect(client, server, (1..=u16::MAX).rev());
    assert!(!scene.sshd.opens_soon(client, server, None), "open after the scan");

    Tool::Ours.knock(client, server, &DOWN);

    scene.daemon.promotion(address(Family::V6, 0, 2), "down");
    assert!(scene.sshd.opens(client, server), "shut after the sequence");
}

/// Connects to ports in the order given, one at a time: what a scanner without raw sockets does.
fn connect(from: &Namespace, to: IpAddr, ports: impl Iterator<Item = u16> + Send) {
    let path = from.path();
    let scan = move || {
        setns(File::open(&path).expect("the namespace is there"), CloneFlags::CLONE_NEWNET).expect("root");
        for port in ports {
            // Only the hidden port keeps silent; every other one refuses at once.
            let _ = TcpStream::connect_timeout(&SocketAddr::new(to, port), Duration::from_millis(200));
        }
    };
    thread::scope(|scope| scope.spawn(scan).join()).expect("the scan goes through");
}
