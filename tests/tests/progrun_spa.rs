//! Single packets against the real program: each is accepted once, by what it says alone, and whatever else is refused.

use std::{sync::Barrier, thread, time::Instant};

use knock_common::{
    abi::{List, mapped},
    counter::Counter,
    door::door_id,
    names,
    spa::{
        abi::KeyRule,
        key::SpaKey,
        packet::{Datagram, LENGTH, Request},
        verdict::{CLOCK_TRUST_NS, REFUSALS, Refusal},
    },
    verdict::Mode,
};
use knock_tests::{
    kernel::{run, syn},
    random::Random,
    spa::{BOOT, KEY, OTHER_PORT, PORT, SECOND, SENDER, START, STEP_PORT, Spa, frame, frame_to_port},
};

const OTHER: [u8; 4] = [198, 51, 100, 7];

macro_rules! in_each_mode {
    ($($case:ident,)*) => {
        mod guard {
            use super::Mode;
            $(#[test]
            fn $case() {
                super::$case(Mode::Guard);
            })*
        }
        mod deny {
            use super::Mode;
            $(#[test]
            fn $case() {
                super::$case(Mode::Deny);
            })*
        }
    };
}

in_each_mode! {
    a_packet_opens_its_door_for_its_sender,
    a_packet_gets_the_time_it_wants_within_its_right,
    each_bit_of_500_valid_packets_counts,
    a_packet_cut_short_or_extended_is_nothing,
    each_refusal_is_counted_as_what_it_is_and_spends_nothing,
    only_a_key_that_may_lets_in_somebody_else_than_it_names_or_comes_from,
    a_packet_that_was_accepted_is_refused_for_ever,
    a_new_program_that_is_given_the_floor_refuses_it_too_and_without_a_floor_refuses_all,
    a_clock_that_is_wrong_or_unknown_opens_nothing,
    of_copies_on_two_cpus_at_the_same_instant_one_is_accepted,
    a_port_that_the_door_does_not_listen_on_is_no_way_in,
    where_nobody_listens_what_is_as_long_as_a_packet_is_a_knock_like_any_other,
    at_tc_it_opens_its_door_once_as_well,
    prefixes_of_the_door_and_of_the_key_bind_whom_a_packet_lets_in,
    a_ban_refuses_what_comes_from_its_source_and_what_would_let_it_in,
    a_flood_of_refusals_is_counted_exactly_and_told_of_within_the_cap,
}

fn a_packet_opens_its_door_for_its_sender(mode: Mode) {
    let mut spa = Spa::load(mode, 0);
    let packet = spa.seal(&spa.request());

    spa.send(&packet);

    assert_eq!(spa.grant_until(mapped(SENDER)), Some(START + 30 * SECOND));
    assert_eq!((spa.grants(), spa.accepted(), spa.floor()), (1, 1, BOOT + START));
}

fn a_packet_gets_the_time_it_wants_within_its_right(mode: Mode) {
    for (seconds, granted) in [(5, 5), (60, 60), (61, 60), (u32::MAX, 60)] {
        let mut spa = Spa::load(mode, 0);
        let packet = spa.seal(&Request { seconds, ..spa.request() });

        spa.send(&packet);

        assert_eq!(spa.grant_until(mapped(SENDER)), Some(START + granted * SECOND));
    }
}

fn each_bit_of_500_valid_packets_counts(mode: Mode) {
    let mut spa = Spa::load(mode, 0);
    let mut random = Random::new(11);
    for number in 0..500_u64 {
        let request =
            Request { counter: BOOT + START + number, seconds: u32::from(random.word()), ..spa.request() };
        let packet = spa.seal(&request);
        for bit in 0..LENGTH * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            spa.send(&flipped);
        }
        assert_eq!(spa.accepted(), number, "of packet {number} some bit does not count");
        spa.send(&packet);
        assert_eq!(spa.accepted(), number + 1, "packet {number} is right");
    }
    assert_eq!(spa.grants(), 1);
}

fn a_packet_cut_short_or_extended_is_nothing(mode: Mode) {
    let mut spa = Spa::load(mode, 0);
    let packet = spa.seal(&spa.request());
    for length in 0..packet.len() {
        spa.send(&packet[..length]);
        spa.send(&packet[packet.len() - length..]);
        let longer = [&packet[..], &packet[..=length]].concat();
        spa.send(&longer);
        spa.send(&[&packet[..=length], &packet[..]].concat());
    }
    assert_eq!((spa.accepted(), spa.grants()), (0, 0));

    spa.send(&packet);

    assert_eq!((spa.accepted(), spa.grants()), (1, 1));
}

/// What makes a packet that is to be refused.
type Make<'a> = &'a dyn Fn(&Spa) -> Vec<u8>;

fn each_refusal_is_counted_as_what_it_is_and_spends_nothing(mode: Mode) {
    let stranger = SpaKey::new(&[1; 32]);
    let named = |spa: &Spa| spa.request();
    let cases: [(Refusal, Make<'_>); 9] = [
        (Refusal::UnknownKey, &|spa| Datagram::seal(&named(spa), &stranger).bytes().to_vec()),
        (Refusal::Malformed, &|spa| changed(&spa.seal(&named(spa)), 0)),
        (Refusal::BadGate, &|spa| changed(&spa.seal(&named(spa)), 20)),
        (Refusal::BadCode, &|spa| changed(&spa.seal(&named(spa)), 70)),
        (Refusal::OtherServer, &|spa| spa.seal(&Request { server: door_id(b"other"), ..named(spa) })),
        (Refusal::NotAllowed, &|spa| spa.seal(&Request { door: door_id(b"web"), ..named(spa) })),
        (Refusal::WrongSource, &|spa| spa.seal(&Request { source: None, ..named(spa) })),
        (Refusal::Stale, &|spa| spa.seal(&Request { counter: BOOT + START - 30 * SECOND - 1, ..named(spa) })),
        (Refusal::Future, &|spa| spa.seal(&Request { counter: u64::MAX, ..named(spa) })),
    ];
    for (refusal, make) in cases {
        let mut spa = Spa::load(mode, 0);
        let packet = make(&spa);

        spa.send(&packet);

        assert_eq!(spa.refused(refusal), 1, "{refusal:?}");
        assert_eq!(spa.told(), [Some(refusal)]);
        assert_eq!((spa.accepted(), spa.grants(), spa.floor()), (0, 0, 0), "{refusal:?}");
        let right = spa.seal(&spa.request());
        spa.send(&right);
        assert_eq!((spa.accepted(), spa.grants()), (1, 1), "after {refusal:?}");
    }
}

fn changed(packet: &[u8], at: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] ^= 0x10;
    packet
}

fn only_a_key_that_may_lets_in_somebody_else_than_it_names_or_comes_from(mode: Mode) {
    let grants = |flags, source| {
        let mut spa = Spa::load(mode, flags);
        let packet = spa.seal(&Request { source, ..spa.request() });
        spa.send_from(OTHER, &packet);
        [spa.grant_until(mapped(SENDER)), spa.grant_until(mapped(OTHER))].map(|until| until.is_some())
    };

    assert_eq!(grants(0, Some(mapped(SENDER))), [false, false]);
    assert_eq!(grants(0, Some(mapped(OTHER))), [false, true]);
    assert_eq!(grants(0, None), [false, false]);
    assert_eq!(grants(KeyRule::ANY_SOURCE, None), [false, true]);
    assert_eq!(grants(KeyRule::OTHER_SOURCE, Some(mapped(SENDER))), [true, false]);
}

fn a_packet_that_was_accepted_is_refused_for_ever(mode: Mode) {
    let mut spa = Spa::load(mode, KeyRule::ANY_SOURCE | KeyRule::OTHER_SOURCE);
    let packet = spa.seal(&Request { source: None, ..spa.request() });
    spa.send(&packet);
    let mut random = Random::new(13);
    for _ in 0..10_000 {
        let source = std::array::from_fn(|_| random.byte());
        spa.set_now(START + u64::from(random.word()) * SECOND / 2000);
        spa.send_from(source, &packet);
    }

    assert_eq!((spa.accepted(), spa.grants()), (1, 1));
    assert!(spa.refused(Refusal::Replayed) > 5000);
}

fn a_new_program_that_is_given_the_floor_refuses_it_too_and_without_a_floor_refuses_all(mode: Mode) {
    let mut spa = Spa::load(mode, 0);
    let packet = spa.seal(&spa.request());
    spa.send(&packet);
    let mut after = Spa::load(mode, 0);
    after.set_floor(spa.floor());

    after.send(&packet);

    assert_eq!((after.accepted(), after.refused(Refusal::Replayed)), (0, 1));
    let next = after.seal(&Request { counter: BOOT + START + 1, ..after.request() });
    after.send(&next);
    assert_eq!(after.accepted(), 1);
}

fn a_clock_that_is_wrong_or_unknown_opens_nothing(mode: Mode) {
    const HOUR: u64 = 3600 * SECOND;
    for step in [HOUR, 24 * HOUR] {
        for (offset, refusal) in [(BOOT + step, Refusal::Stale), (BOOT - step, Refusal::Future)] {
            let mut spa = Spa::load(mode, 0);
            spa.look_at_clock(START, offset);
            let packet = spa.seal(&spa.request());
            spa.send(&packet);
            assert_eq!((spa.accepted(), spa.refused(refusal)), (0, 1));
            spa.look_at_clock(START, BOOT);
            spa.send(&packet);
            assert_eq!(spa.accepted(), 1, "the same packet, once the clock is right again");
        }
    }
    // The daemon has been dead for a day.
    let mut spa = Spa::load(mode, 0);
    let now = START + 24 * HOUR;
    spa.set_now(now);
    let packet = spa.seal(&Request { counter: BOOT + now, ..spa.request() });
    spa.send(&packet);
    assert_eq!((spa.accepted(), spa.refused(Refusal::NoClock)), (0, 1));
    spa.look_at_clock(now - CLOCK_TRUST_NS, BOOT);
    spa.send(&packet);
    assert_eq!(spa.accepted(), 1);
}

fn of_copies_on_two_cpus_at_the_same_instant_one_is_accepted(mode: Mode) {
    const ROUNDS: u64 = 2000;
    let mut spa = Spa::load(mode, KeyRule::ANY_SOURCE);
    let frames: Vec<[Vec<u8>; 2]> = (0..ROUNDS)
        .map(|round| {
            let packet = spa.seal(&Request { source: None, counter: BOOT + START + round, ..spa.request() });
            [frame(SENDER, &packet), frame(OTHER, &packet)]
        })
        .collect();
    let (barrier, program) = (Barrier::new(2), spa.program());
    thread::scope(|scope| {
        for side in 0..2 {
            let (barrier, frames) = (&barrier, &frames);
            scope.spawn(move || {
                for pair in frames {
                    barrier.wait();
                    run(program, &pair[side]);
                }
            });
        }
    });

    assert_eq!((spa.accepted(), spa.refused(Refusal::Replayed)), (ROUNDS, ROUNDS));
}

fn a_port_that_the_door_does_not_listen_on_is_no_way_in(mode: Mode) {
    let mut spa = Spa::load(mode, 0);
    let packet = spa.seal(&spa.request());

    spa.send_frame(&frame_to_port(OTHER_PORT, &packet));

    assert_eq!((spa.accepted(), spa.refused(Refusal::NotAllowed), spa.grants()), (0, 1, 0));
    spa.send(&packet);
    assert_eq!((spa.accepted(), spa.grants()), (1, 1));
}

fn where_nobody_listens_what_is_as_long_as_a_packet_is_a_knock_like_any_other(mode: Mode) {
    let knock = |door, first, length, last| {
        let mut spa = Spa::load(mode, 0);
        let packet = spa.seal(&spa.request());
        spa.send_frame(&frame_to_port(first, &packet[..length]));
        spa.send_frame(&syn(SENDER, last));
        let counted = spa.accepted() + REFUSALS.into_iter().map(|refusal| spa.refused(refusal)).sum::<u64>();
        (spa.grant_for(door, mapped(SENDER)).is_some(), counted)
    };

    assert_eq!(knock("web", STEP_PORT, LENGTH, 8301), (true, 0));
    assert_eq!(knock("ssh", PORT, LENGTH - 1, 7101), (true, 0), "any other length is a step there too");
    let mut spa = Spa::load(mode, 0);
    spa.send(Datagram::EMPTY.bytes());
    spa.send_frame(&syn(SENDER, 7101));
    assert_eq!((spa.grants(), spa.refused(Refusal::Malformed)), (0, 1), "where somebody does it is no step");
}

fn a_flood_of_refusals_is_counted_exactly_and_told_of_within_the_cap(mode: Mode) {
    const EACH: u64 = 2000;
    let mut spa = Spa::load_live(mode, 100);
    let right = spa.seal(&spa.request());
    let stranger = Datagram::seal(&spa.request(), &SpaKey::new(&[1; 32])).bytes().to_vec();
    let began = Instant::now();
    for _ in 0..EACH {
        spa.send(&changed(&right, 20));
        spa.send(&changed(&right, 70));
        spa.send(&stranger);
    }
    let windows = 2 + began.elapsed().as_secs();

    let refused = [Refusal::BadGate, Refusal::BadCode, Refusal::UnknownKey].map(|one| spa.refused(one));
    assert_eq!(refused, [EACH; 3]);
    let told = spa.told().len() as u64;
    assert!((100..=100 * windows).contains(&told), "{told} in {windows} windows");
    assert_eq!(told + spa.counter(Counter::EventCapped), 3 * EACH);
}

fn a_ban_refuses_what_comes_from_its_source_and_what_would_let_it_in(mode: Mode) {
    for (banned, until_ns, is_refused) in [
        (SENDER, START, true),
        (SENDER, START - 1, false),
        (OTHER, u64::MAX, true),
        ([198, 51, 100, 8], u64::MAX, false),
    ] {
        let mut spa = Spa::load(mode, KeyRule::OTHER_SOURCE);
        spa.ban(mapped(banned), until_ns);
        let packet = spa.seal(&Request { source: Some(mapped(OTHER)), ..spa.request() });

        spa.send(&packet);

        let accepted = u64::from(!is_refused);
        assert_eq!((spa.accepted(), spa.refused(Refusal::Banned)), (accepted, 1 - accepted), "{banned:?}");
        assert_eq!(spa.grant_until(mapped(OTHER)).is_some(), !is_refused);
        assert_eq!(spa.floor() != 0, !is_refused, "what is refused spends nothing");
    }
}

fn prefixes_of_the_door_and_of_the_key_bind_whom_a_packet_lets_in(mode: Mode) {
    const SENDERS: [u8; 5] = [203, 0, 113, 0, 24];
    const OTHERS: [u8; 5] = [198, 51, 100, 0, 24];
    const ANY: u8 = KeyRule::OTHER_SOURCE;
    const FROM: u8 = KeyRule::OTHER_SOURCE | KeyRule::FROM;
    let opens = |flags, door: &[[u8; 5]], key: &[(u16, [u8; 5])], source| {
        let of_door = door.iter().map(|prefix| (List::From, 0, *prefix));
        let of_key = key.iter().map(|(number, prefix)| (List::Key, *number, *prefix));
        let prefixes: Vec<_> = of_door.chain(of_key).collect();
        let mut spa = Spa::load_listed(mode, flags, &prefixes);
        let packet = spa.seal(&Request { source: Some(mapped(source)), ..spa.request() });
        spa.send(&packet);
        assert_eq!(spa.accepted() + spa.refused(Refusal::NotAllowed), 1);
        assert_eq!(spa.grant_until(mapped(source)).is_some(), spa.accepted() == 1);
        spa.accepted() == 1
    };

    assert!(opens(ANY, &[SENDERS], &[], SENDER));
    assert!(!opens(ANY, &[SENDERS], &[], OTHER), "the door is not for whom it asks for");
    assert!(!opens(ANY, &[OTHERS], &[], OTHER), "nor for who sends it");
    assert!(opens(ANY, &[SENDERS, OTHERS], &[], OTHER));
    assert!(opens(FROM, &[], &[(KEY, OTHERS)], OTHER));
    assert!(!opens(FROM, &[], &[(KEY, OTHERS)], SENDER));
    assert!(opens(FROM, &[], &[(KEY, OTHERS), (KEY, SENDERS)], SENDER));
    assert!(opens(KeyRule::FROM, &[], &[(KEY, SENDERS)], SENDER), "without a right to name others too");
    assert!(!opens(KeyRule::FROM, &[], &[(KEY, OTHERS)], SENDER));
    assert!(opens(ANY, &[], &[(KEY, OTHERS)], SENDER), "the prefixes of another key");
    assert!(!opens(FROM, &[], &[(KEY & 0xff, SENDERS), (KEY ^ 1, SENDERS)], SENDER));
    assert!(!opens(FROM, &[SENDERS], &[(KEY, OTHERS)], SENDER), "one of both");
}

fn at_tc_it_opens_its_door_once_as_well(mode: Mode) {
    let mut spa = Spa::load_program(mode, 0, names::TC_PROGRAM);
    let packet = spa.seal(&spa.request());

    spa.send_by_tc(&changed(&packet, 70));
    assert_eq!((spa.accepted(), spa.refused(Refusal::BadCode), spa.grants()), (0, 1, 0));
    spa.send_by_tc(&packet);
    spa.send_by_tc(&packet);

    assert_eq!((spa.accepted(), spa.refused(Refusal::Replayed)), (1, 1));
    assert_eq!(spa.grant_until(mapped(SENDER)), Some(START + 30 * SECOND));
}
