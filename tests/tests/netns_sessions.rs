//! SSH sessions that a grant let in outlive it: through a dead daemon, a new one and another generation.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Network, address},
    process::PATIENCE,
    program::poll,
    reach::Reach,
    session::Session,
    sshd::Sshd,
};

const KNOCK: [&str; 2] = ["udp/6101", "udp/5017"];
const STEPS: [u16; 2] = [6101, 5017];

fn config(sessions: &str) -> String {
    let more = format!("open_for = \"1m\"\n{sessions}");
    guard(&[door("main", &["tcp/22", "udp/7000"], &KNOCK, &more)])
}

fn server(family: Family) -> IpAddr {
    address(family, 0, 1)
}

fn client(family: Family) -> IpAddr {
    address(family, 0, 2)
}

/// Knocks, opens a session while the grant lives, and has it be over: nobody else gets in.
fn outlived(network: &Network, sshd: &Sshd, gate: &Instance<'_>, family: Family) -> Session {
    Reach::new(network, server(family), &[]).knock(client(family), &STEPS);
    let session = sshd.session(&network.client, server(family));
    let source = client(family).to_string();
    assert!(gate.run("grant", &[&source, "main", "--for", "1s"]).is_success(), "an earlier end");
    // 4: every door is shut to it.
    poll("the end of the grant", PATIENCE, || {
        (gate.run("list", &["--source", &source]).status == Some(4)).then_some(())
    });
    assert!(!is_let_in(network, family), "a new connection is let in");
    session
}

/// Returns whether a new connection is let in. A login could begin under the grant and hang at its end.
fn is_let_in(network: &Network, family: Family) -> bool {
    let to = SocketAddr::new(server(family), 22);
    network.client.within(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())
}

fn goes_on(family: Family) {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let gate = Instance::new(&network.server, &["srv0"], &config(""));
    let daemon = gate.serve(&["--persist"]);
    let mut session = outlived(&network, &sshd, &gate, family);
    session.assert_lives("after the grant");

    daemon.kill();
    session.assert_lives("after kill -9 of the daemon");

    let mut daemon = gate.serve(&["--persist"]);
    session.assert_lives("with a new daemon");

    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.is_success(), "{reloaded}");
    daemon.event("reloaded", |_| true);
    session.assert_lives("after a reload");

    assert!(!is_let_in(&network, family), "a new connection needs a grant of its own");
}

#[test]
fn a_session_over_ipv4_goes_on_after_its_grant_and_a_new_one_is_refused() {
    goes_on(Family::V4);
}

#[test]
fn a_session_over_ipv6_goes_on_after_its_grant_and_a_new_one_is_refused() {
    goes_on(Family::V6);
}

/// The twin of the two above: the same door, and the same session, cut.
#[test]
fn a_door_that_cuts_ends_the_session_with_its_grant() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let gate = Instance::new(&network.server, &["srv0"], &config("sessions = \"cut\""));
    assert!(gate.run("attach", &[]).is_success());
    let mut session = outlived(&network, &sshd, &gate, Family::V4);
    session.assert_cut("after the grant");

    // Another grant, and the lines that TCP kept sending come through.
    Reach::new(&network, server(Family::V4), &[]).knock(client(Family::V4), &STEPS);
    session.assert_lives("with another grant");
}

#[test]
fn attaching_to_a_machine_with_live_sessions_loses_none() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let families = [Family::V4, Family::V6];
    let mut sessions = families.map(|family| sshd.session(&network.client, server(family)));
    let gate = Instance::new(&network.server, &["srv0"], &config(""));
    assert!(gate.run("attach", &[]).is_success());

    for family in families {
        assert!(!is_let_in(&network, family), "{family:?} is not hidden");
    }
    for session in &mut sessions {
        session.assert_lives("after the gate came");
    }
}

/// The twin of all: without a gate the same session lives, and a new connection is let in.
#[test]
fn without_a_gate_a_session_lives_and_a_new_one_is_let_in() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    for family in [Family::V4, Family::V6] {
        let mut session = sshd.session(&network.client, server(family));
        session.assert_lives("without a gate");
        assert!(sshd.opens(&network.client, server(family)));
    }
}
