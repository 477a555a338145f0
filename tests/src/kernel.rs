//! The real program in the kernel, run packet by packet with `BPF_PROG_TEST_RUN` and a clock that the test sets.

use std::collections::HashMap;

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, ProgramArray, RingBuf},
    programs::{Program, TestRun as _, TestRunOptions, Xdp},
};
use bytemuck::Pod;
use knock_common::{
    abi::{
        Address, Attempts, Flow, FlowKey, FragmentKey, Grant, GrantKey, MAX_DOORS, PREVIOUS_SLOTS, Sessions,
    },
    counter::{COUNTERS, Counter},
    event::Event,
    names,
    spa::abi::{KeyId, WallClock},
    verdict::Action,
};
use knock_user::{
    config::Config,
    generation::{DEFAULT_EPHEMERAL, Generation},
    hook::{Header, Hook},
    loader::{Gate, Options},
    wire::{AttemptMap, Bans, Counters, Grants, Links, Wire, Words},
};

use crate::{
    packet::{SYN, TCP, V4, tcp},
    plain::Shelf,
};

/// Compiles a configuration as generation 1, with Linux's own ephemeral range.
pub fn compile(config: &str) -> Generation {
    let (config, _) = Config::parse("test", config).unwrap_or_else(|error| panic!("{error}"));
    Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).expect("few sets of doors")
}

/// The interface that test runs come by.
const LOOPBACK: u32 = 1;
/// `xdp_action` of the kernel: sent back on the interface it came by.
const XDP_TX: u32 = 3;
/// `tcx_action_base` of the kernel: whoever comes next decides; -1.
const TCX_NEXT: u32 = u32::MAX;
/// Bytes that an answer is longer than what it answers, at most.
const LONGEST_ANSWER: usize = 48;

/// Returns the frame of a SYN to a TCP port of the host, the same for each source and port.
pub fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    V4 { source, ..V4::new(TCP) }.frame(&tcp(port, SYN))
}

/// The program, loaded and attached to nothing, and its maps.
pub struct Kernel {
    gate: Gate,
    /// Its maps.
    pub maps: Maps,
}

type Table<K, V> = aya::maps::HashMap<MapData, Wire<K>, Wire<V>>;

/// The maps that a test reads or writes.
pub struct Maps {
    clock: Array<MapData, u64>,
    budgets: Array<MapData, u64>,
    counters: Counters<MapData>,
    events: RingBuf<MapData>,
    /// Records of sources that got no further than a first step.
    pub first: AttemptMap<MapData>,
    /// Records of sources that got further.
    pub later: AttemptMap<MapData>,
    /// Grants, live and expired.
    pub grants: Grants<MapData>,
    /// Bans, in force and over.
    pub bans: Bans<MapData>,
    bans_in_use: Words<MapData>,
    confirm: Words<MapData>,
    links: Links<MapData>,
    sessions: Table<Address, Sessions>,
    replies: Table<FlowKey, Flow>,
    fragments: Table<FragmentKey, u64>,
    previous: ProgramArray<MapData>,
}

impl Kernel {
    /// Loads the program for a generation, on the test clock.
    pub fn load(generation: &Generation) -> Self {
        Self::load_with(generation, &Options { test_clock: true, ..Options::default() })
    }

    /// Loads the program for a generation, on the real clock.
    pub fn load_live(generation: &Generation) -> Self {
        Self::load_with(generation, &Options::default())
    }

    /// Loads the program for a generation, as the loader can be asked to.
    pub fn load_with(generation: &Generation, options: &Options<'_>) -> Self {
        let mut gate =
            Gate::load_undisturbed(generation, options).unwrap_or_else(|error| panic!("{error:?}"));
        let ebpf = &mut gate.ebpf;
        let maps = Maps {
            clock: take(ebpf, names::TEST_CLOCK),
            budgets: take(ebpf, names::BUDGETS),
            counters: take(ebpf, names::COUNTERS),
            events: take(ebpf, names::EVENTS),
            first: take(ebpf, names::FIRST_ATTEMPTS),
            later: take(ebpf, names::LATER_ATTEMPTS),
            grants: take(ebpf, names::GRANTS),
            bans: take(ebpf, names::BANS),
            bans_in_use: take(ebpf, names::BANS_IN_USE),
            confirm: take(ebpf, names::CONFIRM),
            links: take(ebpf, names::LINKS),
            sessions: take(ebpf, names::SESSIONS),
            replies: take(ebpf, names::REPLIES),
            fragments: take(ebpf, names::FRAGMENTS),
            previous: take(ebpf, names::PREVIOUS),
        };
        Self { gate, maps }
    }

    /// Takes a map of the program that is none of [`Maps`].
    pub fn take<M: TryFrom<Map>>(&mut self, name: &str) -> M {
        take(&mut self.gate.ebpf, name)
    }

    /// Lays in the sequences for a Unix time, as the daemon does.
    pub fn lay_pages(&mut self, unix_ns: u64) {
        self.gate.lay_pages(unix_ns).unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// Tells it the wall time of a shelf, and that nothing of it was used.
    pub fn know_shelf(&mut self, shelf: &Shelf, seen_ns: u64) {
        let clock = WallClock { offset_ns: shelf.offset_ns, seen_ns, since_ns: 0 };
        let mut wall: Array<MapData, Wire<WallClock>> = self.take(names::SPA_CLOCK);
        wall.set(0, Wire(clock), 0).expect("an array");
        let mut floors: aya::maps::HashMap<MapData, KeyId, u64> = self.take(names::SPA_FLOORS);
        for id in shelf.floors.keys() {
            floors.insert(id, 0, 0).expect("room");
        }
    }

    /// Runs one frame of 14 bytes or more.
    pub fn run(&mut self, frame: &[u8]) -> Action {
        run(self.parts().0, frame)
    }

    /// Runs one frame of 14 bytes or more through the program for outgoing ones.
    pub fn depart(&mut self, frame: &[u8]) {
        let program = self.gate.program_at(Hook::Egress, Header::Ethernet);
        let Program::SchedClassifier(program) = program.unwrap_or_else(|error| panic!("{error:?}")) else {
            panic!("the egress program is one of TC");
        };
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
        let action = program.test_run(options).expect("a test run").return_value;
        assert_eq!(action, TCX_NEXT, "what a host sends is its own affair");
    }

    /// Runs one frame; returns the one that is sent back, if it is answered.
    pub fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; frame.len() + LONGEST_ANSWER];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut room),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = self.parts().0.test_run(options).expect("a test run");
        let len = usize::try_from(result.data_size_out).expect("a short frame");
        (result.return_value == XDP_TX).then(|| room[..len].to_vec())
    }

    /// Says which program was on an interface before.
    pub fn set_previous(&mut self, interface: u32, previous: &mut Self) {
        let program = previous.parts().0.fd().expect("a loaded program");
        self.maps.previous.set(interface % PREVIOUS_SLOTS, program, 0).expect("a program of the same kind");
    }

    /// Returns the program and the maps apart, for runs on several CPUs.
    pub fn parts(&mut self) -> (&Xdp, &mut Maps) {
        (self.gate.program().expect("the program"), &mut self.maps)
    }
}

impl Maps {
    /// Sets the time.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.clock.set(0, now_ns, 0).expect("the clock is an array");
    }

    /// Says whether the kernel is to ask for bans.
    pub fn use_bans(&mut self, is_in_use: bool) {
        self.bans_in_use.set(0, u64::from(is_in_use), 0).expect("the word is an array");
    }

    /// Writes the word that says whether the generation is confirmed, or until when it may be.
    pub fn set_confirm(&mut self, word: u64) {
        self.confirm.set(0, word, 0).expect("the word is an array");
    }

    /// Says which link-layer address the interface of test runs has; `partial` is 0 or [`knock_common::abi::LINK_PARTIAL`].
    pub fn set_link(&mut self, [a, b, c, d, e, f]: [u8; 6], partial: u64) {
        let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) | partial;
        self.links.insert(LOOPBACK, word, 0).expect("room for a link");
    }

    /// Returns a counter, summed over the CPUs.
    pub fn count(&self, counter: Counter) -> u64 {
        self.sum(counter as u32)
    }

    /// Returns all counters by number, summed over the CPUs.
    pub fn counts(&self) -> [u64; COUNTERS] {
        std::array::from_fn(|number| self.sum(u32::try_from(number).expect("few counters")))
    }

    fn sum(&self, number: u32) -> u64 {
        self.counters.get(&number, 0).expect("a counter").iter().sum()
    }

    /// Returns the rate budgets: one a door, then the one of events.
    pub fn budgets(&self) -> [u64; MAX_DOORS + 1] {
        std::array::from_fn(|index| {
            let index = u32::try_from(index).expect("few budgets");
            self.budgets.get(&index, 0).expect("a budget")
        })
    }

    /// Takes all events out of the ring, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(bytemuck::pod_read_unaligned(&item));
        }
        events
    }

    /// Returns the first, then the later records.
    pub fn attempts(&self) -> [HashMap<Address, Attempts>; 2] {
        [all(&self.first), all(&self.later)]
    }

    /// Returns the conversations of each source with hidden services.
    pub fn all_sessions(&self) -> HashMap<Address, Sessions> {
        all(&self.sessions)
    }

    /// Returns the conversations whose answers are awaited.
    pub fn all_replies(&self) -> HashMap<FlowKey, Flow> {
        all(&self.replies)
    }

    /// Returns the datagrams whose later fragments pass, and until when.
    pub fn all_fragments(&self) -> HashMap<FragmentKey, u64> {
        all(&self.fragments)
    }

    /// Returns all grants.
    pub fn all_grants(&self) -> HashMap<GrantKey, Grant> {
        all(&self.grants)
    }
}

/// Runs one frame of 14 bytes or more through a program.
pub fn run(program: &Xdp, frame: &[u8]) -> Action {
    let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
    match program.test_run(options).expect("a test run").return_value {
        1 => Action::Drop,
        2 => Action::Pass,
        other => panic!("the program returned {other}"),
    }
}

fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
    M::try_from(map).unwrap_or_else(|_| panic!("map {name} is of another kind"))
}

fn all<K: Pod + Eq + std::hash::Hash, V: Pod>(
    map: &aya::maps::HashMap<MapData, Wire<K>, Wire<V>>,
) -> HashMap<K, V> {
    let entries = aya::maps::HashMap::iter(map);
    entries.map(|entry| entry.expect("a readable map")).map(|(key, value)| (key.0, value.0)).collect()
}
