//! `hide_as = "closed"` in the real program, frame by frame: what is answered, with what, and what is not.

use etherparse::{PacketHeaders, TransportHeader};
use knock_common::{
    abi::{LINK_PARTIAL, Settings},
    counter::Counter,
    verdict::Action,
};
use knock_tests::{
    kernel::{Kernel, compile},
    packet::{
        ACK, FIN, IPV4, IPV6, MORE, RST, SERVICE_VLAN, STRANGER, SYN, TCP, UDP, V4, V6, VLAN, tagged, tcp,
        udp,
    },
    raw::seal,
};

const CONFIG: &str = r#"
[xdp]
mode = "guard"
[[door]]
name = "ssh"
opens = ["tcp/22", "udp/53"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172", "tcp/5124"]
"#;

/// Where the frames of these tests go to.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn kernel() -> Kernel {
    let mut generation = compile(CONFIG);
    generation.settings.flags |= Settings::CLOSED;
    let mut kernel = Kernel::load(&generation);
    kernel.maps.set_link(OWN, 0);
    kernel
}

fn syn_v4() -> Vec<u8> {
    seal(V4::new(TCP).frame(&tcp(22, SYN)))
}

#[test]
fn a_syn_is_answered_with_a_reset_that_acknowledges_it() {
    let mut kernel = kernel();

    let answer = kernel.answer(&syn_v4()).expect("an answer");

    let headers = PacketHeaders::from_ethernet_slice(&answer).expect("a whole frame");
    let Some(TransportHeader::Tcp(header)) = headers.transport else { panic!("{headers:?}") };
    assert!(header.rst && header.ack && !header.syn && !header.fin);
    assert_eq!((header.source_port, header.destination_port), (22, 40_000));
    assert_eq!((header.sequence_number, header.acknowledgment_number, header.window_size), (0, 0x1002, 0));
    assert_eq!(answer.len(), 14 + 40);
    assert_eq!(kernel.maps.count(Counter::Answered), 1);
    assert_eq!(kernel.maps.count(Counter::Hidden), 1);
}

#[test]
fn silent_generations_and_other_ports_are_not_answered() {
    let mut silent = Kernel::load(&compile(CONFIG));
    silent.maps.set_link(OWN, 0);
    assert_eq!(silent.answer(&syn_v4()), None);
    let mut kernel = kernel();
    let elsewhere = seal(V4::new(TCP).frame(&tcp(23, SYN)));

    assert_eq!(kernel.run(&elsewhere), Action::Pass);
    assert!(kernel.answer(&syn_v4()).is_some());
}

/// Each with what is wrong with it; the same without is answered.
fn unanswered() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = |change: fn(&mut V4)| {
        let mut packet = V4::new(TCP);
        change(&mut packet);
        seal(packet.frame(&tcp(22, SYN)))
    };
    let link = |at: usize, byte: u8| {
        let mut frame = syn_v4();
        frame[at] = byte;
        frame
    };
    let mut bad_udp = seal(V4::new(UDP).frame(&udp(53, 30)));
    bad_udp[14 + 20 + 20] ^= 1;
    let mut bad_tcp = syn_v4();
    bad_tcp[14 + 20 + 16] ^= 1;
    let mut no_sum_v6 = V6::new(UDP).frame(&udp(53, 30));
    no_sum_v6[14 + 40 + 6..14 + 40 + 8].fill(0);
    vec![
        ("a reset", seal(V4::new(TCP).frame(&tcp(22, RST)))),
        ("a reset with an acknowledgment", seal(V4::new(TCP).frame(&tcp(22, RST | ACK)))),
        ("to a group on the link", link(0, 3)),
        ("to another host on the link", link(5, 7)),
        ("from a group on the link", link(6, 3)),
        ("a first fragment", v4(|packet| packet.fragment = MORE)),
        ("from a group", v4(|packet| packet.source = [224, 0, 0, 9])),
        ("from everybody", v4(|packet| packet.source = [255; 4])),
        ("from this network", v4(|packet| packet.source = [0, 0, 0, 1])),
        ("from the loopback", v4(|packet| packet.source = [127, 0, 0, 1])),
        ("from the host itself", v4(|packet| packet.source = packet.destination)),
        ("to a group", v4(|packet| packet.destination = [224, 0, 0, 1])),
        ("to everybody", v4(|packet| packet.destination = [255; 4])),
        ("with a recorded route", v4(|packet| packet.options = vec![7, 7, 4, 0, 0, 0, 0, 0])),
        ("with a wrong IPv4 checksum", v4(|packet| packet.is_checksum_wrong = true)),
        ("with a wrong TCP checksum", bad_tcp),
        ("with a wrong UDP checksum", bad_udp),
        ("UDP over IPv6 without a checksum", no_sum_v6),
        ("from ::", seal(V6 { source: [0; 16], ..V6::new(TCP) }.frame(&tcp(22, SYN)))),
        ("from ff02::9", seal(V6 { source: group(9), ..V6::new(TCP) }.frame(&tcp(22, SYN)))),
        ("to ff02::1", seal(V6 { destination: group(1), ..V6::new(TCP) }.frame(&tcp(22, SYN)))),
    ]
}

const fn group(host: u8) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

#[test]
fn what_the_stack_would_not_answer_is_dropped_in_silence() {
    let mut kernel = kernel();
    for (what, frame) in unanswered() {
        assert_eq!(kernel.answer(&frame), None, "{what}");
        assert_eq!(kernel.run(&frame), Action::Drop, "{what}");
    }
    assert_eq!(kernel.maps.count(Counter::Answered), 0);
    let answered = [
        seal(V4::new(TCP).frame(&tcp(22, FIN))),
        seal(V4::new(UDP).frame(&udp(53, 30))),
        V4::new(UDP).frame(&udp(53, 30)),
        seal(V6::new(TCP).frame(&tcp(22, SYN))),
        seal(V6::new(UDP).frame(&udp(53, 30))),
        seal(V4 { options: vec![1, 1, 1, 0], ..V4::new(TCP) }.frame(&tcp(22, SYN))),
    ];
    for frame in &answered {
        assert!(kernel.answer(frame).is_some(), "{frame:x?}");
    }
}

#[test]
fn a_partial_checksum_is_right_only_where_frames_come_from_this_machine() {
    let mut kernel = kernel();
    let mut frame = syn_v4();
    // The sum of the pseudo header, as a sender leaves it to its network card.
    let pseudo: u32 = [0xcb00, 0x7101, 0xcb00, 0x7109, 6, 20].iter().sum();
    let folded = u16::try_from((pseudo & 0xffff) + (pseudo >> 16)).expect("folded");
    frame[14 + 20 + 16..14 + 20 + 18].copy_from_slice(&folded.to_be_bytes());
    assert_eq!(STRANGER, [0xcb, 0, 0x71, 9]);
    assert_eq!(kernel.answer(&frame), None);

    kernel.maps.set_link(OWN, LINK_PARTIAL);

    let answer = kernel.answer(&frame).expect("an answer");
    assert_eq!(answer, seal(answer.clone()), "the answer's own checksum is whole");
}

#[test]
fn tags_stay_as_they_are() {
    let mut kernel = kernel();
    let families = [
        (IPV4, V4::new(TCP).packet(&tcp(22, SYN)), V4::new(UDP).packet(&udp(53, 9))),
        (IPV6, V6::new(TCP).packet(&tcp(22, SYN)), V6::new(UDP).packet(&udp(53, 9))),
    ];
    for (ethertype, tcp, udp) in families {
        for (number, packet) in [tcp, udp].into_iter().enumerate() {
            let plain = kernel.answer(&seal(tagged(&[], ethertype, &packet))).expect("an answer");
            for tags in [&[VLAN][..], &[SERVICE_VLAN, VLAN]] {
                let question = seal(tagged(tags, ethertype, &packet));
                let answer = kernel.answer(&question).expect("an answer");
                let link_len = 14 + 4 * tags.len();
                assert_eq!(answer[..6], question[6..12]);
                assert_eq!(answer[6..12], question[..6]);
                assert_eq!(answer[12..link_len], question[12..link_len]);
                // An ICMP error over IPv4 has an identification, which differs.
                let from = if number == 1 && ethertype == IPV4 { 12 } else { 0 };
                assert_eq!(answer[link_len + from..], plain[14 + from..]);
            }
            kernel.maps.set_now_ns(1 << 60);
        }
    }
}

#[test]
fn icmp_errors_of_a_source_end_with_its_burst_and_come_back_with_time() {
    let mut kernel = kernel();
    let datagram = seal(V4::new(UDP).frame(&udp(53, 30)));
    kernel.maps.set_now_ns(100_000_000_000);
    let answered = |kernel: &mut Kernel| (0..20).filter(|_| kernel.answer(&datagram).is_some()).count();

    assert_eq!(answered(&mut kernel), 6);
    assert_eq!(kernel.maps.count(Counter::AnswerCapped), 14);
    kernel.maps.set_now_ns(100_999_999_999);
    assert_eq!(answered(&mut kernel), 0);
    kernel.maps.set_now_ns(101_000_000_000);
    assert_eq!(answered(&mut kernel), 1);
    let other = seal(V4 { source: [198, 51, 100, 7], ..V4::new(UDP) }.frame(&udp(53, 30)));
    assert!(kernel.answer(&other).is_some(), "another source has its own");
    assert!((0..50).all(|_| kernel.answer(&syn_v4()).is_some()), "resets are not limited");
}

#[test]
fn icmp_errors_to_all_sources_together_are_limited() {
    let mut kernel = kernel();
    kernel.maps.set_now_ns(100_000_000_000);
    let from = |host: u8| seal(V4 { source: [198, 51, 100, host], ..V4::new(UDP) }.frame(&udp(53, 30)));

    let answered = (1..=200).filter(|host| kernel.answer(&from(*host)).is_some()).count();

    assert_eq!(answered, 50);
    kernel.maps.set_now_ns(100_003_000_000);
    let later = (201..=250).filter(|host| kernel.answer(&from(*host)).is_some()).count();
    assert_eq!(later, 3);
}
