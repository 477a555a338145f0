//! The verbs that change who may pass, and the one that lists it: with a daemon, after `kill -9` of it, and without one.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use knock_common::{
    abi::{Grant, GrantKey},
    names,
};
use knock_tests::{
    client::ours,
    netns::Network,
    program::{Finished, poll},
    scene::{STEPS, guarded},
    sshd::Sshd,
    standing::{Keeper, Standing},
};
use knock_user::{generation::key_of, table::Table};
use serde_json::{Value, json};

const CLIENT: &str = "10.77.0.2";
const PATIENCE: Duration = Duration::from_secs(10);

fn assert_says(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status, Some(status), "{finished}");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for word in words {
        assert!(said.contains(word), "nothing about `{word}`: {finished}");
    }
}

fn is_open(gate: &Standing, sshd: &Sshd) -> bool {
    sshd.opens_soon(gate.client(), gate.server(), None)
}

fn knock(gate: &Standing) {
    let sent = ours(gate.client(), gate.server(), &STEPS);
    assert!(sent.is_success(), "{sent}");
}

#[test]
fn a_grant_by_hand_opens_and_a_revocation_shuts_whoever_keeps_the_gate() {
    for keeper in Keeper::ALL {
        let mut gate = Standing::new(keeper, &guarded("", ""));
        let sshd = Sshd::start(&gate.network.server);
        assert!(!is_open(&gate, &sshd), "{keeper:?}: open before");

        assert_says(
            &gate.verb(&["grant", CLIENT, "ssh", "--for", "1h"]),
            0,
            &["granted", CLIENT, "ssh", "in 1h"],
        );

        assert!(is_open(&gate, &sshd), "{keeper:?}: shut after the grant");
        assert_says(&gate.verb(&["list", "--source", CLIENT]), 0, &["open", "manual"]);
        let listed = &gate.json(&["list"])["grants"];
        assert_eq!((listed.as_array().map(Vec::len), &listed[0]["via"]), (Some(1), &json!("manual")));
        assert_says(
            &gate.verb(&["revoke", CLIENT, "ssh"]),
            0,
            &["revoked", CLIENT, "by ssh goes on", "ss -K"],
        );
        assert!(!is_open(&gate, &sshd), "{keeper:?}: open after the revocation");
        assert_says(&gate.verb(&["list", "--source", CLIENT]), 4, &["shut"]);
        assert_says(&gate.verb(&["revoke", CLIENT, "ssh"]), 0, &["nothing changed"]);
        if keeper == Keeper::Daemon {
            let promoted = gate.daemon().event("promoted", |event| event["source"] == CLIENT);
            assert_eq!((&promoted["via"], &promoted["door"]), (&json!("manual"), &json!("ssh")));
            gate.daemon().event("revoked", |event| event["source"] == CLIENT && event["door"] == "ssh");
        }
    }
}

#[test]
fn a_grant_by_hand_ends_by_itself_and_is_listed_no_longer() {
    for keeper in [Keeper::Daemon, Keeper::Never] {
        let gate = Standing::new(keeper, &guarded("", ""));
        let sshd = Sshd::start(&gate.network.server);
        let _ = gate.verb(&["grant", CLIENT, "ssh", "--for", "4s"]).succeeded();
        assert!(is_open(&gate, &sshd), "{keeper:?}: shut after the grant");

        poll("the grant to end", PATIENCE, || {
            gate.json(&["list"])["grants"].as_array()?.is_empty().then_some(())
        });

        assert!(!is_open(&gate, &sshd), "{keeper:?}: open after its end");
        assert_eq!(gate.json(&["status"])["doors"][0]["grants"], 0);
    }
}

#[test]
fn a_ban_keeps_a_right_sequence_from_opening_and_its_end_lets_it() {
    for keeper in Keeper::ALL {
        let mut gate = Standing::new(keeper, &guarded("", ""));
        let sshd = Sshd::start(&gate.network.server);

        assert_says(&gate.verb(&["ban", CLIENT]), 0, &["banned", CLIENT, "in 1h"]);
        knock(&gate);
        assert!(!is_open(&gate, &sshd), "{keeper:?}: a banned source got in");
        let listed = gate.json(&["list"]);
        assert_eq!((&listed["bans"][0]["source"], &listed["attempts"]), (&json!(CLIENT), &json!([])));
        assert!(gate.json(&["status"])["counters"]["knock_banned"].as_u64() > Some(0));

        assert_says(&gate.verb(&["unban", CLIENT]), 0, &["unbanned", CLIENT]);
        knock(&gate);
        assert!(is_open(&gate, &sshd), "{keeper:?}: shut after the ban was lifted");
        assert_says(&gate.verb(&["unban", CLIENT]), 0, &["nothing changed"]);
        if keeper == Keeper::Daemon {
            gate.daemon().event("banned", |event| event["source"] == CLIENT && event["expires"].is_string());
            gate.daemon().event("unbanned", |event| event["source"] == CLIENT);
        }
    }
}

#[test]
fn lifting_one_ban_leaves_the_others_in_force() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    let sshd = Sshd::start(&gate.network.server);
    for source in [CLIENT, "192.0.2.1"] {
        let _ = gate.verb(&["ban", source, "--for", "forever"]).succeeded();
    }

    let _ = gate.verb(&["unban", "192.0.2.1"]).succeeded();

    knock(&gate);
    assert!(!is_open(&gate, &sshd), "the ban that was left let a sequence through");
    let _ = gate.verb(&["unban", "--all"]).succeeded();
    let _ = gate.verb(&["ban", CLIENT]).succeeded();
    knock(&gate);
    assert!(!is_open(&gate, &sshd), "a ban after the table was empty let a sequence through");
}

#[test]
fn what_a_ban_does_not_touch_is_said_with_the_way_to_end_it() {
    let gate = Standing::new(Keeper::Never, &guarded("allow = [\"10.77.0.9/32\"]", ""));
    let sshd = Sshd::start(&gate.network.server);
    let _ = gate.verb(&["grant", CLIENT, "ssh"]).succeeded();

    assert_says(
        &gate.verb(&["ban", CLIENT]),
        0,
        &["banned", "grant for ssh", &format!("xdp-knock revoke {CLIENT}")],
    );
    assert_says(&gate.verb(&["ban", "10.77.0.9"]), 0, &["banned", "`allow`"]);

    assert!(is_open(&gate, &sshd), "a grant outlives a ban");
    let _ = gate.verb(&["revoke", CLIENT]).succeeded();
    assert!(!is_open(&gate, &sshd));
    assert_says(&gate.verb(&["list", "--source", "10.77.0.9"]), 0, &["open", "allow"]);
}

#[test]
fn both_families_are_granted_and_ipv4_in_either_form() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    let sshd = Sshd::start(&gate.network.server);
    let server_v6: IpAddr = "fd77::1".parse().expect("an address");
    let opens_v6 = || sshd.opens_soon(gate.client(), server_v6, None);

    let _ = gate.verb(&["grant", "::ffff:10.77.0.2", "ssh"]).succeeded();
    assert!(is_open(&gate, &sshd) && !opens_v6());
    let _ = gate.verb(&["revoke", "--all"]).succeeded();
    let _ = gate.verb(&["grant", "fd77::2", "ssh"]).succeeded();
    assert!(!is_open(&gate, &sshd) && opens_v6());
}

#[test]
fn the_time_that_is_asked_for_holds_and_without_one_no_grant_is_cut_short() {
    let gate = Standing::new(Keeper::Never, &guarded("", "open_for = \"30s\""));
    let left = |words: &[&str]| {
        gate.json(&[&["grant", CLIENT, "ssh"], words].concat())["changes"][0]["remaining_s"].clone()
    };

    assert_eq!(left(&[]), 30.0);
    assert_eq!(left(&["--for", "7d"]), 7.0 * 86_400.0);
    assert_says(&gate.verb(&["grant", CLIENT, "ssh"]), 0, &["nothing changed"]);
    assert_eq!(left(&["--for", "5s"]), 5.0);
    assert_eq!(left(&["--for", "forever"]), Value::Null);
    let listed = &gate.json(&["list"])["grants"];
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["expires"]), (Some(1), &Value::Null));
}

#[test]
fn an_attempt_is_listed_until_it_is_too_late_to_go_on_with_it() {
    let gate = Standing::new(Keeper::Never, &guarded("", "step_timeout = \"3s\""));

    let sent = ours(gate.client(), gate.server(), &STEPS[..2]);
    assert!(sent.is_success(), "{sent}");

    let attempt = &gate.json(&["list"])["attempts"][0];
    assert_eq!(
        (&attempt["source"], &attempt["door"], &attempt["step"], &attempt["of"]),
        (&json!(CLIENT), &json!("ssh"), &json!(2), &json!(4))
    );
    poll("the attempt to time out", PATIENCE, || {
        gate.json(&["list"])["attempts"].as_array()?.is_empty().then_some(())
    });
    knock(&gate);
    let listed = gate.json(&["list"]);
    assert_eq!((&listed["grants"][0]["via"], &listed["attempts"]), (&json!("sequence"), &json!([])));
}

#[test]
fn no_verb_shows_the_sequence() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    knock(&gate);
    for verb in
        [&["status"][..], &["list"], &["list", "--source", CLIENT], &["doctor"], &["grant", CLIENT, "ssh"]]
    {
        for form in [&[][..], &["--json"]] {
            let said = gate.verb(&[verb, form].concat());
            let text = format!("{}{}", said.stdout, said.stderr);
            let ports = STEPS.map(|step| step.split_once('/').expect("a step").1.to_owned());
            assert!(ports.iter().all(|port| !text.contains(port.as_str())), "{said}");
        }
    }
}

#[test]
fn an_unknown_door_is_usage_and_the_known_ones_are_named() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));

    for verb in ["grant", "revoke"] {
        assert_says(&gate.verb(&[verb, CLIENT, "shh"]), 2, &["shh", "there are ssh"]);
    }
    assert_says(&gate.verb(&["grant", "10.77.0.0/24", "ssh"]), 2, &["allow"]);
    assert_says(&gate.verb(&["grant", CLIENT, "ssh", "--for", "soon"]), 2, &["30s"]);
}

#[test]
fn without_a_gate_in_force_every_verb_says_so() {
    let gate = Standing::without_gate(Network::new(), &guarded("", ""));

    for verb in
        [&["list"][..], &["grant", CLIENT, "ssh"], &["revoke", CLIENT], &["ban", CLIENT], &["unban", "--all"]]
    {
        assert_says(&gate.verb(verb), 3, &["no gate is in force"]);
    }
    assert!(!gate.pins.exists(), "pins are left");
}

fn grants(pins: &Path) -> Table<GrantKey, Grant> {
    Table::open(&pins.join("state-2").join(names::GRANTS)).expect("a pinned table")
}

/// Fills the table of grants, for sources of a network that nobody knocks from.
fn fill(pins: &Path, until_ns: u64) {
    let mut table = grants(pins);
    let value = Grant { until_ns, since_ns: 1, via: 1, generation: 1 };
    for number in 0..table.capacity() {
        let source = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(number)).to_be_bytes());
        table
            .put(&GrantKey { source: key_of(source), door: knock_common::door::door_id(b"ssh") }, &value)
            .expect("room");
    }
}

#[test]
fn a_full_table_of_grants_refuses_and_makes_room_only_for_those_that_have_ended() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    fill(&gate.pins, u64::MAX);

    assert_says(&gate.verb(&["grant", CLIENT, "ssh"]), 1, &["65536", "revoke"]);

    let status = gate.verb(&["status"]);
    assert_says(&status, 0, &["warning", "65536 of 65536"]);
    let started = Instant::now();
    assert_eq!(gate.json(&["list"])["grants"].as_array().map(Vec::len), Some(65_536));
    println!("65,536 grants listed in {:.1?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(gate.json(&["revoke", "--all"])["changes"].as_array().map(Vec::len), Some(65_536));
    println!("65,536 grants revoked in {:.1?}", started.elapsed());

    fill(&gate.pins, 2);
    assert_eq!(gate.json(&["list"])["grants"], json!([]));
    assert_says(&gate.verb(&["grant", CLIENT, "ssh"]), 0, &["granted"]);
    assert_eq!(gate.json(&["list"])["grants"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_daemon_that_stands_still_holds_up_no_verb() {
    use nix::sys::signal::Signal;

    let gate = Standing::new(Keeper::Daemon, &guarded("", ""));
    let sshd = Sshd::start(&gate.network.server);
    gate.signal(Signal::SIGSTOP);

    let granted = gate.verb(&["grant", CLIENT, "ssh", "--for", "1h"]);
    let status = gate.verb(&["status"]);
    let is_open = is_open(&gate, &sshd);
    gate.signal(Signal::SIGCONT);

    assert_says(&granted, 0, &["granted", "did not hear"]);
    assert_says(&status, 0, &["protected: srv0", "does not answer"]);
    assert!(is_open, "shut after the grant");
}
