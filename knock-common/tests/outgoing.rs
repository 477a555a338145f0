//! What is remembered of a packet that leaves, and what is not.

use knock_common::{
    abi::{Address, FlowKey, Proto, mapped},
    decide::{Access, Found, Visit},
    flow::Stage,
    outgoing::{Remember, is_granted, remember},
    talk::{self, Part},
};

#[path = "../../tests/src/gate.rs"]
#[expect(dead_code, reason = "the doors' sequences do not matter here")]
mod gate;
#[expect(dead_code, reason = "nothing comes in here")]
mod host;

use gate::{Door, Gate, Permit, Prefix, SECOND, tcp};
use host::Host;

const HERE: Address = mapped([203, 0, 113, 1]);
const CLIENT: Address = mapped([203, 0, 113, 9]);
const NOW: u64 = 1_000 * SECOND;
const ALL_PARTS: [Part; 10] = [
    Part::None,
    Part::Begins,
    Part::Accepts,
    Part::Goes,
    Part::Ends,
    Part::Datagram,
    Part::Asks,
    Part::Answers,
    Part::Fails,
    Part::LaterFragment,
];
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// Hides tcp/22 and udp/51820; tcp/443 and udp/53 are open to everybody.
fn host() -> Host {
    let mut door = Door::of(&[tcp(7001), tcp(9000)]);
    door.opens = vec![(Proto::Tcp, 22..=22), (Proto::Udp, 51_820..=51_820)];
    door.to = vec![Prefix { address: HERE, bits: 128 }];
    let mut gate = Gate::new(vec![door], &[]);
    gate.now_ns = NOW;
    let mut host = Host::new(gate);
    host.public = [(Proto::Tcp.bit(), 443), (Proto::Udp.bit(), 53)].into();
    host
}

fn flow(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: CLIENT, local: HERE, remote_port, local_port, proto, _pad: [0; 3] }
}

#[test]
fn in_deny_mode_what_asks_is_remembered_and_what_answers_for_a_public_service_is_not() {
    let host = host();
    let [dns, ping] = [flow(UDP, 53, 40_000), flow(ICMP, 77, 77)];
    for is_own in [true, false] {
        assert_eq!(remember(&dns, Part::Datagram, is_own, &host), Remember::Reply(dns, Stage::Asked));
        assert_eq!(remember(&ping, Part::Asks, is_own, &host), Remember::Reply(ping, Stage::Asked));
        let served = flow(UDP, 40_000, 53);
        assert_eq!(remember(&served, Part::Datagram, is_own, &host), Remember::Nothing);
    }
    assert_eq!(remember(&flow(TCP, 40_000, 443), Part::Accepts, false, &host), Remember::Nothing);
    assert_eq!(remember(&ping, Part::Answers, false, &host), Remember::Nothing);
    assert_eq!(remember(&ping, Part::Fails, false, &host), Remember::Nothing);
    assert_eq!(remember(&flow(47, 0, 0), Part::None, false, &host), Remember::Nothing);
    assert_eq!(remember(&flow(47, 0, 0), Part::Datagram, false, &host), Remember::Nothing);
}

#[test]
fn tcp_is_remembered_where_no_socket_of_the_host_s_shows_it() {
    let host = host();
    let https = flow(TCP, 443, 40_000);
    let stages = [
        (Part::Begins, Stage::Opening),
        (Part::Accepts, Stage::Opening),
        (Part::Goes, Stage::Established),
        (Part::Ends, Stage::Closing),
    ];
    for (part, stage) in stages {
        assert_eq!(remember(&https, part, false, &host), Remember::Reply(https, stage));
    }
}

#[test]
fn tcp_of_a_socket_is_remembered_from_its_begin_if_it_will_not_be_found_by_what_is_on_the_wire() {
    let (https, own) = (flow(TCP, 443, 40_000), true);
    let mut host = host();
    for part in [Part::Begins, Part::Accepts] {
        assert_eq!(remember(&https, part, own, &host), Remember::Reply(https, Stage::Opening), "{part:?}");
    }
    host.sockets.insert(https);
    for part in [Part::Begins, Part::Accepts] {
        assert_eq!(remember(&https, part, own, &host), Remember::Nothing, "{part:?}");
    }
    // What was never noted is not begun by these, so that no refusal of a closed port makes a note.
    for part in [Part::Goes, Part::Ends] {
        assert_eq!(remember(&https, part, own, &host), Remember::Known(https), "{part:?}");
    }
}

#[test]
fn outside_deny_mode_nothing_is_awaited() {
    let host = Host { is_deny: false, ..host() };
    for part in ALL_PARTS {
        for flow in [flow(UDP, 53, 40_000), flow(TCP, 443, 40_000), flow(ICMP, 77, 77), flow(UDP, 67, 68)] {
            assert_eq!(remember(&flow, part, false, &host), Remember::Nothing, "{part:?} {flow:?}");
        }
    }
}

#[test]
fn a_lease_is_awaited_from_anybody_and_what_goes_to_a_group_from_nobody() {
    let host = host();
    let discover = FlowKey { remote: mapped([255; 4]), local: mapped([0; 4]), ..flow(UDP, 67, 68) };
    assert_eq!(
        remember(&discover, Part::Datagram, true, &host),
        Remember::Reply(talk::lease(&flow(UDP, 67, 68)), Stage::Asked)
    );
    let mdns = FlowKey { remote: mapped([224, 0, 0, 251]), ..flow(UDP, 5353, 5353) };
    assert_eq!(remember(&mdns, Part::Datagram, true, &host), Remember::Nothing);
    let to_one = flow(UDP, 5353, 5353);
    assert_eq!(remember(&to_one, Part::Datagram, true, &host), Remember::Reply(to_one, Stage::Asked));
}

#[test]
fn a_hidden_service_s_packets_keep_its_conversations_and_never_await_a_reply() {
    for is_deny in [true, false] {
        for (part, keeping) in ALL_PARTS.into_iter().map(|part| match part {
            Part::Accepts => (part, Remember::Accepted),
            Part::Goes | Part::Ends | Part::Datagram => (part, Remember::Session),
            Part::None | Part::Begins | Part::Asks | Part::Answers | Part::Fails | Part::LaterFragment => {
                (part, Remember::Nothing)
            }
        }) {
            let mut host = Host { is_deny, ..host() };
            for flow in [flow(TCP, 40_000, 22), flow(UDP, 40_000, 51_820)] {
                assert_eq!(remember(&flow, part, false, &host), keeping, "{part:?}");
                host.keeps = false;
                assert_eq!(remember(&flow, part, false, &host), Remember::Nothing, "cut, {part:?}");
                host.keeps = true;
            }
            let ssh = flow(TCP, 40_000, 22);
            assert_eq!(remember(&ssh, part, true, &host), keeping, "translated, {part:?}");
            host.sockets.insert(ssh);
            let found = if keeping == Remember::Accepted { Remember::Nothing } else { keeping };
            assert_eq!(remember(&ssh, part, true, &host), found, "{part:?}");
        }
    }
}

/// Whether the other side of a conversation is found to have a grant, whatever was in the room before.
fn granted(host: &Host, flow: &FlowKey) -> bool {
    let mut access = Access { is_hidden: true, is_granted: true, is_expired: true, found: Found::Socket };
    is_granted(flow, host, &mut Visit { source: HERE, destination: CLIENT, ..Visit::NONE }, &mut access)
}

#[test]
fn the_other_side_has_a_grant_for_this_port_and_place_until_it_ends() {
    let mut host = host();
    let ssh = flow(TCP, 40_000, 22);
    assert!(!granted(&host, &ssh));
    host.gate.grants = vec![Permit { source: CLIENT, door: 0, until_ns: NOW }];
    assert!(granted(&host, &ssh));
    assert!(granted(&host, &flow(UDP, 40_000, 51_820)));

    assert!(!granted(&host, &flow(UDP, 40_000, 22)), "another protocol");
    assert!(!granted(&host, &flow(TCP, 40_000, 23)), "another port");
    assert!(!granted(&host, &FlowKey { remote: HERE, ..ssh }), "another source");
    assert!(!granted(&host, &FlowKey { local: CLIENT, ..ssh }), "where the door is not");
    host.gate.now_ns = NOW + 1;
    assert!(!granted(&host, &ssh), "after its last instant");
}
