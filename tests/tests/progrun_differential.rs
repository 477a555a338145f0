//! The kernel program and the pure core get the same packets: same action for each, same state behind them.
//!
//! `KNOCK_DIFF_PACKETS`, `KNOCK_DIFF_SEED` and `KNOCK_DIFF_EVERY` (packets from one comparison of all state to the
//! next; 1 finds the packet) override what is built in.

mod configs;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Debug,
    hash::Hash,
    time::Instant,
};

use configs::{CASES, Case};
use knock_common::{
    abi::{Address, Attempts, Ban, Grant, GrantKey},
    counter::{self, COUNTERS, Counter},
    event::{Kind, Via},
};
use knock_tests::{
    kernel::Kernel,
    model::{Model, meaning},
    plain::Shelf,
    random::Random,
    traffic::{SOURCES, Traffic},
};
use knock_user::{clock::unix_ns, wire::Wire};
use nix::net::if_::if_nametoindex;

/// Boot time at the first packet.
const START_NS: u64 = 1_000_000_000_000;
/// From the nanosecond before the packet: over, over now, and not over yet.
const BAN_LENGTHS: [u64; 6] = [0, 1, 2, 50_000_000, 2_000_000_000, u64::MAX];
/// Records of sources that damage made up; far below what would make an LRU map evict.
const MOST_RECORDS: usize = 1000;
/// Facts that one program, on one CPU, with ample room and on an interface that sends nothing on, cannot bring about; and
/// answers, which `progrun_closed` compares byte for byte.
const OUT_OF_REACH: [Counter; 8] = [
    Counter::AttemptContended,
    Counter::GrantTableFull,
    Counter::EventLost,
    Counter::RolledBack,
    Counter::ReplyNotStored,
    Counter::Forwarded,
    Counter::Answered,
    Counter::AnswerCapped,
];

fn setting(name: &str, built_in: u64) -> u64 {
    env::var(name)
        .map_or(built_in, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn the_kernel_program_does_what_the_pure_core_says() {
    let packets = setting("KNOCK_DIFF_PACKETS", if cfg!(debug_assertions) { 60_000 } else { 1_200_000 });
    let seed = Random::seed("KNOCK_DIFF_SEED");
    println!("{packets} packets, KNOCK_DIFF_SEED={seed}");
    let share = packets.div_ceil(CASES.len() as u64);
    let mut columns = Vec::new();
    for (case, number) in CASES.iter().zip(0..) {
        let started = Instant::now();
        let mut pair = Pair::new(case, seed, number);
        pair.run(share);
        pair.assert_every_door_opened();
        println!("{}: {share} packets in {:.1?}", case.name, started.elapsed());
        columns.push(pair.model.counts);
    }
    print_table(&columns);
    let unmet = counter::ALL.iter().filter(|(counter, ..)| {
        !OUT_OF_REACH.contains(counter) && columns.iter().all(|counts| counts[*counter as usize] == 0)
    });
    assert_eq!(unmet.map(|(_, name, _)| *name).collect::<Vec<_>>(), [""; 0], "counters that never moved");
}

fn print_table(columns: &[[u64; COUNTERS]]) {
    for (counter, name, _) in counter::ALL {
        let counts: Vec<u64> = columns.iter().map(|counts| counts[counter as usize]).collect();
        let cells: String = counts.iter().map(|count| format!("{count:>10}")).collect();
        println!("{name:<20}{:>11} ={cells}", counts.iter().sum::<u64>());
    }
}

/// The two gates, side by side.
struct Pair {
    case: &'static str,
    seed: u64,
    model: Model,
    kernel: Kernel,
    traffic: Traffic,
    packet: u64,
    opened: BTreeSet<u64>,
}

impl Pair {
    fn new(case: &Case, seed: u64, number: u64) -> Self {
        let generation = case.generation();
        let mut kernel = Kernel::load(&generation);
        let unix_ns = unix_ns();
        let offset_ns = unix_ns.wrapping_sub(START_NS);
        let shelf = Shelf::at(&generation, unix_ns, offset_ns);
        kernel.know_shelf(&shelf, START_NS);
        // A test run's packets come in on the loopback of the namespace.
        let mut model = Model::new(generation, if_nametoindex("lo").expect("a loopback"));
        model.tables.now_ns = START_NS;
        model.tables.shelf = shelf;
        let traffic = Traffic::new(seed.wrapping_add(number), &model);
        let mut pair =
            Self { case: case.name, seed, model, kernel, traffic, packet: 0, opened: BTreeSet::new() };
        pair.kernel.maps.set_now_ns(START_NS);
        pair
    }

    fn run(&mut self, packets: u64) {
        let every = setting("KNOCK_DIFF_EVERY", 1000);
        for packet in 0..packets {
            self.packet = packet;
            self.disturb();
            self.step();
            if packet % every == 0 {
                self.compare();
                self.tidy();
            }
        }
        self.compare();
    }

    fn step(&mut self) {
        let now_ns = self.traffic.next_ns(&self.model);
        if now_ns != self.model.tables.now_ns {
            self.model.tables.now_ns = now_ns;
            self.kernel.maps.set_now_ns(now_ns);
        }
        if let Some(frame) = self.traffic.next_departure(&self.model) {
            self.model.depart(&frame);
            self.kernel.depart(&frame);
        }
        let frame = self.traffic.next_frame(&self.model);
        let (verdict, expected) = self.model.run(&frame);
        let action = self.kernel.run(&frame);
        assert_eq!(action, expected, "{}: {verdict:?} at {now_ns}: {}", self.place(), hex(&frame));
    }

    fn place(&self) -> String {
        format!("{}, KNOCK_DIFF_SEED={}, packet {}", self.case, self.seed, self.packet)
    }

    /// What user space and a full table may do to attempts: they go, or the room they would move to is taken.
    fn disturb(&mut self) {
        if self.traffic.random.once_in(60) {
            let sources: Vec<Address> = self.sources();
            if !sources.is_empty() {
                let source = *self.traffic.random.pick(&sources);
                self.forget(&source);
            }
        }
        if self.traffic.random.once_in(200) {
            self.rule_by_hand();
        }
        if self.traffic.random.once_in(3000) {
            let first: BTreeMap<_, _> =
                self.model.first.iter().map(|(source, record)| (*source, *record)).collect();
            let Some((source, record)) = first.first_key_value() else { return };
            self.model.later.insert(*source, *record);
            self.kernel.maps.later.insert(Wire(*source), Wire(*record), 0).expect("room");
        }
    }

    /// What people do by hand: grants until revoked, bans that begin, are lifted, and are asked for or not.
    fn rule_by_hand(&mut self) {
        let random = &mut self.traffic.random;
        let (tables, maps) = (&mut self.model.tables, &mut self.kernel.maps);
        match random.below(5) {
            0 | 1 => {
                let (source, length) = (*random.pick(&SOURCES), *random.pick(&BAN_LENGTHS));
                let since_ns = tables.now_ns - 1;
                let ban = Ban { until_ns: since_ns.saturating_add(length), since_ns };
                tables.bans.insert(source, ban);
                maps.bans.insert(Wire(source), Wire(ban), 0).expect("room");
            }
            2 => {
                for (source, _) in tables.bans.drain() {
                    maps.bans.remove(&Wire(source)).expect("the ban that the model has");
                }
                for (key, _) in tables.grants.extract_if(|_, grant| grant.until_ns == u64::MAX) {
                    maps.grants.remove(&Wire(key)).expect("the grant that the model has");
                }
            }
            3 => {
                let key = GrantKey {
                    source: *random.pick(&SOURCES),
                    door: random.pick(&tables.generation.doors).id,
                };
                let via = Via::Manual as u32;
                let grant = Grant { until_ns: u64::MAX, since_ns: tables.now_ns, via, generation: 0 };
                tables.grants.insert(key, grant);
                maps.grants.insert(Wire(key), Wire(grant), 0).expect("room");
            }
            _ => {
                tables.are_bans_in_use = !tables.are_bans_in_use;
                maps.use_bans(tables.are_bans_in_use);
            }
        }
    }

    fn sources(&self) -> Vec<Address> {
        let mut sources: Vec<Address> =
            self.model.first.keys().chain(self.model.later.keys()).copied().collect();
        sources.sort_unstable();
        sources
    }

    fn forget(&mut self, source: &Address) {
        if self.model.first.remove(source).is_some() {
            self.kernel.maps.first.remove(&Wire(*source)).expect("the record that the model has");
        }
        if self.model.later.remove(source).is_some() {
            self.kernel.maps.later.remove(&Wire(*source)).expect("the record that the model has");
        }
    }

    /// Keeps the tables small, as sweeping and evicting do.
    fn tidy(&mut self) {
        if self.sources().len() > MOST_RECORDS {
            self.sources().iter().for_each(|source| self.forget(source));
        }
        if self.traffic.random.once_in(4) {
            let now_ns = self.model.tables.now_ns;
            let grants = self.model.tables.grants.iter();
            let ended: Vec<_> =
                grants.filter(|(_, grant)| grant.until_ns < now_ns).map(|(key, _)| *key).collect();
            for key in ended {
                self.model.tables.grants.remove(&key);
                self.kernel.maps.grants.remove(&Wire(key)).expect("the grant that the model has");
            }
        }
    }

    fn compare(&mut self) {
        let place = self.place();
        let counts = self.kernel.maps.counts();
        for (counter, name, _) in counter::ALL {
            let (kernel, model) = (counts[counter as usize], self.model.counts[counter as usize]);
            assert_eq!(kernel, model, "{place}: counter {name}: kernel, model");
        }
        assert_eq!(counts, self.model.counts, "{place}: counters without a name");
        assert_eq!(self.kernel.maps.budgets(), self.model.budgets, "{place}: budgets");
        assert_same(&place, "grant", self.kernel.maps.all_grants(), self.model.tables.grants.clone());
        assert_same(&place, "session", self.kernel.maps.all_sessions(), self.model.tables.sessions.clone());
        assert_same(&place, "reply", self.kernel.maps.all_replies(), self.model.tables.replies.clone());
        assert_same(
            &place,
            "fragments",
            self.kernel.maps.all_fragments(),
            self.model.tables.fragments.clone(),
        );
        let [first, later] = self.kernel.maps.attempts();
        assert_same(&place, "first record", meanings(first), meanings(self.model.first.clone()));
        assert_same(&place, "later record", meanings(later), meanings(self.model.later.clone()));
        let (events, expected) = (self.kernel.maps.take_events(), std::mem::take(&mut self.model.events));
        assert_eq!(events.len(), expected.len(), "{place}: events");
        for (event, expected) in events.iter().zip(&expected) {
            assert_eq!(event, expected, "{place}: event");
        }
        let promotions = expected.iter().filter(|event| event.kind == Kind::Promoted as u8);
        self.opened.extend(promotions.map(|event| event.door));
    }

    /// A generator that never completes a sequence would test little.
    fn assert_every_door_opened(&self) {
        let doors: BTreeSet<u64> = self.model.tables.generation.doors.iter().map(|rule| rule.id).collect();
        assert!(self.packet < 100_000 || self.opened == doors, "{}: only {:?}", self.case, self.opened);
    }
}

type Entries<K, V> = std::collections::HashMap<K, V>;

fn meanings(records: Entries<Address, Attempts>) -> Entries<Address, Attempts> {
    records.into_iter().map(|(source, record)| (source, meaning(&record))).collect()
}

fn assert_same<K, V>(place: &str, what: &str, kernel: Entries<K, V>, model: Entries<K, V>)
where
    K: Copy + Debug + Eq + Hash,
    V: Copy + Debug + PartialEq,
{
    for key in kernel.keys().chain(model.keys()) {
        let (in_kernel, in_model) = (kernel.get(key), model.get(key));
        assert_eq!(in_kernel, in_model, "{place}: {what} of {key:?}: kernel, model");
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
