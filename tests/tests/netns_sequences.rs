//! A real sshd behind the gate, and every program that people knock with: IPv4, IPv6 and VLAN, native and generic.
//!
//! In each case the wrong order opens nothing, the right one opens the door, and only for the address that knocked.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::Stdio,
};

use knock_tests::{
    client::Tool,
    daemon::{Daemon, Gate},
    netns::{Family, Network, address},
    sshd::Sshd,
};

const CONFIG: &str = r#"
[xdp]
mode = "guard"

[[door]]
name = "ports"
opens = ["tcp/22"]
knock = ["tcp/20011", "udp/5017", "tcp/1490", "udp/7121"]

[[door]]
name = "echo"
opens = ["tcp/22"]
knock = ["udp/9032", "icmp/echo?size=172", "tcp/26817"]
"#;

const PORTS: &[&str] = &["tcp/20011", "udp/5017", "tcp/1490", "udp/7121"];
const ECHO: &[&str] = &["udp/9032", "icmp/echo?size=172", "tcp/26817"];

/// Each from a client address of its own: (program, door, its sequence).
const CASES: [(Tool, &str, &[&str]); 7] = [
    (Tool::Knock, "ports", PORTS),
    (Tool::Nc, "ports", PORTS),
    (Tool::Nc, "echo", ECHO),
    (Tool::Nmap, "ports", PORTS),
    (Tool::Curl, "ports", PORTS),
    (Tool::Ours, "ports", PORTS),
    (Tool::Ours, "echo", ECHO),
];

/// An address of the client that never knocks.
const STRANGER: u8 = 200;

/// How the client reaches the server.
#[derive(Clone, Copy)]
struct Way {
    family: Family,
    device: &'static str,
}

struct Stage {
    daemon: Daemon,
    sshd: Sshd,
    network: Network,
    way: Way,
    server: IpAddr,
}

impl Stage {
    fn new(way: Way, attach: &str) -> Self {
        let mut network = Network::without_links();
        if way.device == "cli0" {
            network.add_link(0, 1500);
        } else {
            network.add_vlan_link(0);
        }
        network.add_host(way.device, 0, STRANGER);
        let sshd = Sshd::start(&network.server);
        let daemon = Gate::new(&network.server, &["srv0"]).config(CONFIG).args(&["--attach", attach]).start();
        Self { daemon, sshd, network, way, server: address(way.family, 0, 1) }
    }

    fn is_open(&self, source: Option<u8>) -> bool {
        let source = source.map(|host| address(self.way.family, 0, host));
        self.sshd.opens_soon(&self.network.client, self.server, source)
    }

    fn try_tool(&mut self, host: u8, tool: Tool, door: &str, steps: &[&str]) {
        let client = &self.network.client;
        self.network.be_host(self.way.device, 0, host);
        let mut wrong = steps.to_vec();
        wrong.swap(1, 2);

        tool.knock(client, self.server, &wrong);
        assert!(!self.is_open(None), "{tool:?}, door {door}: the wrong order opened it");
        tool.knock(client, self.server, steps);

        let promoted = self.daemon.promotion(address(self.way.family, 0, host), door);
        assert_eq!(
            (&promoted["via"], &promoted["iface"]),
            (&"sequence".into(), &"srv0".into()),
            "{promoted}"
        );
        assert!(self.sshd.opens(&self.network.client, self.server), "{tool:?}, door {door}: stayed shut");
        assert!(!self.is_open(Some(STRANGER)), "{tool:?}, door {door}: open to another address");
    }

    /// Lets the server swallow its answers from TCP knock ports, so that whoever knocks there sends its SYN again.
    fn swallow_answers(&self, verb: &str) {
        for family in ["-4", "-6"] {
            for port in ["20011", "1490"] {
                self.network
                    .server
                    .run(&format!("ip {family} rule {verb} ipproto tcp sport {port} blackhole"));
            }
        }
    }

    /// How often the client has sent a SYN again.
    fn syns_sent_again(&self) -> u64 {
        let table = self.network.client.run("cat /proc/net/netstat");
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next().expect("names come first"), lines.next().expect("then values"));
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, count) = pairs.find(|(name, _)| *name == "TCPSynRetrans").expect("Linux counts them");
        count.parse().expect("it is a number")
    }
}

fn every_client_opens_the_door(way: Way, attach: &str) {
    let mut stage = Stage::new(way, attach);
    assert!(!stage.is_open(None), "open before any knock");

    for (host, (tool, door, steps)) in (10..).zip(CASES) {
        if tool != Tool::Curl {
            stage.try_tool(host, tool, door, steps);
            continue;
        }
        let before = stage.syns_sent_again();
        stage.swallow_answers("add");
        stage.try_tool(host, tool, door, steps);
        stage.swallow_answers("del");
        let again = stage.syns_sent_again() - before;
        assert!(again >= 4, "2 TCP steps, knocked in 2 orders, were sent again only {again} times");
    }

    let events = stage.daemon.stop();
    let promoted = events.iter().filter(|event| event["event"] == "promoted").count();
    assert_eq!(promoted, CASES.len(), "one promotion a client: {events:#?}");
}

const V4: Way = Way { family: Family::V4, device: "cli0" };
const V6: Way = Way { family: Family::V6, device: "cli0" };
const V4_IN_VLAN: Way = Way { family: Family::V4, device: "cli0.5" };
const V6_IN_VLAN: Way = Way { family: Family::V6, device: "cli0.5" };

#[test]
fn frames_in_the_vlan_are_tagged_on_the_wire() {
    let mut network = Network::without_links();
    network.add_vlan_link(0);
    let line = "timeout 20 tcpdump -i srv0 -nn -e -c 2 vlan 5 and tcp port 22 and src 10.77.0.2";
    let mut words = line.split(' ');
    let mut tcpdump = network.server.command(words.next().expect("a program"));
    let mut tcpdump =
        tcpdump.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tcpdump");
    let mut first_line = String::new();
    let stderr = tcpdump.stderr.take().expect("it was piped");
    let mut stderr = BufReader::new(stderr);
    while !first_line.contains("listening on") {
        first_line.clear();
        assert!(stderr.read_line(&mut first_line).expect("text") > 0, "tcpdump does not listen");
    }
    let sshd = Sshd::start(&network.server);

    assert!(sshd.opens(&network.client, address(Family::V4, 0, 1)), "no login through the VLAN");

    let seen = tcpdump.wait_with_output().expect("our own child");
    assert!(seen.status.success(), "{seen:?}");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv4_native() {
    every_client_opens_the_door(V4, "native");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv4_generic() {
    every_client_opens_the_door(V4, "generic");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv6_native() {
    every_client_opens_the_door(V6, "native");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv6_generic() {
    every_client_opens_the_door(V6, "generic");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv4_in_a_vlan_native() {
    every_client_opens_the_door(V4_IN_VLAN, "native");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv4_in_a_vlan_generic() {
    every_client_opens_the_door(V4_IN_VLAN, "generic");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv6_in_a_vlan_native() {
    every_client_opens_the_door(V6_IN_VLAN, "native");
}

#[test]
fn every_client_opens_a_hidden_sshd_over_ipv6_in_a_vlan_generic() {
    every_client_opens_the_door(V6_IN_VLAN, "generic");
}
