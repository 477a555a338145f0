//! Ethernet and VLAN.

use knock_common::verdict::Verdict::{self, BadIp, Hidden, Knock, LinkCut, NotIp, Unrelated, VlanDepth};

use super::Table;
use crate::packet::{IPV4, IPV6, SERVICE_VLAN, SYN, TCP, UDP, V4, V6, VLAN, ethernet, tagged, tcp, udp};

pub(super) fn fill(table: &mut Table) {
    not_ip(table);
    tags(table);
    wrong_type(table);
    groups(table);
    cut(table);
}

fn not_ip(table: &mut Table) {
    let types: [(&str, u16); 17] = [
        ("arp", 0x0806),
        ("rarp", 0x8035),
        ("lldp", 0x88cc),
        ("eapol", 0x888e),
        ("pppoe_discovery", 0x8863),
        ("pppoe_session", 0x8864),
        ("mpls", 0x8847),
        ("mpls_multicast", 0x8848),
        ("macsec", 0x88e5),
        ("ptp", 0x88f7),
        ("flow_control", 0x8808),
        ("slow_protocols", 0x8809),
        ("ethercat", 0x88a4),
        ("loopback_test", 0x9000),
        ("old_qinq_9100", 0x9100),
        ("802_3_length_38", 38),
        ("type_zero", 0),
    ];
    let inner = V4::new(TCP).packet(&tcp(22, SYN));
    for (name, ethertype) in types {
        table.add(format!("link_{name}"), NotIp, ethernet(ethertype, &[0; 46]));
        table.add(format!("link_{name}_around_a_hidden_port"), NotIp, ethernet(ethertype, &inner));
        table.add(format!("link_{name}_in_a_vlan"), NotIp, tagged(&[VLAN], ethertype, &inner));
    }
}

fn tags(table: &mut Table) {
    let kinds: [(&str, u16); 2] = [("q", VLAN), ("ad", SERVICE_VLAN)];
    let hidden =
        [("v4", IPV4, V4::new(TCP).packet(&tcp(22, SYN))), ("v6", IPV6, V6::new(TCP).packet(&tcp(22, SYN)))];
    for (family, ethertype, packet) in &hidden {
        for (first, a) in kinds {
            table.add(format!("vlan_{first}_hidden_{family}"), Hidden, tagged(&[a], *ethertype, packet));
            for (second, b) in kinds {
                let name = format!("vlan_{first}_{second}_hidden_{family}");
                table.add(name, Hidden, tagged(&[a, b], *ethertype, packet));
                for (third, c) in kinds {
                    let name = format!("vlan_{first}_{second}_{third}_hidden_{family}");
                    table.add(name, VlanDepth, tagged(&[a, b, c], *ethertype, packet));
                }
            }
        }
    }
    let knock = V4::new(UDP).packet(&udp(7002, 3));
    table.add("vlan_q_knock", Knock, tagged(&[VLAN], IPV4, &knock));
    table.add("vlan_ad_q_knock", Knock, tagged(&[SERVICE_VLAN, VLAN], IPV4, &knock));
    table.add("vlan_five_tags", VlanDepth, tagged(&[VLAN; 5], IPV4, &knock));
    table.add("vlan_three_tags_arp", VlanDepth, tagged(&[VLAN; 3], 0x0806, &[0; 46]));
}

fn wrong_type(table: &mut Table) {
    let (v4, v6) = (V4::new(TCP).packet(&tcp(22, SYN)), V6::new(TCP).packet(&tcp(22, SYN)));
    table.add("v6_packet_typed_as_v4", BadIp, ethernet(IPV4, &v6));
    table.add("v4_packet_typed_as_v6", BadIp, ethernet(IPV6, &v4));
    table.add("v4_without_a_packet", BadIp, ethernet(IPV4, &[]));
    table.add("v6_without_a_packet", BadIp, ethernet(IPV6, &[]));
    table.add("v4_all_zero", BadIp, ethernet(IPV4, &[0; 46]));
    table.add("v6_all_zero", BadIp, ethernet(IPV6, &[0; 46]));
    table.add("v4_all_ones", BadIp, ethernet(IPV4, &[0xff; 46]));
    table.add("v6_all_ones", BadIp, ethernet(IPV6, &[0xff; 46]));
}

/// A frame to a group of hosts reaches hidden services no more than another, but never knocks.
fn groups(table: &mut Table) {
    let groups: [(&str, [u8; 6]); 3] = [
        ("broadcast", [0xff; 6]),
        ("v4_multicast", [0x01, 0x00, 0x5e, 0, 0, 1]),
        ("v6_multicast", [0x33, 0x33, 0, 0, 0, 1]),
    ];
    let packets: [(&str, Verdict, Vec<u8>); 6] = [
        ("hidden_tcp", Hidden, V4::new(TCP).frame(&tcp(22, SYN))),
        ("hidden_udp", Hidden, V4::new(UDP).frame(&udp(51_820, 4))),
        ("hidden_v6", Hidden, V6::new(TCP).frame(&tcp(22, SYN))),
        ("step_tcp", Unrelated, V4::new(TCP).frame(&tcp(7001, SYN))),
        ("step_udp", Unrelated, V4::new(UDP).frame(&udp(7002, 4))),
        ("step_v6", Unrelated, V6::new(TCP).frame(&tcp(7001, SYN))),
    ];
    for (group, address) in groups {
        for (name, verdict, frame) in &packets {
            let mut frame = frame.clone();
            frame[..6].copy_from_slice(&address);
            table.add(format!("link_{group}_{name}"), *verdict, frame);
        }
    }
}

fn cut(table: &mut Table) {
    let frame = tagged(&[VLAN, VLAN], IPV4, &V4::new(TCP).packet(&tcp(22, SYN)));
    for len in [0, 1, 6, 12, 13, 14, 15, 17, 18, 20, 21] {
        table.add(format!("link_cut_at_{len}"), LinkCut, frame[..len].to_vec());
    }
    table.add("link_whole_without_ip", BadIp, frame[..22].to_vec());
}
