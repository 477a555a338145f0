//! Port scans of all 65,535 ports: they open a sequence only if it is a run of the packets that are sent.

use knock_common::abi::StepRule;
use proptest::prelude::*;

#[path = "../../tests/src/gate.rs"]
mod gate;
mod source;

use gate::{Door, Gate, SECOND, echo, tcp, udp};
use source::{Source, packet};

/// Between two packets of a scan: all of it lies inside the timeouts.
const PAUSE: u64 = 1_000;

/// What is sent for each port.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// One SYN.
    Once,
    /// One SYN and its retransmit, as nmap does for silent ports.
    Twice,
    /// A SYN and, after the next port, its retransmit.
    Late,
}

const STYLES: [Style; 3] = [Style::Once, Style::Twice, Style::Late];

/// How often a scan of these ports opens the door.
fn promotions(gate: &Gate, kind: fn(u16) -> StepRule, ports: impl Iterator<Item = u16>, style: Style) -> u32 {
    let (mut source, mut now_ns, mut promotions) = (Source::new(), SECOND, 0);
    let mut previous = None;
    for port in ports {
        let knock = packet(&kind(port), port & 0x3fff);
        let second = match style {
            Style::Once => None,
            Style::Twice => Some(knock),
            Style::Late => previous.replace(knock),
        };
        for knock in [Some(knock), second].into_iter().flatten() {
            now_ns += PAUSE;
            promotions += source.send(gate, &knock, now_ns).promoted.count_ones();
        }
    }
    promotions
}

fn up() -> impl DoubleEndedIterator<Item = u16> {
    1..=u16::MAX
}

/// An order of all ports that follows from a seed: a linear congruence modulo 2^16 goes through every number once.
fn shuffled(seed: u16) -> impl Iterator<Item = u16> {
    let mut port = seed;
    (0..=u16::MAX).map(move |_| {
        port = port.wrapping_mul(25_173).wrapping_add(13_849);
        port
    })
}

fn one_door(steps: &[StepRule]) -> Gate {
    Gate::new(vec![Door::of(steps)], &[])
}

#[test]
fn a_scan_up_or_down_opens_no_sequence_with_a_gap_and_opens_one_without() {
    let (gap, run) = (one_door(&[tcp(7001), tcp(7003)]), one_door(&[tcp(7001), tcp(7002), tcp(7003)]));
    for style in [Style::Once, Style::Twice] {
        assert_eq!(promotions(&gap, tcp, up(), style), 0, "{style:?}");
        assert_eq!(promotions(&gap, tcp, up().rev(), style), 0, "{style:?}");
        assert_eq!(promotions(&run, tcp, up(), style), 1, "{style:?}: a run is what a scan meets");
        assert_eq!(promotions(&run, tcp, up().rev(), style), 0, "{style:?}");
    }
    let down = one_door(&[tcp(7003), tcp(7002), tcp(7001)]);
    assert_eq!(promotions(&down, tcp, up().rev(), Style::Once), 1);
}

#[test]
fn a_scan_with_two_ports_between_the_steps_opens_nothing_whatever_it_sends_again() {
    for steps in [[7001, 7004], [7004, 7001], [22, 65_535], [1, 4]] {
        let gate = one_door(&steps.map(tcp));
        for style in STYLES {
            assert_eq!(promotions(&gate, tcp, up(), style), 0, "{steps:?} {style:?}");
            assert_eq!(promotions(&gate, tcp, up().rev(), style), 0, "{steps:?} {style:?} down");
        }
    }
}

/// 7001, 7000 again, 7002, *7001 again, 7003*, 7002 again: what is sent late stands next to what is two further on.
#[test]
fn a_scan_that_sends_ports_again_late_has_ports_two_apart_for_a_run() {
    let gate = one_door(&[tcp(7001), tcp(7003)]);
    assert_eq!(promotions(&gate, tcp, up(), Style::Late), 1);
    assert_eq!(promotions(&gate, tcp, up(), Style::Twice), 0);
    let longer = one_door(&[tcp(7001), tcp(7003), tcp(7005)]);
    assert_eq!(promotions(&longer, tcp, up(), Style::Late), 0);
}

#[test]
fn scans_of_one_protocol_after_another_open_no_mixed_sequence() {
    let gate = one_door(&[tcp(7001), udp(7002), echo(56), tcp(7003)]);
    for style in STYLES {
        assert_eq!(promotions(&gate, tcp, up(), style), 0);
        assert_eq!(promotions(&gate, udp, up(), style), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 4 } else { 200 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_scan_in_random_order_opens_a_sequence_only_where_its_ports_follow_one_another(
        seed in any::<u16>(),
        style in prop::sample::select(STYLES.to_vec()),
        at in prop_oneof![1 => Just(0_usize), 3 => 0_usize..65_530],
        (second, third) in (1_usize..4, 1_usize..4),
    ) {
        let order: Vec<u16> = shuffled(seed).collect();
        let places = [at, at + second, at + second + third];
        let gate = one_door(&places.map(|place| tcp(order[place])));
        // Sent again late, the port before the first step comes behind it, and is wrong there.
        let is_undisturbed = at == 0 || !matches!(style, Style::Late);
        let is_run = second == 1 && third == 1 && is_undisturbed;

        prop_assert_eq!(promotions(&gate, tcp, order.iter().copied(), style), u32::from(is_run));
    }
}
