//! Fragments.

use knock_common::verdict::Verdict::{
    self, BadExtension, BadTransport, FragmentOverlap, Hidden, Knock, LaterFragment, Unrelated,
};

use super::Table;
use crate::packet::{
    ACK, DESTINATION, ICMP, ICMPV6, MORE, ROUTING, SYN, TCP, UDP, V4, V6, extension, fragment_header, icmp,
    tcp, udp,
};

pub(super) fn fill(table: &mut Table) {
    first(table);
    tiny(table);
    later(table);
    flags(table);
    chained(table);
}

/// First and atomic fragments are judged as what they carry, but are never a knock.
fn first(table: &mut Table) {
    let cases: [(&str, Verdict, u8, Vec<u8>); 7] = [
        ("hidden_tcp", Hidden, TCP, tcp(22, SYN)),
        ("hidden_tcp_ack", Hidden, TCP, tcp(9005, ACK)),
        ("hidden_udp", Hidden, UDP, udp(51_820, 16)),
        ("step_tcp", Unrelated, TCP, tcp(7001, SYN)),
        ("step_udp", Unrelated, UDP, udp(7002, 16)),
        ("wrong_port", Unrelated, TCP, tcp(5555, SYN)),
        ("public", Unrelated, TCP, tcp(80, SYN)),
    ];
    for (name, verdict, proto, payload) in cases {
        let v4 = V4 { fragment: MORE, ..V4::new(proto) };
        table.add(format!("frag_v4_first_{name}"), verdict, v4.frame(&payload));
        for (kind, is_more) in [("first", true), ("atomic", false)] {
            let v6 = V6::behind(proto, &[fragment_header(0, is_more)]);
            table.add(format!("frag_v6_{kind}_{name}"), verdict, v6.frame(&payload));
        }
    }
    let v4 = V4 { fragment: MORE, ..V4::new(ICMP) };
    table.add("frag_v4_first_echo", Unrelated, v4.frame(&icmp(8, 0, 56)));
    let v6 = V6::behind(ICMPV6, &[fragment_header(0, true)]);
    table.add("frag_v6_first_echo", Unrelated, v6.frame(&icmp(128, 0, 56)));
    // The UDP length is that of the whole datagram, of which this is the first part.
    let mut part = udp(51_820, 1400);
    part.truncate(64);
    table.add("frag_v4_first_of_a_long_datagram_hidden", Hidden, {
        V4 { fragment: MORE, ..V4::new(UDP) }.frame(&part)
    });
    table.add("frag_v6_first_of_a_long_datagram_hidden", Hidden, {
        V6::behind(UDP, &[fragment_header(0, true)]).frame(&part)
    });
}

/// A first fragment that ends inside the header above (RFC 1858, section 3.1; RFC 7112).
fn tiny(table: &mut Table) {
    for len in [0, 4, 8, 16, 19] {
        let payload = &tcp(22, SYN)[..len];
        let v4 = V4 { fragment: MORE, ..V4::new(TCP) };
        table.add(format!("frag_v4_tiny_tcp_{len}"), BadTransport, v4.frame(payload));
        let v6 = V6::behind(TCP, &[fragment_header(0, true)]);
        table.add(format!("frag_v6_tiny_tcp_{len}"), BadTransport, v6.frame(payload));
    }
    for len in [0, 4, 7] {
        let payload = &udp(51_820, 0)[..len];
        let v4 = V4 { fragment: MORE, ..V4::new(UDP) };
        table.add(format!("frag_v4_tiny_udp_{len}"), BadTransport, v4.frame(payload));
        let v6 = V6::behind(UDP, &[fragment_header(0, true)]);
        table.add(format!("frag_v6_tiny_udp_{len}"), BadTransport, v6.frame(payload));
    }
    let mut options = tcp(22, SYN);
    options[12] = 0xf0;
    table.add("frag_v4_tiny_tcp_options_cut", BadTransport, {
        V4 { fragment: MORE, ..V4::new(TCP) }.frame(&options)
    });
    table.add("frag_v6_tiny_tcp_options_cut", BadTransport, {
        V6::behind(TCP, &[fragment_header(0, true)]).frame(&options)
    });
}

/// Units of 8 bytes: 1 and 2 begin inside a TCP header, which such a fragment could overwrite.
fn later(table: &mut Table) {
    let cases: [(&str, u8, u16, Verdict); 14] = [
        ("tcp", TCP, 1, FragmentOverlap),
        ("tcp", TCP, 2, FragmentOverlap),
        ("tcp", TCP, 3, LaterFragment),
        ("tcp", TCP, 185, LaterFragment),
        ("tcp", TCP, 0x1fff, LaterFragment),
        ("udp", UDP, 1, LaterFragment),
        ("udp", UDP, 2, LaterFragment),
        ("udp", UDP, 3, LaterFragment),
        ("udp", UDP, 185, LaterFragment),
        ("udp", UDP, 0x1fff, LaterFragment),
        ("esp", 50, 1, LaterFragment),
        ("esp", 50, 185, LaterFragment),
        ("sctp", 132, 1, LaterFragment),
        ("unassigned", 200, 1, LaterFragment),
    ];
    for (name, proto, offset, verdict) in cases {
        for (part, is_more) in [("middle", true), ("last", false)] {
            let fragment = offset | if is_more { MORE } else { 0 };
            let v4 = V4 { fragment, ..V4::new(proto) };
            // What looks like a SYN to a hidden port is data here.
            table.add(format!("frag_v4_{part}_{name}_{offset}"), verdict, v4.frame(&tcp(22, SYN)));
            let v6 = V6::behind(proto, &[fragment_header(offset, is_more)]);
            table.add(format!("frag_v6_{part}_{name}_{offset}"), verdict, v6.frame(&tcp(22, SYN)));
        }
    }
}

fn flags(table: &mut Table) {
    let cases = [
        ("dont_fragment_hidden", 0x4000, 22, Hidden),
        ("dont_fragment_step", 0x4000, 7001, Knock),
        ("reserved_bit_hidden", 0x8000, 22, Hidden),
        ("reserved_bit_step", 0x8000, 7001, Knock),
        ("dont_and_more_hidden", 0x6000, 22, Hidden),
        ("dont_and_more_step", 0x6000, 7001, Unrelated),
        ("dont_and_offset_1", 0x4001, 22, FragmentOverlap),
        ("dont_and_offset_3", 0x4003, 22, LaterFragment),
    ];
    for (name, fragment, port, verdict) in cases {
        table.add(format!("frag_v4_{name}"), verdict, V4 { fragment, ..V4::new(TCP) }.frame(&tcp(port, SYN)));
    }
    let mut reserved = fragment_header(0, false);
    reserved.1[3] |= 0b110;
    let v6 = V6::behind(TCP, &[reserved]);
    table.add("frag_v6_reserved_bits_hidden", Hidden, v6.frame(&tcp(22, SYN)));
}

/// A fragment header between other extension headers (RFC 8200, section 4.5).
fn chained(table: &mut Table) {
    let (before, behind) = (extension(ROUTING, 0), extension(DESTINATION, 0));
    let chain = |offset: u16, is_more: bool| {
        V6::behind(TCP, &[before.clone(), fragment_header(offset, is_more), behind.clone()])
    };
    table.add("frag_v6_between_extensions_hidden", Hidden, chain(0, true).frame(&tcp(22, SYN)));
    table.add("frag_v6_between_extensions_later", LaterFragment, chain(3, true).frame(&tcp(22, SYN)));
    table.add("frag_v6_chain_without_transport", BadTransport, chain(0, true).frame(&[]));
    let mut cut = extension(DESTINATION, 0);
    cut.1[1] = 9;
    let packet = V6::behind(TCP, &[fragment_header(0, true), cut]);
    table.add("frag_v6_chain_cut_in_an_extension", BadExtension, packet.frame(&tcp(22, SYN)));
    let mut short = V6::behind(TCP, &[fragment_header(0, false)]);
    short.len = Some(4);
    table.add("frag_v6_header_cut", BadExtension, short.frame(&tcp(22, SYN)));
}
