//! A gate that is brought in with `--confirm` and is not confirmed takes its notes of what a host sends back with it:
//! what judged before has those that it needs, and no others are taken.

use std::time::Duration;

use knock_common::counter::Counter;
use knock_tests::{
    hosts::{network, stranger},
    instance::Instance,
    outgoing::pinned,
    process::Process,
    program::poll,
    site::{PUBLIC, Site, assert_none, attached, deny, deny_less, guard, succeed},
};
use knock_user::{
    rollback::{self, Standing},
    survey,
};

const PATIENCE: Duration = Duration::from_secs(40);
/// Time enough for what comes before its end.
const TIME: [&str; 2] = ["--confirm", "8s"];
/// Time enough for all that a test does before it confirms.
const LONG: [&str; 2] = ["--confirm", "10m"];

fn standing(gate: &Instance<'_>) -> Vec<Standing> {
    let links = survey::links(&gate.pins()).unwrap_or_else(|error| panic!("{error:#}"));
    links.iter().map(|link| rollback::standing(link).expect("a readable word")).collect()
}

/// Waits until the kernel's clock is past the time to confirm by.
fn until_overdue(gate: &Instance<'_>) {
    poll("the time to confirm to run out", PATIENCE, || {
        matches!(standing(gate)[..], [Standing::WentBack(_)]).then_some(())
    });
}

#[test]
fn nothing_before_deny_mode_that_is_not_confirmed_is_nothing_again() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    gate.serve(&TIME).kill();
    site.assert_denies("before its time is over");

    until_overdue(&gate);
    site.assert_open("when its time is over");
    let noted = gate.count(Counter::ReplyNoted);
    site.assert_open("a while later");
    assert_eq!(gate.count(Counter::ReplyNoted), noted, "notes are taken after its time");

    succeed(gate.run("attach", &[]));
    site.assert_denies("the next start takes its place");
    assert_eq!(gate.run("status", &[]).status, Some(0));

    let gone = site.gate(&deny());
    succeed(gate.run("detach", &[]));
    let mut daemon = gone.serve(&TIME);
    site.assert_denies("before its time is over");
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.said());
    assert_none(&gone, "after a run that nobody confirmed");
    gone.assert_nothing("after a run that nobody confirmed");
}

#[test]
fn deny_mode_before_guard_mode_that_is_not_confirmed_denies_again_with_its_answers() {
    let network = network();
    let site = Site::new(&network);
    for way in ["killed", "alone", "daemon"] {
        let gate = site.gate(&deny());
        let daemon = (way != "alone").then(|| gate.serve(&["--persist"]));
        if way == "alone" {
            succeed(gate.run("attach", &[]));
        }
        let before = attached(&gate);
        gate.configure(guard().as_bytes());
        succeed(gate.run("reload", &TIME));
        site.assert_open("in guard mode");
        let daemon = daemon.filter(|_| way == "daemon");

        until_back(&gate, daemon.is_some());
        site.assert_denies("in deny mode again");
        assert_eq!(attached(&gate).link, before.link, "{way}");

        let next = settle(&gate, &deny(), daemon);
        site.assert_denies("in deny mode for good");
        assert_eq!(attached(&gate).link, before.link, "{way}");
        assert_eq!(gate.run("status", &[]).status, Some(0), "{way}");
        drop(next);
        succeed(gate.run("detach", &[]));
        gate.assert_nothing("after a detach");
    }
}

#[test]
fn guard_mode_before_deny_mode_that_is_not_confirmed_needs_no_notes_again() {
    let network = network();
    let site = Site::new(&network);
    for way in ["killed", "daemon"] {
        let gate = site.gate(&guard());
        let daemon = gate.serve(&["--persist"]);
        gate.configure(deny().as_bytes());
        succeed(gate.run("reload", &TIME));
        site.assert_denies("in deny mode");
        let daemon = Some(daemon).filter(|_| way == "daemon");

        until_back(&gate, daemon.is_some());
        site.assert_open("in guard mode again");
        let noted = gate.count(Counter::ReplyNoted);
        site.assert_open("a while later");
        assert_eq!(gate.count(Counter::ReplyNoted), noted, "{way}: notes are taken in guard mode");

        let next = settle(&gate, &guard(), daemon);
        site.assert_open("in guard mode for good");
        assert_none(&gate, "in guard mode for good");
        drop(next);
        succeed(gate.run("detach", &[]));
    }
}

#[test]
fn deny_mode_before_deny_mode_that_is_not_confirmed_judges_and_takes_notes_as_before() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let daemon = gate.serve(&["--persist"]);
    gate.configure(deny_less().as_bytes());
    succeed(gate.run("reload", &TIME));
    assert!(site.reach.is_open(stranger(), PUBLIC), "public now");
    daemon.kill();
    site.assert_denies("before its time is over");

    until_overdue(&gate);
    assert!(!site.reach.is_open(stranger(), PUBLIC), "the new gate judges still");
    let noted = gate.count(Counter::ReplyNoted);
    site.assert_denies("when its time is over");
    assert!(gate.count(Counter::ReplyNoted) > noted, "no note is taken");

    let next = settle(&gate, &deny(), None);
    site.assert_denies("with the next daemon");
    assert!(!site.reach.is_open(stranger(), PUBLIC));
    drop(next);
}

/// The twin of those above.
#[test]
fn what_is_confirmed_has_the_notes_that_it_needs_and_no_others() {
    let network = network();
    let site = Site::new(&network);
    for with_daemon in [false, true] {
        let gate = site.gate(&guard());
        let daemon = with_daemon.then(|| gate.serve(&["--persist"]));
        if !with_daemon {
            succeed(gate.run("attach", &[]));
        }
        gate.configure(deny().as_bytes());
        succeed(gate.run("reload", &LONG));
        succeed(gate.run("confirm", &[]));
        let denying = attached(&gate);
        site.assert_denies("confirmed");
        assert_eq!(gate.run("status", &[]).status, Some(0));

        gate.configure(guard().as_bytes());
        succeed(gate.run("reload", &LONG));
        assert_eq!(attached(&gate).link, denying.link, "what was before may come back");
        site.assert_open("in guard mode");
        succeed(gate.run("confirm", &[]));
        poll("notes to end with what needed them", PATIENCE, || {
            pinned(&gate, "srv0").is_none().then_some(())
        });
        assert_none(&gate, "in guard mode, confirmed");
        site.assert_open("in guard mode, confirmed");
        drop(daemon);
        succeed(gate.run("detach", &[]));
        gate.assert_nothing("after a detach");
    }
}

/// Waits until what was before holds again; where a daemon serves, until that has put it in its place.
fn until_back(gate: &Instance<'_>, with_daemon: bool) {
    if with_daemon {
        poll("the gate before to be in its place", PATIENCE, || {
            matches!(standing(gate)[..], [Standing::Settled]).then_some(())
        });
    } else {
        until_overdue(gate);
    }
}

/// Has the next daemon put what was before in its place, unless one did.
fn settle(gate: &Instance<'_>, config: &str, daemon: Option<Process>) -> Process {
    gate.configure(config.as_bytes());
    let next = daemon.unwrap_or_else(|| gate.serve(&["--persist"]));
    assert_eq!(standing(gate), [Standing::Settled]);
    assert!(!gate.pins().previous().exists() && !gate.pins().previous_tc().exists(), "a way back is left");
    next
}
