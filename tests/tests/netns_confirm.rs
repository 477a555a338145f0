//! A gate that is brought in with `--confirm`: unless somebody confirms it, what was before judges again, by the kernel's
//! own clock, whether or not a process lives that could see to it.

use std::time::Duration;

use knock_tests::{
    hosts::{friend, network, server, stranger},
    instance::{Instance, door, guard},
    netns::Network,
    process::Process,
    program::{Finished, poll},
    reach::Reach,
};
use knock_user::{
    clock,
    rollback::{self, Standing},
    survey,
};
use nix::sys::signal::Signal;

/// Hidden before.
const OLD: u16 = 7000;
/// Hidden by the gate that is to be confirmed.
const NEW: u16 = 7001;
const TIME: [&str; 2] = ["--confirm", "3s"];
/// Time enough for all that a test does before it confirms.
const LONG: [&str; 2] = ["--confirm", "10m"];
const PATIENCE: Duration = Duration::from_secs(15);

fn old() -> String {
    guard(&[door("old", &["udp/7000"], &["udp/6101", "udp/5017"], "open_for = \"1h\"")])
}

fn new() -> String {
    guard(&[door("new", &["udp/7001"], &["udp/6303", "udp/5204"], "open_for = \"1h\"")])
}

fn standing(gate: &Instance<'_>) -> Vec<Standing> {
    let links = survey::links(&gate.pins()).unwrap_or_else(|error| panic!("{error:#}"));
    links.iter().map(|link| rollback::standing(link).expect("a readable word")).collect()
}

fn assert_awaited(gate: &Instance<'_>) {
    assert!(matches!(standing(gate)[..], [Standing::Awaited(_)]), "{:?}", standing(gate));
}

/// Waits until the kernel's clock is past the time to confirm by.
fn until_overdue(gate: &Instance<'_>) {
    poll("the time to confirm to run out", PATIENCE, || {
        matches!(standing(gate)[..], [Standing::WentBack(_)]).then_some(())
    });
}

fn assert_says(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status, Some(status), "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "nothing about `{word}`: {finished}");
    }
}

fn succeed(finished: Finished) {
    let _ = finished.succeeded();
}

/// The new gate judges and the old one does not.
fn assert_new(reach: &Reach<'_>) {
    assert!(!reach.is_open(stranger(), NEW), "the new gate does not hide its port");
    assert!(reach.is_open(stranger(), OLD), "the old gate still hides its port");
}

/// The old gate judges and the new one does not.
fn assert_old(reach: &Reach<'_>) {
    assert!(!reach.is_open(stranger(), OLD), "the old gate does not hide its port");
    assert!(reach.is_open(stranger(), NEW), "the new gate still hides its port");
}

/// An old gate with a friend who may pass it, under whatever serves it.
fn old_gate<'a>(network: &'a Network, reach: &Reach<'_>) -> Instance<'a> {
    let gate = Instance::new(&network.server, &["srv0"], &old());
    succeed(gate.run("attach", &[]));
    assert_old(reach);
    reach.knock(friend(), &[6101, 5017]);
    reach.until_open(friend(), OLD);
    gate.configure(new().as_bytes());
    gate
}

fn end_well(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let ended = process.wait();
    assert!(ended.success(), "{ended}\n{}", process.said());
}

#[test]
fn a_first_gate_that_nobody_confirms_ends_by_itself() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &new());
    let reach = Reach::new(&network, server(), &[OLD, NEW]);

    let mut daemon = gate.serve(&TIME);
    assert_new(&reach);
    reach.until_open(stranger(), NEW);

    let ended = daemon.wait();
    assert_eq!(ended.code(), Some(1), "{}", daemon.said());
    assert!(daemon.errors().contains("not confirmed"), "{}", daemon.said());
    gate.assert_nothing("after a run that nobody confirmed");
}

#[test]
fn a_first_gate_whose_process_is_killed_lets_everything_pass_when_its_time_is_over() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &new());
    let reach = Reach::new(&network, server(), &[OLD, NEW]);

    gate.serve(&TIME).kill();
    assert_awaited(&gate);
    assert_new(&reach);
    reach.until_open(stranger(), NEW);

    assert!(matches!(standing(&gate)[..], [Standing::WentBack(_)]), "opened before its time");
    succeed(gate.run("attach", &[]));
    assert_new(&reach);
    assert_eq!(standing(&gate), [Standing::Settled], "the next start takes its place");
}

#[test]
fn attach_goes_back_without_any_process() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &new());
    let reach = Reach::new(&network, server(), &[OLD, NEW]);

    succeed(gate.run("attach", &TIME));
    assert_awaited(&gate);
    assert_new(&reach);

    reach.until_open(stranger(), NEW);
    assert!(matches!(standing(&gate)[..], [Standing::WentBack(_)]), "opened before its time");
    succeed(gate.run("detach", &[]));
    gate.assert_nothing("after a detach");
}

#[test]
fn over_another_gate_each_way_goes_back_to_it_with_its_grants() {
    for way in ["attach", "reload", "reload by a daemon", "run"] {
        let network = network();
        let reach = Reach::new(&network, server(), &[OLD, NEW]);
        let gate = old_gate(&network, &reach);
        let was = gate.one_in_force();
        let daemon = match way {
            "run" => Some(gate.serve(&["--persist", "--confirm", "3s"])),
            "reload by a daemon" => {
                gate.configure(old().as_bytes());
                let daemon = gate.serve(&["--persist"]);
                gate.configure(new().as_bytes());
                succeed(gate.run("reload", &TIME));
                Some(daemon)
            }
            verb => {
                succeed(gate.run(verb, &TIME));
                None
            }
        };
        assert_awaited(&gate);
        assert_new(&reach);

        reach.until_shut(stranger(), OLD);

        assert_old(&reach);
        assert!(reach.is_open(friend(), OLD), "{way}: the grant was lost");
        match daemon {
            None => {
                // The next change finds the old gate in its place again.
                gate.configure(old().as_bytes());
                succeed(gate.run("reload", &[]));
            }
            Some(mut daemon) if way == "run" => {
                assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.said());
            }
            Some(mut daemon) => {
                daemon.event("reloaded", |event| event["detail"].to_string().contains("in force again"));
                assert_eq!(gate.one_in_force().doors, ["old"]);
                end_well(daemon);
            }
        }
        let now = gate.one_in_force();
        assert_eq!(now.doors, was.doors, "{way}");
        assert_eq!(standing(&gate), [Standing::Settled], "{way}");
        assert!(!gate.pins().previous().exists(), "{way}: the way back is still pinned");
        assert_old(&reach);
        assert!(reach.is_open(friend(), OLD), "{way}: the grant was lost afterwards");
    }
}

#[test]
fn a_killed_daemon_s_reload_goes_back_and_the_next_daemon_takes_the_old_gate_over() {
    let network = network();
    let reach = Reach::new(&network, server(), &[OLD, NEW]);
    let gate = old_gate(&network, &reach);
    gate.configure(old().as_bytes());
    let daemon = gate.serve(&["--persist"]);
    let was = gate.one_in_force();
    gate.configure(new().as_bytes());
    succeed(gate.run("reload", &TIME));
    daemon.kill();
    assert_new(&reach);

    reach.until_shut(stranger(), OLD);
    assert_old(&reach);
    gate.configure(old().as_bytes());
    let next = gate.serve(&["--persist"]);

    assert_old(&reach);
    assert!(reach.is_open(friend(), OLD), "the grant was lost");
    assert_eq!(gate.one_in_force().doors, was.doors);
    assert!(!gate.pins().previous().exists(), "the way back is still pinned");
    end_well(next);
}

#[test]
fn what_is_confirmed_stays_when_its_time_is_over() {
    for way in ["run", "attach", "reload", "reload by a daemon", "reload by a daemon that is killed"] {
        let network = network();
        let reach = Reach::new(&network, server(), &[OLD, NEW]);
        let gate = old_gate(&network, &reach);
        let by_daemon = way.starts_with("reload by");
        if by_daemon {
            gate.configure(old().as_bytes());
        }
        let mut daemon = match way {
            "run" => Some(gate.serve(&["--persist", "--confirm", "3s"])),
            _ if by_daemon => Some(gate.serve(&["--persist"])),
            _ => None,
        };
        gate.configure(new().as_bytes());
        if way != "run" {
            let verb = if way == "attach" { "attach" } else { "reload" };
            succeed(gate.run(verb, &["--confirm", "3s"]));
        }
        let [Standing::Awaited(by_ns)] = standing(&gate)[..] else { panic!("{way}: {:?}", standing(&gate)) };
        if way.ends_with("killed") {
            daemon.take().expect("it serves").kill();
        }

        succeed(gate.run("confirm", &[]));

        assert_eq!(standing(&gate), [Standing::Settled], "{way}");
        poll("the time to be over", PATIENCE, || (clock::now_ns() > by_ns).then_some(()));
        assert_new(&reach);
        poll("the way back to be given up", PATIENCE, || (!gate.pins().previous().exists()).then_some(()));
        assert_eq!(gate.one_in_force().doors, ["new"], "{way}");
        assert_says(&gate.run("confirm", &[]), 1, &["nothing awaits"]);
        if let Some(daemon) = daemon {
            end_well(daemon);
        }
        assert_new(&reach);
    }
}

#[test]
fn a_confirmation_that_comes_too_late_is_refused() {
    let network = network();
    let reach = Reach::new(&network, server(), &[OLD, NEW]);
    let gate = old_gate(&network, &reach);
    succeed(gate.run("reload", &TIME));

    until_overdue(&gate);
    let refused = gate.run("confirm", &[]);

    assert_says(&refused, 1, &["too late", "srv0"]);
    assert_old(&reach);
}

#[test]
fn while_one_is_awaited_no_other_change_is_let_through() {
    let network = network();
    let reach = Reach::new(&network, server(), &[OLD, NEW]);
    let gate = old_gate(&network, &reach);
    succeed(gate.run("reload", &LONG));
    let awaited = gate.one_in_force();
    gate.configure(old().as_bytes());

    for (verb, args) in [
        ("reload", &[][..]),
        ("reload", &TIME[..]),
        ("attach", &[][..]),
        ("attach", &TIME[..]),
        ("run", &[][..]),
        ("run", &["--persist", "--confirm", "5m"][..]),
    ] {
        assert_says(&gate.run(verb, args), 1, &["awaits its confirmation", "xdp-knock confirm"]);
        assert_eq!(gate.one_in_force(), awaited, "{verb} {args:?}");
    }

    assert_awaited(&gate);
    assert_new(&reach);
    succeed(gate.run("confirm", &[]));
    succeed(gate.run("reload", &[]));
    assert_old(&reach);
}

#[test]
fn while_one_is_awaited_a_daemon_lets_no_other_change_through() {
    let network = network();
    let reach = Reach::new(&network, server(), &[OLD, NEW]);
    let gate = old_gate(&network, &reach);
    gate.configure(old().as_bytes());
    let daemon = gate.serve(&["--persist"]);
    gate.configure(new().as_bytes());
    succeed(gate.run("reload", &LONG));
    let awaited = gate.one_in_force();
    gate.configure(old().as_bytes());

    for args in [&[][..], &TIME[..]] {
        assert_says(&gate.run("reload", args), 1, &["awaits its confirmation", "xdp-knock confirm"]);
    }
    daemon.signal(Signal::SIGHUP);
    daemon.diagnostics("not reloaded");

    assert_eq!(gate.one_in_force(), awaited);
    assert_new(&reach);
    succeed(gate.run("confirm", &[]));
    succeed(gate.run("reload", &[]));
    assert_old(&reach);
    end_well(daemon);
}

#[test]
fn a_gate_that_is_awaited_can_be_taken_off() {
    let network = network();
    let reach = Reach::new(&network, server(), &[OLD, NEW]);
    for by_daemon in [false, true] {
        let gate = old_gate(&network, &reach);
        let daemon = by_daemon.then(|| gate.serve(&LONG));
        if !by_daemon {
            succeed(gate.run("attach", &LONG));
        }
        assert_awaited(&gate);

        succeed(gate.run("detach", &[]));

        gate.assert_nothing("after a detach");
        assert!(reach.is_open(stranger(), OLD) && reach.is_open(stranger(), NEW));
        assert_says(&gate.run("confirm", &[]), 1, &[]);
        if let Some(mut daemon) = daemon {
            assert!(daemon.wait().success(), "{}", daemon.said());
        }
    }
}
