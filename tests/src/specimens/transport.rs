//! TCP, UDP and ICMP.

use knock_common::verdict::Verdict::{self, BadTransport, Hidden, Knock, Unrelated};

use super::Table;
use crate::packet::{ACK, CWR, ECE, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP, URG, V4, V6, icmp, tcp, udp};

pub(super) fn fill(table: &mut Table) {
    flags(table);
    tcp_lengths(table);
    udp_lengths(table);
    icmp_types(table);
    icmpv6_types(table);
    echo(table);
}

/// A knock has SYN, and none of ACK, RST and FIN; a hidden port is hidden from every combination.
fn flags(table: &mut Table) {
    let cases: [(&str, u8, Verdict); 18] = [
        ("null", 0, Unrelated),
        ("syn", SYN, Knock),
        ("syn_psh", SYN | PSH, Knock),
        ("syn_urg", SYN | URG, Knock),
        ("syn_ece_cwr", SYN | ECE | CWR, Knock),
        ("syn_psh_urg_ece_cwr", SYN | PSH | URG | ECE | CWR, Knock),
        ("syn_ack", SYN | ACK, Unrelated),
        ("syn_ack_ece", SYN | ACK | ECE, Unrelated),
        ("syn_rst", SYN | RST, Unrelated),
        ("syn_fin", SYN | FIN, Unrelated),
        ("syn_fin_rst_ack", SYN | FIN | RST | ACK, Unrelated),
        ("ack", ACK, Unrelated),
        ("psh_ack", PSH | ACK, Unrelated),
        ("fin", FIN, Unrelated),
        ("fin_ack", FIN | ACK, Unrelated),
        ("rst", RST, Unrelated),
        ("xmas", FIN | PSH | URG, Unrelated),
        ("all", 0xff, Unrelated),
    ];
    for (name, flags, verdict) in cases {
        table.add(format!("tcp_{name}_hidden"), Hidden, V4::new(TCP).frame(&tcp(22, flags)));
        table.add(format!("tcp_{name}_hidden_v6"), Hidden, V6::new(TCP).frame(&tcp(22, flags)));
        table.add(format!("tcp_{name}_step"), verdict, V4::new(TCP).frame(&tcp(7001, flags)));
        table.add(format!("tcp_{name}_step_v6"), verdict, V6::new(TCP).frame(&tcp(7001, flags)));
        table.add(format!("tcp_{name}_other"), verdict, V4::new(TCP).frame(&tcp(5555, flags)));
        table.add(format!("tcp_{name}_public"), Unrelated, V4::new(TCP).frame(&tcp(80, flags)));
    }
}

/// Data offset and size of the segment (`tcp_v4_rcv`: both the offset and the header must fit).
fn tcp_lengths(table: &mut Table) {
    for (words, verdict) in
        [(0, BadTransport), (4, BadTransport), (5, Hidden), (6, BadTransport), (15, BadTransport)]
    {
        let mut segment = tcp(22, SYN);
        segment[12] = words << 4;
        table.add(format!("tcp_offset_{words}_of_5"), verdict, V4::new(TCP).frame(&segment));
        table.add(format!("tcp_offset_{words}_of_5_v6"), verdict, V6::new(TCP).frame(&segment));
    }
    for words in [6_u8, 15] {
        let mut segment = tcp(22, SYN);
        segment[12] = words << 4;
        segment.resize(usize::from(words) * 4, 1);
        table.add(format!("tcp_offset_{words}_of_{words}"), Hidden, V4::new(TCP).frame(&segment));
        segment[3] = 0x59;
        segment[2] = 0x1b;
        table.add(format!("tcp_offset_{words}_step"), Knock, V4::new(TCP).frame(&segment));
    }
    for len in [0, 1, 4, 13, 14, 19] {
        let segment = &tcp(22, SYN)[..len];
        table.add(format!("tcp_of_{len}_bytes"), BadTransport, V4::new(TCP).frame(segment));
        table.add(format!("tcp_of_{len}_bytes_v6"), BadTransport, V6::new(TCP).frame(segment));
    }
    let mut with_data = tcp(7001, SYN);
    with_data.extend(b"data in the SYN, as TCP Fast Open has it");
    table.add("tcp_syn_with_data_step", Knock, V4::new(TCP).frame(&with_data));
    with_data[2..4].copy_from_slice(&22_u16.to_be_bytes());
    table.add("tcp_syn_with_data_hidden", Hidden, V4::new(TCP).frame(&with_data));
}

/// The length field of a datagram of 8 + 4 bytes (`__udp4_lib_rcv`: at least 8, at most what is there).
fn udp_lengths(table: &mut Table) {
    let lies = [
        (0, BadTransport),
        (1, BadTransport),
        (7, BadTransport),
        (8, Hidden),
        (11, Hidden),
        (12, Hidden),
        (13, BadTransport),
        (65_535, BadTransport),
    ];
    for (len, verdict) in lies {
        let mut datagram = udp(51_820, 4);
        datagram[4..6].copy_from_slice(&u16::to_be_bytes(len));
        table.add(format!("udp_length_{len}_of_12"), verdict, V4::new(UDP).frame(&datagram));
        table.add(format!("udp_length_{len}_of_12_v6"), verdict, V6::new(UDP).frame(&datagram));
    }
    for len in [0, 1, 4, 6, 7] {
        let datagram = &udp(51_820, 0)[..len];
        table.add(format!("udp_of_{len}_bytes"), BadTransport, V4::new(UDP).frame(datagram));
        table.add(format!("udp_of_{len}_bytes_v6"), BadTransport, V6::new(UDP).frame(datagram));
    }
    table.add("udp_empty_step", Knock, V4::new(UDP).frame(&udp(7002, 0)));
    table.add("udp_empty_hidden", Hidden, V4::new(UDP).frame(&udp(51_820, 0)));
}

/// No ICMP but the echo request is a knock, and nothing hides behind ICMP (RFC 792).
fn icmp_types(table: &mut Table) {
    let types = [
        ("echo_reply", 0, 0),
        ("unreachable", 3, 3),
        ("fragmentation_needed", 3, 4),
        ("source_quench", 4, 0),
        ("redirect", 5, 1),
        ("router_advertisement", 9, 0),
        ("router_solicitation", 10, 0),
        ("time_exceeded", 11, 0),
        ("parameter_problem", 12, 0),
        ("timestamp", 13, 0),
        ("address_mask", 17, 0),
        ("extended_echo", 42, 0),
        ("echo_request_code_1", 8, 1),
        ("echo_request_code_255", 8, 255),
        ("icmpv6_echo_request", 128, 0),
        ("unassigned", 255, 0),
    ];
    for (name, kind, code) in types {
        table.add(format!("icmp_{name}"), Unrelated, V4::new(ICMP).frame(&icmp(kind, code, 56)));
    }
}

/// Neighbour discovery and multicast listeners keep IPv6 alive (RFC 4861, RFC 3810).
fn icmpv6_types(table: &mut Table) {
    let types = [
        ("unreachable", 1, 4),
        ("packet_too_big", 2, 0),
        ("time_exceeded", 3, 0),
        ("parameter_problem", 4, 1),
        ("echo_reply", 129, 0),
        ("listener_query", 130, 0),
        ("listener_report", 131, 0),
        ("listener_done", 132, 0),
        ("router_solicitation", 133, 0),
        ("router_advertisement", 134, 0),
        ("neighbour_solicitation", 135, 0),
        ("neighbour_advertisement", 136, 0),
        ("redirect", 137, 0),
        ("listener_report_2", 143, 0),
        ("echo_request_code_1", 128, 1),
        ("icmp_echo_request", 8, 0),
    ];
    for (name, kind, code) in types {
        table.add(format!("icmpv6_{name}"), Unrelated, V6::new(ICMPV6).frame(&icmp(kind, code, 56)));
    }
}

fn echo(table: &mut Table) {
    for size in [0, 1, 55, 56, 57, 1400] {
        table.add(format!("icmp_echo_of_{size}"), Knock, V4::new(ICMP).frame(&icmp(8, 0, size)));
        table.add(format!("icmpv6_echo_of_{size}"), Knock, V6::new(ICMPV6).frame(&icmp(128, 0, size)));
    }
    for len in [0, 1, 4, 7] {
        table.add(format!("icmp_of_{len}_bytes"), BadTransport, V4::new(ICMP).frame(&icmp(8, 0, 0)[..len]));
        let v6 = V6::new(ICMPV6).frame(&icmp(128, 0, 0)[..len]);
        table.add(format!("icmpv6_of_{len}_bytes"), BadTransport, v6);
    }
}
