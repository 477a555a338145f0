//! Deny mode: what everybody may send, what a grant lets in, and that the rest is shut.

use knock_common::{
    abi::{Address, Proto, mapped},
    flow::Stage,
    verdict::{Action, Mode, Verdict},
};

#[path = "../../tests/src/gate.rs"]
#[expect(dead_code, reason = "the doors' sequences do not matter here")]
mod gate;
#[expect(dead_code, reason = "no conversation with a hidden service goes on here")]
mod host;
#[path = "../../tests/src/packet.rs"]
#[expect(dead_code, reason = "other tests need more kinds of packets")]
mod packet;

use gate::{Door, Gate, Permit, Prefix, SECOND};
use host::Host;
use packet::*;

const NOW: u64 = 1_000 * SECOND;
const IGMP: u8 = 2;
const GRE: u8 = 47;
const ESP: u8 = 50;

/// Door 0 hides tcp/22 and udp/51820 at the host's own addresses. tcp/443 and udp/53 are open to everybody.
fn host() -> Host {
    let mut door = Door::of(&[gate::tcp(7001), gate::tcp(9000)]);
    door.opens = vec![(Proto::Tcp, 22..=22), (Proto::Udp, 51_820..=51_820)];
    door.to = vec![Prefix { address: mapped(HOST), bits: 128 }, Prefix { address: HOST6, bits: 128 }];
    let mut gate = Gate::new(vec![door, Door::of(&[gate::tcp(7002), gate::tcp(9000)])], &[]);
    gate.now_ns = NOW;
    let mut host = Host::new(gate);
    host.public = [(Proto::Tcp.bit(), 443), (Proto::Udp.bit(), 53)].into();
    host
}

fn v4(proto: u8, payload: &[u8]) -> Vec<u8> {
    V4::new(proto).frame(payload)
}

fn v6(proto: u8, payload: &[u8]) -> Vec<u8> {
    V6::new(proto).frame(payload)
}

fn is_dropped(verdict: Verdict) -> bool {
    verdict.action(Mode::Deny) == Action::Drop
}

#[test]
fn a_port_is_open_if_it_is_public_and_shut_if_nothing_is_said_of_it() {
    let host = host();
    for flags in [SYN, ACK, RST, FIN, SYN | ACK, 0, FIN | PSH | URG] {
        assert_eq!(host.verdict(&v4(TCP, &tcp(443, flags))), Verdict::Public, "flags {flags:#04x}");
        let shut = if flags == SYN { Verdict::Knock } else { Verdict::Denied };
        assert_eq!(host.verdict(&v4(TCP, &tcp(80, flags))), shut, "flags {flags:#04x}");
        assert!(is_dropped(shut));
    }
    for (payload, verdict) in [(udp(53, 8), Verdict::Public), (udp(54, 8), Verdict::Denied)] {
        assert_eq!(host.verdict(&v4(UDP, &payload)), verdict);
        assert_eq!(host.verdict(&v6(UDP, &payload)), verdict);
    }
    assert_eq!(host.verdict(&v4(TCP, &tcp(53, ACK))), Verdict::Denied, "public is of one protocol");
}

#[test]
fn echo_requests_are_answered_where_they_are_public() {
    let mut host = host();
    let pings = [v4(ICMP, &icmp(8, 0, 8)), v6(ICMPV6, &icmp(128, 0, 8))];
    for ping in &pings {
        assert_eq!(host.verdict(ping), Verdict::Denied);
    }
    host.public.insert((Proto::Icmp.bit(), 0));
    for ping in &pings {
        assert_eq!(host.verdict(ping), Verdict::Public);
    }
    // A timestamp request is none.
    assert_eq!(host.verdict(&v4(ICMP, &icmp(13, 0, 12))), Verdict::Denied);
}

#[test]
fn what_the_link_lives_by_is_never_lost_and_nothing_beside_it_passes() {
    let host = host();
    let neighbourly = [130, 131, 132, 133, 134, 135, 136, 137, 143];
    for kind in 0..=u8::MAX {
        let verdict = if neighbourly.contains(&kind) { Verdict::Control } else { Verdict::Denied };
        assert_eq!(host.verdict(&v6(ICMPV6, &icmp(kind, 0, 24))), verdict, "ICMPv6 type {kind}");
        assert_eq!(host.verdict(&v4(ICMP, &icmp(kind, 0, 24))), Verdict::Denied, "ICMP type {kind}");
    }
    assert_eq!(host.verdict(&v4(IGMP, &[0x11, 0, 0, 0, 0, 0, 0, 0])), Verdict::Control);
    assert_eq!(host.verdict(&v6(IGMP, &[0x11, 0, 0, 0, 0, 0, 0, 0])), Verdict::Denied, "IPv6 has no IGMP");
    assert_eq!(host.verdict(&ethernet(0x0806, &[0; 28])), Verdict::NotIp, "ARP");
    assert!(!is_dropped(Verdict::Control) && !is_dropped(Verdict::NotIp) && is_dropped(Verdict::Denied));
}

#[test]
fn a_protocol_of_ip_is_open_by_its_number() {
    let mut host = host();
    host.public_protos = [GRE].into();
    for (proto, verdict) in [(GRE, Verdict::Public), (ESP, Verdict::Denied), (0xff, Verdict::Denied)] {
        assert_eq!(host.verdict(&v4(proto, &[0; 24])), verdict, "protocol {proto}");
        assert_eq!(host.verdict(&v6(proto, &[0; 24])), verdict, "protocol {proto}");
    }
    let later = |proto| V4 { fragment: 3, ..V4::new(proto) }.frame(&[0; 8]);
    assert_eq!(host.verdict(&later(GRE)), Verdict::LaterFragment);
    assert_eq!(host.verdict(&later(ESP)), Verdict::StrayFragment);
}

#[test]
fn a_later_fragment_passes_if_its_first_did_and_no_longer_than_said() {
    let mut host = host();
    let later = V4 { fragment: 3, ..V4::new(UDP) }.frame(&[0; 8]);
    assert_eq!(host.verdict(&later), Verdict::StrayFragment);
    assert!(is_dropped(Verdict::StrayFragment));

    let segment = knock_common::parse::parse(&later[..]).expect("a sound frame");
    let key = knock_common::talk::fragment_key(&segment, &mapped(STRANGER), &mapped(HOST));
    host.fragments.insert(key, NOW);

    assert_eq!(host.verdict(&later), Verdict::LaterFragment);
    let other = V4 { source: [203, 0, 113, 8], fragment: 3, ..V4::new(UDP) }.frame(&[0; 8]);
    assert_eq!(host.verdict(&other), Verdict::StrayFragment);
    host.gate.now_ns = NOW + 1;
    assert_eq!(host.verdict(&later), Verdict::StrayFragment);
}

#[test]
fn a_first_fragment_is_judged_like_a_whole_packet() {
    let mut host = host();
    let first = |port| V4 { fragment: MORE, ..V4::new(UDP) }.frame(&udp(port, 8));
    assert_eq!(host.verdict(&first(53)), Verdict::Public);
    assert_eq!(host.verdict(&first(54)), Verdict::Denied);
    assert_eq!(host.verdict(&first(51_820)), Verdict::Hidden);
    host.gate.grants = vec![Permit { source: mapped(STRANGER), door: 0, until_ns: NOW }];
    assert_eq!(host.verdict(&first(51_820)), Verdict::Granted);
}

#[test]
fn a_hidden_service_is_open_to_a_grant_and_where_its_door_is_not_it_is_shut_like_the_rest() {
    let mut host = host();
    let at = |destination| V4 { destination, ..V4::new(TCP) }.frame(&tcp(22, ACK));
    let elsewhere = [203, 0, 113, 2];
    assert_eq!(host.verdict(&at(HOST)), Verdict::Hidden);
    assert_eq!(host.verdict(&at(elsewhere)), Verdict::Denied);
    host.gate.grants = vec![Permit { source: mapped(STRANGER), door: 0, until_ns: NOW }];
    assert_eq!(host.verdict(&at(HOST)), Verdict::Granted);
    assert_eq!(host.verdict(&at(elsewhere)), Verdict::Denied);
    host.gate.now_ns = NOW + 1;
    assert_eq!(host.verdict(&at(HOST)), Verdict::Hidden);
}

#[test]
fn a_grant_for_everything_opens_what_nothing_hides_and_nothing_else() {
    let mut host = host();
    host.any_doors = 1 << 1;
    let everything =
        [v4(TCP, &tcp(80, ACK)), v4(UDP, &udp(123, 8)), v4(ICMP, &icmp(8, 0, 8)), v4(ESP, &[0; 8])];
    let all = |host: &Host, verdict| {
        for frame in &everything {
            assert_eq!(host.verdict(frame), verdict);
        }
    };
    all(&host, Verdict::Denied);
    let permit = |source: Address, door| Permit { source, door, until_ns: NOW };
    // For another door, then of another source.
    host.gate.grants = vec![permit(mapped(STRANGER), 0), permit(mapped(HOST), 1)];
    all(&host, Verdict::Denied);
    host.gate.grants = vec![permit(mapped(STRANGER), 1)];
    all(&host, Verdict::Granted);
    host.gate.now_ns = NOW + 1;
    all(&host, Verdict::Denied);

    host.gate.now_ns = NOW;
    host.any_doors = 0;
    all(&host, Verdict::Denied);
}

#[test]
fn a_knock_at_a_port_that_a_door_to_everything_would_open_stays_a_knock() {
    let mut host = host();
    host.any_doors = 1 << 1;
    assert_eq!(host.verdict(&v4(TCP, &tcp(7002, SYN))), Verdict::Knock);
    host.gate.grants = vec![Permit { source: mapped(STRANGER), door: 1, until_ns: NOW }];
    assert_eq!(host.verdict(&v4(TCP, &tcp(7002, SYN))), Verdict::Granted);
}

#[test]
fn what_is_not_for_the_host_goes_on_its_way_and_what_a_door_hides_behind_it_does_not() {
    let mut host = host();
    let behind = [203, 0, 113, 77];
    let frame = |proto, payload: &[u8]| V4 { destination: behind, ..V4::new(proto) }.frame(payload);
    let passing = [frame(TCP, &tcp(80, ACK)), frame(UDP, &udp(5000, 8)), frame(ESP, &[0; 8])];
    let later = V4 { destination: behind, fragment: 3, ..V4::new(UDP) }.frame(&[0; 8]);
    for frame in &passing {
        assert_eq!(host.verdict(frame), Verdict::Denied);
    }
    assert_eq!(host.verdict(&later), Verdict::StrayFragment);

    host.forwarded = [mapped(behind)].into();

    for frame in &passing {
        assert_eq!(host.verdict(frame), Verdict::Forwarded);
    }
    assert_eq!(host.verdict(&later), Verdict::LaterFragment);
    host.gate.doors[0].to.push(Prefix { address: mapped(behind), bits: 128 });
    assert_eq!(host.verdict(&frame(TCP, &tcp(22, SYN))), Verdict::Hidden);
}

#[test]
fn what_is_for_a_group_is_for_the_host_too() {
    let mut host = host();
    let mdns = [224, 0, 0, 251];
    host.forwarded = [mapped(mdns), mapped([203, 0, 113, 77])].into();
    let to = |destination| V4 { destination, ..V4::new(UDP) }.frame(&udp(5353, 8));
    assert_eq!(host.verdict(&to(mdns)), Verdict::Denied);
    let mut by_link = to([203, 0, 113, 77]);
    assert_eq!(host.verdict(&by_link), Verdict::Forwarded);
    by_link[0] |= 1;
    assert_eq!(host.verdict(&by_link), Verdict::Denied);
}

#[test]
fn an_allowed_source_is_let_in_first_of_all() {
    let mut host = host();
    let frames = [v4(TCP, &tcp(22, SYN)), v4(UDP, &udp(54, 8)), v4(ESP, &[0; 8])];
    for frame in &frames {
        assert!(is_dropped(host.verdict(frame)));
    }
    host.gate.allow = vec![Prefix { address: mapped(STRANGER), bits: 128 }];
    for frame in &frames {
        assert_eq!(host.verdict(frame), Verdict::Allowed);
    }
}

#[test]
fn a_header_whose_sum_is_wrong_is_dropped_where_it_would_be_looked_into() {
    let host = host();
    let wrong = V4 { is_checksum_wrong: true, ..V4::new(UDP) };
    assert_eq!(host.verdict(&wrong.frame(&udp(54, 8))), Verdict::BadIp);
    assert_eq!(host.verdict(&V4::new(UDP).frame(&udp(54, 8))), Verdict::Denied);
    // What is open to everybody is left to the stack, which sums it up anyway.
    assert_eq!(host.verdict(&wrong.frame(&udp(53, 8))), Verdict::Public);
}

#[test]
fn guard_mode_asks_for_nothing_of_all_this() {
    let mut host = Host { is_deny: false, ..host() };
    host.any_doors = 1 << 1;
    let dns = knock_common::abi::FlowKey {
        remote: mapped(STRANGER),
        local: mapped(HOST),
        remote_port: 40_000,
        local_port: 54,
        proto: UDP,
        _pad: [0; 3],
    };
    host.await_reply(dns, Stage::Asked);
    for frame in
        [v4(UDP, &udp(54, 8)), v4(TCP, &tcp(443, SYN | ACK)), v4(ESP, &[0; 8]), v6(ICMPV6, &icmp(135, 0, 16))]
    {
        assert_eq!(host.verdict(&frame), Verdict::Unrelated);
    }
    let later = V4 { fragment: 3, ..V4::new(UDP) }.frame(&[0; 8]);
    assert_eq!(host.verdict(&later), Verdict::LaterFragment);
    assert_eq!(host.verdict(&v4(TCP, &tcp(22, SYN))), Verdict::Hidden);
    host.is_deny = true;
    assert_eq!(host.verdict(&v4(UDP, &udp(54, 8))), Verdict::Reply);
}
