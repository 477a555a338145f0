//! Any bytes at all: the parser returns, and what it returns fits the bytes.

use knock_common::{
    frame::Frame as _,
    parse::{MAX_EXTENSIONS, MAX_VLAN_TAGS, Transport, parse},
    verdict::Verdict,
};
use proptest::prelude::*;

/// Bytes that look enough like a frame to get far: a sensible type, version and protocol with anything around them.
fn almost_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec(prop::sample::select(vec![[0x81, 0x00], [0x88, 0xa8]]), 0..4);
    let net = prop::sample::select(vec![([0x08, 0x00], 0x45_u8, 9), ([0x86, 0xdd], 0x60, 6)]);
    let next = prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 50, 51, 58, 60, 132]);
    (tags, net, next, prop::collection::vec(any::<u8>(), 40..160), any::<bool>()).prop_map(
        |(tags, (ethertype, version, next_at), next, mut ip, is_length_right)| {
            ip[0] = version;
            ip[next_at] = next;
            if is_length_right {
                let total = u8::try_from(ip.len()).expect("short");
                (ip[2], ip[3], ip[4], ip[5]) =
                    if version == 0x45 { (0, total, ip[4], ip[5]) } else { (ip[2], ip[3], 0, total - 40) };
            }
            let mut frame = vec![2; 12];
            for tag in tags {
                frame.extend([tag[0], tag[1], 0, 7]);
            }
            frame.extend(ethertype);
            frame.extend(ip);
            frame
        },
    )
}

fn looks_right(frame: &[u8]) {
    let Ok(segment) = parse(frame) else { return };
    let source = segment.source(frame).expect("the source of what was parsed");
    let destination = segment.destination(frame).expect("the destination of what was parsed");
    assert!(!segment.is_v6 || source[..12] != [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    assert!(segment.is_v6 || destination[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    segment.is_checksum_right(frame);
    let least = segment.ip_at + if segment.is_v6 { 40 } else { 20 };
    let least = match segment.transport {
        Transport::Tcp { .. } => least + 20,
        Transport::Udp { .. } | Transport::Echo { .. } | Transport::Icmp { .. } => least + 8,
        Transport::LaterFragment | Transport::Other => least,
    };
    assert!(frame.is_at_least(least), "{segment:?} in {} bytes", frame.len());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 10_000 } else { 500_000 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_bytes_make_the_parser_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        looks_right(&frame);
    }

    #[test]
    fn nothing_that_is_almost_a_frame_makes_the_parser_panic(frame in almost_a_frame()) {
        looks_right(&frame);
    }

    #[test]
    fn a_cut_never_shows_other_ports_than_the_whole(frame in almost_a_frame()) {
        let Ok(whole) = parse(frame.as_slice()) else { return Ok(()) };
        for len in 0..frame.len() {
            if let Ok(cut) = parse(&frame[..len]) {
                prop_assert_eq!(cut, whole);
            }
        }
    }
}

#[test]
fn as_many_tags_as_are_looked_behind_pass_and_one_more_does_not() {
    let tagged = |count: usize| {
        let mut frame = vec![2; 12];
        for _ in 0..count {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend([0x08, 0x06]);
        frame.resize(64, 0);
        parse(frame.as_slice())
    };
    assert_eq!(tagged(MAX_VLAN_TAGS), Err(Verdict::NotIp));
    assert_eq!(tagged(MAX_VLAN_TAGS + 1), Err(Verdict::VlanDepth));
}

#[test]
fn as_many_extension_headers_as_are_walked_pass_and_one_more_does_not() {
    let extended = |count: usize| {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, u8::try_from(8 * count).expect("few"), 60, 64]);
        frame.extend([0x20; 32]);
        for walked in 1..=count {
            frame.extend([if walked == count { 59 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        parse(frame.as_slice()).map(|segment| segment.transport)
    };
    assert_eq!(extended(MAX_EXTENSIONS), Ok(Transport::Other));
    assert_eq!(extended(MAX_EXTENSIONS + 1), Err(Verdict::BadExtension));
}
