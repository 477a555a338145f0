//! IPv6 headers and extension headers.

use knock_common::{
    abi::Address,
    verdict::Verdict::{BadExtension, BadIp, BadTransport, Hidden, Knock, MappedSource, Unrelated},
};

use super::Table;
use crate::{
    corpus::GRANTED,
    packet::{
        AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, SYN, TCP, UDP, V6,
        extension, fragment_header, icmp, tcp, udp, v6_address,
    },
};

pub(super) fn fill(table: &mut Table) {
    headers(table);
    addresses(table);
    pairs(table);
    chains(table);
    lengths(table);
    authentication(table);
    protocols(table);
}

fn headers(table: &mut Table) {
    for version in (0..=15_u8).filter(|version| *version != 6) {
        let packet = V6 { version: version << 4, ..V6::new(TCP) };
        table.add(format!("v6_version_{version}"), BadIp, packet.frame(&tcp(22, SYN)));
    }
    let traffic_class = V6 { version: 0x6f, ..V6::new(TCP) };
    table.add("v6_traffic_class_hidden", Hidden, traffic_class.frame(&tcp(22, SYN)));
    let lies = [
        (0, BadTransport),
        (1, BadTransport),
        (19, BadTransport),
        (20, Hidden),
        (21, BadIp),
        (1460, BadIp),
        (65_535, BadIp),
    ];
    for (len, verdict) in lies {
        let packet = V6 { len: Some(len), ..V6::new(TCP) };
        table.add(format!("v6_payload_length_{len}_of_20"), verdict, packet.frame(&tcp(22, SYN)));
    }
    let mut padded = V6::new(TCP).frame(&tcp(22, SYN));
    padded.resize(padded.len() + 20, 0);
    table.add("v6_padded_hidden", Hidden, padded);
    // RFC 2675: payload length 0 and a hop-by-hop option of type 0xc2 with the true length.
    let mut jumbo = extension(HOP_BY_HOP, 0);
    jumbo.1[2..].copy_from_slice(&[0xc2, 4, 0, 0, 0, 28]);
    let jumbo = V6 { len: Some(0), ..V6::behind(TCP, &[jumbo]) };
    table.add("v6_jumbogram_hidden", BadIp, jumbo.frame(&tcp(22, SYN)));
    table.add("v6_no_next_header", Unrelated, V6::new(59).frame(&[]));
}

fn addresses(table: &mut Table) {
    let [a, b, c, d] = GRANTED;
    let mapped: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    let compatible: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
    let from = |source: Address| V6 { source, ..V6::new(TCP) };
    table.add("v6_source_mapped_of_a_grant_hidden", MappedSource, from(mapped).frame(&tcp(22, SYN)));
    table.add("v6_source_mapped_knock", MappedSource, from(mapped).frame(&tcp(7001, SYN)));
    table.add("v6_source_mapped_public", MappedSource, from(mapped).frame(&tcp(80, SYN)));
    table.add("v6_source_compatible_of_a_grant_hidden", Hidden, from(compatible).frame(&tcp(22, SYN)));
    let long = V6 { len: Some(21), ..from(mapped) };
    table.add("v6_source_mapped_and_too_long", BadIp, long.frame(&tcp(22, SYN)));
    let mut others = [[0; 16], [0; 16], [0; 16], [0; 16]];
    others[0][15] = 1;
    others[1][..2].copy_from_slice(&[0xfe, 0x80]);
    others[2][..4].copy_from_slice(&[0x00, 0x64, 0xff, 0x9b]);
    for (name, source) in ["loopback", "link_local", "nat64", "unspecified"].into_iter().zip(others) {
        table.add(format!("v6_source_{name}_hidden"), Hidden, from(source).frame(&tcp(22, SYN)));
    }
    let to = |destination: Address| V6 { destination, ..V6::new(TCP) };
    table.add("v6_destination_mapped_hidden", Hidden, to(mapped).frame(&tcp(22, SYN)));
    table.add("v6_destination_other_hidden", Hidden, to(v6_address(9, 9)).frame(&tcp(22, SYN)));
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    table.add("v6_destination_multicast_hidden", Hidden, to(all_nodes).frame(&tcp(22, SYN)));
}

const KINDS: [(&str, u8); 5] = [
    ("hop", HOP_BY_HOP),
    ("routing", ROUTING),
    ("atomic", FRAGMENT),
    ("auth", AUTHENTICATION),
    ("destination", DESTINATION),
];

fn header(kind: u8) -> (u8, Vec<u8>) {
    if kind == FRAGMENT { fragment_header(0, false) } else { extension(kind, 0) }
}

/// Every kind behind every kind; hop-by-hop stands only directly behind the IPv6 header (RFC 8200, section 4.1).
fn pairs(table: &mut Table) {
    for (first, a) in KINDS {
        let one = V6::behind(TCP, &[header(a)]);
        table.add(format!("v6_{first}_hidden"), Hidden, one.frame(&tcp(22, SYN)));
        // A fragment, even a whole one, is never a knock.
        let verdict = if a == FRAGMENT { Unrelated } else { Knock };
        table.add(format!("v6_{first}_step"), verdict, one.frame(&tcp(7001, SYN)));
        for (second, b) in KINDS {
            let verdict = if b == HOP_BY_HOP { BadExtension } else { Hidden };
            let two = V6::behind(TCP, &[header(a), header(b)]);
            table.add(format!("v6_{first}_{second}_hidden"), verdict, two.frame(&tcp(22, SYN)));
        }
    }
}

/// 2 to 8 headers of a kind; six are walked.
fn chains(table: &mut Table) {
    let repeatable = KINDS.iter().filter(|(_, kind)| *kind != HOP_BY_HOP);
    for (name, kind) in repeatable {
        for count in 3..=8 {
            let verdict = if count <= 6 { Hidden } else { BadExtension };
            let packet = V6::behind(TCP, &vec![header(*kind); count]);
            table.add(format!("v6_{name}_times_{count}_hidden"), verdict, packet.frame(&tcp(22, SYN)));
        }
    }
    let all: Vec<_> = KINDS.iter().map(|(_, kind)| header(*kind)).collect();
    table.add("v6_all_kinds_hidden", Hidden, V6::behind(UDP, &all).frame(&udp(51_820, 4)));
    let seven: Vec<_> = all.iter().cloned().chain([header(ROUTING), header(DESTINATION)]).collect();
    table.add("v6_seven_mixed_hidden", BadExtension, V6::behind(UDP, &seven).frame(&udp(51_820, 4)));
    table.add("v6_seven_mixed_unknown", BadExtension, V6::behind(200, &seven).frame(&[0; 8]));
}

fn lengths(table: &mut Table) {
    for (name, kind) in [("hop", HOP_BY_HOP), ("routing", ROUTING), ("destination", DESTINATION)] {
        for more in [1, 2, 5] {
            let packet = V6::behind(TCP, &[extension(kind, more)]);
            table.add(format!("v6_{name}_of_{more}_words_more_hidden"), Hidden, packet.frame(&tcp(22, SYN)));
        }
        for (claimed, verdict) in
            [(1, BadTransport), (2, BadTransport), (3, BadExtension), (255, BadExtension)]
        {
            let mut long = extension(kind, 0);
            long.1[1] = claimed;
            let packet = V6::behind(TCP, &[long]);
            table.add(format!("v6_{name}_claims_{claimed}_words_more"), verdict, packet.frame(&tcp(22, SYN)));
        }
        let cut = V6 { len: Some(7), ..V6::behind(TCP, &[extension(kind, 0)]) };
        table.add(format!("v6_{name}_cut_by_the_payload_length"), BadExtension, cut.frame(&tcp(22, SYN)));
        table.add(format!("v6_{name}_missing"), if kind == HOP_BY_HOP { BadIp } else { BadExtension }, {
            V6::new(kind).frame(&[])
        });
    }
}

/// Its length is in words of 4 bytes, so that it can end where no other header can (RFC 4302, section 2.2).
fn authentication(table: &mut Table) {
    for more in [1, 2, 3, 4, 7] {
        let packet = V6::behind(TCP, &[extension(AUTHENTICATION, more)]);
        table.add(format!("v6_auth_of_{more}_words_more_hidden"), Hidden, packet.frame(&tcp(22, SYN)));
        table.add(format!("v6_auth_of_{more}_words_more_knock"), Knock, packet.frame(&tcp(7001, SYN)));
    }
    // Read in words of 8 bytes, the header of 12 bytes would be 16, and the port 80 instead of 22.
    let mut decoy = tcp(22, SYN);
    decoy[6..8].copy_from_slice(&80_u16.to_be_bytes());
    decoy.extend([0x50; 24]);
    let packet = V6::behind(TCP, &[extension(AUTHENTICATION, 1)]);
    table.add("v6_auth_hidden_with_a_public_port_4_bytes_on", Hidden, packet.frame(&decoy));
    let mut long = extension(AUTHENTICATION, 0);
    long.1[1] = 255;
    table.add("v6_auth_claims_too_much", BadExtension, V6::behind(TCP, &[long]).frame(&tcp(22, SYN)));
}

fn protocols(table: &mut Table) {
    let protos = [
        ("icmp", ICMP),
        ("igmp", 2),
        ("ipip", 4),
        ("six_in_six", 41),
        ("gre", 47),
        ("esp", 50),
        ("ospf", 89),
        ("sctp", 132),
        ("mobility", 135),
        ("hip", 139),
        ("shim6", 140),
        ("unassigned", 200),
    ];
    for (name, proto) in protos {
        table.add(format!("v6_proto_{name}"), Unrelated, V6::new(proto).frame(&tcp(22, SYN)));
        let behind = V6::behind(proto, &[extension(DESTINATION, 0)]);
        table.add(format!("v6_proto_{name}_behind_an_extension"), Unrelated, behind.frame(&tcp(22, SYN)));
    }
    let echo = V6::behind(ICMPV6, &[extension(HOP_BY_HOP, 0)]);
    table.add("v6_echo_behind_an_extension", Knock, echo.frame(&icmp(128, 0, 56)));
}
