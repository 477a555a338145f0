//! What ports are, and who may reach them.

use knock_common::verdict::Verdict::{self, Allowed, Granted, Hidden, Knock, Unrelated};

use super::Table;
use crate::{
    corpus::{ALLOWED, ALLOWED6, ENDING, EXPIRED, GRANTED, GRANTED6},
    packet::{ACK, ICMP, ICMPV6, SYN, TCP, UDP, V4, V6, icmp, tcp, udp, v6_address},
};

pub(super) fn fill(table: &mut Table) {
    tcp_ports(table);
    udp_ports(table);
    sources(table);
    prefix_edges(table);
}

fn tcp_ports(table: &mut Table) {
    let ports: [(u16, Verdict, Verdict); 18] = [
        // port, SYN, ACK
        (0, Knock, Unrelated),
        (1, Knock, Unrelated),
        (21, Knock, Unrelated),
        (22, Hidden, Hidden),
        (23, Knock, Unrelated),
        (79, Knock, Unrelated),
        (80, Unrelated, Unrelated),
        (81, Knock, Unrelated),
        (443, Unrelated, Unrelated),
        (7001, Knock, Unrelated),
        (7002, Knock, Unrelated),
        (8999, Knock, Unrelated),
        (9000, Hidden, Hidden),
        (9005, Hidden, Hidden),
        (9010, Hidden, Hidden),
        (9011, Knock, Unrelated),
        (51_820, Knock, Unrelated),
        (65_535, Knock, Unrelated),
    ];
    for (port, syn, ack) in ports {
        table.add(format!("role_tcp_{port}_syn"), syn, V4::new(TCP).frame(&tcp(port, SYN)));
        table.add(format!("role_tcp_{port}_syn_v6"), syn, V6::new(TCP).frame(&tcp(port, SYN)));
        table.add(format!("role_tcp_{port}_ack"), ack, V4::new(TCP).frame(&tcp(port, ACK)));
    }
}

/// Every UDP port is a place to knock but those of the ephemeral range, where replies to the host's own traffic come
/// in and no door has a step.
fn udp_ports(table: &mut Table) {
    let ports = [
        (0, Knock),
        (22, Knock),
        (53, Knock),
        (67, Knock),
        (68, Knock),
        (80, Knock),
        (7001, Knock),
        (7002, Knock),
        (9000, Knock),
        (32_767, Knock),
        (32_768, Unrelated),
        (40_000, Unrelated),
        (51_819, Unrelated),
        (51_820, Hidden),
        (51_821, Unrelated),
        (60_999, Unrelated),
        (61_000, Knock),
        (65_535, Knock),
    ];
    for (port, verdict) in ports {
        table.add(format!("role_udp_{port}"), verdict, V4::new(UDP).frame(&udp(port, 4)));
        table.add(format!("role_udp_{port}_v6"), verdict, V6::new(UDP).frame(&udp(port, 4)));
    }
    // No source port earns a way in: not DNS, not DHCP.
    for from in [53_u16, 67, 123, 443] {
        let mut reply = udp(51_820, 4);
        reply[..2].copy_from_slice(&from.to_be_bytes());
        table.add(format!("role_udp_hidden_from_port_{from}"), Hidden, V4::new(UDP).frame(&reply));
    }
}

fn sources(table: &mut Table) {
    let sources: [(&str, [u8; 4], Verdict, Verdict); 4] = [
        // source, to a hidden port, to a step
        ("allowed", ALLOWED, Allowed, Allowed),
        ("granted", GRANTED, Granted, Knock),
        ("grant_ending_now", ENDING, Granted, Knock),
        ("grant_expired", EXPIRED, Hidden, Knock),
    ];
    for (name, source, hidden, step) in sources {
        let from = |proto: u8| V4 { source, ..V4::new(proto) };
        table.add(format!("source_{name}_hidden_tcp"), hidden, from(TCP).frame(&tcp(22, SYN)));
        table.add(format!("source_{name}_hidden_ack"), hidden, from(TCP).frame(&tcp(9010, ACK)));
        table.add(format!("source_{name}_hidden_udp"), hidden, from(UDP).frame(&udp(51_820, 4)));
        table.add(format!("source_{name}_step"), step, from(TCP).frame(&tcp(7001, SYN)));
        table.add(format!("source_{name}_wrong_port"), step, from(TCP).frame(&tcp(5555, SYN)));
        table.add(format!("source_{name}_echo"), step, from(ICMP).frame(&icmp(8, 0, 56)));
        table.add(format!("source_{name}_public"), Unrelated, from(TCP).frame(&tcp(80, SYN)));
    }
    for (name, source, hidden, step) in
        [("allowed", ALLOWED6, Allowed, Allowed), ("granted", GRANTED6, Granted, Knock)]
    {
        let from = |proto: u8| V6 { source, ..V6::new(proto) };
        table.add(format!("source_{name}_hidden_tcp_v6"), hidden, from(TCP).frame(&tcp(22, SYN)));
        table.add(format!("source_{name}_hidden_udp_v6"), hidden, from(UDP).frame(&udp(51_820, 4)));
        table.add(format!("source_{name}_step_v6"), step, from(TCP).frame(&tcp(7001, SYN)));
        table.add(format!("source_{name}_echo_v6"), step, from(ICMPV6).frame(&icmp(128, 0, 56)));
        table.add(format!("source_{name}_public_v6"), Unrelated, from(TCP).frame(&tcp(80, SYN)));
    }
}

fn prefix_edges(table: &mut Table) {
    let v4 = [
        ("192_0_1_255", [192, 0, 1, 255], Hidden),
        ("192_0_2_0", [192, 0, 2, 0], Allowed),
        ("192_0_2_255", [192, 0, 2, 255], Allowed),
        ("192_0_3_0", [192, 0, 3, 0], Hidden),
        ("beside_a_grant", [198, 51, 100, 9], Hidden),
    ];
    for (name, source, verdict) in v4 {
        let packet = V4 { source, ..V4::new(TCP) };
        table.add(format!("source_{name}"), verdict, packet.frame(&tcp(22, SYN)));
    }
    let v6 = [
        ("below_the_prefix", v6_address(9, 0xff), Hidden),
        ("first_of_the_prefix", v6_address(0x0a, 0), Allowed),
        ("above_the_prefix", v6_address(0x0b, 0), Hidden),
        ("beside_a_grant_v6", v6_address(0, 8), Hidden),
    ];
    for (name, source, verdict) in v6 {
        let packet = V6 { source, ..V6::new(TCP) };
        table.add(format!("source_{name}"), verdict, packet.frame(&tcp(22, SYN)));
    }
}
