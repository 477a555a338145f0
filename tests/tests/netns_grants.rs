//! Who gets in, for how long and where: each way of staying out beside the way in.

use std::time::Duration;

use knock_tests::{
    client::{Tool, datagram, nc, ours},
    daemon::Gate,
    netns::{Family, Network, address},
    program::poll,
    scene::{STEPS, Scene, guarded},
    service::{Echo, Proto},
    sshd::Sshd,
};

/// Sends the sequence of the scene with our client, with a pause after each knock.
fn knock(scene: &Scene, pause: &str) {
    let words = [&STEPS[..], &["--delay", pause]].concat();
    let sent = ours(&scene.network.client, scene.server(), &words);
    assert!(sent.is_success(), "{sent}");
}

#[test]
fn too_slow_between_two_steps_stays_shut_and_in_time_opens() {
    let mut scene = Scene::new(&guarded("", "step_timeout = \"1s\""));

    knock(&scene, "1400ms");
    scene.assert_shut();

    knock(&scene, "100ms");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
}

#[test]
fn too_slow_in_total_stays_shut_and_in_time_opens() {
    let mut scene = Scene::new(&guarded("", "step_timeout = \"2s\"\ntotal_timeout = \"2s\""));

    knock(&scene, "900ms");
    scene.assert_shut();

    knock(&scene, "100ms");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
}

#[test]
fn a_grant_ends_by_itself_and_can_be_had_again() {
    let mut scene = Scene::new(&guarded("", "open_for = \"2s\""));
    for _ in 0..2 {
        scene.assert_shut();
        knock(&scene, "50ms");
        scene.daemon.promotion(scene.host(2), "ssh");
        scene.assert_open();
        let source = scene.host(2).to_string();
        scene.daemon.event("expired", |event| event["source"] == source && event["door"] == "ssh");
    }
    scene.assert_shut();
}

#[test]
fn the_grant_is_for_the_address_that_knocked() {
    let mut scene = Scene::new(&guarded("", ""));
    scene.be_host(3);
    scene.assert_shut();

    scene.be_host(2);
    knock(&scene, "50ms");
    scene.daemon.promotion(scene.host(2), "ssh");

    scene.be_host(3);
    scene.assert_shut();
    scene.be_host(2);
    scene.assert_open();
}

#[test]
fn steps_from_two_addresses_do_not_add_up() {
    let scene = Scene::new(&guarded("", ""));
    let (client, server) = (&scene.network.client, scene.server());

    for (host, steps) in [(2, &STEPS[..2]), (3, &STEPS[2..])] {
        scene.be_host(host);
        Tool::Nc.knock(client, server, steps);
        scene.assert_shut();
    }

    scene.be_host(4);
    Tool::Nc.knock(client, server, &STEPS);
    scene.assert_open();
    let events = scene.daemon.stop();
    let promoted: Vec<_> = events.iter().filter(|event| event["event"] == "promoted").collect();
    assert_eq!(promoted.len(), 1, "{events:#?}");
}

#[test]
fn observe_mode_promotes_and_drops_nothing() {
    let observed = guarded("", "").replace("\"guard\"", "\"observe\"");
    let mut scene = Scene::new(&observed);
    scene.assert_open();

    knock(&scene, "50ms");

    scene.daemon.promotion(scene.host(2), "ssh");
    scene.be_host(3);
    scene.assert_open();
}

#[test]
fn the_mode_on_the_command_line_goes_before_the_one_in_the_file() {
    let observed = guarded("", "").replace("\"guard\"", "\"observe\"");

    Scene::on(Network::new(), &observed, &["--mode", "guard"]).assert_shut();
    Scene::on(Network::new(), &guarded("", ""), &["--mode", "observe"]).assert_open();
}

#[test]
fn an_allowed_source_is_never_judged() {
    let scene = Scene::new(&guarded("allow = [\"10.77.0.2/32\"]", ""));

    scene.assert_open();
    knock(&scene, "50ms");
    scene.assert_open();

    scene.be_host(3);
    scene.assert_shut();
    scene.daemon.stop_without_promotion();
}

#[test]
fn from_names_the_sources_that_may_use_a_door() {
    let mut scene = Scene::new(&guarded("", "from = [\"10.77.0.8/31\"]"));

    knock(&scene, "50ms");
    scene.assert_shut();

    scene.be_host(9);
    knock(&scene, "50ms");
    scene.assert_open();
    let promoted = scene.daemon.event("promoted", |_| true);
    assert_eq!(promoted["source"], "10.77.0.9");
}

#[test]
fn to_names_the_addresses_at_which_a_door_is() {
    let mut scene = Scene::new(&guarded("", "to = [\"10.77.0.1/32\"]"));
    scene.network.server.run("ip address add 10.77.0.50/24 dev srv0");
    let client = &scene.network.client;

    scene.assert_shut();
    assert!(scene.sshd.opens(client, scene.host(50)), "no door is at this address");
    Tool::Nc.knock(client, scene.host(50), &STEPS);
    scene.assert_shut();

    knock(&scene, "50ms");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
}

/// A second link, over which the client is host 2 of link 0, too.
fn two_links() -> Network {
    let network = Network::new();
    network.add_link(1, 1500);
    network.client.run("ip route replace 10.77.1.0/24 dev cli1 src 10.77.0.2");
    network
}

#[test]
fn a_knock_through_one_interface_opens_all() {
    let network = two_links();
    let sshd = Sshd::start(&network.server);
    let mut daemon = Gate::new(&network.server, &["srv0", "srv1"]).config(&guarded("", "")).start();
    let client = &network.client;
    let (near, far) = (address(Family::V4, 0, 1), address(Family::V4, 1, 1));
    for server in [near, far] {
        assert!(!sshd.opens_soon(client, server, None), "open before any knock");
    }

    Tool::Nc.knock(client, near, &STEPS);

    let promoted = daemon.promotion(address(Family::V4, 0, 2), "ssh");
    assert_eq!(promoted["iface"], "srv0");
    for server in [near, far] {
        assert!(sshd.opens(client, server), "shut at {server}");
    }
    let stranger = Some(address(Family::V4, 1, 2));
    assert!(!sshd.opens_soon(client, far, stranger), "open to another address");
}

#[test]
fn steps_through_two_interfaces_are_one_attempt() {
    let network = two_links();
    let sshd = Sshd::start(&network.server);
    let mut daemon = Gate::new(&network.server, &["srv0", "srv1"]).config(&guarded("", "")).start();
    let client = &network.client;
    let (near, far) = (address(Family::V4, 0, 1), address(Family::V4, 1, 1));

    Tool::Nc.knock(client, near, &STEPS[..3]);
    assert!(!sshd.opens_soon(client, near, None), "open before the last step");
    Tool::Nc.knock(client, near, &STEPS[..2]);
    Tool::Nc.knock(client, far, &STEPS[2..]);

    let promoted = daemon.promotion(address(Family::V4, 0, 2), "ssh");
    assert_eq!(promoted["iface"], "srv1");
    assert!(sshd.opens(client, near), "shut after the last step");
}

#[test]
fn an_interface_without_the_gate_is_left_alone() {
    let network = two_links();
    let scene = Scene::on(network, &guarded("", ""), &[]);

    scene.assert_shut();

    assert!(scene.sshd.opens(&scene.network.client, address(Family::V4, 1, 1)));
}

const TWO_DOORS: &str = r#"
[xdp]
mode = "guard"

[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/20011", "tcp/5017", "tcp/1490"]

[[door]]
name = "web"
opens = ["tcp/8443"]
knock = ["udp/7121", "udp/26817", "udp/9032"]
"#;

#[test]
fn one_door_does_not_open_another() {
    let mut scene = Scene::new(TWO_DOORS);
    let (client, server) = (&scene.network.client, scene.server());
    let web = Echo::start(&scene.network.server, Proto::Tcp, 8443);
    assert!(!web.answers(client, server), "open before any knock");

    Tool::Nc.knock(client, server, &["udp/7121", "udp/26817", "udp/9032"]);

    scene.daemon.promotion(scene.host(2), "web");
    assert!(web.answers(client, server), "shut after its sequence");
    scene.assert_shut();
}

#[test]
fn two_doors_of_other_protocols_can_be_knocked_at_once() {
    let mut scene = Scene::new(TWO_DOORS);
    let (client, server) = (&scene.network.client, scene.server());
    let web = Echo::start(&scene.network.server, Proto::Tcp, 8443);
    scene.assert_shut();
    assert!(!web.answers(client, server), "open before any knock");

    let both = ["tcp/20011", "udp/7121", "tcp/5017", "udp/26817", "udp/9032", "tcp/1490"];
    Tool::Nc.knock(client, server, &both);

    scene.daemon.promotion(scene.host(2), "web");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
    assert!(web.answers(client, server), "shut after its sequence");
}

const UDP_RANGE: &str = r#"
[xdp]
mode = "guard"

[[door]]
name = "range"
opens = ["udp/5300-5310", "tcp/9000-9001"]
knock = ["tcp/20011", "tcp/5017", "tcp/1490"]
"#;

#[test]
fn a_range_of_ports_is_hidden_and_opened_from_end_to_end() {
    let network = Network::new();
    let mut daemon = Gate::new(&network.server, &["srv0"]).config(UDP_RANGE).start();
    let (client, server) = (&network.client, address(Family::V4, 0, 1));
    let echo = |proto, port| Echo::start(&network.server, proto, port);
    let hidden = [echo(Proto::Udp, 5300), echo(Proto::Udp, 5310), echo(Proto::Tcp, 9001)];
    let beside = [echo(Proto::Udp, 5299), echo(Proto::Udp, 5311), echo(Proto::Tcp, 9002)];
    for service in &hidden {
        assert!(!service.answers(client, server), "open before any knock: {service:?}");
    }
    for service in &beside {
        assert!(service.answers(client, server), "not hidden, yet silent: {service:?}");
    }

    Tool::Nc.knock(client, server, &["tcp/20011", "tcp/5017", "tcp/1490"]);

    daemon.promotion(address(Family::V4, 0, 2), "range");
    for service in hidden.iter().chain(&beside) {
        assert!(service.answers(client, server), "shut after the sequence: {service:?}");
    }
}

#[test]
fn traffic_to_a_public_service_spoils_no_attempt_and_other_traffic_does() {
    let mut scene = Scene::new(&guarded("public = [\"tcp/80\", \"udp/443\", \"icmp/echo\"]", ""));
    let (client, server) = (&scene.network.client, scene.server());
    let knock_with_noise = |tcp: &str, udp: &str| {
        for step in STEPS {
            nc(client, server, tcp);
            datagram(client, server, udp);
            Tool::Nc.knock(client, server, &[step]);
        }
    };

    knock_with_noise("81", "443");
    scene.assert_shut();
    knock_with_noise("80", "444");
    scene.assert_shut();

    knock_with_noise("80", "443");
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
}

#[test]
fn pings_spoil_no_attempt_at_a_door_without_echo_steps() {
    let mut scene = Scene::new(&guarded("", ""));
    let (client, server) = (&scene.network.client, scene.server());

    for step in STEPS {
        knock_tests::client::ping(client, server, "56");
        Tool::Nc.knock(client, server, &[step]);
    }

    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
}

#[test]
fn events_tell_each_step_and_each_reset() {
    let mut scene = Scene::new(&guarded("", ""));
    let client = &scene.network.client;
    let source = scene.host(2).to_string();

    Tool::Nc.knock(client, scene.server(), &[STEPS[0], STEPS[1], "tcp/4444"]);

    for accepted in [1, 2] {
        let step = scene.daemon.event("step", |event| event["source"] == source);
        assert_eq!((&step["door"], &step["step"]), (&"ssh".into(), &accepted.into()), "{step}");
    }
    scene.daemon.event("reset", |event| event["source"] == source && event["door"] == "ssh");
}

#[test]
fn protection_begins_and_ends_with_the_program() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let (client, server) = (&network.client, address(Family::V4, 0, 1));
    assert!(sshd.opens(client, server), "open before the gate");

    let daemon = Gate::new(&network.server, &["srv0"]).config(&guarded("", "")).start();
    assert!(!sshd.opens_soon(client, server, None), "shut with the gate");
    daemon.stop();

    poll("sshd to be reachable again", Duration::from_secs(5), || sshd.opens(client, server).then_some(()));
}
