//! The policy, row by row, and that counters are told apart.

use std::collections::HashSet;

use knock_common::{
    counter::{ALL, COUNTERS},
    verdict::{
        Action::{self, Drop, Pass},
        Mode, Verdict,
    },
};

/// What guard and deny mode do. Guard drops what goes to a hidden service, and what nobody can tell where it goes; deny also
/// what goes to nothing that is open.
const TABLE: [(Verdict, Action, Action); 21] = [
    (Verdict::NotIp, Pass, Pass),
    (Verdict::Unrelated, Pass, Drop),
    (Verdict::Allowed, Pass, Pass),
    (Verdict::Granted, Pass, Pass),
    (Verdict::Hidden, Drop, Drop),
    (Verdict::Knock, Pass, Drop),
    (Verdict::Public, Pass, Pass),
    (Verdict::Control, Pass, Pass),
    (Verdict::Session, Pass, Pass),
    (Verdict::Reply, Pass, Pass),
    (Verdict::Forwarded, Pass, Pass),
    (Verdict::Denied, Pass, Drop),
    (Verdict::LaterFragment, Pass, Pass),
    (Verdict::StrayFragment, Drop, Drop),
    (Verdict::LinkCut, Drop, Drop),
    (Verdict::VlanDepth, Drop, Drop),
    (Verdict::BadIp, Drop, Drop),
    (Verdict::MappedSource, Drop, Drop),
    (Verdict::BadExtension, Drop, Drop),
    (Verdict::FragmentOverlap, Drop, Drop),
    (Verdict::BadTransport, Drop, Drop),
];

#[test]
fn guard_drops_what_is_hidden_or_malformed_deny_what_is_not_open_and_observe_nothing() {
    for (verdict, guard, deny) in TABLE {
        assert_eq!(verdict.action(Mode::Guard), guard, "{verdict:?}");
        assert_eq!(verdict.action(Mode::Deny), deny, "{verdict:?}");
        assert_eq!(verdict.action(Mode::Observe), Pass, "{verdict:?}");
    }
}

#[test]
fn what_asks_for_a_port_is_dropped_in_deny_mode() {
    for (verdict, _, deny) in TABLE {
        assert!(!verdict.asks_for_a_port() || deny == Drop, "{verdict:?}");
    }
    assert!(Verdict::Hidden.asks_for_a_port() && !Verdict::StrayFragment.asks_for_a_port());
}

#[test]
fn each_verdict_has_a_counter_of_its_own_below_32() {
    let counters: HashSet<_> = TABLE.iter().map(|(verdict, ..)| verdict.counter()).collect();
    assert_eq!(counters.len(), TABLE.len());
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
    for mode in [Mode::Observe, Mode::Guard, Mode::Deny] {
        assert_eq!(Mode::from_number(mode.number()), mode);
    }
    assert_eq!(Mode::from_number(200), Mode::Guard);
}
