//! A model of `knock-ebpf/src/attempts.rs`: one source's records in two maps, and CPUs that judge its knocks. Each
//! step of a CPU is one access to shared memory; its order within a CPU is that of the program.
//!
//! What a map forgets stays where it was, as a kernel keeps it for the CPUs that still hold a pointer. Memory that
//! is handed to another source in that time is not modelled.

use bytemuck::Zeroable as _;
use knock_common::{
    abi::{Attempts, Proto},
    claim,
    decide::{Tables as _, Visit},
    machine::{self, Change, Knock, Occasion},
};

use crate::{
    gate::Gate,
    source::{HOST, SOURCE},
};

/// Which of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Map {
    /// Sources with a first step.
    First,
    /// Sources that got further.
    Later,
}

/// Where a CPU is in the program: in which function, before which access. Numbers are records and claim words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// `knock`: the first lookup.
    Begin,
    /// `knock`: the second.
    LookLater,
    /// `on_record`.
    ReadTurn(usize, Map),
    /// `on_record`.
    Claim(usize, Map, u64),
    /// `on_record`, with the claim.
    Work(usize, Map, u64),
    /// `move_on`.
    Moving(Moving),
    /// `release`.
    Releasing(usize, u64, Releasing),
    /// `contended`, `void_later`.
    Contended(Contended),
    /// `on_stranger`.
    InsertFirst,
    /// `on_stranger`, after EEXIST.
    LookFirstAgain,
    /// No CPU, but memory pressure: the map loses the record.
    Evict(Map),
    /// The packet is done with.
    Done,
}

/// Before which access in `move_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moving {
    InsertLater(usize, u64),
    LookStillFirst(usize, u64),
    Forsake,
    CasMoved(usize, u64),
    RemoveLater(usize, u64),
    LookMoved(u64),
    Release(usize, u64),
    Void(usize, u64),
    Unpoison(usize, u64),
    RemoveFirst { is_kept: bool },
}

/// Before which access in `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Releasing {
    Release,
    Void,
    Unpoison,
}

/// Before which access in `contended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contended {
    Poison(usize, Map),
    LookLater,
    PoisonLater(usize),
}

/// A knock on its way through a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    /// Where it is.
    pub at: At,
    /// The knock's number in the scenario, which is its time as well.
    pub number: u8,
    /// The door opened, if what this CPU makes of the record holds.
    pub is_opening: bool,
    /// The door was opened by this knock.
    pub is_promoted: bool,
}

impl Cpu {
    /// Returns a CPU that a knock has just come to, or that loses a record.
    pub fn new(at: At, number: u8) -> Self {
        Self { at, number, is_opening: false, is_promoted: false }
    }
}

/// What all CPUs share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    records: Vec<Attempts>,
    first: Option<usize>,
    later: Option<usize>,
}

impl Memory {
    /// Returns all of it in a form that can be hashed.
    pub fn words(&self) -> (Vec<[u64; 69]>, Option<usize>, Option<usize>) {
        (self.records.iter().map(|record| bytemuck::cast(*record)).collect(), self.first, self.later)
    }

    fn slot(&mut self, map: Map) -> &mut Option<usize> {
        match map {
            Map::First => &mut self.first,
            Map::Later => &mut self.later,
        }
    }

    /// `BPF_NOEXIST`: returns whether there was none.
    fn insert(&mut self, map: Map, record: Attempts) -> bool {
        if self.slot(map).is_some() {
            return false;
        }
        self.records.push(record);
        *self.slot(map) = Some(self.records.len() - 1);
        true
    }

    fn compare_and_swap(&mut self, record: usize, old: u64, new: u64) -> bool {
        let is_old = self.records[record].turn == old;
        if is_old {
            self.records[record].turn = new;
        }
        is_old
    }

    fn poison(&mut self, record: usize) {
        self.records[record].turn |= claim::POISONED;
    }
}

/// Lets a CPU take its next step.
pub fn step(memory: &mut Memory, cpu: &mut Cpu, gate: &Gate, knocks: &[Knock]) {
    cpu.at = match cpu.at {
        At::Begin => memory.first.map_or(At::LookLater, |record| At::ReadTurn(record, Map::First)),
        At::LookLater => memory.later.map_or(At::InsertFirst, |record| At::ReadTurn(record, Map::Later)),
        At::ReadTurn(record, map) => At::Claim(record, map, memory.records[record].turn),
        At::Claim(record, map, turn) => match claim::claimed(turn) {
            Some(claimed) if memory.compare_and_swap(record, turn, claimed) => At::Work(record, map, turn),
            _ => At::Contended(Contended::Poison(record, map)),
        },
        At::Work(record, map, turn) => work(memory, cpu, gate, knocks, (record, map, turn)),
        At::InsertFirst => begin(memory, cpu, gate, knocks),
        At::LookFirstAgain => {
            memory.first.map_or(At::Done, |record| At::Contended(Contended::Poison(record, Map::First)))
        }
        At::Evict(map) => {
            *memory.slot(map) = None;
            At::Done
        }
        At::Contended(at) => contended(memory, at),
        At::Releasing(record, claimed, at) => release(memory, cpu, (record, claimed), at),
        At::Moving(at) => move_on(memory, cpu, at),
        At::Done => panic!("a step of a CPU that is done"),
    };
}

fn judge(record: &mut Attempts, number: u8, gate: &Gate, knock: &Knock) -> Change {
    let role = gate.role(Proto::Tcp, knock.port);
    let visit = Visit { knock: Some(*knock), role, source: SOURCE, destination: HOST, ..Visit::NONE };
    let mut occasion = Occasion { now_ns: time(number), starts: 0, destination: HOST, knock: *knock };
    occasion.note(&visit, gate);
    let mut change = Change::NONE;
    machine::advance(record, &mut occasion, gate, &mut change);
    change
}

fn time(number: u8) -> u64 {
    1_000_000_000 + 1_000 * u64::from(number)
}

fn work(
    memory: &mut Memory,
    cpu: &mut Cpu,
    gate: &Gate,
    knocks: &[Knock],
    (record, map, turn): (usize, Map, u64),
) -> At {
    let claimed = claim::claimed(turn).expect("claimed before");
    let attempts = &mut memory.records[record];
    attempts.renew(turn, 1);
    let change = judge(attempts, cpu.number, gate, &knocks[usize::from(cpu.number)]);
    cpu.is_opening = change.promoted != 0;
    if map == Map::First && change.is_later {
        return At::Moving(Moving::InsertLater(record, claimed));
    }
    At::Releasing(record, claimed, Releasing::Release)
}

fn begin(memory: &mut Memory, cpu: &mut Cpu, gate: &Gate, knocks: &[Knock]) -> At {
    let mut fresh = Attempts::zeroed();
    fresh.reset_to(&[0; 16], claim::fresh(time(cpu.number)), time(cpu.number), 1);
    let change = judge(&mut fresh, cpu.number, gate, &knocks[usize::from(cpu.number)]);
    if change.started == 0 {
        return At::Done;
    }
    if !memory.insert(Map::First, fresh) {
        return At::LookFirstAgain;
    }
    cpu.is_promoted = change.promoted != 0;
    At::Contended(Contended::LookLater)
}

fn release(memory: &mut Memory, cpu: &mut Cpu, (record, claimed): (usize, u64), at: Releasing) -> At {
    match at {
        Releasing::Release => {
            if !memory.compare_and_swap(record, claimed, claim::released(claimed)) {
                return At::Releasing(record, claimed, Releasing::Void);
            }
            cpu.is_promoted = cpu.is_opening;
        }
        Releasing::Void => {
            memory.records[record].void();
            return At::Releasing(record, claimed, Releasing::Unpoison);
        }
        Releasing::Unpoison => {
            memory.compare_and_swap(record, claimed | claim::POISONED, claim::released(claimed));
        }
    }
    At::Done
}

fn move_on(memory: &mut Memory, cpu: &mut Cpu, at: Moving) -> At {
    At::Moving(match at {
        Moving::InsertLater(record, claimed) => {
            if !memory.insert(Map::Later, memory.records[record]) {
                return At::Releasing(record, claimed, Releasing::Release);
            }
            Moving::LookStillFirst(record, claimed)
        }
        Moving::LookStillFirst(record, _) if memory.first != Some(record) => Moving::Forsake,
        Moving::LookStillFirst(record, claimed) => Moving::CasMoved(record, claimed),
        Moving::Forsake => {
            memory.later = None;
            return At::Done;
        }
        Moving::CasMoved(record, claimed) => {
            let is_moved = memory.compare_and_swap(record, claimed, claim::moved(claimed));
            if is_moved { Moving::LookMoved(claimed) } else { Moving::RemoveLater(record, claimed) }
        }
        Moving::RemoveLater(record, claimed) => {
            memory.later = None;
            return At::Releasing(record, claimed, Releasing::Release);
        }
        Moving::LookMoved(claimed) => {
            let gone = Moving::RemoveFirst { is_kept: false };
            memory.later.map_or(gone, |moved| Moving::Release(moved, claimed))
        }
        at @ (Moving::Release(..) | Moving::Void(..) | Moving::Unpoison(..)) => release_moved(memory, at),
        Moving::RemoveFirst { is_kept } => {
            memory.first = None;
            cpu.is_promoted = is_kept && cpu.is_opening;
            return At::Done;
        }
    })
}

fn release_moved(memory: &mut Memory, at: Moving) -> Moving {
    if let Moving::Release(moved, claimed) = at {
        let is_kept = memory.compare_and_swap(moved, claimed, claim::released(claimed));
        return if is_kept { Moving::RemoveFirst { is_kept } } else { Moving::Void(moved, claimed) };
    }
    if let Moving::Void(moved, claimed) = at {
        memory.records[moved].void();
        return Moving::Unpoison(moved, claimed);
    }
    if let Moving::Unpoison(moved, claimed) = at {
        memory.compare_and_swap(moved, claimed | claim::POISONED, claim::released(claimed));
    }
    Moving::RemoveFirst { is_kept: false }
}

fn contended(memory: &mut Memory, at: Contended) -> At {
    match at {
        Contended::Poison(record, map) => {
            memory.poison(record);
            if map == Map::First { At::Contended(Contended::LookLater) } else { At::Done }
        }
        Contended::LookLater => {
            memory.later.map_or(At::Done, |record| At::Contended(Contended::PoisonLater(record)))
        }
        Contended::PoisonLater(record) => {
            memory.poison(record);
            At::Done
        }
    }
}
