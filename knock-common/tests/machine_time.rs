//! Timeouts to the nanosecond, the window of copies, and a clock that steps back.

use knock_common::{
    abi::StepRule,
    machine::{DUPLICATE_UNITS, Knock, UNIT_SHIFT},
};
use proptest::prelude::*;

#[path = "../../tests/src/gate.rs"]
mod gate;
#[expect(dead_code, reason = "times are the machine's own here, so there is no history to ask")]
mod oracle;
mod source;

use gate::{Door, Gate, SECOND, STEP_TIMEOUT, TOTAL_TIMEOUT, echo, tcp, udp};
use oracle::{Packet, Secret};
use source::{Source, packet};

/// Far from 0, and not on a tick of the clock of copies.
const START: u64 = 1000 * SECOND + 1;

fn one_door(steps: &[StepRule]) -> Gate {
    Gate::new(vec![Door::of(steps)], &[])
}

/// Sends the packets of the steps at these times; returns whether the last one opens.
fn opens(steps: &[StepRule], times: &[u64]) -> bool {
    let gate = one_door(steps);
    let mut source = Source::new();
    let mut is_open = false;
    for ((number, step), now_ns) in (1..).zip(steps).zip(times) {
        is_open = source.send(&gate, &packet(step, number), *now_ns).promoted == 1;
    }
    is_open
}

#[test]
fn a_step_is_in_time_up_to_the_step_timeout_and_not_a_nanosecond_longer() {
    let steps = [tcp(7001), udp(7102), echo(56)];
    let last_after = |pause: u64| opens(&steps, &[START, START + 3, START + 3 + pause]);

    assert!(last_after(STEP_TIMEOUT - 1));
    assert!(last_after(STEP_TIMEOUT));
    assert!(!last_after(STEP_TIMEOUT + 1));
}

#[test]
fn the_last_step_is_in_time_up_to_the_total_timeout_and_not_a_nanosecond_longer() {
    let steps: Vec<StepRule> = (0..5).map(|step| tcp(7001 + 101 * step)).collect();
    let quarter = TOTAL_TIMEOUT / 4;
    let last_at = |total: u64| {
        opens(&steps, &[START, START + quarter, START + 2 * quarter, START + 3 * quarter, START + total])
    };

    assert!(last_at(TOTAL_TIMEOUT - 1));
    assert!(last_at(TOTAL_TIMEOUT));
    assert!(!last_at(TOTAL_TIMEOUT + 1));
}

#[test]
fn a_copy_does_not_lengthen_the_time_for_the_next_step() {
    let (steps, gate) = ([tcp(7001), tcp(7102)], one_door(&[tcp(7001), tcp(7102)]));
    let sent = |copy_at: u64, last_at: u64| {
        let mut source = Source::new();
        source.send(&gate, &packet(&steps[0], 1), START);
        assert_eq!(source.send(&gate, &packet(&steps[0], 1), START + copy_at).duplicate, 1);
        source.send(&gate, &packet(&steps[1], 2), START + last_at).promoted
    };

    assert_eq!(sent(STEP_TIMEOUT, STEP_TIMEOUT), 1);
    assert_eq!(sent(STEP_TIMEOUT, STEP_TIMEOUT + 1), 0);
}

#[test]
fn a_late_step_times_the_attempt_out_and_a_late_first_step_begins_another() {
    let steps = [tcp(7001), tcp(7102)];
    let gate = one_door(&steps);
    let late = |step: &StepRule, number: u16| {
        let mut source = Source::new();
        source.send(&gate, &packet(&steps[0], 1), START);
        source.send(&gate, &packet(step, number), START + STEP_TIMEOUT + 1)
    };

    let second = late(&steps[1], 2);
    assert_eq!((second.timed_out, second.reset, second.promoted, second.started), (1, 0, 0, 0));
    let first = late(&steps[0], 3);
    assert_eq!((first.timed_out, first.started), (1, 1));
    let copy = late(&steps[0], 1);
    assert_eq!((copy.timed_out, copy.started, copy.duplicate), (1, 1, 0), "nothing is left to be a copy of");
}

/// How a knock equal to an accepted first one fares so many ticks later: as a copy, or not.
fn is_copy_after(step: StepRule, ticks: u64) -> bool {
    let steps = [step, tcp(9000)];
    let gate = one_door(&steps);
    let mut source = Source::new();
    let begin = 7_u64 << UNIT_SHIFT;
    source.send(&gate, &packet(&step, 1), begin);
    source.send(&gate, &packet(&step, 1), begin + (ticks << UNIT_SHIFT)).duplicate == 1
}

#[test]
fn udp_and_echo_are_copies_for_just_under_a_second_and_a_syn_for_ever() {
    let window = u64::from(DUPLICATE_UNITS);
    assert_eq!((window << UNIT_SHIFT) / 1_000_000, 999);
    for step in [udp(7001), echo(56)] {
        assert!(is_copy_after(step, 0) && is_copy_after(step, window));
        assert!(!is_copy_after(step, window + 1));
    }
    assert!(is_copy_after(tcp(7001), STEP_TIMEOUT >> UNIT_SHIFT));
}

#[test]
fn a_copy_that_an_earlier_clock_reading_goes_with_is_still_a_copy() {
    let steps = [udp(7001), udp(7001)];
    let gate = one_door(&steps);
    let opened_after = |second_at: u64| {
        let mut source = Source::new();
        source.send(&gate, &packet(&steps[0], 1), START);
        source.send(&gate, &packet(&steps[1], 1), second_at).promoted
    };

    assert_eq!(opened_after(START), 0);
    assert_eq!(opened_after(START - 10 * SECOND), 0, "the clock stepped back");
    assert_eq!(opened_after(START + 2 * SECOND), 1);
}

/// Sends knocks at times; returns at which of them the door opened.
fn promotions(gate: &Gate, knocks: &[Knock], times: impl Iterator<Item = u64>) -> Vec<bool> {
    let mut source = Source::new();
    knocks.iter().zip(times).map(|(knock, now_ns)| source.send(gate, knock, now_ns).promoted == 1).collect()
}

/// Times that begin at [`START`] and move by these steps of 0.4 s.
fn times(moves: &[i64]) -> Vec<u64> {
    let mut now_ns = START;
    let moved = moves.iter().map(|step| {
        now_ns = now_ns.saturating_add_signed(step * 400_000_000);
        now_ns
    });
    moved.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 2_000 } else { 100_000 }, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_clock_that_only_steps_back_opens_what_a_standing_clock_opens(
        walk in prop::collection::vec((0_usize..4, 0_u16..3, -8_i64..=0), 1..24),
    ) {
        let steps = [udp(7001), udp(7001), echo(56), udp(9)];
        let gate = one_door(&steps[..3]);
        let knocks: Vec<Knock> = walk.iter().map(|(step, number, _)| packet(&steps[*step], *number)).collect();
        let back = times(&walk.iter().map(|(_, _, back)| *back).collect::<Vec<_>>());

        let standing = promotions(&gate, &knocks, std::iter::repeat(START));
        prop_assert_eq!(promotions(&gate, &knocks, back.into_iter()), standing);
    }

    #[test]
    fn whatever_the_clock_does_a_door_opens_only_at_the_end_of_an_unbroken_run(
        walk in prop::collection::vec((0_usize..4, 0_u16..4, -8_i64..8), 1..24),
    ) {
        let steps = [tcp(7001), tcp(7102), tcp(7203), tcp(9)];
        let gate = one_door(&steps[..3]);
        let timeless = u64::MAX;
        let secret =
            Secret { steps: steps[..3].to_vec(), step_timeout_ns: timeless, total_timeout_ns: timeless };
        let knocks: Vec<Knock> = walk.iter().map(|(step, number, _)| packet(&steps[*step], *number)).collect();
        let moves: Vec<i64> = walk.iter().map(|(_, _, moved)| *moved).collect();

        let opened = promotions(&gate, &knocks, times(&moves).into_iter());
        let packets: Vec<Packet> = knocks.iter().map(|knock| Packet { knock: *knock, at_ns: 0 }).collect();
        for end in (0..opened.len()).filter(|at| opened[*at]) {
            let is_run = |start: usize| {
                knocks[start].is(&steps[0]) && oracle::completes(&secret, &packets[start..=end])
            };
            prop_assert!((0..=end).any(is_run), "opened at {end}");
        }
    }
}
