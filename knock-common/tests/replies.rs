//! Answers to what the host sent, and conversations that a grant let in: what passes without a grant, and what is a
//! field, an instant or a flag beside it.

use knock_common::{
    abi::{FlowKey, Proto, mapped},
    flow::{ASKED_NS, Stage},
    talk,
    verdict::Verdict,
};

#[path = "../../tests/src/gate.rs"]
#[expect(dead_code, reason = "the doors' sequences do not matter here")]
mod gate;
mod host;
#[path = "../../tests/src/packet.rs"]
#[expect(dead_code, reason = "other tests need more kinds of packets")]
mod packet;

use gate::{Door, Gate, Permit, SECOND};
use host::{Host, UDP_IDLE_NS};
use packet::*;

const NOW: u64 = 1_000_000 * SECOND;
/// The source port of [`tcp`] and [`udp`].
const REMOTE_PORT: u16 = 40_000;

/// A door hides tcp/22 and udp/51820; tcp/443 is public.
fn host() -> Host {
    let mut door = Door::of(&[gate::tcp(7001), gate::tcp(9000)]);
    door.opens = vec![(Proto::Tcp, 22..=22), (Proto::Udp, 51_820..=51_820)];
    let mut gate = Gate::new(vec![door], &[]);
    gate.now_ns = NOW;
    let mut host = Host::new(gate);
    host.public = [(Proto::Tcp.bit(), 443)].into();
    host
}

fn flow(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: mapped(STRANGER), local: mapped(HOST), remote_port, local_port, proto, _pad: [0; 3] }
}

fn segment(port: u16, flags: u8) -> Vec<u8> {
    V4::new(TCP).frame(&tcp(port, flags))
}

fn datagram(port: u16) -> Vec<u8> {
    V4::new(UDP).frame(&udp(port, 8))
}

#[test]
fn an_answer_passes_until_the_conversation_has_rested_too_long() {
    let mut host = host();
    assert_eq!(host.verdict(&datagram(5000)), Verdict::Denied);
    host.await_reply(flow(UDP, REMOTE_PORT, 5000), Stage::Asked);
    assert_eq!(host.verdict(&datagram(5000)), Verdict::Reply);
    host.gate.now_ns = NOW + ASKED_NS;
    assert_eq!(host.verdict(&datagram(5000)), Verdict::Reply);
    host.gate.now_ns = NOW + ASKED_NS + 1;
    assert_eq!(host.verdict(&datagram(5000)), Verdict::Denied);
}

#[test]
fn an_answer_one_field_beside_the_question_is_shut_out() {
    let mut host = host();
    let asked = flow(UDP, REMOTE_PORT, 5000);
    host.await_reply(asked, Stage::Asked);
    let from = |source, destination| V4 { source, destination, ..V4::new(UDP) }.frame(&udp(5000, 8));
    assert_eq!(host.verdict(&from(STRANGER, HOST)), Verdict::Reply);
    for beside in [
        from([203, 0, 113, 8], HOST),
        from(STRANGER, [203, 0, 113, 2]),
        datagram(5001),
        segment(5000, ACK),
        V6::new(UDP).frame(&udp(5000, 8)),
    ] {
        assert_eq!(host.verdict(&beside), Verdict::Denied);
    }
    let mut other_port = udp(5000, 8);
    other_port[1] ^= 1;
    assert_eq!(host.verdict(&V4::new(UDP).frame(&other_port)), Verdict::Denied);
}

#[test]
fn an_echo_reply_passes_by_its_identifier() {
    let mut host = host();
    let pong = |kind| V4::new(ICMP).frame(&icmp(kind, 0, 8));
    assert_eq!(host.verdict(&pong(0)), Verdict::Denied);
    host.await_reply(flow(ICMP, 78, 78), Stage::Asked);
    assert_eq!(host.verdict(&pong(0)), Verdict::Denied);
    host.await_reply(flow(ICMP, 77, 77), Stage::Asked);
    assert_eq!(host.verdict(&pong(0)), Verdict::Reply);
    assert_eq!(host.verdict(&pong(8)), Verdict::Denied, "a request answers nothing");
    assert_eq!(host.verdict(&pong(14)), Verdict::Denied);
}

#[test]
fn tcp_passes_by_the_host_s_socket_or_by_what_it_forwards_and_never_begins_so() {
    let going = [ACK, SYN | ACK, FIN | ACK, RST, PSH | ACK];
    let begins = [SYN, SYN | FIN, SYN | ECE];
    let mut own = host();
    own.sockets.insert(flow(TCP, REMOTE_PORT, 5000));
    let mut forwarding = host();
    forwarding.await_reply(flow(TCP, REMOTE_PORT, 5000), Stage::Established);
    for flags in going {
        assert_eq!(host().verdict(&segment(5000, flags)), Verdict::Denied, "flags {flags:#04x}");
        assert_eq!(own.verdict(&segment(5000, flags)), Verdict::Reply, "flags {flags:#04x}");
        assert_eq!(own.verdict(&segment(5001, flags)), Verdict::Denied, "flags {flags:#04x}");
        assert_eq!(forwarding.verdict(&segment(5000, flags)), Verdict::Reply, "flags {flags:#04x}");
    }
    for flags in begins {
        for host in [&own, &forwarding] {
            let verdict = host.verdict(&segment(5000, flags));
            assert!([Verdict::Knock, Verdict::Denied].contains(&verdict), "flags {flags:#04x}: {verdict:?}");
        }
    }
}

#[test]
fn an_address_lease_is_given_to_a_host_that_asked_for_one_and_within_its_time() {
    let lease = |proto, source_port: u16, port: u16| {
        let mut bytes = if proto == TCP { tcp(port, ACK) } else { udp(port, 8) };
        bytes[..2].copy_from_slice(&source_port.to_be_bytes());
        // From a server never spoken to, to an address that the host does not have yet.
        V4 { source: [192, 0, 2, 67], destination: [192, 0, 2, 200], ..V4::new(proto) }.frame(&bytes)
    };
    let mut host = host();
    assert_eq!(host.verdict(&lease(UDP, 67, 68)), Verdict::Denied);
    host.await_reply(talk::lease(&flow(UDP, 67, 68)), Stage::Asked);
    assert_eq!(host.verdict(&lease(UDP, 67, 68)), Verdict::Reply);

    assert_eq!(host.verdict(&lease(UDP, 66, 68)), Verdict::Denied);
    assert_eq!(host.verdict(&lease(UDP, 67, 69)), Verdict::Denied);
    assert_eq!(host.verdict(&lease(UDP, 547, 546)), Verdict::Denied, "DHCP was asked, not DHCPv6");
    assert_eq!(host.verdict(&lease(TCP, 67, 68)), Verdict::Denied);
    host.gate.now_ns = NOW + ASKED_NS + 1;
    assert_eq!(host.verdict(&lease(UDP, 67, 68)), Verdict::Denied);
}

#[test]
fn a_lease_of_dhcpv6_is_asked_for_at_a_group_and_given_by_one() {
    let mut bytes = udp(546, 8);
    bytes[..2].copy_from_slice(&547_u16.to_be_bytes());
    let advertise = V6::new(UDP).frame(&bytes);
    let mut host = host();
    assert_eq!(host.verdict(&advertise), Verdict::Denied);
    host.await_reply(talk::lease(&flow(UDP, 547, 546)), Stage::Asked);
    assert_eq!(host.verdict(&advertise), Verdict::Reply);
}

/// An ICMP error, of a router never spoken to, about what the host sent the stranger.
fn error(kind: u8, proto: u8, source_port: u16, port: u16) -> Vec<u8> {
    let mut sent = match proto {
        TCP => tcp(port, ACK),
        UDP => udp(port, 0),
        _ => icmp(8, 0, 0),
    };
    if proto != ICMP {
        sent[..2].copy_from_slice(&source_port.to_be_bytes());
    }
    let mut message = icmp(kind, 0, 0);
    message.extend(V4 { source: HOST, destination: STRANGER, ..V4::new(proto) }.packet(&sent));
    V4 { source: [192, 0, 2, 1], ..V4::new(ICMP) }.frame(&message)
}

#[test]
fn an_error_passes_if_it_quotes_what_goes_on() {
    let mut host = host();
    let about = [
        error(3, UDP, 5000, 53),
        error(11, TCP, 5000, 80),
        error(3, TCP, 5001, 80),
        error(3, ICMP, 77, 77),
        error(12, UDP, 51_820, 40_000),
        error(3, TCP, 22, 40_000),
    ];
    for error in &about {
        assert_eq!(host.verdict(error), Verdict::Denied);
    }
    host.await_reply(flow(UDP, 53, 5000), Stage::Answered);
    host.sockets.insert(flow(TCP, 80, 5000));
    host.await_reply(flow(TCP, 80, 5001), Stage::Opening);
    host.await_reply(flow(ICMP, 77, 77), Stage::Asked);
    host.keep(flow(UDP, 40_000, 51_820), Stage::Granted);
    for error in &about[..5] {
        assert_eq!(host.verdict(error), Verdict::Reply);
    }
    host.keep(flow(TCP, 40_000, 22), Stage::Established);
    assert_eq!(host.verdict(&about[5]), Verdict::Reply);

    host.gate.now_ns = NOW + 86_400 * 30 * SECOND;
    for (number, error) in about.iter().enumerate() {
        // The kernel's own socket is there for as long as it is there.
        let verdict = if number == 1 { Verdict::Reply } else { Verdict::Denied };
        assert_eq!(host.verdict(error), verdict, "error {number}");
    }
}

#[test]
fn an_error_about_another_conversation_or_of_another_kind_is_shut_out() {
    let mut host = host();
    host.await_reply(flow(UDP, 53, 5000), Stage::Answered);
    host.sockets.insert(flow(TCP, 80, 5000));
    assert_eq!(host.verdict(&error(3, UDP, 5000, 53)), Verdict::Reply);
    for (kind, proto, source_port, port) in [
        (3, UDP, 5001, 53),
        (3, UDP, 5000, 54),
        (3, TCP, 5000, 53),
        // A socket is asked for only about TCP.
        (3, UDP, 5000, 80),
        (3, ICMP, 77, 77),
        // Redirect and source quench: neither is ever needed, the first is an attack.
        (5, UDP, 5000, 53),
        (4, UDP, 5000, 53),
    ] {
        let verdict = host.verdict(&error(kind, proto, source_port, port));
        assert_eq!(verdict, Verdict::Denied, "{kind} {proto} {source_port} {port}");
    }
}

#[test]
fn an_error_about_what_a_public_service_sent_passes() {
    let mut host = host();
    assert_eq!(host.verdict(&error(3, TCP, 443, 40_000)), Verdict::Reply);
    assert_eq!(host.verdict(&error(3, TCP, 444, 40_000)), Verdict::Denied);
    assert_eq!(host.verdict(&error(3, UDP, 443, 40_000)), Verdict::Denied);
    assert_eq!(host.verdict(&error(3, ICMP, 77, 77)), Verdict::Denied);
    host.public.insert((Proto::Icmp.bit(), 0));
    assert_eq!(host.verdict(&error(3, ICMP, 77, 77)), Verdict::Reply, "an answer to a public ping");
}

#[test]
fn a_hidden_service_goes_on_with_a_socket_that_is_there_unless_its_door_cuts() {
    for is_deny in [true, false] {
        let mut host = Host { is_deny, ..host() };
        host.sockets.insert(flow(TCP, REMOTE_PORT, 22));
        for flags in [ACK, SYN | ACK, FIN | ACK, RST] {
            assert_eq!(host.verdict(&segment(22, flags)), Verdict::Session, "flags {flags:#04x}");
        }
        for flags in [SYN, SYN | FIN, SYN | RST] {
            assert_eq!(host.verdict(&segment(22, flags)), Verdict::Hidden, "flags {flags:#04x}");
        }
        assert_eq!(host.verdict(&V6::new(TCP).frame(&tcp(22, ACK))), Verdict::Hidden);
        host.keeps = false;
        assert_eq!(host.verdict(&segment(22, ACK)), Verdict::Hidden);
    }
}

#[test]
fn a_hidden_service_goes_on_with_what_a_grant_let_in_for_as_long_as_it_may_rest() {
    for is_deny in [true, false] {
        let mut host = Host { is_deny, ..host() };
        assert_eq!(host.verdict(&datagram(51_820)), Verdict::Hidden);
        host.keep(flow(UDP, REMOTE_PORT, 51_820), Stage::Granted);
        assert_eq!(host.verdict(&datagram(51_820)), Verdict::Session);
        let elsewhere = V4 { destination: [203, 0, 113, 2], ..V4::new(UDP) }.frame(&udp(51_820, 8));
        assert_eq!(host.verdict(&elsewhere), Verdict::Hidden);
        host.gate.now_ns = NOW + UDP_IDLE_NS;
        assert_eq!(host.verdict(&datagram(51_820)), Verdict::Session);
        host.gate.now_ns = NOW + UDP_IDLE_NS + 1;
        assert_eq!(host.verdict(&datagram(51_820)), Verdict::Hidden);

        host.keep(flow(TCP, REMOTE_PORT, 22), Stage::Established);
        assert_eq!(host.verdict(&segment(22, ACK)), Verdict::Session, "a host behind this one");
        assert_eq!(host.verdict(&segment(22, SYN)), Verdict::Hidden);
        host.gate.grants = vec![Permit { source: mapped(STRANGER), door: 0, until_ns: u64::MAX }];
        assert_eq!(host.verdict(&segment(22, SYN)), Verdict::Granted);
    }
}

#[test]
fn an_awaited_reply_opens_no_hidden_port() {
    let mut host = host();
    host.await_reply(flow(UDP, REMOTE_PORT, 51_820), Stage::Answered);
    host.await_reply(flow(TCP, REMOTE_PORT, 22), Stage::Established);
    assert_eq!(host.verdict(&datagram(51_820)), Verdict::Hidden);
    assert_eq!(host.verdict(&segment(22, ACK)), Verdict::Hidden);
}
