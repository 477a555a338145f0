//! The gate over plain collections: what the kernel program does with its maps, step for step, for one CPU.
//!
//! Every decision is a call into `knock-common`; this file mirrors only the glue of `knock-ebpf` (`program`,
//! `attempts`, `publish`), and `memory` that of `conversations`, so that a difference between it and the kernel is a defect of that glue, of a map or of
//! the compiled form of the shared code.

use std::collections::HashMap;

use bytemuck::Zeroable;
use knock_common::{
    abi::{Address, Attempts, EVENT_BUDGET, GRANTS_ENTRIES, Grant, GrantKey, MAX_DOORS, MAX_SLOTS},
    budget, claim,
    counter::{COUNTERS, Counter},
    decide::{self, Access, Tables, Visit, lowest},
    event::{Event, Kind, Via},
    machine::{self, Change, Knock, Occasion},
    parse,
    verdict::{Action, Mode, Verdict},
};
use knock_user::generation::Generation;

use crate::plain::Plain;

/// A gate without a kernel.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration, the grants, the bans and the time.
    pub tables: Plain,
    /// Records of sources that got no further than a first step.
    pub first: HashMap<Address, Attempts>,
    /// Records of sources that got further.
    pub later: HashMap<Address, Attempts>,
    /// Rate budgets: one a door, then the one of events.
    pub budgets: [u64; MAX_DOORS + 1],
    /// Counters by number.
    pub counts: [u64; COUNTERS],
    /// Events, in order.
    pub events: Vec<Event>,
    /// Index of the interface that packets come in on.
    pub interface: u32,
}

impl Model {
    /// Returns the gate of a generation, at time 0.
    #[must_use]
    pub fn new(generation: Generation, interface: u32) -> Self {
        Self {
            tables: Plain::new(generation),
            first: HashMap::new(),
            later: HashMap::new(),
            budgets: [0; MAX_DOORS + 1],
            counts: [0; COUNTERS],
            events: Vec::new(),
            interface,
        }
    }

    /// Judges one frame and counts it.
    pub fn run(&mut self, frame: &[u8]) -> (Verdict, Action) {
        let verdict = self.judge(frame).unwrap_or_else(|verdict| verdict);
        self.count(verdict.counter(), 1);
        (verdict, verdict.action(Mode::from_number(self.tables.generation.settings.mode)))
    }

    /// Returns the record of a source, wherever it is.
    #[must_use]
    pub fn attempts(&self, source: &Address) -> Option<&Attempts> {
        self.first.get(source).or_else(|| self.later.get(source))
    }

    fn judge(&mut self, frame: &[u8]) -> Result<Verdict, Verdict> {
        let segment = parse::parse(frame)?;
        let mut visit = Visit::NONE;
        decide::classify(frame, &segment, &self.tables, &mut visit)?;
        let mut access = Access::default();
        let decision = decide::decide(&visit, &self.tables, &mut access);
        if access.is_expired && !access.is_granted {
            self.count(Counter::GrantExpired, 1);
        }
        if decision.is_banned {
            self.count(Counter::KnockBanned, 1);
        }
        if let Some(knock) = visit.knock.filter(|_| decision.is_judged) {
            self.knock(&visit, knock);
        }
        self.remember(&visit, &access, decision.verdict);
        Ok(decision.verdict)
    }

    fn knock(&mut self, visit: &Visit, knock: Knock) {
        let now_ns = self.tables.now_ns;
        let mut occasion = Occasion { now_ns, starts: 0, destination: visit.destination, knock };
        occasion.note(visit, &self.tables);
        let mut change = Change::NONE;
        if let Some(record) = self.first.get(&visit.source).copied() {
            self.on_first(record, &visit.source, &mut occasion, &mut change);
        } else if let Some(mut record) = self.later.get(&visit.source).copied() {
            self.on_record(&mut record, &mut occasion, &mut change);
            self.later.insert(visit.source, record);
        } else if occasion.starts != 0 {
            self.on_stranger(&visit.source, &mut occasion, &mut change);
        }
        self.publish(&change, &visit.source);
    }

    fn on_first(
        &mut self,
        mut record: Attempts,
        source: &Address,
        occasion: &mut Occasion,
        change: &mut Change,
    ) {
        self.on_record(&mut record, occasion, change);
        if change.is_later && !self.later.contains_key(source) {
            self.later.insert(*source, record);
            self.first.remove(source);
            return;
        }
        if change.is_later {
            self.count(Counter::AttemptNotStored, 1);
        }
        self.first.insert(*source, record);
    }

    fn on_record(&self, record: &mut Attempts, occasion: &mut Occasion, change: &mut Change) {
        let turn = record.turn;
        let claimed = claim::claimed(turn).expect("one CPU finds no record claimed");
        record.renew(turn, self.tables.generation.settings.generation);
        machine::advance(record, occasion, &self.tables, change);
        record.turn = claim::released(claimed);
    }

    fn on_stranger(&mut self, source: &Address, occasion: &mut Occasion, change: &mut Change) {
        self.keep_within_budget(occasion);
        if occasion.starts == 0 {
            return;
        }
        let mut record = Attempts::zeroed();
        let generation = self.tables.generation.settings.generation;
        record.reset_to(source, claim::fresh(occasion.now_ns), occasion.now_ns, generation);
        machine::advance(&mut record, occasion, &self.tables, change);
        self.first.insert(*source, record);
    }

    fn keep_within_budget(&mut self, occasion: &mut Occasion) {
        let doors = set(occasion.starts);
        occasion.starts = 0;
        for door in doors {
            let limit = self.tables.door(door).map_or(0, |rule| rule.new_attempts);
            if self.admit(u32::from(door), limit) {
                occasion.starts |= 1 << door;
            } else {
                self.count(Counter::AttemptOverBudget, 1);
            }
        }
    }

    fn admit(&mut self, index: u32, limit: u32) -> bool {
        let word = &mut self.budgets[index as usize];
        let admitted = budget::admit(*word, self.tables.now_ns, limit);
        *word = admitted.unwrap_or(*word);
        admitted.is_some()
    }

    fn publish(&mut self, change: &Change, source: &Address) {
        for (counter, doors) in change.facts() {
            self.count(counter, doors.count_ones());
        }
        let steps = |door: u8| change.steps[usize::from(door)];
        for door in set(change.reset) {
            self.emit_capped(source, Kind::Reset, door, steps(door));
        }
        for door in set(change.started & !change.promoted) {
            self.emit_capped(source, Kind::Step, door, 1);
        }
        for door in set(change.advanced) {
            self.emit_capped(source, Kind::Step, door, steps(door));
        }
        for door in set(change.promoted) {
            self.promote(source, door, steps(door));
        }
    }

    fn promote(&mut self, source: &Address, door: u8, step: u8) {
        let now_ns = self.tables.now_ns;
        let rule = *self.tables.sequence(door, now_ns).expect("it was completed now");
        if rule.changes() && !self.tables.shelf.claim(door, now_ns) {
            self.count(Counter::SequenceSpent, 1);
            return self.emit_capped(source, Kind::Spent, door, step);
        }
        let Plain { generation, grants, now_ns, .. } = &mut self.tables;
        let since_ns = *now_ns;
        let until_ns = since_ns.saturating_add(rule.open_for_ns);
        let number = generation.settings.generation;
        let key = GrantKey { source: *source, door: rule.id };
        let fresh = Grant { until_ns, since_ns, via: Via::of(&rule) as u32, generation: number };
        let is_room = grants.len() < GRANTS_ENTRIES;
        let present = grants.get(&key).copied();
        if present.is_none() && !is_room {
            self.count(Counter::GrantTableFull, 1);
            return self.emit(source, Kind::TableFull, door, step, 0);
        }
        let grant = present.map_or(fresh, |present| present.renewed(&fresh).unwrap_or(present));
        grants.insert(key, grant);
        if present.is_some_and(|present| present.is_live(since_ns)) {
            self.count(Counter::GrantRefreshed, 1);
        }
        self.emit(source, Kind::Promoted, door, step, grant.until_ns);
    }

    fn emit_capped(&mut self, source: &Address, kind: Kind, door: u8, step: u8) {
        if self.admit(EVENT_BUDGET, self.tables.generation.settings.events) {
            self.emit(source, kind, door, step, 0);
        } else {
            self.count(Counter::EventCapped, 1);
        }
    }

    fn emit(&mut self, source: &Address, kind: Kind, door: u8, step: u8, until_ns: u64) {
        let via = match kind {
            Kind::Promoted | Kind::TableFull | Kind::Spent => {
                Via::of(&self.tables.generation.doors[usize::from(door)]) as u8
            }
            Kind::Step | Kind::Reset | Kind::SpaRejected => 0,
        };
        self.events.push(Event {
            time_ns: self.tables.now_ns,
            until_ns,
            source: *source,
            door: self.tables.generation.doors[usize::from(door)].id,
            interface: self.interface,
            generation: self.tables.generation.settings.generation,
            kind: kind as u8,
            via,
            step,
            reason: 0,
            _pad2: 0,
        });
    }

    pub(crate) fn count(&mut self, counter: Counter, more: u32) {
        self.counts[counter as usize] += u64::from(more);
    }
}

/// Returns what a record says: fields of free slots and free entries mean nothing and are zeroed.
#[must_use]
pub fn meaning(record: &Attempts) -> Attempts {
    let mut record = *record;
    for slot in record.slots.iter_mut().filter(|slot| slot.step == 0) {
        *slot = Zeroable::zeroed();
    }
    for accepted in record.accepted.iter_mut().filter(|accepted| accepted.slots == 0) {
        *accepted = Zeroable::zeroed();
    }
    record
}

/// Returns the doors of a set as the kernel goes through them: the lowest eight.
fn set(mut doors: u64) -> Vec<u8> {
    let mut numbers = Vec::new();
    while let Some((door, others)) = lowest(doors).filter(|_| numbers.len() < MAX_SLOTS) {
        numbers.push(door);
        doors = others;
    }
    numbers
}
