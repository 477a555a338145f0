//! Which conversation a packet belongs to, from either side, and what part it plays in it.

use knock_common::{
    abi::{Address, FlowKey, FragmentKey, mapped},
    parse,
    talk::{self, NO_FLOW, Part},
};

#[path = "../../tests/src/packet.rs"]
#[expect(dead_code, reason = "other tests need more kinds of packets")]
mod packet;

use packet::*;

/// An identifier that [`icmp`] gives its messages.
const ID: u16 = 77;

fn incoming(frame: &[u8]) -> (Part, FlowKey) {
    let segment = parse::parse(frame).expect("a sound frame");
    let source = segment.source(frame).expect("a source");
    let destination = segment.destination(frame).expect("a destination");
    let mut flow = NO_FLOW;
    (talk::incoming(frame, &segment, &source, &destination, &mut flow), flow)
}

fn outgoing(frame: &[u8]) -> (Part, FlowKey) {
    let segment = parse::parse(frame).expect("a sound frame");
    let mut flow = NO_FLOW;
    (talk::outgoing(frame, &segment, &mut flow).expect("addresses"), flow)
}

/// A conversation of the host with the stranger.
fn flow(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: mapped(STRANGER), local: mapped(HOST), remote_port, local_port, proto, _pad: [0; 3] }
}

fn flow6(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: STRANGER6, local: HOST6, ..flow(proto, remote_port, local_port) }
}

/// What the host sends to the stranger.
fn sent(proto: u8) -> V4 {
    V4 { source: HOST, destination: STRANGER, ..V4::new(proto) }
}

fn sent6(proto: u8) -> V6 {
    V6 { source: HOST6, destination: STRANGER6, ..V6::new(proto) }
}

#[test]
fn the_flags_of_a_segment_say_its_part() {
    let said = [
        (SYN, Part::Begins),
        (SYN | ECE | CWR, Part::Begins),
        // A stack takes the first of these for a SYN and drops the second: neither is to pass as anything that goes on.
        (SYN | FIN, Part::Begins),
        (SYN | RST, Part::Begins),
        (SYN | ACK, Part::Accepts),
        (ACK, Part::Goes),
        (PSH | ACK, Part::Goes),
        (0, Part::Goes),
        (URG, Part::Goes),
        (FIN, Part::Ends),
        (FIN | ACK, Part::Ends),
        (RST, Part::Ends),
        (RST | ACK, Part::Ends),
    ];
    for (flags, part) in said {
        assert_eq!(Part::of_tcp(flags), part, "flags {flags:#04x}");
    }
}

#[test]
fn both_directions_of_a_conversation_are_the_same() {
    let came = incoming(&V4::new(TCP).frame(&tcp(22, ACK)));
    assert_eq!(came, (Part::Goes, flow(TCP, 40_000, 22)));
    let mut answer = tcp(40_000, SYN | ACK);
    answer[..2].copy_from_slice(&22_u16.to_be_bytes());
    assert_eq!(outgoing(&sent(TCP).frame(&answer)), (Part::Accepts, flow(TCP, 40_000, 22)));

    let came = incoming(&V6::new(UDP).frame(&udp(53, 4)));
    assert_eq!(came, (Part::Datagram, flow6(UDP, 40_000, 53)));
    let mut answer = udp(40_000, 4);
    answer[..2].copy_from_slice(&53_u16.to_be_bytes());
    assert_eq!(outgoing(&sent6(UDP).frame(&answer)), (Part::Datagram, flow6(UDP, 40_000, 53)));
}

#[test]
fn an_echo_reply_is_of_the_conversation_of_its_request() {
    for (request, reply) in [
        (sent(ICMP).frame(&icmp(8, 0, 8)), V4::new(ICMP).frame(&icmp(0, 0, 8))),
        (sent6(ICMPV6).frame(&icmp(128, 0, 8)), V6::new(ICMPV6).frame(&icmp(129, 0, 8))),
    ] {
        let (part, asked) = outgoing(&request);
        assert_eq!((part, asked.remote_port, asked.local_port, asked.proto), (Part::Asks, ID, ID, ICMP));
        assert_eq!(incoming(&reply), (Part::Answers, asked));
    }
    // Each family's number means something else in the other.
    assert_eq!(incoming(&V4::new(ICMP).frame(&icmp(129, 0, 8))).0, Part::None);
    assert_eq!(incoming(&V6::new(ICMPV6).frame(&icmp(0, 0, 8))).0, Part::None);
}

#[test]
fn an_echo_request_that_comes_in_asks() {
    assert_eq!(incoming(&V4::new(ICMP).frame(&icmp(8, 0, 8))), (Part::Asks, flow(ICMP, ID, ID)));
}

/// An ICMP error from a router about a packet.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = icmp(kind, 0, 0);
    message.extend(quoted);
    V4 { source: [192, 0, 2, 1], ..V4::new(ICMP) }.frame(&message)
}

fn error6(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = icmp(kind, 0, 0);
    message.extend(quoted);
    V6 { source: v6_address(2, 1), ..V6::new(ICMPV6) }.frame(&message)
}

#[test]
fn an_error_is_of_the_conversation_that_it_quotes() {
    let quoted = sent(UDP).packet(&udp(53, 0));
    let quoted6 = sent6(TCP).packet(&tcp(443, ACK));
    for kind in 0..=u8::MAX {
        let is_error = [3, 11, 12].contains(&kind);
        let (part, about) = incoming(&error(kind, &quoted));
        assert_eq!(part == Part::Fails, is_error, "kind {kind}");
        assert!(!is_error || about == flow(UDP, 53, 40_000), "kind {kind}: {about:?}");

        let is_error = (1..=4).contains(&kind);
        let (part, about) = incoming(&error6(kind, &quoted6));
        assert_eq!(part == Part::Fails, is_error, "kind {kind}");
        assert!(!is_error || about == flow6(TCP, 443, 40_000), "kind {kind}: {about:?}");
    }
}

#[test]
fn an_error_may_quote_options_an_echo_request_and_eight_bytes_of_tcp() {
    let options = V4 { options: vec![1; 8], ..sent(UDP) }.packet(&udp(53, 0));
    assert_eq!(incoming(&error(3, &options)), (Part::Fails, flow(UDP, 53, 40_000)));
    let echo = sent(ICMP).packet(&icmp(8, 0, 0));
    assert_eq!(incoming(&error(11, &echo)), (Part::Fails, flow(ICMP, ID, ID)));
    let echo = sent6(ICMPV6).packet(&icmp(128, 0, 0));
    assert_eq!(incoming(&error6(3, &echo)), (Part::Fails, flow6(ICMP, ID, ID)));
    // RFC 792: the header and the first 64 bits.
    let short = &sent(TCP).packet(&tcp(443, ACK))[..28];
    assert_eq!(incoming(&error(3, short)), (Part::Fails, flow(TCP, 443, 40_000)));
}

#[test]
fn an_error_that_quotes_no_head_of_a_conversation_is_of_none() {
    let whole = sent(UDP).packet(&udp(53, 0));
    let with = |at: usize, byte: u8| {
        let mut quoted = whole.clone();
        quoted[at] = byte;
        quoted
    };
    let of_none = [
        ("cut short", whole[..27].to_vec()),
        ("nothing", vec![]),
        ("another version", with(0, 0x65)),
        ("a header shorter than IP's", with(0, 0x44)),
        ("a later fragment", with(7, 1)),
        ("another protocol", with(9, 47)),
    ];
    for (what, quoted) in of_none {
        assert_eq!(incoming(&error(3, &quoted)).0, Part::None, "{what}");
    }
    assert_eq!(incoming(&error(3, &whole)).0, Part::Fails);

    let whole6 = sent6(UDP).packet(&udp(53, 0));
    let mut version = whole6.clone();
    version[0] = 0x40;
    let behind = V6 { extensions: vec![extension(DESTINATION, 0)], ..sent6(UDP) }.packet(&udp(53, 0));
    for (what, quoted) in [("cut short", &whole6[..47]), ("version", &version), ("extension", &behind)] {
        assert_eq!(incoming(&error6(1, quoted)).0, Part::None, "{what}");
    }
    assert_eq!(incoming(&error6(1, &whole6)).0, Part::Fails);
}

#[test]
fn what_the_host_sends_of_itself_begins_no_conversation() {
    for kind in [0, 3, 11] {
        assert_eq!(outgoing(&sent(ICMP).frame(&icmp(kind, 0, 28))).0, Part::None, "kind {kind}");
    }
    assert_eq!(outgoing(&sent(47).frame(&[0; 8])).0, Part::None);
    assert_eq!(outgoing(&V4 { fragment: 100, ..sent(UDP) }.frame(&[0; 8])).0, Part::None);
    assert_eq!(outgoing(&sent(UDP).frame(&udp(53, 8))).0, Part::Datagram);
}

#[test]
fn two_conversations_are_the_same_if_every_field_is() {
    let one = flow(UDP, 53, 40_000);
    assert!(one.is(&one.clone()));
    let others = [
        FlowKey { remote: mapped([203, 0, 113, 8]), ..one },
        FlowKey { local: mapped([203, 0, 112, 1]), ..one },
        FlowKey { remote_port: 54, ..one },
        FlowKey { remote_port: 53 | 0x8000, ..one },
        FlowKey { local_port: 40_001, ..one },
        FlowKey { proto: TCP, ..one },
        // Differences that undo each other where they are added up.
        FlowKey { remote_port: 52, local_port: 40_001, ..one },
        FlowKey { remote: one.local, local: one.remote, ..one },
    ];
    for other in others {
        assert!(!one.is(&other) && !other.is(&one), "{other:?}");
    }
}

#[test]
fn a_lease_is_asked_for_between_the_ports_of_dhcp_alone() {
    for (remote_port, local_port, is_lease) in [
        (67, 68, true),
        (547, 546, true),
        (68, 67, false),
        (546, 547, false),
        (67, 546, false),
        (547, 68, false),
        (67, 69, false),
        (66, 68, false),
    ] {
        assert_eq!(
            talk::is_lease(&flow(UDP, remote_port, local_port)),
            is_lease,
            "{remote_port} {local_port}"
        );
        assert!(!talk::is_lease(&flow(TCP, remote_port, local_port)));
    }
    let asked = FlowKey { remote: mapped([255; 4]), local: mapped([0; 4]), ..flow(UDP, 67, 68) };
    assert_eq!(talk::lease(&asked), talk::lease(&flow(UDP, 67, 68)));
    assert_ne!(talk::lease(&asked), talk::lease(&flow(UDP, 547, 546)));
}

#[test]
fn a_group_is_multicast_broadcast_or_nobody() {
    let mut all_nodes: Address = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    for group in
        [mapped([224, 0, 0, 1]), mapped([239, 255, 255, 250]), mapped([255; 4]), mapped([0; 4]), all_nodes]
    {
        assert!(talk::is_group(&group), "{group:?}");
    }
    for one in [
        mapped(HOST),
        mapped([223, 255, 255, 255]),
        mapped([240, 0, 0, 1]),
        mapped([10, 0, 0, 255]),
        mapped([255, 255, 255, 254]),
        mapped([0, 0, 0, 1]),
        HOST6,
        [0xfe; 16],
    ] {
        assert!(!talk::is_group(&one), "{one:?}");
    }
}

#[test]
fn fragments_of_a_datagram_share_a_key_with_no_other_datagram() {
    let key = |frame: &[u8]| -> FragmentKey {
        let segment = parse::parse(frame).expect("a sound frame");
        let source = segment.source(frame).expect("a source");
        let destination = segment.destination(frame).expect("a destination");
        talk::fragment_key(&segment, &source, &destination)
    };
    let first = key(&V4 { fragment: MORE, ..V4::new(UDP) }.frame(&udp(53, 8)));
    assert_eq!(key(&V4 { fragment: 2, ..V4::new(UDP) }.frame(&[0; 8])), first);
    assert_eq!(first.id, 0x1234);
    // IPv4 tells datagrams apart by their protocol too (RFC 791, section 3.2).
    assert_ne!(key(&V4 { fragment: 3, ..V4::new(TCP) }.frame(&[0; 8])), first);
    assert_ne!(key(&V4 { fragment: 2, source: [203, 0, 113, 8], ..V4::new(UDP) }.frame(&[0; 8])), first);
    assert_ne!(key(&V4 { fragment: 2, destination: [203, 0, 113, 2], ..V4::new(UDP) }.frame(&[0; 8])), first);

    // IPv6 does not (RFC 8200, section 4.5): the header behind the first may differ from what the others say.
    let first = key(&V6::behind(UDP, &[fragment_header(0, true)]).frame(&udp(53, 8)));
    assert_eq!(key(&V6::behind(DESTINATION, &[fragment_header(3, false)]).frame(&[0; 8])), first);
    let mut other = fragment_header(3, false);
    other.1[7] = 2;
    assert_ne!(key(&V6::behind(UDP, &[other]).frame(&[0; 8])), first);
}
