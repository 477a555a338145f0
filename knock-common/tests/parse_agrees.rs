//! Valid frames, built and read by `etherparse`: our parser finds the same segment in them, and none in their cuts.

use etherparse::{
    DoubleVlanHeader, Icmpv4Type, Icmpv6Type, IpAuthHeader, IpHeaders, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetSlice, PacketBuilder,
    SingleVlanHeader, SlicedPacket, TransportSlice, VlanHeader, VlanId,
};
use knock_common::parse::{Segment, Transport, parse};
use proptest::prelude::*;

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Plan {
    tags: Vec<u16>,
    net: Net,
    upper: Upper,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Net {
    /// IPv4 with so many words of options.
    V4(usize),
    /// IPv6 with extension headers of these lengths in words of 8 bytes beyond the first; the authentication
    /// header's is in words of 4 bytes.
    V6([Option<usize>; 5]),
}

#[derive(Clone, Copy, Debug)]
enum Upper {
    Tcp { from: u16, to: u16, sequence: u32, flags: u8 },
    Udp { from: u16, to: u16 },
    EchoRequest { id: u16, sequence: u16 },
    EchoReply { id: u16, sequence: u16 },
}

fn some_upper() -> impl Strategy<Value = Upper> {
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<u32>(), any::<u8>())
            .prop_map(|(from, to, sequence, flags)| Upper::Tcp { from, to, sequence, flags }),
        (any::<u16>(), any::<u16>()).prop_map(|(from, to)| Upper::Udp { from, to }),
        (any::<u16>(), any::<u16>()).prop_map(|(id, sequence)| Upper::EchoRequest { id, sequence }),
        (any::<u16>(), any::<u16>()).prop_map(|(id, sequence)| Upper::EchoReply { id, sequence }),
    ]
}

fn some_plan() -> impl Strategy<Value = Plan> {
    let extension = || prop::option::of(0_usize..4);
    let v6 = [extension(), extension(), extension(), extension(), extension()].prop_map(Net::V6);
    let net = prop_oneof![(0_usize..=10).prop_map(Net::V4), v6];
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (prop::collection::vec(0_u16..4096, 0..=2), net, some_upper(), payload)
        .prop_map(|(tags, net, upper, payload)| Plan { tags, net, upper, payload })
}

impl Plan {
    fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match self.vlan() {
            Some(vlan) => link.vlan(vlan).ip(self.ip()),
            None => link.ip(self.ip()),
        };
        let (mut frame, payload, is_v6) = (Vec::new(), &self.payload, matches!(self.net, Net::V6(_)));
        let written = match self.upper {
            Upper::Tcp { from, to, sequence, flags } => {
                ip.tcp_header(tcp_header(from, to, sequence, flags)).write(&mut frame, payload)
            }
            Upper::Udp { from, to } => ip.udp(from, to).write(&mut frame, payload),
            Upper::EchoRequest { id, sequence } if is_v6 => {
                ip.icmpv6_echo_request(id, sequence).write(&mut frame, payload)
            }
            Upper::EchoRequest { id, sequence } => {
                ip.icmpv4_echo_request(id, sequence).write(&mut frame, payload)
            }
            Upper::EchoReply { id, sequence } if is_v6 => {
                ip.icmpv6_echo_reply(id, sequence).write(&mut frame, payload)
            }
            Upper::EchoReply { id, sequence } => {
                ip.icmpv4_echo_reply(id, sequence).write(&mut frame, payload)
            }
        };
        written.expect("a frame that can be");
        frame
    }

    fn vlan(&self) -> Option<VlanHeader> {
        let tag = |id: &u16| SingleVlanHeader {
            vlan_id: VlanId::try_new(*id).expect("twelve bits"),
            ..Default::default()
        };
        match self.tags.as_slice() {
            [] => None,
            [only] => Some(VlanHeader::Single(tag(only))),
            [outer, inner, ..] => {
                Some(VlanHeader::Double(DoubleVlanHeader { outer: tag(outer), inner: tag(inner) }))
            }
        }
    }

    fn ip(&self) -> IpHeaders {
        match &self.net {
            Net::V4(words) => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, [203, 0, 113, 9], [198, 51, 100, 1])
                    .expect("a short payload");
                header.options = Ipv4Options::try_from(vec![1_u8; words * 4].as_slice()).expect("words");
                IpHeaders::Ipv4(header, Default::default())
            }
            Net::V6(lengths) => {
                let header = Ipv6Header {
                    source: [0x20; 16],
                    destination: [0x21; 16],
                    hop_limit: 64,
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, extensions(lengths))
            }
        }
    }
}

fn tcp_header(from: u16, to: u16, sequence: u32, flags: u8) -> etherparse::TcpHeader {
    let mut header = etherparse::TcpHeader::new(from, to, sequence, 1024);
    header.fin = flags & 0x01 != 0;
    header.syn = flags & 0x02 != 0;
    header.rst = flags & 0x04 != 0;
    header.psh = flags & 0x08 != 0;
    header.ack = flags & 0x10 != 0;
    header.urg = flags & 0x20 != 0;
    header.ece = flags & 0x40 != 0;
    header.cwr = flags & 0x80 != 0;
    header
}

/// Hop-by-hop, destination, routing, destination again, authentication, in the order of RFC 8200, section 4.1.
fn extensions(lengths: &[Option<usize>; 5]) -> Ipv6Extensions {
    let raw = |words: usize| {
        Ipv6RawExtHeader::new_raw(IpNumber::TCP, &vec![0; 6 + 8 * words]).expect("whole words of 8 bytes")
    };
    let [hop_by_hop, destination, routing, last, auth] = *lengths;
    Ipv6Extensions {
        hop_by_hop_options: hop_by_hop.map(raw),
        destination_options: destination.map(raw),
        routing: routing.map(|words| Ipv6RoutingExtensions {
            routing: raw(words),
            final_destination_options: last.map(raw),
        }),
        fragment: None,
        auth: auth.map(|words| {
            IpAuthHeader::new(IpNumber::TCP, 1, 1, &vec![0; 4 * words]).expect("whole words of 4 bytes")
        }),
    }
}

/// What `etherparse` finds.
fn by_etherparse(frame: &[u8]) -> (bool, Transport) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a valid frame");
    let is_v6 = matches!(packet.net, Some(NetSlice::Ipv6(_)));
    let at = |slice: &[u8]| slice.as_ptr().addr() - frame.as_ptr().addr();
    let size = |payload: &[u8]| u16::try_from(payload.len()).expect("a short payload");
    let transport = match packet.transport.expect("a layer above") {
        TransportSlice::Tcp(tcp) => Transport::Tcp {
            source_port: tcp.source_port(),
            port: tcp.destination_port(),
            sequence: tcp.sequence_number(),
            flags: tcp.slice()[13],
        },
        TransportSlice::Udp(udp) => {
            Transport::Udp { source_port: udp.source_port(), port: udp.destination_port() }
        }
        TransportSlice::Icmpv4(icmp) => {
            let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else {
                return (is_v6, Transport::Icmp { kind: icmp.type_u8(), at: at(icmp.slice()) });
            };
            Transport::Echo { id: echo.id, sequence: echo.seq, size: size(icmp.payload()) }
        }
        TransportSlice::Icmpv6(icmp) => {
            let Icmpv6Type::EchoRequest(echo) = icmp.icmp_type() else {
                return (is_v6, Transport::Icmp { kind: icmp.type_u8(), at: at(icmp.slice()) });
            };
            Transport::Echo { id: echo.id, sequence: echo.seq, size: size(icmp.payload()) }
        }
        TransportSlice::Igmp(_) => Transport::Other,
    };
    (is_v6, transport)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 2_000 } else { 50_000 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_valid_frame_means_what_etherparse_says_it_means(plan in some_plan()) {
        let frame = plan.frame();
        let segment = parse(frame.as_slice());
        let (is_v6, transport) = by_etherparse(&frame);
        let ip_at = 14 + 4 * plan.tags.len();

        let expected = segment.map(|segment| {
            Segment { is_v6, ip_at, is_fragment: false, is_group: false, transport, ..segment }
        });
        prop_assert!(segment.is_ok());
        prop_assert_eq!(segment, expected);
        prop_assert!(segment.expect("as above").is_checksum_right(frame.as_slice()));
    }

    #[test]
    fn a_valid_frame_cut_anywhere_is_no_segment(plan in some_plan()) {
        let frame = plan.frame();
        for len in 0..frame.len() {
            prop_assert!(parse(&frame[..len]).is_err(), "{} of {} bytes", len, frame.len());
        }
    }

    #[test]
    fn padding_behind_a_frame_changes_nothing(plan in some_plan(), padding in 1_usize..64) {
        let mut frame = plan.frame();
        let segment = parse(frame.as_slice());
        frame.resize(frame.len() + padding, 0xff);

        prop_assert_eq!(parse(frame.as_slice()), segment);
    }
}
