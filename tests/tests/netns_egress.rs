//! The program that takes notes of what a host sends: in deny mode answers come by its notes alone. It is there before
//! anything is dropped and goes after it, and no reload leaves a gate without it.
//!
//! `KNOCK_RELOADS` says how many reloads questions are asked under (50).

use std::{env, fs, net::SocketAddr, thread, time::Duration};

use aya::programs::{LinkOrder, TcAttachType};
use knock_tests::{
    foreign::Foreign,
    hosts::{network, server, stranger},
    instance::Instance,
    netns::Network,
    outgoing::{carried, pinned},
    program::{self, poll, xdp_knock},
    questions::Questions,
    site::{AT_ONCE, Site, assert_none, attached, deny, deny_less, guard, guard_that_keeps, succeed},
    storm::{Service, Storm},
};
use nix::sys::signal::Signal;

/// Not public, with a service.
const SHUT: u16 = 7008;
const PATIENCE: Duration = Duration::from_secs(20);

/// Deletes the pair of link 0 and makes it anew, with its addresses.
fn make_anew(network: &Network) {
    network.server.run("ip link del srv0");
    network.add_link(0, 1500);
    network.add_host("cli0", 0, 3);
}

#[test]
fn it_outlives_the_daemon_and_goes_with_the_gate() {
    let network = network();
    let site = Site::new(&network);
    for config in [deny(), guard_that_keeps()] {
        let is_deny = config == deny();
        let gate = site.gate(&config);
        let assert_judges = |when: &str| {
            if is_deny {
                site.assert_denies(when);
            }
        };
        let daemon = gate.serve(&["--persist"]);
        let first = attached(&gate);
        assert_judges("behind the gate");

        daemon.kill();
        assert_eq!(attached(&gate), first, "after kill -9");
        assert_judges("after kill -9");

        let next = gate.serve(&["--persist"]);
        let second = attached(&gate);
        assert_eq!(second.link, first.link, "the next daemon takes it over");
        assert_ne!(second.program, first.program);
        assert_judges("with the next daemon");
        drop(next);

        succeed(gate.run("detach", &[]));
        gate.assert_nothing("after a detach");
        assert_none(&gate, "after a detach");
        site.assert_open("after a detach");
    }
    let gate = site.gate(&deny());
    let mut daemon = gate.serve(&[]);
    site.assert_denies("behind the gate");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success(), "{}", daemon.said());
    gate.assert_nothing("after a clean stop");
    assert_none(&gate, "after a clean stop");
}

/// Runs a verb under strace; returns the calls that say what is attached, in order, each by a word of its own.
fn steps(gate: &Instance<'_>, verb: &str) -> Vec<&'static str> {
    let folder = tempfile::tempdir().expect("a folder for the trace");
    let trace = folder.path().join("trace");
    let mut command = gate.namespace.bounded("strace");
    command.args(["-f", "-e", "trace=bpf,unlink", "-o"]).arg(&trace).arg(xdp_knock());
    succeed(program::run(command.args(gate.words(verb, &[]))));
    let text = fs::read_to_string(&trace).expect("strace writes it");
    text.lines().filter_map(step).collect()
}

fn step(line: &str) -> Option<&'static str> {
    // BPF_TCX_EGRESS, by its number where strace does not know it (`uapi/linux/bpf.h`).
    let is_egress = line.contains("BPF_TCX_EGRESS") || line.contains("attach_type=0x2f");
    let is_pinned = |folder: &str| line.contains(&format!("/{folder}/srv0\""));
    if line.contains("BPF_LINK_CREATE") && is_egress {
        Some("attach egress")
    } else if line.contains("BPF_LINK_CREATE") && line.contains("BPF_XDP") {
        Some("attach judge")
    } else if line.contains("BPF_LINK_UPDATE") {
        Some("swap")
    } else if line.contains("BPF_OBJ_PIN") && is_pinned("egress") {
        Some("pin egress")
    } else if line.contains("BPF_OBJ_PIN") && is_pinned("links") {
        Some("pin judge")
    } else if line.contains("unlink(") && is_pinned("egress") {
        Some("remove egress")
    } else if line.contains("unlink(") && is_pinned("links") {
        Some("remove judge")
    } else {
        None
    }
}

#[test]
fn it_is_pinned_before_the_gate_denies_and_goes_after_it() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &deny());

    assert_eq!(steps(&gate, "attach"), ["attach egress", "pin egress", "attach judge", "pin judge"]);
    assert_eq!(steps(&gate, "reload"), ["swap", "swap"], "one atomic update of each");
    gate.configure(guard().as_bytes());
    assert_eq!(steps(&gate, "reload"), ["swap", "remove egress"]);
    gate.configure(deny().as_bytes());
    assert_eq!(steps(&gate, "reload"), ["attach egress", "pin egress", "swap"]);
    assert_eq!(steps(&gate, "detach"), ["remove judge", "remove egress"]);
}

#[test]
fn reloads_under_traffic_lose_no_answer_and_let_no_stranger_in() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let mut daemon = gate.serve(&["--persist"]);
    let mut before = attached(&gate);
    let questions = Questions::start(&network.server, server(), &site.answerer, 400);
    let service = Service::start(&network.server, SHUT);
    let to = SocketAddr::new(server(), SHUT);
    let storm = Storm::start(&network.client, SocketAddr::new(stranger(), 0), to, 5000);

    let count = env::var("KNOCK_RELOADS").map_or(50, |text| text.parse().expect("KNOCK_RELOADS is a number"));
    for round in 1..=count {
        gate.configure((if round % 2 == 0 { deny() } else { deny_less() }).as_bytes());
        if round % 5 == 0 {
            daemon.signal(Signal::SIGHUP);
        } else {
            succeed(gate.run("reload", &[]));
        }
        daemon.event("reloaded", |_| true);
        let now = attached(&gate);
        assert_eq!(now.link, before.link, "round {round}: it is another link");
        assert_ne!(now.program, before.program, "round {round}: it is the program of before");
        before = now;
        let _ = daemon.take_events();
    }

    let (asked, lost) = questions.stop();
    let (probes, _) = storm.stop();
    let leaked = service.probes();
    println!(
        "{count} reloads: {asked} questions, {lost} without an answer; {probes} probes of a stranger, {leaked} delivered"
    );
    assert_eq!((lost, leaked), (0, 0));
    assert!(asked > 0 && probes > 0);
    site.assert_denies("at the end");
    // The twin: without the gate the same service hears the same stranger.
    succeed(gate.run("detach", &[]));
    let storm = Storm::start(&network.client, SocketAddr::new(stranger(), 0), to, 1000);
    poll("a probe to come", PATIENCE, || (service.probes() > 0).then_some(()));
    let _ = storm.stop();
    service.stop();
}

/// The twin of the one above: what loses answers.
#[test]
fn without_it_every_answer_is_lost() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    succeed(gate.run("attach", &[]));
    fs::remove_file(gate.pins().egress("srv0")).expect("its pin");
    poll("the program to go with its pin", PATIENCE, || {
        carried(&network.server, "srv0").is_empty().then_some(())
    });

    let questions = Questions::start(&network.server, server(), &site.answerer, 100);
    thread::sleep(Duration::from_millis(500));
    let (asked, lost) = questions.stop();

    assert!(asked > 0 && lost == asked, "{asked} asked, {lost} lost");
}

#[test]
fn it_comes_and_goes_with_the_mode_that_needs_it() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&guard());
    let daemon = gate.serve(&["--persist"]);
    let reload = |config: String| {
        gate.configure(config.as_bytes());
        succeed(gate.run("reload", &[]));
    };
    assert_none(&gate, "nothing outlives its grant");
    for round in 0..3 {
        reload(deny());
        let denying = attached(&gate);
        site.assert_denies("in deny mode");
        reload(guard_that_keeps());
        assert_eq!(attached(&gate).link, denying.link, "round {round}: it is needed all the same");
        site.assert_open("in guard mode");
        reload(deny());
        assert_eq!(attached(&gate).link, denying.link, "round {round}");
        site.assert_denies("in deny mode again");
        reload(guard());
        assert_none(&gate, "in guard mode again");
        site.assert_open("in guard mode again");
    }
    reload(deny());
    reload(guard().replace("\"guard\"", "\"observe\""));
    assert_none(&gate, "in observe mode");
    site.assert_open("in observe mode");
    drop(daemon);
}

#[test]
fn programs_of_others_stay_beside_it_and_it_goes_in_front() {
    let network = network();
    let site = Site::new(&network);
    let host = &network.server;
    let one = Foreign::tcx(host, "srv0", TcAttachType::Egress, LinkOrder::last());
    let gate = site.gate(&deny());
    let daemon = gate.serve(&["--persist"]);
    let other = Foreign::tcx(host, "srv0", TcAttachType::Egress, LinkOrder::last());
    let assert_beside = |when: &str| {
        let ours = pinned(&gate, "srv0").expect("a program for outgoing packets").program;
        assert_eq!(carried(host, "srv0"), [ours, one.program, other.program], "{when}");
        site.assert_denies(when);
    };
    assert_beside("behind the gate");
    succeed(gate.run("reload", &[]));
    assert_beside("after a reload");
    daemon.kill();
    drop(gate.serve(&["--persist"]));
    assert_beside("with the next daemon");

    succeed(gate.run("detach", &[]));
    assert_eq!(carried(host, "srv0"), [one.program, other.program], "after a detach");
    site.assert_open("after a detach");
}

#[test]
fn an_interface_that_is_made_anew_has_both_again() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let mut daemon = gate.serve(&["--persist"]);
    let mut before = attached(&gate);
    for round in 0..10 {
        network.server.run("ip link del srv0");
        daemon.event("detached", |event| event["iface"] == "srv0");
        network.add_link(0, 1500);
        daemon.event("attached", |event| event["iface"] == "srv0");
        network.add_host("cli0", 0, 3);
        let now = attached(&gate);
        assert_ne!(now.link, before.link, "round {round}");
        before = now;
        site.assert_denies("on an interface that was made anew");
    }
    daemon.kill();
    make_anew(&network);
    site.assert_open("nobody is there to put the gate on");
    let status = gate.run("status", &[]);
    assert_eq!(status.status, Some(3), "{status}");

    succeed(gate.run("reload", &[]));

    let _ = attached(&gate);
    site.assert_denies("after a reload");
    assert_eq!(gate.run("status", &[]).status, Some(0));
}

#[test]
fn deny_mode_without_it_is_a_problem_that_a_reload_mends() {
    let network = network();
    let site = Site::new(&network);
    for with_daemon in [false, true] {
        let gate = site.gate(&deny());
        let daemon = with_daemon.then(|| gate.serve(&["--persist"]));
        if !with_daemon {
            succeed(gate.run("attach", &[]));
        }
        assert_eq!(gate.run("status", &[]).status, Some(0));
        let report = gate.run("status", &["--json"]).stdout;
        assert!(report.contains(&format!("\"egress\":{}", attached(&gate).program)), "{report}");

        fs::remove_file(gate.pins().egress("srv0")).expect("its pin");
        poll("answers to stay away", PATIENCE, || (!site.is_answered(AT_ONCE)).then_some(()));
        let status = gate.run("status", &[]);
        assert_eq!(status.status, Some(3), "{status}");
        for word in ["srv0", "outgoing", "xdp-knock reload"] {
            assert!(status.stdout.contains(word), "nothing about `{word}`: {status}");
        }

        succeed(gate.run("reload", &[]));
        assert_eq!(gate.run("status", &[]).status, Some(0));
        site.assert_denies("after a reload");
        drop(daemon);
        succeed(gate.run("detach", &[]));
    }
}
