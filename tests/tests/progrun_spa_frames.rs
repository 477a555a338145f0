//! The ways in which a single packet may lie in a frame, and those in which it is none, against the real program.

use std::array;

use knock_common::{
    abi::{FlowKey, List, mapped},
    counter::Counter,
    spa::{
        packet::{LENGTH, Request},
        verdict::{REFUSALS, Refusal},
    },
    verdict::{Action, Mode},
};
use knock_tests::{
    kernel::run,
    packet::{
        DESTINATION, FRAGMENT, HOP_BY_HOP, HOST, IPV4, MORE, ROUTING, SERVICE_VLAN, STRANGER6, TCP, UDP, V4,
        V6, VLAN, extension, fragment_header, tagged,
    },
    spa::{BOOT, PORT, SENDER, START, Spa, datagram},
};

/// How a datagram lies in a frame.
type Shape = fn(&[u8]) -> Vec<u8>;

fn v4() -> V4 {
    V4::new(UDP)
}

fn v6(extensions: &[(u8, Vec<u8>)]) -> V6 {
    V6::behind(UDP, extensions)
}

fn changed(mut frame: Vec<u8>, at: usize, to: [u8; 2]) -> Vec<u8> {
    frame[at..at + 2].copy_from_slice(&to);
    frame
}

/// Offsets in an IPv4 frame without options: the length and the checksum of UDP.
const LEN_AT: usize = 14 + 20 + 4;
const SUM_AT: usize = 14 + 20 + 6;

const PACKETS: [(&str, Shape); 11] = [
    ("IPv4", |udp| v4().frame(udp)),
    ("with options", |udp| V4 { options: vec![1; 40], ..v4() }.frame(udp)),
    ("in a VLAN", |udp| tagged(&[VLAN], IPV4, &v4().packet(udp))),
    ("in a VLAN in a VLAN", |udp| tagged(&[SERVICE_VLAN, VLAN], IPV4, &v4().packet(udp))),
    ("padded by the link", |udp| [v4().frame(udp), vec![0; 46]].concat()),
    ("in a frame of many pages", |udp| [v4().frame(udp), vec![0; 9000]].concat()),
    ("with a checksum that hardware is to fill in", |udp| changed(v4().frame(udp), SUM_AT, [0x12, 0x34])),
    ("IPv6", |udp| v6(&[]).frame(udp)),
    ("behind hop-by-hop options", |udp| v6(&[extension(HOP_BY_HOP, 0)]).frame(udp)),
    ("behind three headers", |udp| {
        v6(&[extension(HOP_BY_HOP, 1), extension(ROUTING, 0), extension(DESTINATION, 2)]).frame(udp)
    }),
    ("behind long options", |udp| v6(&[extension(DESTINATION, 31)]).frame(udp)),
];

const NONE: [(&str, Shape); 16] = [
    ("a first fragment", |udp| V4 { fragment: MORE, ..v4() }.frame(udp)),
    ("a later fragment", |udp| V4 { fragment: 3, ..v4() }.frame(udp)),
    ("a first fragment of IPv6", |udp| v6(&[fragment_header(0, true)]).frame(udp)),
    ("a later fragment of IPv6", |udp| v6(&[fragment_header(3, false)]).frame(udp)),
    ("the only fragment of IPv6", |udp| v6(&[fragment_header(0, false)]).frame(udp)),
    ("to a group, by its link", |udp| changed(v4().frame(udp), 0, [0x01, 0x00])),
    ("with a wrong checksum of IP", |udp| V4 { is_checksum_wrong: true, ..v4() }.frame(udp)),
    ("a byte more in IP than in UDP", |udp| v4().frame(&[udp, &[0]].concat())),
    ("a byte less in UDP than in IP", |udp| changed(v4().frame(udp), LEN_AT, [0, 85])),
    ("a byte more in UDP than in IP", |udp| changed(v4().frame(udp), LEN_AT, [0, 87])),
    ("more in IP than there is", |udp| V4 { total: Some(20 + 87), ..v4() }.frame(udp)),
    ("less in IP than there is", |udp| V4 { total: Some(20 + 85), ..v4() }.frame(udp)),
    ("TCP", |udp| V4::new(TCP).frame(udp)),
    ("in three VLANs", |udp| tagged(&[VLAN, VLAN, VLAN], IPV4, &v4().packet(udp))),
    ("from an address of IPv4 in IPv6", |udp| V6 { source: mapped(SENDER), ..v6(&[]) }.frame(udp)),
    ("where a fragment header should be", |udp| V6 { proto: FRAGMENT, ..v6(&[]) }.frame(udp)),
];

#[test]
fn a_packet_is_found_wherever_the_stack_finds_a_datagram_and_nowhere_else() {
    for mode in [Mode::Guard, Mode::Deny] {
        let mut spa = Spa::load(mode, 0);
        let mut counter = BOOT + START;
        for (shapes, is_packet) in [(&PACKETS[..], true), (&NONE[..], false)] {
            for (name, shape) in shapes {
                counter += 1;
                let source = if shape(&[0; 86])[..].windows(16).any(|bytes| bytes == STRANGER6) {
                    STRANGER6
                } else {
                    mapped(SENDER)
                };
                let packet = spa.seal(&Request { counter, source: Some(source), ..spa.request() });
                let before = (spa.accepted(), refused(&spa));

                run(spa.program(), &shape(&datagram(PORT, &packet)));

                let after = (spa.accepted(), refused(&spa));
                assert_eq!(after, (before.0 + u64::from(is_packet), before.1), "{name}, mode {mode:?}");
            }
        }
    }
}

fn refused(spa: &Spa) -> u64 {
    REFUSALS.into_iter().map(|refusal| spa.refused(refusal)).sum()
}

#[test]
fn what_has_a_right_of_its_own_keeps_it_whatever_is_refused() {
    let length = [0; LENGTH];
    // A reply to what the host sent from the port.
    let mut spa = Spa::load(Mode::Deny, 0);
    let flow = FlowKey {
        remote: mapped(SENDER),
        local: mapped(HOST),
        remote_port: u16::from_be_bytes(array::from_fn(|at| datagram(PORT, &length)[at])),
        local_port: PORT,
        proto: UDP,
        _pad: [0; 3],
    };
    let reply = v4().frame(&datagram(PORT, &length));
    assert_eq!(run(spa.program(), &reply), Action::Drop);
    spa.await_reply(flow);
    assert_eq!(run(spa.program(), &reply), Action::Pass);
    assert_eq!(spa.counter(Counter::Reply), 1);
    // A source that is never judged.
    let mut spa = Spa::load_listed(Mode::Guard, 0, &[(List::Allow, 0, [203, 0, 113, 0, 24])]);
    assert_eq!(run(spa.program(), &reply), Action::Pass);
    assert_eq!((spa.counter(Counter::Allowed), spa.refused(Refusal::Malformed)), (1, 1));
}
