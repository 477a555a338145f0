//! `--attach tcx`: the same decisions in the network stack, beside an XDP program of somebody else's. What judges there has
//! pins, generations and an end like a gate at XDP.

use std::time::Duration;

use aya::programs::{LinkOrder, TcAttachType};
use knock_tests::{
    foreign::Foreign,
    hosts::{friend, network, server, stranger},
    instance::{Instance, door, guard},
    netns::{Family, Namespace, Network, address},
    outgoing::{carried, carried_at, outgoing},
    packet::{SERVICE_VLAN, UDP, V4, VLAN, tagged, udp},
    process::Process,
    program::poll,
    raw::{Raw, link_address, seal},
    reach::{OPEN, Reach},
    service::{Echo, Proto},
    site::{Site, deny, deny_less, succeed},
};
use knock_user::{
    rollback::{self, Standing},
    survey,
};
use serde_json::Value;

const HIDDEN: u16 = 7000;
const SERVICE: u16 = 8080;
const STEPS: [u16; 2] = [6101, 5017];
const TCX: [&str; 3] = ["--attach", "tcx", "--persist"];
const PATIENCE: Duration = Duration::from_secs(20);

fn hiding(more: &str) -> String {
    let opens = [format!("udp/{HIDDEN}"), format!("tcp/{SERVICE}")];
    guard(&[door("main", &opens.each_ref().map(String::as_str), &["udp/6101", "udp/5017"], more)])
}

fn judging(host: &Namespace) -> Vec<u32> {
    carried_at(host, "srv0", TcAttachType::Ingress)
}

fn status(gate: &Instance<'_>) -> Value {
    let status = gate.run("status", &["--json"]);
    serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status}"))
}

/// The gate on `srv0` is said to be there, by TCX.
fn assert_protected(gate: &Instance<'_>, mode: &str) {
    let told = status(gate);
    let one = &told["interfaces"][0];
    assert_eq!(told["protected"], true, "{told}");
    assert_eq!(
        (&one["state"], &one["attach"], &one["mode"]),
        (&"attached".into(), &"tcx".into(), &mode.into())
    );
    assert_eq!(judging(gate.namespace).first().map(|id| Value::from(*id)).as_ref(), Some(&one["program"]));
}

/// Panics if anything of the gate is left.
fn assert_gone(gate: &Instance<'_>, when: &str) {
    assert!(!gate.pins().path().exists(), "{when}: pins are left");
    assert_eq!((judging(gate.namespace), carried(gate.namespace, "srv0")), (vec![], vec![]), "{when}");
}

#[test]
fn an_xdp_program_of_somebody_else_stays_and_the_gate_judges_behind_it() {
    let network = network();
    let other = Foreign::xdp(&network.server, "srv0");
    let reach = Reach::new(&network, server(), &[HIDDEN]);
    let gate = Instance::new(&network.server, &["srv0"], &hiding("open_for = \"1h\""));
    assert!(reach.is_open(stranger(), HIDDEN), "without a gate");
    let refused = gate.run("attach", &[]);
    assert!(!refused.is_success() && refused.stderr.contains("--attach tcx"), "{refused}");

    let daemon = gate.serve(&TCX);
    let assert_judges = |when: &str| {
        assert_protected(&gate, "guard");
        assert_eq!(gate.carried("srv0"), Some(other.program), "{when}: the other program is gone");
        assert!(!reach.is_open(stranger(), HIDDEN), "{when}: a stranger is let in");
    };
    assert_judges("behind the gate");
    reach.knock(friend(), &STEPS);
    reach.until_open(friend(), HIDDEN);
    let listed = gate.run("list", &[]).succeeded();
    assert!(listed.contains(&friend().to_string()) && listed.contains("main"), "{listed}");
    daemon.kill();
    assert_judges("after kill -9");
    let before = judging(&network.server);
    drop(gate.serve(&TCX));
    assert_ne!(judging(&network.server), before, "the next daemon brings its own program");
    succeed(gate.run("reload", &[]));
    assert_judges("after a reload");
    assert!(reach.is_open(friend(), HIDDEN), "the grant is lost");

    succeed(gate.run("detach", &[]));
    assert_gone(&gate, "after a detach");
    assert_eq!(gate.carried("srv0"), Some(other.program), "after a detach");
    assert!(reach.is_open(stranger(), HIDDEN), "after a detach");
}

#[test]
fn in_deny_mode_answers_come_and_strangers_do_not() {
    let network = network();
    let other = Foreign::xdp(&network.server, "srv0");
    let beside = Foreign::tcx(&network.server, "srv0", TcAttachType::Ingress, LinkOrder::last());
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let daemon = gate.serve(&TCX);
    let assert_denies = |when: &str| {
        site.assert_denies(when);
        assert_protected(&gate, "deny");
        assert!(outgoing(&gate, "srv0").is_some(), "{when}: no program for outgoing packets");
        assert_eq!(judging(&network.server)[1..], [beside.program], "{when}: ours is in front of the other");
    };
    assert_denies("behind the gate");
    gate.configure(deny_less().as_bytes());
    succeed(gate.run("reload", &[]));
    assert_denies("after a reload");
    daemon.kill();
    assert_denies("after kill -9");

    succeed(gate.run("detach", &[]));
    assert_eq!(judging(&network.server), [beside.program], "after a detach");
    assert_eq!(gate.carried("srv0"), Some(other.program), "after a detach");
    site.assert_open("after a detach");
}

#[test]
fn a_session_goes_on_after_its_grant_and_a_door_that_cuts_ends_it() {
    let network = network();
    let echo = Echo::start_dual(&network.server, Proto::Tcp, SERVICE);
    for (sessions, family) in
        ["keep", "cut"].into_iter().flat_map(|word| [Family::V4, Family::V6].map(|family| (word, family)))
    {
        let (host, client) = (address(family, 0, 1), address(family, 0, 2));
        assert!(echo.answers(&network.client, host), "without a gate");
        let gate = Instance::new(
            &network.server,
            &["srv0"],
            &hiding(&format!("open_for = \"2s\"\nsessions = \"{sessions}\"")),
        );
        let mut daemon = gate.serve(&TCX);
        assert!(!echo.answers(&network.client, host), "{sessions}: before the grant");
        let grant = |time| succeed(gate.run("grant", &[&client.to_string(), "main", "--for", time]));
        grant("1m");
        let mut session = echo.session(&network.client, host, None);
        session.assert_lives("under the grant");
        grant("1s");
        daemon.event("expired", |event| event["door"] == "main");
        if sessions == "keep" {
            session.assert_lives("after the grant");
            succeed(gate.run("reload", &[]));
            session.assert_lives("after a reload");
        } else {
            session.assert_cut("after the grant");
        }
        assert!(!echo.answers(&network.client, host), "{sessions}: a new one is let in");
        drop(daemon);
        succeed(gate.run("detach", &[]));
    }
}

/// A tag of VLAN 0 says no more than a priority, and the host's stack takes the frame for its own (IEEE 802.1Q, 6.9).
/// The kernel takes the outer tag off before TCX.
#[test]
fn frames_with_tags_are_judged_like_those_without() {
    let network = network();
    let (hidden, open) = (Inbox::new(&network, HIDDEN), Inbox::new(&network, OPEN));
    let links = [link_address(&network.server, "srv0"), link_address(&network.client, "cli0")].concat();
    let raw = Raw::new(&network.client, "cli0");
    let send = |tags: &[u16], port: u16| {
        let packet = V4 { source: [10, 77, 0, 3], destination: [10, 77, 0, 1], ..V4::new(UDP) };
        let mut frame = tagged(tags, 0x0800, &packet.packet(&udp(port, 4)));
        frame[..12].copy_from_slice(&links);
        (0..tags.len()).for_each(|tag| frame[14 + 4 * tag..16 + 4 * tag].fill(0));
        raw.send(&seal(frame));
    };
    let kinds: [&[u16]; 4] = [&[], &[VLAN], &[VLAN, VLAN], &[SERVICE_VLAN, VLAN]];
    let gate = Instance::new(&network.server, &["srv0"], &hiding("open_for = \"1h\""));
    let mut taken = Vec::new();
    for tags in kinds {
        send(tags, HIDDEN);
        send(tags, OPEN);
        open.await_one(&format!("{tags:x?}, without a gate"));
        taken.push(hidden.take());
    }
    assert_eq!(taken, [1; 4], "the stack takes all of them where there is no gate");

    succeed(gate.run("attach", &TCX[..2]));
    for tags in kinds {
        send(tags, HIDDEN);
        send(tags, OPEN);
        open.await_one(&format!("{tags:x?}, to an open port"));
        assert_eq!(hidden.take(), 0, "{tags:x?}");
    }
    succeed(gate.run("grant", &["10.77.0.3", "main"]));
    for tags in kinds {
        send(tags, HIDDEN);
        hidden.await_one(&format!("{tags:x?}, with a grant"));
    }
    succeed(gate.run("detach", &[]));
}

/// A UDP service that counts.
struct Inbox(std::net::UdpSocket);

impl Inbox {
    fn new(network: &Network, port: u16) -> Self {
        let socket = network.server.within(|| std::net::UdpSocket::bind(("0.0.0.0", port)));
        let socket = socket.expect("a free port");
        socket.set_nonblocking(true).expect("a socket of our own");
        Self(socket)
    }

    fn take(&self) -> usize {
        std::iter::from_fn(|| self.0.recv(&mut [0; 64]).ok()).count()
    }

    fn await_one(&self, what: &str) {
        poll(what, PATIENCE, || (self.take() > 0).then_some(()));
    }
}

#[test]
fn what_only_xdp_can_do_is_refused_in_words_and_changes_nothing() {
    let network = network();
    let reach = Reach::new(&network, server(), &[HIDDEN]);
    let closed = hiding("open_for = \"1h\"").replace("[xdp]", "[xdp]\nhide_as = \"closed\"");
    let gate = Instance::new(&network.server, &["srv0"], &closed);
    let assert_refused = |verb: &str, args: &[&str]| {
        let refused = gate.run(verb, args);
        assert!(!refused.is_success(), "{refused}");
        for word in ["srv0", "hide_as", "closed", "TCX", "filtered"] {
            assert!(refused.stderr.contains(word), "nothing about `{word}`: {refused}");
        }
    };
    assert_refused("attach", &TCX[..2]);
    assert_gone(&gate, "refused at the start");

    gate.configure(hiding("open_for = \"1h\"").as_bytes());
    let daemon = gate.serve(&TCX);
    let before = judging(&network.server);
    gate.configure(closed.as_bytes());
    assert_refused("reload", &[]);
    daemon.kill();
    assert_refused("reload", &[]);
    assert_eq!(judging(&network.server), before, "another program judges after a reload that was refused");
    assert_protected(&gate, "guard");
    assert!(!reach.is_open(stranger(), HIDDEN), "after a reload that was refused");
    succeed(gate.run("detach", &[]));

    // The twin: XDP answers.
    succeed(gate.run("attach", &[]));
    succeed(gate.run("detach", &[]));
}

#[test]
fn an_interface_that_is_made_anew_has_it_again_by_tcx() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let mut daemon = gate.serve(&TCX);
    network.server.run("ip link del srv0");
    daemon.event("detached", |event| event["iface"] == "srv0");
    network.add_link(0, 1500);
    let attached = daemon.event("attached", |event| event["iface"] == "srv0");
    assert_eq!(attached["attach"], "tcx");
    network.add_host("cli0", 0, 3);
    site.assert_denies("on an interface that was made anew");
    assert_protected(&gate, "deny");

    daemon.kill();
    network.server.run("ip link del srv0");
    network.add_link(0, 1500);
    network.add_host("cli0", 0, 3);
    let status = gate.run("status", &[]);
    assert!(status.status == Some(3) && status.stdout.contains("srv0 was deleted"), "{status}");
    succeed(gate.run("reload", &[]));
    site.assert_denies("after a reload");
    assert_protected(&gate, "deny");
    succeed(gate.run("detach", &[]));
    assert_gone(&gate, "after a detach");
}

/// Serves on, or is killed.
fn leave(daemon: Process, is_killed: bool) -> Option<Process> {
    if is_killed {
        daemon.kill();
        return None;
    }
    Some(daemon)
}

#[test]
fn what_is_not_confirmed_gives_way_to_what_judged_before() {
    let network = network();
    let site = Site::new(&network);
    for is_killed in [true, false] {
        let gate = site.gate(&hiding("open_for = \"1h\""));
        let daemon = gate.serve(&TCX);
        gate.configure(deny().as_bytes());
        succeed(gate.run("reload", &["--confirm", "8s"]));
        site.assert_denies("before its time is over");
        assert_protected(&gate, "deny");
        let daemon = leave(daemon, is_killed);
        poll("the gate before to judge again", PATIENCE, || {
            let link = survey::link(&gate.pins(), "srv0".to_owned()).ok()?;
            let standing = rollback::standing(&link).ok()?;
            let is_back = match standing {
                Standing::WentBack(_) => is_killed,
                Standing::Settled => !is_killed,
                Standing::Awaited(_) => false,
            };
            is_back.then_some(())
        });
        site.assert_open("what is hidden before is another port");
        drop(daemon);
        succeed(gate.run("detach", &[]));
        assert_gone(&gate, "after a detach");
    }
}
