//! Several doors in one record: each judges on its own, as if it had the record for itself.

use std::array;

use knock_common::{
    abi::{MAX_SLOTS, StepRule},
    machine::{Change, Knock},
};
use proptest::prelude::*;

#[path = "../../tests/src/gate.rs"]
mod gate;
mod source;

use gate::{Door, Gate, SECOND, STEP_TIMEOUT, echo, tcp, udp};
use source::{Source, packet};

fn gate_of(sequences: &[Vec<StepRule>]) -> Gate {
    Gate::new(sequences.iter().map(|steps| Door::of(steps)).collect(), &[])
}

#[test]
fn a_knock_that_is_wrong_for_one_door_advances_another() {
    let gate = gate_of(&[vec![tcp(7001), tcp(7102)], vec![tcp(7001), tcp(7203)]]);
    let mut source = Source::new();

    assert_eq!(source.send(&gate, &packet(&tcp(7001), 1), SECOND).started, 0b11);
    let second = source.send(&gate, &packet(&tcp(7203), 2), SECOND);
    assert_eq!((second.reset, second.promoted), (0b01, 0b10));
}

#[test]
fn a_copy_for_one_door_is_judged_afresh_by_a_door_that_did_not_accept_it() {
    let gate = gate_of(&[vec![tcp(7001), tcp(7102), tcp(7203)], vec![tcp(7203), tcp(7102)]]);
    let mut source = Source::new();
    source.send(&gate, &packet(&tcp(7001), 1), SECOND);
    source.send(&gate, &packet(&tcp(7102), 2), SECOND);
    source.send(&gate, &packet(&tcp(7203), 3), SECOND);

    let copy = source.send(&gate, &packet(&tcp(7102), 2), SECOND);
    assert_eq!((copy.duplicate, copy.promoted), (0b01, 0b10));
}

#[test]
fn the_ninth_attempt_finds_no_slot_and_the_eighth_does() {
    let gate = gate_of(&vec![vec![tcp(7001), tcp(7102)]; 9]);
    let mut source = Source::new();

    let first = source.send(&gate, &packet(&tcp(7001), 1), SECOND);
    assert_eq!((first.started, first.no_slot), (0xff, 0x100));
    let second = source.send(&gate, &packet(&tcp(7102), 2), SECOND);
    assert_eq!((second.promoted, second.no_slot), (0xff, 0));
}

#[test]
fn attempts_that_timed_out_give_way_even_to_a_door_of_another_protocol() {
    let mut sequences = vec![vec![udp(7001), udp(7102)]; MAX_SLOTS];
    sequences.push(vec![tcp(7001), tcp(7102)]);
    let gate = gate_of(&sequences);
    let started_after = |pause: u64| {
        let mut source = Source::new();
        source.send(&gate, &packet(&udp(7001), 1), SECOND);
        source.send(&gate, &packet(&tcp(7001), 2), SECOND + pause).started
    };

    assert_eq!(started_after(STEP_TIMEOUT), 0);
    assert_eq!(started_after(STEP_TIMEOUT + 1), 0x100);
}

#[test]
fn knocks_for_other_doors_do_not_make_a_door_forget_what_it_accepted() {
    let gate = gate_of(&[vec![udp(7001), udp(7102)], vec![tcp(7001), tcp(7102)]]);
    let mut source = Source::new();
    source.send(&gate, &packet(&udp(7001), 1), SECOND);
    for number in 100..200 {
        assert_eq!(source.send(&gate, &packet(&tcp(7001), number), SECOND).started, 0b10);
    }

    assert_eq!(source.send(&gate, &packet(&udp(7001), 1), SECOND).duplicate, 0b01);
    assert_eq!(source.send(&gate, &packet(&udp(7102), 2), SECOND).promoted, 0b01);
}

/// All steps that the random doors and packets are made of.
fn pool() -> [StepRule; 7] {
    [tcp(7001), tcp(7102), tcp(7203), udp(7001), udp(7102), echo(56), echo(172)]
}

/// What a change says of one door.
fn of_door(change: &Change, door: usize) -> [bool; 6] {
    let sets =
        [change.started, change.advanced, change.promoted, change.reset, change.timed_out, change.duplicate];
    array::from_fn(|at| sets[at] >> door & 1 == 1)
}

/// The doors in one record, and each in a record of its own.
struct Twins {
    together: (Gate, Source),
    apart: Vec<(Gate, Source)>,
    /// Doors that went without a slot, and so fell behind their twin.
    refused: u64,
}

impl Twins {
    fn new(sequences: &[Vec<StepRule>]) -> Self {
        let apart =
            sequences.iter().map(|steps| (gate_of(std::slice::from_ref(steps)), Source::new())).collect();
        Self { together: (gate_of(sequences), Source::new()), apart, refused: 0 }
    }

    fn send(&mut self, knock: &Knock, now_ns: u64) {
        let (gate, source) = &mut self.together;
        let together = source.send(gate, knock, now_ns);
        assert_eq!(together.no_slot & together.promoted, 0, "a door without a slot opened");
        let alone: Vec<Change> =
            self.apart.iter_mut().map(|(gate, source)| source.send(gate, knock, now_ns)).collect();
        let is_first_refusal = self.refused == 0 && together.no_slot != 0;
        self.refused |= together.no_slot;
        for (door, alone) in alone.iter().enumerate().filter(|(door, _)| self.refused >> door & 1 == 0) {
            // Lateness may be found earlier than by a knock that the door judges; only what it leads to counts.
            let [started, advanced, promoted, reset, _, duplicate] = of_door(&together, door);
            let [start, advance, promote, lose, _, copy] = of_door(alone, 0);
            assert_eq!(
                [started, advanced, promoted, reset, duplicate],
                [start, advance, promote, lose, copy],
                "door {door}, {knock:?}"
            );
        }
        if is_first_refusal {
            let live = self.live(now_ns);
            assert!(live > MAX_SLOTS, "refused although only {live} slots were needed");
        }
    }

    /// Attempts in time, in all records apart.
    fn live(&self, now_ns: u64) -> usize {
        let attempts = self.apart.iter().flat_map(|(_, source)| &source.attempts.slots);
        attempts.filter(|slot| slot.step != 0 && now_ns - slot.last_ns <= STEP_TIMEOUT).count()
    }
}

fn some_doors(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Vec<StepRule>>> {
    let sequence = prop::collection::vec(prop::sample::select(pool().to_vec()), 1..4);
    prop::collection::vec(sequence, count)
}

/// Indices into the pool, packet numbers, and tenths of a second before each.
fn some_knocks() -> impl Strategy<Value = Vec<(usize, u16, u64)>> {
    prop::collection::vec((0..7_usize, 0_u16..3, prop_oneof![3 => 0_u64..4, 1 => 45_u64..55]), 1..64)
}

fn run(sequences: &[Vec<StepRule>], knocks: &[(usize, u16, u64)]) -> u64 {
    let mut twins = Twins::new(sequences);
    let mut now_ns = SECOND;
    for (step, number, tenths) in knocks {
        now_ns += tenths * SECOND / 10;
        twins.send(&packet(&pool()[*step], *number), now_ns);
    }
    twins.refused
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 1_000 } else { 50_000 }, failure_persistence: None, ..Default::default() })]

    #[test]
    fn up_to_eight_doors_in_one_record_behave_as_if_each_had_its_own(
        doors in some_doors(1..=8),
        knocks in some_knocks(),
    ) {
        prop_assert_eq!(run(&doors, &knocks), 0);
    }

    #[test]
    fn more_doors_behave_so_too_until_they_need_more_than_eight_slots_and_are_refused_then(
        doors in some_doors(9..=40),
        knocks in some_knocks(),
    ) {
        run(&doors, &knocks);
    }
}
