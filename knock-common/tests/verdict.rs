//! The policy, row by row, and that counters are told apart.

use std::collections::HashSet;

use knock_common::{
    counter::{ALL, COUNTERS},
    verdict::{
        Action::{self, Drop, Pass},
        Mode, Verdict,
    },
};

/// What guard mode does. Dropped is what goes to a hidden service, and what nobody can tell where it goes.
const GUARD: [(Verdict, Action); 14] = [
    (Verdict::NotIp, Pass),
    (Verdict::Unrelated, Pass),
    (Verdict::Allowed, Pass),
    (Verdict::Granted, Pass),
    (Verdict::Hidden, Drop),
    (Verdict::Knock, Pass),
    (Verdict::LaterFragment, Pass),
    (Verdict::LinkCut, Drop),
    (Verdict::VlanDepth, Drop),
    (Verdict::BadIp, Drop),
    (Verdict::MappedSource, Drop),
    (Verdict::BadExtension, Drop),
    (Verdict::FragmentOverlap, Drop),
    (Verdict::BadTransport, Drop),
];

#[test]
fn guard_drops_what_is_hidden_or_malformed_and_observe_drops_nothing() {
    for (verdict, action) in GUARD {
        assert_eq!(verdict.action(Mode::Guard), action, "{verdict:?}");
        assert_eq!(verdict.action(Mode::Observe), Pass, "{verdict:?}");
    }
}

#[test]
fn each_verdict_has_a_counter_of_its_own_below_32() {
    let counters: HashSet<_> = GUARD.iter().map(|(verdict, _)| verdict.counter()).collect();
    assert_eq!(counters.len(), GUARD.len());
    assert!(counters.iter().all(|counter| *counter as u32 <= 31));
}

#[test]
fn counters_are_listed_in_the_order_of_their_numbers_with_names_of_their_own() {
    let numbers: Vec<u32> = ALL.iter().map(|(counter, ..)| *counter as u32).collect();
    let names: HashSet<_> = ALL.iter().map(|(_, name, _)| name).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(numbers.iter().all(|number| (*number as usize) < COUNTERS));
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn modes_survive_their_numbers_and_an_unknown_number_guards() {
    for mode in [Mode::Observe, Mode::Guard] {
        assert_eq!(Mode::from_number(mode.number()), mode);
    }
    assert_eq!(Mode::from_number(200), Mode::Guard);
}
