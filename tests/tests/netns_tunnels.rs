//! Conversations that no socket of the host's shows outlive the grant that let them in: datagrams back and forth, a host behind
//! the box to which it hands its ports, and WireGuard in user space. `sessions = "cut"` ends them with the grant.
//!
//! `KNOCK_IDLE_S` says how many seconds they rest after the grant (1).

use std::{env, net::SocketAddr, thread, time::Duration};

use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Namespace, Network, add_addresses, address, join},
    process::Process,
    program::{self, run},
    service::{Echo, Proto},
    session::Session,
    wireguard::{Keys, Tunnel},
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const TCP: u16 = 8080;
const UDP: u16 = 8081;
/// Where a redirect leads to.
const BEHIND: u16 = 8090;
const WIREGUARD: u16 = 51_820;
const LAN: u8 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

fn config(sessions: &str) -> String {
    let opens = [format!("tcp/{TCP}"), format!("udp/{UDP}"), format!("udp/{WIREGUARD}")];
    let more = format!("open_for = \"2s\"\nsessions = \"{sessions}\"");
    guard(&[door("main", &opens.each_ref().map(String::as_str), &["udp/6101", "udp/5017"], &more)])
}

fn idle() -> Duration {
    let given = env::var("KNOCK_IDLE_S").ok();
    Duration::from_secs(given.map_or(1, |text| text.parse().expect("KNOCK_IDLE_S is a number")))
}

/// Gives the client a grant over each family.
fn grant(gate: &Instance<'_>, time: &str) {
    for family in FAMILIES {
        let client = address(family, 0, 2).to_string();
        let _ = gate.run("grant", &[&client, "main", "--for", time]).succeeded();
    }
}

/// Waits until both grants are over.
fn wait_for_the_end(daemon: &mut Process) {
    for _ in FAMILIES {
        daemon.event("expired", |event| event["door"] == "main");
    }
}

/// Services behind the gate, and conversations with them.
struct Talks<'a> {
    client: &'a Namespace,
    echoes: Vec<Echo>,
    sessions: Vec<Session>,
}

impl<'a> Talks<'a> {
    /// Starts the services where they are, and shows that they can be reached without a gate.
    fn new(network: &'a Network, at: &Namespace, protos: &[(Proto, u16)]) -> Self {
        Self::with(network, protos.iter().map(|(proto, port)| Echo::start_dual(at, *proto, *port)).collect())
    }

    fn with(network: &'a Network, echoes: Vec<Echo>) -> Self {
        let mut talks = Self { client: &network.client, echoes, sessions: Vec::new() };
        talks.begin();
        talks.assert_live("without a gate");
        talks.sessions.clear();
        program::poll("all services to answer without a gate", PATIENCE, || {
            talks.new_ones().iter().all(|answers| *answers).then_some(())
        });
        talks
    }

    fn begin(&mut self) {
        for (echo, family) in self.echoes.iter().flat_map(|echo| FAMILIES.map(|family| (echo, family))) {
            self.sessions.push(echo.session(self.client, address(family, 0, 1), None));
        }
    }

    fn assert_live(&mut self, when: &str) {
        self.sessions.iter_mut().for_each(|session| session.assert_lives(when));
    }

    fn assert_cut(&mut self, when: &str) {
        self.sessions.iter_mut().for_each(|session| session.assert_cut(when));
    }

    /// Returns whether each service answers from a port that is new to it.
    fn new_ones(&self) -> Vec<bool> {
        let each = self.echoes.iter().flat_map(|echo| FAMILIES.map(|family| (echo, family)));
        each.map(|(echo, family)| echo.answers(self.client, address(family, 0, 1))).collect()
    }

    fn assert_no_new_one(&self, when: &str) {
        let answers = self.new_ones();
        assert!(answers.iter().all(|answers| !answers), "{when}: something new is let in: {answers:?}");
    }
}

fn outlive(network: &Network, talks: &mut Talks<'_>) {
    let gate = Instance::new(&network.server, &["srv0"], &config("keep"));
    let mut daemon = gate.serve(&["--persist"]);
    talks.assert_no_new_one("before the grant");
    grant(&gate, "1m");
    talks.begin();
    talks.assert_live("under the grant");
    grant(&gate, "1s");
    wait_for_the_end(&mut daemon);
    talks.assert_live("after the grant");
    talks.assert_no_new_one("after the grant");

    thread::sleep(idle());
    talks.assert_live("after a rest");
    daemon.kill();
    talks.assert_live("after kill -9 of the daemon");
    let _daemon = gate.serve(&["--persist"]);
    talks.assert_live("with a new daemon");
    let _ = gate.run("reload", &[]).succeeded();
    talks.assert_live("after a reload");
    talks.assert_no_new_one("at the end");
}

fn are_cut(network: &Network, talks: &mut Talks<'_>) {
    let gate = Instance::new(&network.server, &["srv0"], &config("cut"));
    let mut daemon = gate.serve(&[]);
    grant(&gate, "1m");
    talks.begin();
    talks.assert_live("under the grant");
    grant(&gate, "1s");
    wait_for_the_end(&mut daemon);
    talks.assert_cut("after the grant");
    // TCP has been trying again at longer and longer intervals.
    grant(&gate, "1m");
    talks.assert_live("with another grant");
}

#[test]
fn datagrams_back_and_forth_go_on_after_the_grant_and_from_another_port_do_not() {
    let network = Network::new();
    let mut talks = Talks::new(&network, &network.server, &[(Proto::Udp, UDP)]);
    outlive(&network, &mut talks);
}

#[test]
fn datagrams_to_a_door_that_cuts_end_with_the_grant() {
    let network = Network::new();
    let mut talks = Talks::new(&network, &network.server, &[(Proto::Udp, UDP)]);
    are_cut(&network, &mut talks);
}

/// A host behind the box, to which the box hands its ports, as it does for a container.
fn behind(network: &Network) -> Namespace {
    let (server, lan) = (&network.server, Namespace::new("lan"));
    join((server, "lan0"), (&lan, "in0"), 1500);
    add_addresses(server, "lan0", LAN, 1);
    add_addresses(&lan, "in0", LAN, 2);
    server.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    server.run("nft add table inet nat");
    server.run("nft add chain inet nat pre { type nat hook prerouting priority dstnat ; }");
    for (family, word, option) in [(Family::V4, "ip", "-4"), (Family::V6, "ip6", "-6")] {
        lan.run(&format!("ip {option} route add default via {}", address(family, LAN, 1)));
        let to = address(family, LAN, 2);
        for service in [format!("tcp dport {TCP}"), format!("udp dport {UDP}")] {
            server.run(&format!("nft add rule inet nat pre iifname srv0 {service} dnat {word} to {to}"));
        }
    }
    lan
}

#[test]
fn a_host_behind_the_box_keeps_what_a_grant_let_in() {
    let network = Network::new();
    let lan = behind(&network);
    let mut talks = Talks::new(&network, &lan, &[(Proto::Tcp, TCP), (Proto::Udp, UDP)]);
    outlive(&network, &mut talks);
}

/// Its socket has another port than the client's packets, so that it is not found by them.
#[test]
fn a_service_behind_a_redirect_keeps_what_a_grant_let_in() {
    let network = Network::new();
    network.server.run("nft add table inet nat");
    network.server.run("nft add chain inet nat pre { type nat hook prerouting priority dstnat ; }");
    network.server.run(&format!("nft add rule inet nat pre tcp dport {TCP} redirect to :{BEHIND}"));
    let echo = Echo::start_dual(&network.server, Proto::Tcp, BEHIND).reached_at(TCP);
    outlive(&network, &mut Talks::with(&network, vec![echo]));
}

#[test]
fn a_host_behind_the_box_and_a_door_that_cuts() {
    let network = Network::new();
    let lan = behind(&network);
    let mut talks = Talks::new(&network, &lan, &[(Proto::Tcp, TCP), (Proto::Udp, UDP)]);
    are_cut(&network, &mut talks);
}

/// Both ends of a tunnel, and whether what is inside gets through.
struct Ends<'a> {
    network: &'a Network,
    keys: [Keys; 2],
    _server: Tunnel,
}

impl<'a> Ends<'a> {
    fn new(network: &'a Network) -> Self {
        let keys = [Keys::new(), Keys::new()];
        let server = Tunnel::start(&network.server, WIREGUARD, "10.78.0.1/24", &keys[0], &keys[1], None);
        Self { network, keys, _server: server }
    }

    fn client(&self, port: u16) -> Tunnel {
        let server = SocketAddr::new(address(Family::V4, 0, 1), WIREGUARD);
        let [server_keys, client_keys] = &self.keys;
        Tunnel::start(&self.network.client, port, "10.78.0.2/24", client_keys, server_keys, Some(server))
    }

    fn is_through(&self) -> bool {
        let mut ping = self.network.client.bounded("ping");
        // The first may be lost to the handshake that it begins.
        run(ping.args(["-nq", "-c3", "-i0.3", "-W1", "10.78.0.1"])).is_success()
    }

    fn assert_through(&self, when: &str) {
        program::poll(&format!("{when}, the tunnel to be through"), PATIENCE, || {
            self.is_through().then_some(())
        });
    }
}

#[test]
fn a_tunnel_goes_on_after_the_grant_and_another_does_not_begin() {
    let network = Network::new();
    let ends = Ends::new(&network);
    let tunnel = ends.client(40_001);
    ends.assert_through("without a gate");
    drop(tunnel);

    let gate = Instance::new(&network.server, &["srv0"], &config("keep"));
    let mut daemon = gate.serve(&["--persist"]);
    let refused = ends.client(40_002);
    assert!(!ends.is_through(), "before the grant");
    drop(refused);
    grant(&gate, "1m");
    let tunnel = ends.client(40_003);
    ends.assert_through("under the grant");
    grant(&gate, "1s");
    wait_for_the_end(&mut daemon);
    ends.assert_through("after the grant");
    thread::sleep(idle());
    ends.assert_through("after a rest");
    daemon.kill();
    let _daemon = gate.serve(&["--persist"]);
    ends.assert_through("with a new daemon");
    drop(tunnel);

    let _another = ends.client(40_004);
    assert!(!ends.is_through(), "another tunnel after the grant");
}
