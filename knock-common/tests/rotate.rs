//! Sequences that change with time: the vectors of `docs/rotating.md`, and what both sides rely on.

use std::collections::HashSet;

use knock_common::{
    abi::Proto,
    door::door_id,
    rotate::{Ports, RotatingStep, Rotation, time_step},
    spa::key::SpaKey,
};

const RANGE: Ports = Ports { first: 20_000, last: 60_000 };
const NOW: u64 = 58_910_768;

fn rotation(secret: u8, door: &[u8]) -> Rotation {
    Rotation::new(&SpaKey::new(&std::array::from_fn(|at| secret ^ u8::try_from(at).unwrap())), door_id(door))
}

fn sequence(rotation: &Rotation, step: u64, ports: Ports, length: usize) -> Option<Vec<RotatingStep>> {
    let mut steps = vec![RotatingStep { proto: Proto::Icmp, port: 0 }; length];
    rotation.fill(step, ports, &mut steps).then_some(steps)
}

fn text(steps: &[RotatingStep]) -> String {
    let one = |step: &RotatingStep| match step.proto {
        Proto::Tcp => format!("tcp/{}", step.port),
        Proto::Udp => format!("udp/{}", step.port),
        Proto::Icmp => panic!("never ICMP"),
    };
    steps.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_vectors_of_the_documentation_hold() {
    // Made apart from this code too, by python's hmac.
    let page = include_str!("../../docs/rotating.md");
    for (step, ports, length, expected) in [
        (NOW, RANGE, 4, "tcp/38454 tcp/30903 tcp/34022 udp/33710"),
        (NOW + 1, RANGE, 4, "tcp/38105 udp/55058 udp/27486 tcp/37326"),
        (1, Ports { first: 7000, last: 7004 }, 5, "tcp/7000 udp/7001 tcp/7002 udp/7003 udp/7004"),
    ] {
        let made = text(&sequence(&rotation(0, b"vpn"), step, ports, length).expect("ports enough"));

        assert_eq!(made, expected, "time step {step}");
        assert!(page.contains(expected), "docs/rotating.md lacks {expected}");
    }
}

#[test]
fn ports_are_of_the_range_and_come_once_each() {
    for step in 0..2000 {
        let ports = Ports { first: 65_520, last: u16::MAX };
        let steps = sequence(&rotation(1, b"a"), step, ports, 8).expect("ports enough");

        let distinct: HashSet<u16> = steps.iter().map(|step| step.port).collect();
        assert!(distinct.len() == 8 && distinct.iter().all(|port| *port >= 65_520), "{steps:?}");
    }
}

#[test]
fn each_secret_door_and_time_step_has_its_own() {
    let of = |secret, door, step| text(&sequence(&rotation(secret, door), step, RANGE, 4).unwrap());
    let all = [of(0, b"a", NOW), of(1, b"a", NOW), of(0, b"b", NOW), of(0, b"a", NOW + 1)];

    assert_eq!(of(0, b"a", NOW), all[0]);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn a_range_with_too_few_ports_gives_no_sequence() {
    assert_eq!(sequence(&rotation(0, b"a"), NOW, Ports { first: 7, last: 9 }, 4), None);
    assert!(sequence(&rotation(0, b"a"), NOW, Ports { first: 7, last: 9 }, 3).is_some());
}

#[test]
fn ports_and_protocols_are_drawn_evenly() {
    let mut counts = [[0_u32; 2]; 16];
    for step in 0..4000 {
        for drawn in sequence(&rotation(0, b"a"), step, Ports { first: 0, last: 15 }, 1).unwrap() {
            counts[usize::from(drawn.port)][usize::from(drawn.proto == Proto::Udp)] += 1;
        }
    }
    // 4,000 draws over 32 cells: 125 each, with a deviation of 11.
    assert!(counts.iter().flatten().all(|count| (60..200).contains(count)), "{counts:?}");
}

#[test]
fn a_time_step_begins_with_its_first_instant() {
    assert_eq!([59, 60, 89, 90].map(|unix| time_step(unix, 30)), [Some(1), Some(2), Some(2), Some(3)]);
    assert_eq!(time_step(59, 0), None);
}
