//! Conversations in the kernel: nothing beside a live one passes, and each lasts as long as it may.
//!
//! `KNOCK_SEED` brings a run's random neighbours back.

mod flows;

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use flows::{HIDDEN, Host, REMOTE, SECOND, START_NS, flow, flow6, incoming, leaving, outgoing, segment};
use knock_common::{
    abi::{FlowKey, MAX_SESSIONS, is_mapped, mapped},
    counter::Counter,
    flow::Stage,
};
use knock_tests::{
    packet::{ACK, FIN, ICMP, RST, SYN, TCP, UDP},
    random::Random,
};

/// Packets beside a live conversation, over all kinds of them.
const BESIDE: usize = 1_000_000;
/// From one packet of the conversation itself to the next.
const EVERY: usize = 1000;
/// How long a UDP conversation that a grant let in may rest, if the configuration does not say.
const UDP_IDLE_NS: u64 = 900 * SECOND;

/// A conversation in a host's memory.
struct Live {
    name: &'static str,
    host: Host,
    flow: FlowKey,
}

/// A grant lets a UDP conversation in, and ends.
fn let_in(mode: &str, flow: FlowKey) -> Host {
    let mut host = Host::new(mode);
    host.grant(flow.remote);
    assert!(host.gets(&incoming(&flow)));
    assert_eq!(host.count(Counter::SessionNoted), 1);
    host.set_now_ns(START_NS + 2 * SECOND);
    host
}

/// The host asks, and answers are awaited.
fn asked(flow: FlowKey) -> Host {
    let mut host = Host::new("deny");
    assert!(!host.gets(&incoming(&flow)));
    host.sends(&outgoing(&flow));
    assert_eq!(host.count(Counter::ReplyNoted), 1);
    host
}

fn forwarded(mode: &str, flow: FlowKey) -> Host {
    let mut host = Host::new(mode);
    assert!(!host.gets(&incoming(&flow)));
    if mode == "deny" {
        host.await_reply(flow, Stage::Established);
    } else {
        host.keep(flow, Stage::Established);
    }
    host
}

fn live() -> Vec<Live> {
    let tunnel = flow(UDP, REMOTE, HIDDEN);
    let (dns, dns6) = (flow(UDP, 53, REMOTE), flow6(UDP, 53, REMOTE));
    let (ping, ping6) = (flow(ICMP, 77, 77), flow6(ICMP, 77, 77));
    let (behind, masqueraded) = (flow6(TCP, REMOTE, HIDDEN), flow(TCP, 443, REMOTE));
    [
        ("guard, UDP that a grant let in", let_in("guard", tunnel), tunnel),
        ("deny, UDP that a grant let in", let_in("deny", tunnel), tunnel),
        ("guard, TCP to a host behind", forwarded("guard", behind), behind),
        ("deny, TCP of a host behind", forwarded("deny", masqueraded), masqueraded),
        ("deny, UDP reply", asked(dns), dns),
        ("deny, UDP reply over IPv6", asked(dns6), dns6),
        ("deny, echo reply", asked(ping), ping),
        ("deny, echo reply over IPv6", asked(ping6), ping6),
    ]
    .map(|(name, host, flow)| Live { name, host, flow })
    .into()
}

#[test]
fn a_million_packets_one_field_beside_a_live_conversation_never_pass() {
    let seed = Random::seed("KNOCK_SEED");
    println!("KNOCK_SEED={seed}");
    let mut random = Random::new(seed);
    let all = live();
    let share = BESIDE.div_ceil(all.len());
    for Live { name, mut host, flow } in all {
        let mut own = 0;
        for number in 0..share {
            if number % EVERY == 0 {
                own += usize::from(host.gets(&incoming(&flow)));
            }
            let beside = beside(&flow, &mut random);
            assert!(!host.gets(&incoming(&beside)), "{name}: packet {number}, {beside:?} beside {flow:?}");
        }
        println!("{name}: {share} beside it dropped, {own} of its own passed");
        assert_eq!(own, share.div_ceil(EVERY), "{name}");
    }
}

/// Returns the conversation with one field changed, by one bit or to anything.
fn beside(flow: &FlowKey, random: &mut Random) -> FlowKey {
    loop {
        let mut other = *flow;
        let is_hidden = (HIDDEN..HIDDEN + 100).contains(&flow.local_port);
        match random.below(5) {
            0 => other.remote = another(&flow.remote, random),
            1 => other.local = another(&flow.local, random),
            2 => other.remote_port = another_port(flow.remote_port, random),
            // Among the hidden ones: another port is open in guard mode.
            3 if is_hidden => {
                other.local_port = HIDDEN + u16::try_from(random.below(100)).expect("few ports");
            }
            3 => other.local_port = another_port(flow.local_port, random),
            _ => other.proto = if flow.proto == UDP { TCP } else { UDP },
        }
        // An echo has one number in both places, and its frame has one.
        if flow.proto == ICMP && other.proto == ICMP {
            other.local_port = other.remote_port;
        }
        if other != *flow {
            return other;
        }
    }
}

/// Another address of the same family.
fn another(address: &[u8; 16], random: &mut Random) -> [u8; 16] {
    let mut other = *address;
    let first = if is_mapped(address) { 12 } else { 0 };
    if random.once_in(2) {
        other[first + random.below(16 - first)] ^= 1 << random.below(8);
    } else {
        other[first..].fill_with(|| random.byte());
    }
    // A v4-mapped source over IPv6 is refused before all this.
    if is_mapped(&other) == is_mapped(address) { other } else { *address }
}

fn another_port(port: u16, random: &mut Random) -> u16 {
    if random.once_in(2) { port ^ 1 << random.below(16) } else { random.word() }
}

/// Asserts that a conversation passes to the last instant of its rest, counted from where `begin` leaves it, and not after. What
/// passes is seen, so that each instant is tried with another one.
fn assert_rests(host: &mut Host, flow: &FlowKey, rest_ns: u64, begin: impl Fn(&mut Host, &FlowKey)) {
    for (more_ns, is_live) in [(0, true), (1, false)] {
        let number = u16::try_from(host.now_ns % 10_007).expect("16 bits");
        let remote_port = flow.remote_port ^ number;
        let local_port = if flow.proto == ICMP { remote_port } else { flow.local_port };
        let flow = FlowKey { remote_port, local_port, ..*flow };
        begin(host, &flow);
        host.rest(rest_ns + more_ns);
        assert_eq!(host.gets(&incoming(&flow)), is_live, "{flow:?} after {rest_ns} ns and {more_ns}");
        // Grants end, and no number comes twice.
        host.rest(2 * SECOND + 1);
    }
}

fn begin_tunnel(host: &mut Host, flow: &FlowKey) {
    host.grant(flow.remote);
    assert!(host.gets(&incoming(flow)));
}

#[test]
fn udp_that_a_grant_let_in_rests_a_quarter_of_an_hour_after_its_last_packet_either_way() {
    let tunnel = flow(UDP, REMOTE, HIDDEN);
    let mut host = Host::new("guard");
    assert_rests(&mut host, &tunnel, UDP_IDLE_NS, begin_tunnel);
    assert_rests(&mut host, &tunnel, UDP_IDLE_NS, |host, flow| {
        begin_tunnel(host, flow);
        host.rest(UDP_IDLE_NS - SECOND);
        assert!(host.gets(&incoming(flow)));
    });
    assert_rests(&mut host, &tunnel, UDP_IDLE_NS, |host, flow| {
        begin_tunnel(host, flow);
        host.rest(UDP_IDLE_NS - SECOND);
        host.sends(&outgoing(flow));
    });
}

#[test]
fn an_answer_is_awaited_a_minute_and_the_next_for_three() {
    let mut host = Host::new("deny");
    for asking in [flow(UDP, 53, REMOTE), flow6(UDP, 53, REMOTE), flow(ICMP, 77, 77)] {
        assert_rests(&mut host, &asking, 60 * SECOND, |host, flow| host.sends(&outgoing(flow)));
        assert_rests(&mut host, &asking, 60 * SECOND, |host, flow| {
            host.sends(&outgoing(flow));
            host.rest(30 * SECOND);
            host.sends(&outgoing(flow));
        });
        assert_rests(&mut host, &asking, 180 * SECOND, |host, flow| {
            host.sends(&outgoing(flow));
            host.rest(30 * SECOND);
            assert!(host.gets(&incoming(flow)));
        });
    }
}

#[test]
fn forwarded_tcp_rests_by_how_far_it_has_come() {
    let most: [(&[u8], u64); 6] = [
        (&[], 120),
        (&[SYN | ACK], 120),
        (&[ACK], 5 * 24 * 3600),
        (&[ACK, FIN | ACK], 120),
        (&[ACK, RST], 120),
        (&[ACK, FIN | ACK, ACK], 120),
    ];
    for mode in ["guard", "deny"] {
        let mut host = Host::new(mode);
        let flow = if mode == "deny" { flow(TCP, 443, REMOTE) } else { flow(TCP, REMOTE, HIDDEN) };
        for (words, rest_s) in most {
            assert_rests(&mut host, &flow, rest_s * SECOND, |host, flow| {
                match mode {
                    "deny" => host.await_reply(*flow, Stage::Opening),
                    _ => host.keep(*flow, Stage::Opening),
                }
                assert!(!host.gets(&segment(flow, SYN)), "{mode}: a SYN never goes on");
                for flags in words {
                    assert!(host.gets(&segment(flow, *flags)), "{mode}, flags {flags:#04x}");
                }
            });
        }
    }
}

#[test]
fn tcp_of_a_socket_is_noted_from_its_begin_unless_the_kernel_finds_the_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let local = mapped([127, 0, 0, 1]);
    let local_port = client.local_addr().expect("an address").port();
    let found = FlowKey { remote: local, local, remote_port: port, local_port, proto: TCP, _pad: [0; 3] };
    let translated = FlowKey { remote_port: port ^ 1, ..found };
    let mut host = Host::new("deny");

    host.sends(&leaving(&found, SYN));
    host.sends(&outgoing(&translated));
    assert_eq!(host.count(Counter::ReplyNoted), 0, "found by its socket; and no begin");
    host.sends(&leaving(&translated, SYN));
    assert_eq!(host.count(Counter::ReplyNoted), 1);
    assert!(host.gets(&incoming(&translated)), "its answer");
    assert!(host.gets(&incoming(&found)), "the socket's answer");
    assert!(!host.gets(&incoming(&FlowKey { remote_port: port ^ 2, ..found })));
    assert_eq!(host.reply(translated).expect("a note").stage, Stage::Established.number());
}

#[test]
fn what_goes_on_is_written_once_a_second() {
    let tunnel = flow(UDP, REMOTE, HIDDEN);
    let mut host = let_in("guard", tunnel);
    assert_eq!(host.seen_ns(tunnel.remote), START_NS);
    for (after_ns, seen_ns) in [(2 * SECOND, 2), (3 * SECOND - 1, 2), (3 * SECOND, 3), (4 * SECOND - 1, 3)] {
        host.set_now_ns(START_NS + after_ns);
        assert!(host.gets(&incoming(&tunnel)));
        assert_eq!(host.seen_ns(tunnel.remote), START_NS + seen_ns * SECOND, "after {after_ns} ns");
    }

    let dns = flow(UDP, 53, REMOTE);
    let mut host = asked(dns);
    let seen = |host: &Host| host.reply(dns).expect("a conversation").seen_ns;
    for (after_ns, seen_ns) in [(SECOND - 1, 0), (SECOND, 1), (2 * SECOND - 1, 1)] {
        host.set_now_ns(START_NS + after_ns);
        host.sends(&outgoing(&dns));
        assert_eq!(seen(&host), START_NS + seen_ns * SECOND, "after {after_ns} ns");
    }
    // A new stage is written at once.
    assert!(host.gets(&incoming(&dns)));
    assert_eq!(seen(&host), START_NS + 2 * SECOND - 1);
}

#[test]
fn a_source_begins_thirty_two_conversations_and_the_next_when_one_is_over() {
    let with = |port: u16| flow(UDP, REMOTE + port, HIDDEN);
    let most = u16::try_from(MAX_SESSIONS).expect("few");
    assert_eq!(most, 32);
    let mut host = Host::new("guard");
    host.grant(with(0).remote);
    for port in 0..=most {
        assert!(host.gets(&incoming(&with(port))), "with a grant all pass");
    }
    assert_eq!(host.count(Counter::SessionNoted), u64::from(most));
    assert_eq!(host.count(Counter::SessionNotStored), 1);
    let other = FlowKey { remote: [0x20; 16], local: flow6(UDP, 1, 1).local, ..with(0) };
    host.grant(other.remote);
    assert!(host.gets(&incoming(&other)), "the cap is one of a source");
    assert_eq!(host.count(Counter::SessionNoted), u64::from(most) + 1);

    // Once the grant is over: all but the first go on, which then has rested too long.
    host.set_now_ns(START_NS + UDP_IDLE_NS);
    for port in 1..most {
        assert!(host.gets(&incoming(&with(port))), "conversation {port}");
    }
    assert!(!host.gets(&incoming(&with(most))), "one that was not stored");
    host.set_now_ns(START_NS + UDP_IDLE_NS + 1);
    host.grant(with(0).remote);
    assert!(host.gets(&incoming(&with(most))));
    assert_eq!(host.count(Counter::SessionNotStored), 1);
    host.set_now_ns(START_NS + UDP_IDLE_NS + 2 * SECOND);
    assert!(host.gets(&incoming(&with(most))), "it has the slot of the first");
    assert!(!host.gets(&incoming(&with(0))));
}
