//! Packets that were accepted once against the real program: nowhere and never again.

use std::{sync::Barrier, thread};

use knock_common::{
    abi::mapped,
    names,
    spa::{
        abi::KeyRule,
        key::SpaKey,
        packet::Request,
        verdict::{REFUSALS, Refusal},
    },
    verdict::Mode,
};
use knock_tests::{
    kernel::run,
    netns::Namespace,
    random::Random,
    spa::{BOOT, SECOND, SENDER, START, Spa, frame},
};
use nix::net::if_::if_nametoindex;

const HOUR: u64 = 3600 * SECOND;
const WINDOW: u64 = 30 * SECOND;
const ANY: u8 = KeyRule::ANY_SOURCE | KeyRule::OTHER_SOURCE;

/// What became of the tries so far.
#[derive(Default)]
struct Tally {
    tries: u64,
    accepted: u64,
}

impl Tally {
    /// Counts tries against a program, each of which must have been judged, and all refused for one reason.
    fn add(&mut self, way: &str, spa: &mut Spa, reason: Refusal, tries: u64, mut act: impl FnMut(&mut Spa)) {
        let (grants, floor) = (spa.grants(), spa.floor());
        let before = [spa.accepted(), spa.refused(reason), all_refused(spa)];
        act(spa);
        let after = [spa.accepted(), spa.refused(reason), all_refused(spa)];
        let [accepted, refused, all] = [0, 1, 2].map(|at| after[at] - before[at]);
        println!("{way}: {tries} tries, {accepted} accepted, {refused} {}", reason.name());
        assert_eq!((refused, all), (tries, tries), "{way}");
        assert_eq!((spa.grants(), spa.floor()), (grants, floor), "{way}");
        self.tries += tries;
        self.accepted += accepted;
    }
}

fn all_refused(spa: &Spa) -> u64 {
    REFUSALS.into_iter().map(|refusal| spa.refused(refusal)).sum()
}

/// A program that accepted a packet for whoever sends it, and the packet.
fn accepted(mode: Mode) -> (Spa, Vec<u8>) {
    let mut spa = Spa::load_programs(mode, ANY, &[names::PROGRAM, names::TC_PROGRAM]);
    let packet = spa.seal(&Request { source: None, ..spa.request() });
    spa.send(&packet);
    assert_eq!((spa.accepted(), spa.grants()), (1, 1));
    (spa, packet)
}

#[test]
fn of_more_than_10000_replays_none_is_accepted() {
    for mode in [Mode::Guard, Mode::Deny] {
        let mut tally = Tally::default();
        from_everywhere(mode, &mut tally);
        at_any_time(mode, &mut tally);
        at_other_gates(mode, &mut tally);
        println!("mode {}: {} tries, {} accepted", mode.number(), tally.tries, tally.accepted);
        assert!(tally.tries > 10_000);
        assert_eq!(tally.accepted, 0);
    }
}

fn from_everywhere(mode: Mode, tally: &mut Tally) {
    let (mut spa, packet) = accepted(mode);
    tally.add("same source", &mut spa, Refusal::Replayed, 2000, |spa| {
        (0..2000).for_each(|_| spa.send(&packet));
    });
    let mut random = Random::new(17);
    tally.add("other sources", &mut spa, Refusal::Replayed, 2000, |spa| {
        (0..2000).for_each(|_| spa.send_from(std::array::from_fn(|_| random.byte()), &packet));
    });
    let namespace = Namespace::new("replay");
    namespace.run("ip link add one type veth peer name two");
    tally.add("another interface, by TC", &mut spa, Refusal::Replayed, 2000, |spa| {
        namespace.within(|| {
            let interface = if_nametoindex("one").expect("it was made above");
            (0..2000).for_each(|_| spa.send_by_tc_on(interface, &packet));
        });
    });
    let frames = [frame(SENDER, &packet), frame([198, 51, 100, 7], &packet)];
    tally.add("two CPUs at the same instant", &mut spa, Refusal::Replayed, 2000, |spa| {
        let (barrier, program) = (Barrier::new(2), spa.program());
        thread::scope(|scope| {
            for frame in &frames {
                let barrier = &barrier;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        barrier.wait();
                        run(program, frame);
                    }
                });
            }
        });
    });
}

fn at_any_time(mode: Mode, tally: &mut Tally) {
    let (mut spa, packet) = accepted(mode);
    for (way, now, reason) in [
        ("the last instant of the window", START + WINDOW, Refusal::Replayed),
        ("past it", START + WINDOW + 1, Refusal::Stale),
        ("the first instant of the window", START - WINDOW, Refusal::Replayed),
        ("before it", START - WINDOW - 1, Refusal::Future),
    ] {
        spa.set_now(now);
        spa.look_at_clock(now, BOOT);
        tally.add(way, &mut spa, reason, 250, |spa| (0..250).for_each(|_| spa.send(&packet)));
    }
    spa.set_now(START);
    for (way, offset, reason) in [
        ("the clock an hour ahead", BOOT + HOUR, Refusal::Stale),
        ("the clock an hour behind", BOOT - HOUR, Refusal::Future),
        ("the clock a day ahead", BOOT + 24 * HOUR, Refusal::Stale),
        ("the clock a day behind", BOOT - 24 * HOUR, Refusal::Future),
    ] {
        spa.look_at_clock(START, offset);
        tally.add(way, &mut spa, reason, 250, |spa| (0..250).for_each(|_| spa.send(&packet)));
    }
    spa.look_at_clock(START, BOOT);
    spa.set_now(START + 24 * HOUR);
    tally.add("nobody looked at the clock for a day", &mut spa, Refusal::NoClock, 250, |spa| {
        (0..250).for_each(|_| spa.send(&packet));
    });
}

fn at_other_gates(mode: Mode, tally: &mut Tally) {
    let (first, packet) = accepted(mode);
    let mut after = Spa::load(mode, ANY);
    after.set_floor(first.floor());
    tally.add("a program that is given the floor", &mut after, Refusal::Replayed, 1000, |spa| {
        (0..1000).for_each(|_| spa.send(&packet));
    });
    let mut anew = Spa::load(mode, ANY);
    anew.keep_floors_since(START + 1);
    tally.add("new floors, kept since a later time", &mut anew, Refusal::Stale, 1000, |spa| {
        (0..1000).for_each(|_| spa.send(&packet));
    });
    let mut other = Spa::load(mode, ANY);
    other.set_identity("other");
    tally.add("another server with the same secret", &mut other, Refusal::OtherServer, 1000, |spa| {
        (0..1000).for_each(|_| spa.send(&packet));
    });
    // None of the three is a gate that accepts nothing.
    for spa in [&mut after, &mut anew] {
        let next = spa.seal(&Request { source: None, counter: BOOT + START + 1, ..spa.request() });
        spa.send(&next);
        assert_eq!(spa.accepted(), 1);
    }
    other.set_identity("box");
    other.send(&packet);
    assert_eq!(other.accepted(), 1);
}

#[test]
fn the_window_has_sharp_edges_on_both_sides() {
    for mode in [Mode::Guard, Mode::Deny] {
        for (counter, refusal) in [
            (BOOT + START - WINDOW, None),
            (BOOT + START - WINDOW - 1, Some(Refusal::Stale)),
            (BOOT + START + WINDOW, None),
            (BOOT + START + WINDOW + 1, Some(Refusal::Future)),
        ] {
            let mut spa = Spa::load(mode, 0);
            let packet = spa.seal(&Request { counter, ..spa.request() });

            spa.send(&packet);

            assert_eq!(spa.accepted(), u64::from(refusal.is_none()), "{refusal:?}");
            assert_eq!(spa.told(), refusal.map(Some).into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_kernel_accepts_the_vectors_of_the_documentation() {
    let page = include_str!("../../docs/spa.md");
    let blocks = page.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next());
    let packets: Vec<Vec<u8>> = blocks.map(|hex| bytes(hex.trim())).collect();
    let secret = std::array::from_fn(|at| u8::try_from(at).expect("32 bytes"));
    let counter: u64 = 1_767_323_045_678_000_000;
    for mode in [Mode::Guard, Mode::Deny] {
        let mut spa = Spa::load(mode, 0);
        spa.go_by(SpaKey::new(&secret), KeyRule::ANY_SOURCE);
        spa.set_now(counter - BOOT);
        spa.look_at_clock(counter - BOOT, BOOT);
        for (packet, accepted) in packets.iter().zip(1..) {
            spa.send(packet);

            assert_eq!((spa.accepted(), all_refused(&spa)), (accepted, 0));
        }
        assert_eq!(spa.floor(), counter + 1);
        assert_eq!(spa.grant_until(mapped(SENDER)), Some(counter - BOOT + 60 * SECOND));
    }
    assert_eq!(packets.len(), 2);
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let digits = std::str::from_utf8(pair).expect("digits");
            u8::from_str_radix(digits, 16).expect("digits")
        })
        .collect()
}
