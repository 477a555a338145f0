//! Interfaces whose packets have no Ethernet header: the gate on the inner device of a WireGuard tunnel in user space, which
//! is a tun device. It judges there by TCX, told to or not.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aya::programs::TcAttachType;
use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Namespace, Network, address},
    outgoing::{carried, carried_at, outgoing},
    program::{poll, run},
    questions::Answerer,
    reach::{OPEN, Reach},
    scene::denying,
    service::{Echo, Proto},
    site::succeed,
    wireguard::{Keys, Tunnel},
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const HIDDEN: u16 = 7000;
const SERVICE: u16 = 8080;
const STEPS: [u16; 2] = [6101, 5017];
const PATIENCE: Duration = Duration::from_secs(20);
/// Time enough for an answer, where one comes.
const IN_TIME: Duration = Duration::from_secs(10);

/// Returns an address in the tunnel: host 1 is the server, 2 and 3 are the client.
fn inside(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 78, 0, host]),
        Family::V6 => IpAddr::from([0xfd78, 0, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

/// A tunnel between a server and a client.
struct Ends {
    server: Tunnel,
    _client: Tunnel,
    network: Network,
}

impl Ends {
    fn new() -> Self {
        let network = Network::new();
        let keys = [Keys::new(), Keys::new()];
        let at = SocketAddr::new(address(Family::V4, 0, 1), 51_820);
        let server = Tunnel::start(&network.server, 51_820, "10.78.0.1/24", &keys[0], &keys[1], None);
        let client = Tunnel::start(&network.client, 40_001, "10.78.0.2/24", &keys[1], &keys[0], Some(at));
        network.client.run(&format!("ip address add 10.78.0.3/24 dev {}", client.device));
        for (namespace, tunnel, hosts) in
            [(&network.server, &server, 1..=1), (&network.client, &client, 2..=3)]
        {
            for host in hosts {
                namespace.run(&format!("ip address add fd78::{host}/64 dev {} nodad", tunnel.device));
            }
        }
        let ends = Self { server, _client: client, network };
        // The first is lost to the handshake that it begins; the server learns where the client is by it.
        let mut ping = ends.network.client.bounded("ping");
        let _ = run(ping.args(["-nq", "-c3", "-i0.3", "-W1", "10.78.0.1"]));
        poll("the tunnel to be through", Duration::from_secs(20), || {
            FAMILIES.into_iter().all(|family| ends.pings(family)).then_some(())
        });
        ends
    }

    fn host(&self) -> &Namespace {
        &self.network.server
    }

    fn gate(&self, config: &str) -> Instance<'_> {
        Instance::new(self.host(), &[&self.server.device], config)
    }

    /// Returns whether the server's pings are answered.
    fn pings(&self, family: Family) -> bool {
        let to = inside(family, 2).to_string();
        run(self.host().bounded("ping").args(["-nq", "-c3", "-i0.3", "-W2", &to])).is_success()
    }

    fn assert_gone(&self, gate: &Instance<'_>) {
        let device = &self.server.device;
        assert!(!gate.pins().path().exists(), "pins are left");
        assert_eq!(carried_at(self.host(), device, TcAttachType::Ingress), [0_u32; 0]);
        assert_eq!(carried(self.host(), device), [0_u32; 0]);
    }
}

fn hiding(more: &str) -> String {
    let opens = [format!("udp/{HIDDEN}"), format!("tcp/{SERVICE}")];
    guard(&[door("main", &opens.each_ref().map(String::as_str), &["udp/6101", "udp/5017"], more)])
}

#[test]
fn in_guard_mode_a_knock_in_the_tunnel_opens_and_xdp_is_refused() {
    let ends = Ends::new();
    let reach = Reach::new(&ends.network, inside(Family::V4, 1), &[HIDDEN]);
    let (friend, stranger) = (inside(Family::V4, 2), inside(Family::V4, 3));
    for attach in ["auto", "tcx"] {
        assert!(reach.is_open(stranger, HIDDEN), "without a gate");
        let gate = ends.gate(&hiding("open_for = \"1h\""));
        for refused in ["native", "generic"].map(|way| gate.run("attach", &["--attach", way])) {
            let is_told =
                ["no Ethernet header", "--attach tcx"].iter().all(|word| refused.stderr.contains(word));
            assert!(!refused.is_success() && is_told, "{refused}");
        }
        ends.assert_gone(&gate);
        let daemon = gate.serve(&["--attach", attach, "--persist"]);
        assert!(!reach.is_open(stranger, HIDDEN), "{attach}: a stranger is let in");
        reach.knock(friend, &STEPS);
        reach.until_open(friend, HIDDEN);
        assert!(!reach.is_open(stranger, HIDDEN), "{attach}: a stranger is let in beside the friend");
        daemon.kill();
        let status = gate.run("status", &[]);
        assert!(status.status == Some(0) && status.stdout.contains(" tcx"), "{status}");
        succeed(gate.run("reload", &[]));
        assert!(reach.is_open(friend, HIDDEN), "{attach}: the grant is lost");
        assert!(!reach.is_open(stranger, HIDDEN), "{attach}: a stranger is let in after a reload");
        succeed(gate.run("detach", &[]));
        ends.assert_gone(&gate);
    }
}

#[test]
fn a_session_in_the_tunnel_goes_on_after_its_grant() {
    let ends = Ends::new();
    let echo = Echo::start_dual(ends.host(), Proto::Tcp, SERVICE);
    let gate = ends.gate(&hiding("open_for = \"2s\""));
    let mut daemon = gate.serve(&["--persist"]);
    for family in FAMILIES {
        let host = inside(family, 1);
        assert!(!echo.answers(&ends.network.client, host), "{family:?}: before the grant");
        // The source that the client's stack takes.
        let grant = |time| {
            for client in [2, 3].map(|host| inside(family, host).to_string()) {
                succeed(gate.run("grant", &[&client, "main", "--for", time]));
            }
        };
        grant("1m");
        let mut session = echo.session(&ends.network.client, host, None);
        session.assert_lives("under the grant");
        grant("1s");
        for _ in 0..2 {
            daemon.event("expired", |event| event["door"] == "main");
        }
        session.assert_lives("after the grant");
        assert!(!echo.answers(&ends.network.client, host), "{family:?}: a new one is let in");
    }
    succeed(gate.run("detach", &[]));
}

#[test]
fn in_deny_mode_answers_come_through_the_tunnel_and_strangers_do_not() {
    let ends = Ends::new();
    let answerers = FAMILIES
        .map(|family| Answerer::start(&ends.network.client, SocketAddr::new(inside(family, 2), 5300)));
    let echo = Echo::start_dual(ends.host(), Proto::Tcp, SERVICE);
    let far = Echo::start_dual(&ends.network.client, Proto::Tcp, SERVICE);
    let reach = Reach::new(&ends.network, inside(Family::V4, 1), &[HIDDEN]);
    let assert_asks = |when: &str| {
        for (answerer, family) in answerers.iter().zip(FAMILIES) {
            assert!(answerer.answers(ends.host(), inside(family, 1), IN_TIME), "{when}, {family:?}: UDP");
            assert!(far.answers(ends.host(), inside(family, 2)), "{when}, {family:?}: TCP");
            assert!(ends.pings(family), "{when}, {family:?}: ping");
        }
    };
    let is_reached = || FAMILIES.map(|family| echo.answers(&ends.network.client, inside(family, 1)));
    assert_asks("without a gate");
    assert_eq!((is_reached(), reach.is_open(inside(Family::V4, 3), HIDDEN)), ([true; 2], true));

    let gate = ends.gate(&denying(&format!("public = [\"udp/{OPEN}\"]"), &["tcp/22"]));
    let daemon = gate.serve(&["--persist"]);
    for when in ["behind the gate", "after a reload"] {
        assert_asks(when);
        assert_eq!(
            (is_reached(), reach.is_open(inside(Family::V4, 3), HIDDEN)),
            ([false; 2], false),
            "{when}"
        );
        assert!(outgoing(&gate, &ends.server.device).is_some(), "{when}: nothing is noted");
        succeed(gate.run("reload", &[]));
    }
    daemon.kill();
    assert_asks("after kill -9");
    succeed(gate.run("detach", &[]));
    poll("strangers to come in without a gate", PATIENCE, || (is_reached() == [true; 2]).then_some(()));
}
