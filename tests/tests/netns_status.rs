//! Am I protected, and if not, why not: `status` and `doctor`.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use knock_tests::{
    client::ours,
    netns::Network,
    program::{Finished, poll, run, xdp_knock},
    scene::{STEPS, guarded},
    sshd::Sshd,
    standing::{Keeper, Standing},
};
use knock_user::{attach, before, pins::Pins, survey};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// Panics unless a verb ended so, its first line begins so, and it said all the words.
fn assert_answers(finished: &Finished, status: i32, first: &str, words: &[&str]) {
    assert_eq!(finished.status, Some(status), "{finished}");
    assert!(finished.stdout.starts_with(first), "{finished}");
    for word in words {
        assert!(finished.stdout.contains(word), "nothing about `{word}`: {finished}");
    }
}

#[test]
fn a_guarded_machine_is_protected_whoever_keeps_the_gate() {
    for keeper in Keeper::ALL {
        let gate = Standing::new(keeper, &guarded("", ""));

        let status = gate.verb(&["status"]);

        assert_answers(&status, 0, "protected: srv0 native, mode guard, 1 door, 0 open, since ", &[]);
        let facts = gate.json(&["status"]);
        assert_eq!(
            (&facts["v"], &facts["protected"], &facts["problems"]),
            (&json!(1), &json!(true), &json!([]))
        );
        let daemon = gate.daemon.as_ref().filter(|_| keeper == Keeper::Daemon).map(|daemon| daemon.id());
        assert_eq!(facts["daemon"], json!(daemon), "{keeper:?}");
        assert_eq!(status.stdout.contains("no daemon"), keeper != Keeper::Daemon, "{status}");
    }
}

#[test]
fn doors_that_are_open_and_what_was_counted_are_told() {
    let gate = Standing::new(Keeper::Never, &guarded("", "open_for = \"1h\""));
    let sshd = Sshd::start(&gate.network.server);
    assert!(!sshd.opens_soon(gate.client(), gate.server(), None));
    let sent = ours(gate.client(), gate.server(), &STEPS);
    assert!(sent.is_success(), "{sent}");

    assert_answers(
        &gate.verb(&["status"]),
        0,
        "protected: ",
        &["1 door, 1 open", "open to 1", "sequences completed"],
    );

    let facts = gate.json(&["status"]);
    assert_eq!((&facts["doors"][0]["grants"], &facts["counters"]["promoted"]), (&json!(1), &json!(1)));
    assert!(facts["counters"]["hidden"].as_u64() > Some(0), "{facts}");
    assert_eq!(facts["tables"][0], json!({ "name": "grants", "entries": 1, "capacity": 65_536 }));
}

#[test]
fn observing_is_not_protected() {
    let gate = Standing::new(Keeper::Never, &guarded("", "").replace("\"guard\"", "\"observe\""));

    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: mode observe", &["nothing is dropped"]);

    assert_eq!(gate.json(&["status"])["interfaces"][0]["mode"], "observe");
}

#[test]
fn nothing_in_force_is_not_protected() {
    let gate = Standing::without_gate(Network::new(), &guarded("", ""));
    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: no gate is in force", &[]);

    let _ = gate.attach(&["srv0"], &[]).succeeded();
    assert_answers(&gate.verb(&["status"]), 0, "protected: ", &[]);
    let _ = gate.verb(&["detach"]).succeeded();
    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: no gate is in force", &[]);
}

#[test]
fn a_link_whose_interface_was_deleted_is_an_error() {
    let network = Network::new();
    network.add_link(1, 1500);
    let gate = Standing::on(network, Keeper::Killed, &guarded("", ""), &["srv0", "srv1"]);
    assert_answers(&gate.verb(&["status"]), 0, "protected: srv0 native, srv1 native", &[]);

    gate.network.server.run("ip link delete srv1");

    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: srv1 was deleted", &["DEAD"]);
    let facts = gate.json(&["status"]);
    assert_eq!(
        (&facts["interfaces"][0]["state"], &facts["interfaces"][1]["state"]),
        (&json!("attached"), &json!("dead"))
    );
    assert_answers(&gate.verb(&["doctor"]), 1, "", &["fail", "srv1"]);
}

#[test]
fn an_interface_without_the_gate_is_told_and_one_that_is_meant_to_have_it_is_an_error() {
    let network = Network::new();
    network.add_link(1, 1500);
    let gate = Standing::on(network, Keeper::Never, &guarded("", ""), &["srv0"]);

    assert_answers(
        &gate.verb(&["status"]),
        0,
        "protected: srv0",
        &["warning", "srv1 has addresses (10.77.1.1"],
    );
    assert_eq!(gate.json(&["status"])["uncovered"][0]["name"], "srv1");

    fs::remove_file(gate.pins.join("links/srv0")).expect("a pinned link");
    let _ = gate.attach(&["srv0", "srv1"], &[]).succeeded();
    assert_answers(&gate.verb(&["status"]), 0, "protected: srv0 native, srv1 native", &[]);
    fs::remove_file(gate.pins.join("links/srv1")).expect("a pinned link");
    assert_answers(
        &gate.verb(&["status"]),
        3,
        "NOT protected: srv1 is to be guarded and carries no gate",
        &["BARE"],
    );
}

#[test]
fn a_generation_that_awaits_its_confirmation_is_told_and_so_is_what_holds_without_it() {
    let gate = Standing::without_gate(Network::new(), &guarded("", ""));
    let _ = gate.attach(&["srv0"], &["--confirm", "8s"]).succeeded();
    assert_answers(&gate.verb(&["status"]), 0, "protected: ", &["not confirmed yet"]);
    assert!(gate.json(&["status"])["confirm"]["remaining_s"].as_i64() <= Some(8));

    let late = poll("the kernel to go back", PATIENCE, || {
        let status = gate.verb(&["status"]);
        (status.status == Some(3)).then_some(status)
    });
    assert_answers(
        &late,
        3,
        "NOT protected: generation 1 was not confirmed in time on srv0",
        &["its packets pass"],
    );
    assert_eq!(gate.verb(&["list"]).status, Some(3), "no generation judges");

    let _ = gate.attach(&["srv0"], &[]).succeeded();
    assert_answers(&gate.verb(&["status"]), 0, "protected: ", &[]);
    let _ = gate.attach(&["srv0"], &["--confirm", "1s"]).succeeded();
    let late = poll("the kernel to go back", PATIENCE, || {
        let status = gate.verb(&["status"]);
        (status.status == Some(3)).then_some(status)
    });
    assert_answers(&late, 3, "NOT protected: generation ", &["mode guard, judges again"]);
    let sshd = Sshd::start(&gate.network.server);
    assert!(!sshd.opens_soon(gate.client(), gate.server(), None), "what judges again guards");
    let _ = gate.verb(&["grant", "10.77.0.2", "ssh"]).succeeded();
    assert!(sshd.opens(gate.client(), gate.server()), "a grant is for what judges");
}

#[test]
fn an_update_cut_short_between_two_interfaces_shows_on_each() {
    let network = Network::new();
    network.add_link(1, 1500);
    network.add_link(2, 1500);
    let gate = Standing::on(network, Keeper::Never, &guarded("", ""), &["srv0", "srv1"]);
    let observing = Standing::without_gate(Network::without_links(), &guarded("", ""));
    let pins = observing.pins.display().to_string();
    let mut other = gate.network.server.bounded(xdp_knock());
    other.args(["attach", "--iface", "srv2", "--pin-dir", &pins]);
    let _ = run(&mut other).succeeded();
    let id = survey::links(&Pins::at(&observing.pins)).expect("a link")[0].program_id;

    let mut program = before::loaded(id).expect("a loaded program");
    attach::swap(&mut program, &Pins::at(&gate.pins).link("srv1")).expect("a link of XDP");

    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: ", &["mode observe on srv1"]);
    let interfaces = &gate.json(&["status"])["interfaces"];
    assert_eq!((&interfaces[0]["mode"], &interfaces[1]["mode"]), (&json!("guard"), &json!("observe")));
}

#[test]
fn pins_of_others_are_told_and_are_no_protection() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    let (links, state) = (gate.pins.join("links"), gate.pins.join("state-2"));

    fs::hard_link(state.join("GRANTS"), links.join("srv9")).expect("a pin of a map among the links");
    assert_answers(
        &gate.verb(&["status"]),
        3,
        "NOT protected: the pin ",
        &["links/srv9", "--force", "FOREIGN"],
    );
    fs::remove_file(links.join("srv9")).expect("a pin");

    fs::create_dir(gate.pins.join("maps")).expect("a folder");
    assert_answers(&gate.verb(&["status"]), 3, "NOT protected: ", &["/maps was left by another version"]);
    assert_answers(&gate.verb(&["doctor"]), 1, "", &["fail", "/maps was left by another version"]);
    fs::remove_dir(gate.pins.join("maps")).expect("a folder");

    assert_answers(&gate.verb(&["status"]), 0, "protected: ", &[]);
}

/// A copy of the program that others may run: the build folder may be closed to them.
fn as_nobody(gate: &Standing, words: &[&str]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    let binary = folder.path().join("xdp-knock");
    fs::copy(xdp_knock(), &binary).expect("a copy");
    let mut command = gate.network.server.bounded("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    run(command.arg(binary).args(words).arg("--pin-dir").arg(&gate.pins))
}

#[test]
fn without_root_the_verbs_ask_for_permission_and_the_doctor_says_what_it_did_not_see() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));

    let verbs: [&[&str]; 6] = [
        &["status"],
        &["list"],
        &["grant", "10.77.0.2", "ssh"],
        &["revoke", "--all"],
        &["ban", "10.77.0.2"],
        &["unban", "--all"],
    ];
    for verb in verbs {
        let refused = as_nobody(&gate, verb);
        assert_eq!(refused.status, Some(77), "{refused}");
        assert!(refused.stderr.contains("root"), "{refused}");
    }

    assert_answers(
        &as_nobody(&gate, &["doctor"]),
        0,
        "unseen",
        &["not root", "only root can tell whether it is the gate"],
    );
}

#[test]
fn the_doctor_finds_a_healthy_gate_healthy() {
    let gate = Standing::new(Keeper::Daemon, &guarded("", ""));

    let doctor = gate.verb(&["doctor"]);

    assert_answers(
        &doctor,
        0,
        "ok",
        &["it takes this program", "it carries the gate natively", "in force on srv0", "serves"],
    );
    println!("{}", doctor.stdout);
    let report = gate.json(&["doctor"]);
    assert_eq!((&report["v"], &report["ok"]), (&json!(1), &json!(true)));
    assert_eq!(doctor.stdout.lines().count(), report["findings"].as_array().expect("findings").len());
}

#[test]
fn the_doctor_names_the_remedy_on_the_same_line() {
    let network = Network::new();
    network.add_link(1, 1500);
    let gate = Standing::on(network, Keeper::Never, &guarded("", ""), &["srv0"]);
    let fails = |doctor: &Finished, what: &str, remedy: &str| {
        assert_eq!(doctor.status, Some(1), "{doctor}");
        let is_it = |line: &&str| line.starts_with("fail") && line.contains(what) && line.contains(remedy);
        assert!(doctor.stdout.lines().any(|line| is_it(&line)), "{doctor}");
    };

    fails(&gate.verb(&["doctor", "--iface", "srv7"]), "no such interface", "srv0");

    fs::set_permissions(&gate.pins, fs::Permissions::from_mode(0o755)).expect("our own");
    fails(&gate.verb(&["doctor"]), "mode 0755", "chmod 0700");
    fs::set_permissions(&gate.pins, fs::Permissions::from_mode(0o700)).expect("our own");

    let elsewhere =
        gate.pins.with_file_name(format!("{}x", gate.pins.file_name().expect("a name").display()));
    let mut other = gate.network.server.bounded(xdp_knock());
    other.args(["doctor", "--iface", "srv0", "--pin-dir"]).arg(&elsewhere);
    fails(&run(&mut other), "carries the XDP program xdp_knock", "xdp off");
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let gate = Standing::new(Keeper::Never, &guarded("", ""));
    for verb in ["status", "list", "doctor"] {
        let line = format!(
            "set -o pipefail; {} {verb} --pin-dir {} | true",
            xdp_knock().display(),
            gate.pins.display()
        );
        let ended = run(gate.network.server.bounded("bash").args(["-c", &line]));
        assert!(ended.is_success() && ended.stderr.is_empty(), "{ended}");
    }
}
