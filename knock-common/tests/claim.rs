//! Knocks of one source on several CPUs at once, in every interleaving of their accesses to shared memory: whatever
//! opens would have opened with the knocks one after another in some order, each of them judged or, where two met,
//! voiding all attempts. So no wrong knock is ever overlooked.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use knock_common::machine::Knock;

mod cpu;
#[path = "../../tests/src/gate.rs"]
#[expect(dead_code, reason = "all steps are over TCP here")]
mod gate;
mod source;

use cpu::{At, Cpu, Map, Memory, step};
use gate::{Door, Gate, SECOND, tcp};
use source::{Source, packet};

/// Which ending came, and the numbers of the knocks that opened the door.
type Outcome = (usize, BTreeSet<u8>);

/// What a source sends: some knocks in order, some at once, and one of several endings in order again.
struct Scenario {
    gate: Gate,
    knocks: Vec<Knock>,
    before: usize,
    at_once: usize,
    endings: Vec<Vec<u8>>,
    /// Maps that lose the source's record at some moment of the middle part.
    evictions: Vec<Map>,
}

impl Scenario {
    fn new(steps: u16, before: &[Knock], middle: &[Knock], evictions: &[Map]) -> Self {
        let sequence: Vec<_> = (1..=steps).map(|step| tcp(1000 * step)).collect();
        let mut knocks = [before, middle].concat();
        let mut endings = Vec::new();
        for ending in [vec![knock(3, 33)], vec![knock(2, 32), knock(3, 33)], vec![knock(9, 39), knock(3, 33)]]
        {
            endings.push(numbers(knocks.len(), knocks.len() + ending.len()));
            knocks.extend(ending);
        }
        Self {
            gate: Gate::new(vec![Door::of(&sequence)], &[]),
            knocks,
            before: before.len(),
            at_once: middle.len(),
            endings,
            evictions: evictions.to_vec(),
        }
    }

    /// Judges knocks one after another.
    fn in_order(&self, memory: &mut Memory, numbers: &[u8], opened: &mut BTreeSet<u8>) {
        for number in numbers {
            let mut cpu = Cpu::new(At::Begin, *number);
            while cpu.at != At::Done {
                step(memory, &mut cpu, &self.gate, &self.knocks);
            }
            opened.extend(cpu.is_promoted.then_some(*number));
        }
    }

    /// Returns all outcomes of all interleavings, and how many states they went through.
    fn outcomes(&self) -> (HashSet<Outcome>, usize) {
        let (mut memory, mut opened) = (Memory::default(), BTreeSet::new());
        self.in_order(&mut memory, &numbers(0, self.before), &mut opened);
        let knocks = numbers(self.before, self.before + self.at_once).into_iter();
        let losses = self.evictions.iter().map(|map| Cpu::new(At::Evict(*map), u8::MAX));
        let cpus: Vec<Cpu> = knocks.map(|number| Cpu::new(At::Begin, number)).chain(losses).collect();
        let (mut outcomes, mut seen, mut open) = (HashSet::new(), HashSet::new(), vec![(memory, cpus)]);
        while let Some((memory, cpus)) = open.pop() {
            if !seen.insert((memory.words(), cpus.clone())) {
                continue;
            }
            let running = (0..cpus.len()).filter(|index| cpus[*index].at != At::Done);
            let before = open.len();
            open.extend(running.map(|index| {
                let (mut memory, mut cpus) = (memory.clone(), cpus.clone());
                step(&mut memory, &mut cpus[index], &self.gate, &self.knocks);
                (memory, cpus)
            }));
            if open.len() == before {
                let promoted = cpus.iter().filter(|cpu| cpu.is_promoted).map(|cpu| cpu.number);
                outcomes.extend(self.ends(&memory, &opened.iter().copied().chain(promoted).collect()));
            }
        }
        (outcomes, seen.len())
    }

    fn ends(&self, memory: &Memory, opened: &BTreeSet<u8>) -> Vec<Outcome> {
        let end = |ending: &[u8]| {
            let (mut memory, mut opened) = (memory.clone(), opened.clone());
            self.in_order(&mut memory, ending, &mut opened);
            opened
        };
        self.endings.iter().map(|ending| end(ending)).enumerate().collect()
    }

    /// Returns what may open: each order of the middle part, each of its knocks judged or not, and all attempts void
    /// where one was not, and wherever else they may have been lost.
    fn allowed(&self) -> HashSet<Outcome> {
        let mut allowed = HashSet::new();
        for middle in orders(&numbers(self.before, self.before + self.at_once)) {
            // One bit for void attempts before the middle; two bits for each place in it: the knock is judged; the
            // attempts are void after it.
            for choice in 0..2 * 4_u32.pow(u32::try_from(self.at_once).expect("few")) {
                allowed.extend(self.serially(&middle, choice));
            }
        }
        allowed
    }

    fn serially(&self, middle: &[u8], choice: u32) -> Vec<Outcome> {
        let (mut source, mut opened) = (Source::new(), BTreeSet::new());
        self.judge(&mut source, &numbers(0, self.before), &mut opened);
        if choice & 1 != 0 {
            source.attempts.void();
        }
        for (place, number) in middle.iter().enumerate() {
            let bits = choice >> (1 + 2 * place) & 3;
            if bits & 1 != 0 {
                self.judge(&mut source, &[*number], &mut opened);
            }
            if bits != 1 {
                source.attempts.void();
            }
        }
        let end = |ending: &[u8]| {
            let (mut source, mut opened) = (source.clone(), opened.clone());
            self.judge(&mut source, ending, &mut opened);
            opened
        };
        self.endings.iter().map(|ending| end(ending)).enumerate().collect()
    }

    fn judge(&self, source: &mut Source, numbers: &[u8], opened: &mut BTreeSet<u8>) {
        for number in numbers {
            let now_ns = SECOND + 1_000 * u64::from(*number);
            let change = source.send(&self.gate, &self.knocks[usize::from(*number)], now_ns);
            opened.extend((change.promoted != 0).then_some(*number));
        }
    }
}

fn numbers(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|number| u8::try_from(number).expect("few knocks")).collect()
}

fn orders(of: &[u8]) -> Vec<Vec<u8>> {
    if of.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for first in of {
        let rest: Vec<u8> = of.iter().copied().filter(|other| other != first).collect();
        all.extend(orders(&rest).into_iter().map(|order| [vec![*first], order].concat()));
    }
    all
}

/// The knock at a step, 9 for a wrong port; another packet for another number.
fn knock(step: u16, number: u16) -> Knock {
    packet(&tcp(if step == 9 { 9 } else { 1000 * step }), number)
}

/// What may arrive at once: each step, a step's copy, another first step, a wrong port.
fn alphabet() -> Vec<Knock> {
    vec![knock(1, 11), knock(2, 12), knock(3, 13), knock(1, 1), knock(2, 2), knock(1, 21), knock(9, 19)]
}

/// Runs all choices of `at_once` knocks after and before others; returns how many scenarios and states there were.
fn explore(at_once: usize, evictions: &[Map]) -> (usize, usize) {
    let steps = [knock(1, 1), knock(2, 2), knock(3, 3)];
    let befores: [&[Knock]; 5] =
        [&[], &steps[..1], &steps[..2], &steps[..], &[steps[0], steps[1], knock(9, 9)]];
    let (mut scenarios, mut states) = (0, 0);
    for middle in choices(&alphabet(), at_once) {
        for (before, count) in befores.iter().flat_map(|before| [(before, 2), (before, 3)]) {
            let scenario = Scenario::new(count, before, &middle, evictions);
            let (outcomes, seen) = scenario.outcomes();
            let allowed = scenario.allowed();
            if let Some((ending, opened)) = outcomes.difference(&allowed).next() {
                let ports: Vec<u16> = scenario.knocks.iter().map(|knock| knock.port).collect();
                panic!(
                    "{count} steps, opened by {opened:?} of {ports:?} with ending {:?}: {} first, {at_once} at once",
                    scenario.endings[*ending], scenario.before
                );
            }
            scenarios += scenario.endings.len();
            states += seen;
        }
    }
    (scenarios, states)
}

/// All choices of `count` knocks, in which some may be the same packet.
fn choices(of: &[Knock], count: usize) -> Vec<Vec<Knock>> {
    if count == 0 {
        return vec![vec![]];
    }
    let with = |first: usize| {
        let rest = choices(&of[first..], count - 1);
        rest.into_iter().map(move |rest| [vec![of[first]], rest].concat())
    };
    (0..of.len()).flat_map(with).collect()
}

fn report(name: &str, at_once: usize, evictions: &[Map]) {
    let begin = Instant::now();
    let (scenarios, states) = explore(at_once, evictions);
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name}: {scenarios} scenarios, {states} states, all interleavings, {seconds:.1} s");
}

#[test]
fn two_knocks_at_once_open_nothing_that_they_would_not_open_in_some_order() {
    report("two at once", 2, &[]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute unless built for release")]
fn three_knocks_at_once_open_nothing_that_they_would_not_open_in_some_order() {
    report("three at once", 3, &[]);
}

#[test]
fn two_knocks_at_once_and_a_full_map_open_nothing_that_they_would_not_open_in_some_order() {
    report("two at once, first map evicts", 2, &[Map::First]);
    report("two at once, later map evicts", 2, &[Map::Later]);
    report("two at once, both maps evict", 2, &[Map::First, Map::Later]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes unless built for release")]
fn three_knocks_at_once_and_a_full_map_open_nothing_that_they_would_not_open_in_some_order() {
    report("three at once, first map evicts", 3, &[Map::First]);
    report("three at once, later map evicts", 3, &[Map::Later]);
}
