//! One door, one source: what right, wrong, repeated and foreign knocks do.

use knock_common::{
    abi::{Address, Attempts, Proto, StepRule, mapped},
    claim,
    decide::{Tables as _, Visit},
    machine::{Change, Knock},
};
use proptest::prelude::*;

#[path = "../../tests/src/gate.rs"]
mod gate;
mod source;

use gate::{Door, Gate, Prefix, SECOND, STEP_TIMEOUT, Service, TOTAL_TIMEOUT, echo, tcp, udp};
use source::{HOST, SOURCE, Source, packet};

fn one_door(steps: &[StepRule]) -> Gate {
    Gate::new(vec![Door::of(steps)], &[])
}

fn three_steps() -> ([StepRule; 3], Gate) {
    let steps = [tcp(7001), udp(7002), echo(56)];
    (steps, one_door(&steps))
}

/// Steps 1 to `count`, a tenth of a second apart from second 1 on, with the packets 1 to `count`.
fn begun(gate: &Gate, steps: &[StepRule], count: u16) -> Source {
    let mut source = Source::new();
    for (number, step) in (1..=count).zip(steps) {
        source.send(gate, &packet(step, number), at(number));
    }
    source
}

fn at(number: u16) -> u64 {
    SECOND + u64::from(number) * SECOND / 10
}

/// What is left of an attempt, times included.
fn slots(source: &Source) -> Vec<(u8, u64, u64)> {
    let used = source.attempts.slots.iter().filter(|slot| slot.step != 0);
    used.map(|slot| (slot.step, slot.started_ns, slot.last_ns)).collect()
}

/// Whether a knock changed nothing for any door.
fn is_nothing(change: &Change) -> bool {
    let Change { started, advanced, promoted, reset, timed_out, duplicate, no_slot, .. } = *change;
    started | advanced | promoted | reset | timed_out | duplicate | no_slot == 0
}

#[test]
fn the_steps_in_order_open_and_only_the_last_one_does() {
    let (steps, gate) = three_steps();
    let mut source = Source::new();

    assert_eq!(source.send(&gate, &packet(&steps[0], 1), at(1)).started, 1);
    let second = source.send(&gate, &packet(&steps[1], 2), at(2));
    assert_eq!((second.advanced, second.promoted, second.steps[0]), (1, 0, 2));
    let third = source.send(&gate, &packet(&steps[2], 3), at(3));
    assert_eq!((third.advanced, third.promoted, third.steps[0]), (0, 1, 3));
}

#[test]
fn one_step_opens_at_once_and_a_copy_of_it_does_not_open_again() {
    let gate = one_door(&[tcp(7001)]);
    let mut source = Source::new();

    let first = source.send(&gate, &packet(&tcp(7001), 1), at(1));
    assert_eq!((first.promoted, first.steps[0], first.is_later), (1, 1, false));
    let copy = source.send(&gate, &packet(&tcp(7001), 1), at(2));
    assert_eq!((copy.promoted, copy.duplicate), (0, 1));
    assert_eq!(source.send(&gate, &packet(&tcp(7001), 2), at(3)).promoted, 1);
}

#[test]
fn a_wrong_port_resets_and_the_same_packets_without_it_open() {
    let (steps, gate) = three_steps();
    let mut source = begun(&gate, &steps, 2);
    let mut twin = source.clone();

    let wrong = source.send(&gate, &packet(&tcp(9), 9), at(3));
    assert_eq!((wrong.reset, wrong.steps[0]), (1, 2));
    assert_eq!(source.send(&gate, &packet(&steps[2], 3), at(4)).promoted, 0);
    assert_eq!(twin.send(&gate, &packet(&steps[2], 3), at(4)).promoted, 1);
}

#[test]
fn a_first_step_out_of_turn_begins_anew() {
    let (steps, gate) = three_steps();
    let mut source = begun(&gate, &steps, 2);

    let again = source.send(&gate, &packet(&steps[0], 10), at(3));
    assert_eq!((again.reset, again.started), (1, 1));
    assert_eq!(source.send(&gate, &packet(&steps[1], 11), at(4)).advanced, 1);
    assert_eq!(source.send(&gate, &packet(&steps[2], 12), at(5)).promoted, 1);
}

#[test]
fn an_echo_of_another_size_or_id_is_wrong_and_the_right_one_opens() {
    let with_id = StepRule { conditions: StepRule::SIZE | StepRule::ID, id: 77, ..echo(56) };
    let gate = one_door(&[tcp(7001), with_id]);
    let right = packet(&with_id, 2);
    let wrong = [Knock { size: 57, ..right }, Knock { source_port: 78, ..right }, Knock { size: 0, ..right }];

    for knock in wrong {
        let change = begun(&gate, &[tcp(7001)], 1).send(&gate, &knock, at(2));
        assert_eq!((change.reset, change.promoted), (1, 0), "{knock:?}");
    }
    assert_eq!(begun(&gate, &[tcp(7001)], 1).send(&gate, &right, at(2)).promoted, 1);
}

#[test]
fn a_knock_of_a_protocol_that_the_door_does_not_use_changes_nothing() {
    let steps = [tcp(7001), tcp(7102)];
    let gate = one_door(&steps);
    let mut source = begun(&gate, &steps, 1);
    let before = source.attempts;

    for knock in [packet(&udp(7001), 8), packet(&udp(9), 8), packet(&echo(56), 8)] {
        assert!(is_nothing(&source.send(&gate, &knock, at(2))));
        assert_eq!(source.attempts, before);
    }
    assert_eq!(source.send(&gate, &packet(&tcp(9), 8), at(2)).reset, 1);
}

#[test]
fn udp_to_the_ephemeral_range_is_taken_for_replies_unless_a_step_lies_there() {
    let (steps, gate) = three_steps();
    let reply = packet(&udp(40_000), 8);
    let mut source = begun(&gate, &steps, 1);
    assert!(is_nothing(&source.send(&gate, &reply, at(2))));
    assert_eq!(source.send(&gate, &packet(&udp(32_767), 8), at(2)).reset, 1, "one below the range");
    assert_eq!(begun(&gate, &steps, 1).send(&gate, &packet(&udp(61_000), 8), at(2)).reset, 1, "one above");

    let steps = [tcp(7001), udp(40_001)];
    let gate = one_door(&steps);
    assert_eq!(begun(&gate, &steps, 1).send(&gate, &reply, at(2)).reset, 1);
    assert_eq!(begun(&gate, &steps, 1).send(&gate, &packet(&steps[1], 2), at(2)).promoted, 1);
}

/// Whatever is judged there is no reply: those are known by what the host sent.
#[test]
fn in_deny_mode_udp_to_the_ephemeral_range_is_a_wrong_knock() {
    let (steps, mut gate) = three_steps();
    gate.is_deny = true;

    assert_eq!(begun(&gate, &steps, 1).send(&gate, &packet(&udp(40_000), 8), at(2)).reset, 1);
    assert_eq!(begun(&gate, &steps, 1).send(&gate, &packet(&steps[1], 2), at(2)).advanced, 1);
}

#[test]
fn an_echo_request_out_of_turn_is_wrong_unless_echo_is_public() {
    let steps = [tcp(7001), tcp(7102), echo(56)];
    let sent = |public: &[Service], size: u16, count: u16| {
        let gate = Gate::new(vec![Door::of(&steps)], public);
        let change = begun(&gate, &steps, count).send(&gate, &packet(&echo(size), 8), at(4));
        (change.reset, change.promoted)
    };
    let public: &[Service] = &[(Proto::Icmp, 0..=0)];

    assert_eq!((sent(&[], 56, 1), sent(&[], 57, 2), sent(&[], 56, 2)), ((1, 0), (1, 0), (0, 1)));
    assert_eq!((sent(public, 56, 1), sent(public, 57, 2), sent(public, 56, 2)), ((0, 0), (0, 0), (0, 1)));
}

#[test]
fn a_record_of_another_generation_or_a_poisoned_one_counts_for_nothing() {
    let (steps, gate) = three_steps();
    let last = packet(&steps[2], 3);
    let renewed = |turn: u64, generation: u32| {
        let mut source = begun(&gate, &steps, 2);
        source.attempts.renew(turn, generation);
        source.send(&gate, &last, at(3)).promoted
    };

    assert_eq!(renewed(claim::fresh(1), 1), 1);
    assert_eq!(renewed(claim::fresh(1), 2), 0);
    assert_eq!(renewed(claim::fresh(1) | claim::POISONED, 1), 0);
}

#[test]
fn a_slot_written_for_an_earlier_use_of_the_memory_is_void() {
    let (steps, gate) = three_steps();
    let reused = |change: fn(&mut Attempts)| {
        let mut source = begun(&gate, &steps, 2);
        change(&mut source.attempts);
        (source.send(&gate, &packet(&steps[2], 3), at(3)).promoted, slots(&source))
    };

    assert_eq!(reused(|_| ()).0, 1);
    assert_eq!(reused(|attempts| attempts.epoch_ns += 1), (0, vec![]));
    assert_eq!(reused(|attempts| attempts.slots[0].epoch_ns -= 1), (0, vec![]));
}

#[test]
fn sixteen_steps_open_with_every_accepted_packet_sent_again_after_each() {
    let steps: Vec<StepRule> = (0..16).map(|step| tcp(7001 + 101 * step)).collect();
    let gate = one_door(&steps);
    let mut source = Source::new();
    let mut now_ns = SECOND;
    for (number, step) in (1..).zip(&steps) {
        let change = source.send(&gate, &packet(step, number), now_ns);
        assert_eq!(change.promoted, u64::from(number == 16));
        for (earlier, step) in (1..=number).zip(&steps) {
            now_ns += SECOND / 100;
            let before = source.attempts;
            let copy = source.send(&gate, &packet(step, earlier), now_ns);
            assert_eq!((copy.duplicate, copy.reset, copy.promoted), (1, 0, 0), "step {earlier} at {number}");
            assert_eq!(source.attempts, before);
        }
    }
}

#[test]
fn a_completed_attempt_neither_opens_again_nor_keeps_the_next_one_from_beginning() {
    let (steps, gate) = three_steps();
    let mut source = begun(&gate, &steps, 3);

    let copy = source.send(&gate, &packet(&steps[2], 3), at(4));
    assert_eq!((copy.promoted, copy.duplicate), (0, 1));
    let more = source.send(&gate, &packet(&steps[2], 30), at(5));
    assert_eq!((more.promoted, more.reset), (0, 0));
    source.send(&gate, &packet(&steps[0], 31), at(6));
    source.send(&gate, &packet(&steps[1], 32), at(7));
    assert_eq!(source.send(&gate, &packet(&steps[2], 33), at(8)).promoted, 1);
}

/// A door for sources in 203.0.113.0/24 only, at 198.51.100.0/24 only.
fn bounded_gate() -> Gate {
    let mut door = Door::of(&[tcp(7001), tcp(7102)]);
    door.from = vec![Prefix { address: mapped([203, 0, 113, 0]), bits: 120 }];
    door.to = vec![Prefix { address: mapped([198, 51, 100, 0]), bits: 120 }];
    Gate::new(vec![door], &[])
}

fn visit(gate: &Gate, number: u16, source: Address, destination: Address) -> Visit {
    let knock = packet(&gate.doors[0].rule.steps[usize::from(number) - 1], number);
    Visit { knock: Some(knock), role: gate.role(Proto::Tcp, knock.port), source, destination, ..Visit::NONE }
}

#[test]
fn a_door_opens_only_for_its_sources_and_only_at_its_destinations() {
    let gate = bounded_gate();
    let (stranger, elsewhere) = (mapped([203, 0, 112, 9]), mapped([198, 51, 101, 1]));
    let opens = |from: Address, to: Address| {
        let mut source = Source::new();
        source.send_visit(&gate, &visit(&gate, 1, from, to), at(1));
        source.send_visit(&gate, &visit(&gate, 2, from, to), at(2)).promoted
    };

    assert_eq!(opens(SOURCE, HOST), 1);
    assert_eq!(opens(stranger, HOST), 0);
    assert_eq!(opens(SOURCE, elsewhere), 0);
}

#[test]
fn a_knock_at_another_destination_neither_advances_nor_resets() {
    let gate = bounded_gate();
    let elsewhere = mapped([198, 51, 101, 1]);
    let mut source = begun(&gate, &[tcp(7001)], 1);
    let before = source.attempts;

    assert!(is_nothing(&source.send_visit(&gate, &visit(&gate, 2, SOURCE, elsewhere), at(2))));
    assert_eq!(source.attempts, before);
    assert_eq!(source.send_visit(&gate, &visit(&gate, 2, SOURCE, HOST), at(3)).promoted, 1);
}

proptest! {
    #[test]
    fn a_copy_of_any_accepted_syn_at_any_time_changes_nothing(
        count in 1_usize..16,
        copy in any::<prop::sample::Index>(),
        late in 0..=STEP_TIMEOUT,
    ) {
        let steps: Vec<StepRule> = (0..16).map(|step| tcp(7001 + 101 * step)).collect();
        let gate = one_door(&steps);
        let mut source = begun(&gate, &steps, u16::try_from(count).expect("few"));
        let before = source.attempts;
        let copy = copy.index(count);
        let now_ns = at(u16::try_from(count).expect("few")) + late;
        let knock = packet(&steps[copy], u16::try_from(copy + 1).expect("few"));

        let change = source.send(&gate, &knock, now_ns.min(at(1) + TOTAL_TIMEOUT));
        prop_assert_eq!((change.duplicate, change.reset, change.timed_out), (1, 0, 0));
        prop_assert_eq!(source.attempts, before);
    }

    #[test]
    fn a_syn_that_differs_from_an_accepted_one_anywhere_is_no_copy(port in 0_u16..8, tag in 0_u32..8) {
        let (steps, gate) = three_steps();
        let mut source = begun(&gate, &steps, 2);
        let knock = packet(&steps[0], 1);
        let other = Knock { source_port: knock.source_port ^ port, tag: knock.tag ^ tag, ..knock };

        let change = source.send(&gate, &other, at(3));
        prop_assert_eq!(change.duplicate == 1, port == 0 && tag == 0);
        prop_assert_eq!(change.reset == 1, port != 0 || tag != 0);
    }
}
