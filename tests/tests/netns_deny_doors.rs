//! What a box in deny mode lets in: public services, what a knock opens, conversations that began before or from the box.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use knock_tests::{
    client::Tool,
    daemon::{Daemon, Gate},
    instance::Instance,
    internet::Internet,
    netns::{Family, Namespace, Network, address},
    program::run,
    scene::{STEPS, denying},
    service::{Echo, Proto},
    sshd::Sshd,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// A service that is neither public nor behind a door.
const UNNAMED: u16 = 7007;

fn gate(host: &Namespace, config: &str) -> Daemon {
    Gate::new(host, &["srv0"]).config(config).start()
}

fn pinged(from: &Namespace, host: IpAddr) -> bool {
    run(from.bounded("ping").args(["-nq", "-c1", "-W1", &host.to_string()])).is_success()
}

#[test]
fn public_services_are_open_to_all_and_a_knock_opens_the_hidden_one() {
    let internet = Internet::new();
    let sshd = Sshd::start(internet.host());
    let public = [
        Echo::start_dual(internet.host(), Proto::Tcp, 443),
        Echo::start_dual(internet.host(), Proto::Udp, 53),
    ];
    let reaches = || {
        FAMILIES.map(|family| {
            public.each_ref().map(|one| one.answers(&internet.far, internet.host_address(family)))
        })
    };
    assert_eq!(reaches(), [[true; 2]; 2]);

    let closed = gate(internet.host(), &denying("", &["tcp/22"]));
    assert_eq!(reaches(), [[false; 2]; 2]);
    let echoes = || FAMILIES.map(|family| pinged(&internet.far, internet.host_address(family)));
    assert_eq!(echoes(), [false; 2]);
    let _ = closed.stop();

    let mut daemon =
        gate(internet.host(), &denying("public = [\"tcp/443\", \"udp/53\", \"icmp/echo\"]", &["tcp/22"]));
    assert_eq!(reaches(), [[true; 2]; 2]);
    assert_eq!(echoes(), [true; 2]);
    for family in FAMILIES {
        let (host, far) = (internet.host_address(family), internet.far_address(family));
        assert!(!sshd.opens_soon(&internet.far, host, None), "{family:?}: open before the knock");
        Tool::Ours.knock(&internet.far, host, &STEPS);
        daemon.promotion(far, "ssh");
        assert!(sshd.opens(&internet.far, host), "{family:?}: shut after the knock");
    }
}

#[test]
fn a_door_to_anything_opens_everything_to_who_knocks() {
    let internet = Internet::new();
    let echoes = [
        Echo::start_dual(internet.host(), Proto::Tcp, UNNAMED),
        Echo::start_dual(internet.host(), Proto::Udp, UNNAMED),
    ];
    let host = internet.host_address(Family::V4);
    let reaches = |from: &Namespace| echoes.each_ref().map(|one| one.answers(from, host));
    let mut daemon = gate(internet.host(), &denying("", &["any"]));
    assert_eq!(reaches(&internet.far), [false; 2]);

    Tool::Ours.knock(&internet.far, host, &STEPS);

    daemon.promotion(internet.far_address(Family::V4), "ssh");
    assert_eq!(reaches(&internet.far), [true; 2]);
    assert!(pinged(&internet.far, host), "echo requests are not let in");
    assert_eq!(reaches(internet.router()), [false; 2], "somebody else");
}

/// Out and in, on ports that are neither public nor behind a door.
#[test]
fn attaching_cuts_no_connection_and_a_new_one_is_refused() {
    let internet = Internet::new();
    let there = Echo::start_dual(&internet.far, Proto::Tcp, UNNAMED);
    let here = Echo::start_dual(internet.host(), Proto::Tcp, UNNAMED);
    let mut sessions = Vec::new();
    for family in FAMILIES {
        sessions.push(there.session(internet.host(), internet.far_address(family), None));
        sessions.push(here.session(&internet.far, internet.host_address(family), None));
    }
    sessions.iter_mut().for_each(|session| session.assert_lives("without a gate"));

    let _gate = gate(internet.host(), &denying("", &["tcp/22"]));

    sessions.iter_mut().for_each(|session| session.assert_lives("after the gate came"));
    for family in FAMILIES {
        assert!(
            !here.answers(&internet.far, internet.host_address(family)),
            "{family:?}: a new one is let in"
        );
        assert!(
            there.answers(internet.host(), internet.far_address(family)),
            "{family:?}: a new one out fails"
        );
    }
}

/// What the box awaits is not the daemon's to forget.
#[test]
fn a_conversation_of_the_box_s_own_goes_on_without_the_daemon_and_with_another() {
    let internet = Internet::new();
    let there = Echo::start_dual(&internet.far, Proto::Udp, UNNAMED);
    let gate = Instance::new(internet.host(), &["srv0"], &denying("", &["tcp/22"]));
    let daemon = gate.serve(&["--persist"]);
    let mut sessions =
        FAMILIES.map(|family| there.session(internet.host(), internet.far_address(family), None));
    let mut live = |when: &str| sessions.iter_mut().for_each(|session| session.assert_lives(when));
    live("behind the gate");
    daemon.kill();
    live("after kill -9 of the daemon");
    let _daemon = gate.serve(&["--persist"]);
    live("with a new daemon");
    let _ = gate.run("reload", &[]).succeeded();
    live("after a reload");
}

/// The hole of an answer is as narrow as the question.
#[test]
fn what_was_not_asked_for_does_not_come_in_beside_an_answer() {
    let network = Network::new();
    let _gate = gate(&network.server, &denying("", &["tcp/22"]));
    for family in FAMILIES {
        let (here, there) = (address(family, 0, 1), address(family, 0, 2));
        let bind = |namespace: &Namespace, address: IpAddr, port: u16| {
            let socket = namespace.within(|| UdpSocket::bind((address, port))).expect("a free port");
            socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
            socket
        };
        let asks = bind(&network.server, here, 40_001);
        let idle = bind(&network.server, here, 40_002);
        let answers = bind(&network.client, there, 5300);
        let other = bind(&network.client, there, 5301);
        let mut room = [0; 16];
        asks.send_to(b"question", (there, 5300)).expect("a way");
        assert_eq!(answers.recv(&mut room).expect("no gate is in the way"), 8);

        other.send_to(b"from another port", (here, 40_001)).expect("a way");
        answers.send_to(b"to another port", (here, 40_002)).expect("a way");
        answers.send_to(b"the answer", (here, 40_001)).expect("a way");

        let came = asks.recv(&mut room).expect("the answer comes");
        assert_eq!(&room[..came], b"the answer", "{family:?}");
        assert!(asks.recv(&mut room).is_err() && idle.recv(&mut room).is_err(), "{family:?}: more came in");
    }
}
