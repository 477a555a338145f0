//! What `run` says and does when it cannot protect, and what it leaves behind.

use std::{fs, os::unix::fs::PermissionsExt as _};

use knock_tests::{
    client::ours,
    daemon::Gate,
    netns::{Family, Namespace, Network, address},
    program::{Finished, run, xdp_knock},
    scene::{STEPS, Scene, guarded},
    sshd::Sshd,
};
use serde_json::Value;

fn assert_says(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status, Some(status), "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "nothing about `{word}`: {finished}");
    }
}

/// The XDP part of what `ip` tells about a device; empty without a program.
fn xdp_of(namespace: &Namespace, device: &str) -> String {
    let facts = namespace.run(&format!("ip -json -details link show dev {device}"));
    let facts: Value = serde_json::from_str(&facts).expect("ip prints JSON");
    facts[0].get("xdp").map(Value::to_string).unwrap_or_default()
}

#[test]
fn without_root_it_asks_for_permission_and_touches_nothing() {
    let network = Network::new();
    // The build folder may be closed to other users.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("xdp-knock");
    fs::copy(xdp_knock(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let gate = Gate::new(&network.server, &["srv0"]);
    let mut command = network.server.bounded("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command.arg(&binary);
    gate.give_args(&mut command);

    let refused = run(&mut command);

    assert_says(&refused, 77, &["root"]);
    assert_eq!(xdp_of(&network.server, "srv0"), "");
    assert!(!gate.pins().exists());
}

#[test]
fn an_unknown_interface_is_refused_with_the_names_that_exist() {
    let network = Network::new();
    let gate = Gate::new(&network.server, &["srv7"]).config(&guarded("", ""));

    let refused = gate.refused();

    assert_says(&refused, 1, &["srv7", "srv0"]);
    assert!(!gate.pins().exists(), "pins are left");
}

#[test]
fn one_unknown_interface_among_two_leaves_the_other_untouched() {
    let network = Network::new();
    let gate = Gate::new(&network.server, &["srv0", "srv7"]).config(&guarded("", ""));

    assert_says(&gate.refused(), 1, &["srv7"]);

    assert_eq!(xdp_of(&network.server, "srv0"), "");
    gate_works_on(&network, "native");
}

/// The passing twin: on the same interface, the gate attaches and says so.
fn gate_works_on(network: &Network, attach: &str) {
    let daemon = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).start();
    let events = daemon.stop();
    assert_eq!(events[0]["attach"], attach, "{events:?}");
}

#[test]
fn an_interface_with_another_program_is_refused_and_that_one_stays() {
    let network = Network::new();
    let mut first = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).start();
    let before = xdp_of(&network.server, "srv0");
    assert!(before.contains("xdp_knock"), "{before}");

    for attach in ["auto", "native", "generic"] {
        let second =
            Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).args(&["--attach", attach]);
        assert_says(&second.refused(), 1, &["srv0", "xdp_knock"]);
        assert!(!second.pins().exists(), "pins are left");
    }

    assert_eq!(xdp_of(&network.server, "srv0"), before);
    assert!(first.is_running());
    first.stop();
    gate_works_on(&network, "native");
}

#[test]
fn pins_of_another_gate_are_not_taken_over() {
    let network = Network::new();
    let mut first = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).start();
    let pins = first.pins().display().to_string();

    let mut second = network.server.bounded(xdp_knock());
    second.args(["run", "--iface", "srv0", "--pin-dir", &pins]);
    let refused = run(&mut second);

    assert_says(&refused, 1, &[]);
    assert!(first.is_running());
    assert!(xdp_of(&network.server, "srv0").contains("xdp_knock"));
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_line_and_column() {
    let network = Network::new();
    let wrong = guarded("", "open_for = \"soon\"");
    let line = 1 + wrong.lines().position(|line| line.contains("soon")).unwrap();
    let gate = Gate::new(&network.server, &["srv0"]).config(&wrong);

    let refused = gate.refused();

    assert_says(&refused, 78, &[&format!("{}:{line}:12", gate.config_file().display())]);
    assert_eq!(xdp_of(&network.server, "srv0"), "");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let network = Network::new();
    let missing = "/nonexistent/knock.toml";
    let gate = Gate::new(&network.server, &["srv0"]).args(&["--config", missing]);

    let refused = gate.refused();

    assert!(refused.stderr.contains(missing), "{refused}");
    assert_eq!(xdp_of(&network.server, "srv0"), "");
}

#[test]
fn wrong_options_are_usage() {
    let network = Network::new();
    for wrong in [["--mode", "paranoid"], ["--attach", "sideways"], ["--nonsense", "1"]] {
        let refused = Gate::new(&network.server, &["srv0"]).args(&wrong).refused();
        assert_says(&refused, 2, &[wrong[0]]);
    }
}

#[test]
fn without_a_configuration_an_example_is_observed_and_its_sequence_is_told() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let mut daemon = Gate::new(&network.server, &["srv0"]).start();
    let (client, server) = (&network.client, address(Family::V4, 0, 1));

    let said = daemon.diagnostics("xdp-knock init");
    let line = said.lines().find_map(|line| Some(line.split_once("xdp-knock knock ")?.1));
    let line = line.unwrap_or_else(|| panic!("no command to type elsewhere: {said}"));
    let mut words = line.trim_matches(|c: char| c == '`' || c.is_whitespace()).split_whitespace();
    let host = words.next().expect("a host follows").to_owned();
    let steps: Vec<_> = words.map(|word| word.trim_matches(['\'', '`'])).collect();
    let sent = ours(client, server, &steps);
    assert!(sent.is_success(), "{sent}\n{said}");

    let promoted = daemon.event("promoted", |event| event["source"] == "10.77.0.2");
    assert!(promoted["door"].is_string(), "{promoted}");
    assert!(sshd.opens(client, server), "observe mode drops nothing; told host: {host}");
}

#[test]
fn native_is_refused_where_the_driver_cannot_and_auto_falls_back_loudly() {
    let network = Network::new();
    for device in ["lo", "br0"] {
        if device != "lo" {
            network.server.run(&format!("ip link add {device} up type bridge"));
        }
        let config = guarded("", "");
        let native = Gate::new(&network.server, &[device]).config(&config).args(&["--attach", "native"]);
        assert_says(&native.refused(), 1, &[device, "native", "generic"]);
        assert_eq!(xdp_of(&network.server, device), "");

        let daemon =
            Gate::new(&network.server, &[device]).config(&config).args(&["--attach", "auto"]).start();
        daemon.diagnostics(&format!("attached to {device} in generic mode"));
        let events = daemon.stop();
        assert_eq!((&events[0]["attach"], &events[0]["mode"]), (&"generic".into(), &"guard".into()));
    }
}

#[test]
fn a_clean_stop_leaves_neither_program_nor_pins() {
    let network = Network::new();
    for attach in ["native", "generic"] {
        let gate = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).args(&["--attach", attach]);
        let pins = gate.pins();
        let daemon = gate.start();
        assert!(xdp_of(&network.server, "srv0").contains("xdp_knock"));
        assert!(pins.exists(), "a running gate is pinned");

        let events = daemon.stop();

        assert_eq!(events[0]["attach"], attach);
        assert!(events.iter().any(|event| event["event"] == "detached"), "{events:?}");
        assert_eq!(xdp_of(&network.server, "srv0"), "", "a program is left");
        assert!(!pins.exists(), "pins are left");
    }
}

#[test]
fn a_stop_at_any_moment_of_the_start_leaves_nothing() {
    let network = Network::new();
    let mut reached = 0;
    for delay_ms in (0..300).step_by(20) {
        let gate = Gate::new(&network.server, &["srv0"]).config(&guarded("", ""));
        let mut command = network.server.command("timeout");
        command.args([
            "--signal=INT",
            "--kill-after=10",
            &format!("{}.{:03}", delay_ms / 1000, delay_ms.max(1)),
        ]);
        command.arg(xdp_knock());
        gate.give_args(&mut command);

        let stopped = run(&mut command);

        reached += u32::from(stopped.stdout.contains("attached"));
        assert_eq!(xdp_of(&network.server, "srv0"), "", "after {delay_ms} ms a program is left: {stopped}");
        assert!(!gate.pins().exists(), "after {delay_ms} ms pins are left: {stopped}");
    }
    assert!(reached > 0, "no start got as far as to attach");
}

#[test]
fn output_that_nobody_reads_ends_it_and_leaves_nothing() {
    let network = Network::new();
    let gate = Gate::new(&network.server, &["srv0"]).config(&guarded("", ""));
    let mut command = network.server.bounded("sh");
    command.args(["-c", "\"$@\" | true", "sh"]).arg(xdp_knock());
    gate.give_args(&mut command);

    let ended = run(&mut command);

    assert!(ended.stderr.contains("protected: srv0"), "{ended}");
    assert_eq!(xdp_of(&network.server, "srv0"), "", "a program is left: {ended}");
    assert!(!gate.pins().exists(), "pins are left: {ended}");
}

#[test]
fn the_first_line_says_whether_one_is_protected() {
    let network = Network::new();
    for (mode, word) in [("guard", "protected: srv0"), ("observe", "NOT protected: srv0")] {
        let gate = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).args(&["--mode", mode]);
        let daemon = gate.start();
        let said = daemon.diagnostics(word);
        let first = said.lines().next().unwrap_or_default();
        assert!(first.starts_with(word), "{said}");
        daemon.stop();
    }
}

#[test]
fn jumbo_frames_attach_natively_and_the_door_works() {
    let network = Network::without_links();
    network.add_link(0, 9000);
    let mut scene = Scene::on(network, &guarded("", ""), &["--attach", "native"]);
    scene.assert_shut();

    let sent = ours(&scene.network.client, scene.server(), &STEPS);

    assert!(sent.is_success(), "{sent}");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
    let jumbo = "ping -c1 -W1 -M do -s 8900 10.77.0.1";
    scene.network.client.run(jumbo);
}

#[test]
fn an_mtu_raised_under_a_running_gate_keeps_the_door_shut() {
    let network = Network::new();
    let scene = Scene::on(network, &guarded("", ""), &["--attach", "native"]);
    for (namespace, device) in [(&scene.network.server, "srv0"), (&scene.network.client, "cli0")] {
        namespace.run(&format!("ip link set {device} mtu 9000"));
    }

    scene.assert_shut();

    scene.network.client.run("ping -c1 -W1 -M do -s 8900 10.77.0.1");
}
