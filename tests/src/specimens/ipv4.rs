//! IPv4 headers.

use knock_common::verdict::Verdict::{BadIp, BadTransport, Hidden, Knock, Unrelated};

use super::Table;
use crate::packet::{ACK, ICMP, IPV4, SYN, TCP, UDP, V4, ethernet, icmp, tcp, udp};

pub(super) fn fill(table: &mut Table) {
    versions(table);
    header_lengths(table);
    options(table);
    total_lengths(table);
    checksums(table);
    addresses(table);
    protocols(table);
}

fn versions(table: &mut Table) {
    for version in (0..=15_u8).filter(|version| *version != 4) {
        let packet = V4 { version_ihl: Some(version << 4 | 5), ..V4::new(TCP) };
        table.add(format!("v4_version_{version}"), BadIp, packet.frame(&tcp(22, SYN)));
    }
}

/// The header length in words, in a packet of 20 + 20 bytes without options: true only for 5.
fn header_lengths(table: &mut Table) {
    let lies = [
        (0, BadIp),
        (1, BadIp),
        (2, BadIp),
        (3, BadIp),
        (4, BadIp),
        (5, Hidden),
        (6, BadTransport),
        (7, BadTransport),
        (8, BadTransport),
        (9, BadTransport),
        (10, BadTransport),
        (11, BadIp),
        (12, BadIp),
        (13, BadIp),
        (14, BadIp),
        (15, BadIp),
    ];
    for (ihl, verdict) in lies {
        let packet = V4 { version_ihl: Some(0x40 | ihl), ..V4::new(TCP) };
        table.add(format!("v4_ihl_{ihl}_without_options"), verdict, packet.frame(&tcp(22, SYN)));
    }
}

/// Ports lie behind the options, not at byte 20 (RFC 791, section 3.1).
fn options(table: &mut Table) {
    for words in 1..=10_usize {
        let mut packet = V4 { options: vec![1; 4 * words], ..V4::new(TCP) };
        table.add(format!("v4_options_{words}_hidden"), Hidden, packet.frame(&tcp(22, SYN)));
        table.add(format!("v4_options_{words}_knock"), Knock, packet.frame(&tcp(7001, SYN)));
        packet.options = tcp(80, ACK).into_iter().chain([1; 20]).take(4 * words).collect();
        let name = format!("v4_options_{words}_public_port_at_20_hidden_behind");
        table.add(name, Hidden, packet.frame(&tcp(22, SYN)));
        packet.options = tcp(22, SYN).into_iter().chain([1; 20]).take(4 * words).collect();
        let name = format!("v4_options_{words}_hidden_port_at_20_public_behind");
        table.add(name, Unrelated, packet.frame(&tcp(80, ACK)));
    }
    let source_route = V4 { options: vec![131, 7, 4, 203, 0, 113, 77, 0], ..V4::new(TCP) };
    table.add("v4_loose_source_route_hidden", Hidden, source_route.frame(&tcp(22, SYN)));
    let router_alert = V4 { options: vec![148, 4, 0, 0], ..V4::new(UDP) };
    table.add("v4_router_alert_hidden_udp", Hidden, router_alert.frame(&udp(51_820, 4)));
}

/// The total length of a packet of 20 + 20 bytes.
fn total_lengths(table: &mut Table) {
    let lies = [
        (0, BadIp),
        (1, BadIp),
        (19, BadIp),
        (20, BadTransport),
        (21, BadTransport),
        (24, BadTransport),
        (39, BadTransport),
        (40, Hidden),
        (41, BadIp),
        (60, BadIp),
        (1500, BadIp),
        (65_535, BadIp),
    ];
    for (total, verdict) in lies {
        let packet = V4 { total: Some(total), ..V4::new(TCP) };
        table.add(format!("v4_total_{total}_of_40"), verdict, packet.frame(&tcp(22, SYN)));
    }
    let padded = |packet: V4, payload: &[u8]| {
        let mut frame = packet.frame(payload);
        frame.resize(frame.len() + 20, 0);
        frame
    };
    table.add("v4_padded_hidden", Hidden, padded(V4::new(TCP), &tcp(22, SYN)));
    table.add("v4_padded_udp_knock", Knock, padded(V4::new(UDP), &udp(7002, 0)));
    let short = V4 { total: Some(30), ..V4::new(TCP) };
    table.add("v4_total_30_padded", BadTransport, padded(short, &tcp(22, SYN)));
    let long = V4 { total: Some(60), ..V4::new(TCP) };
    table.add("v4_total_into_the_padding", Hidden, padded(long, &tcp(22, SYN)));
}

/// The stack drops a wrong header checksum everywhere; a gate checks it only where it would act on the packet.
fn checksums(table: &mut Table) {
    let wrong = |proto: u8| V4 { is_checksum_wrong: true, ..V4::new(proto) };
    table.add("v4_checksum_wrong_hidden", BadIp, wrong(TCP).frame(&tcp(22, SYN)));
    table.add("v4_checksum_wrong_hidden_ack", BadIp, wrong(TCP).frame(&tcp(22, ACK)));
    table.add("v4_checksum_wrong_hidden_udp", BadIp, wrong(UDP).frame(&udp(51_820, 4)));
    table.add("v4_checksum_wrong_first_step", BadIp, wrong(TCP).frame(&tcp(7001, SYN)));
    table.add("v4_checksum_wrong_second_step", BadIp, wrong(UDP).frame(&udp(7002, 4)));
    table.add("v4_checksum_wrong_echo", BadIp, wrong(ICMP).frame(&icmp(8, 0, 56)));
    table.add("v4_checksum_wrong_wrong_knock", BadIp, wrong(TCP).frame(&tcp(5555, SYN)));
    table.add("v4_checksum_wrong_public", Unrelated, wrong(TCP).frame(&tcp(80, SYN)));
    table.add("v4_checksum_wrong_other_ack", Unrelated, wrong(TCP).frame(&tcp(5555, ACK)));
    let with_options = V4 { options: vec![1; 40], ..wrong(TCP) };
    table.add("v4_checksum_wrong_with_options", BadIp, with_options.frame(&tcp(22, SYN)));
    let mut over_options = V4 { options: vec![1; 40], ..V4::new(TCP) }.frame(&tcp(22, SYN));
    over_options[14 + 59] ^= 0x40;
    table.add("v4_checksum_wrong_for_the_last_option", BadIp, over_options);
}

fn addresses(table: &mut Table) {
    let sources: [(&str, [u8; 4]); 6] = [
        ("any", [0; 4]),
        ("loopback", [127, 0, 0, 1]),
        ("broadcast", [255; 4]),
        ("multicast", [224, 0, 0, 1]),
        ("itself", crate::packet::HOST),
        ("private", [10, 0, 0, 9]),
    ];
    for (name, source) in sources {
        let packet = V4 { source, ..V4::new(TCP) };
        table.add(format!("v4_source_{name}_hidden"), Hidden, packet.frame(&tcp(22, SYN)));
    }
    for (name, destination) in [("broadcast", [255; 4]), ("multicast", [224, 0, 0, 1]), ("other", [1; 4])] {
        let packet = V4 { destination, ..V4::new(UDP) };
        table.add(format!("v4_destination_{name}_hidden"), Hidden, packet.frame(&udp(51_820, 4)));
    }
}

/// Protocols without ports concern no door, whatever bytes stand where ports would.
fn protocols(table: &mut Table) {
    let protos = [
        ("hop_by_hop", 0_u8),
        ("igmp", 2),
        ("ipip", 4),
        ("dccp", 33),
        ("six_in_four", 41),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ospf", 89),
        ("vrrp", 112),
        ("sctp", 132),
        ("udplite", 136),
        ("unassigned", 200),
        ("reserved", 255),
    ];
    for (name, proto) in protos {
        table.add(format!("v4_proto_{name}"), Unrelated, V4::new(proto).frame(&tcp(22, SYN)));
        let empty = ethernet(IPV4, &V4::new(proto).packet(&[]));
        table.add(format!("v4_proto_{name}_empty"), Unrelated, empty);
    }
}
