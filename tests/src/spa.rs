//! The real program with doors that single packets open: its maps filled by hand, packet by packet.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{Program, TestRun as _, TestRunOptions, Xdp},
};
use knock_common::{
    abi::{
        Address, Ban, DoorRule, Flow, FlowKey, Grant, GrantKey, List, PORTS, PrefixKey, Role, Settings,
        mapped,
    },
    counter::Counter,
    door::door_id,
    event::{Event, Kind},
    flow::Stage,
    names,
    spa::{
        abi::{KeyId, KeyRule, Right, RightKey, ServerRule, WallClock},
        key::SpaKey,
        packet::{Datagram, Request},
        verdict::Refusal,
    },
    verdict::{Action, Mode},
};
use knock_user::{
    clock,
    generation::Generation,
    hook::{Header, Hook},
    loader::{Gate, Options},
    wire::Wire,
};

use crate::{
    kernel::{compile, run},
    packet::{UDP, V4, udp},
};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Unix time at boot.
pub const BOOT: u64 = 1_767_323_000 * SECOND;
/// Boot time at the start of each test.
pub const START: u64 = 1000 * SECOND;
/// The port that the door listens on.
pub const PORT: u16 = 62_201;
/// A port that single packets are listened for on as well, by another door.
pub const OTHER_PORT: u16 = 62_200;
/// A step of the other door; nobody listens there.
pub const STEP_PORT: u16 = 7200;
/// Number of the key: one that takes more than a byte.
pub const KEY: u16 = 300;
/// Who sends.
pub const SENDER: [u8; 4] = [203, 0, 113, 9];

/// The interface that test runs come by.
const LOOPBACK: u32 = 1;
/// Bytes of `struct __sk_buff` (`uapi/linux/bpf.h`), and where in it the interface is.
const SK_BUFF: usize = 192;
const IFINDEX_AT: usize = 40;

const CONFIG: &str = r#"
[[door]]
name = "ssh"
allow_weak = true
opens = ["tcp/22"]
knock = ["udp/62201", "tcp/7101"]
[[door]]
name = "web"
allow_weak = true
opens = ["tcp/443"]
knock = ["udp/7200", "tcp/8301"]
"#;

/// The program, its maps and one secret.
pub struct Spa {
    gate: Gate,
    mode: Mode,
    clock: Array<MapData, u64>,
    wall: Array<MapData, Wire<WallClock>>,
    keys: HashMap<MapData, KeyId, Wire<KeyRule>>,
    rights: HashMap<MapData, Wire<RightKey>, Wire<Right>>,
    server: Array<MapData, Wire<ServerRule>>,
    floors: HashMap<MapData, KeyId, u64>,
    counts: PerCpuArray<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    replies: HashMap<MapData, Wire<FlowKey>, Wire<Flow>>,
    grants: HashMap<MapData, Wire<GrantKey>, Wire<Grant>>,
    bans: HashMap<MapData, Wire<Address>, Wire<Ban>>,
    bans_in_use: Array<MapData, u64>,
    events: RingBuf<MapData>,
    /// The secret, which may open `ssh` for at most a minute.
    pub key: SpaKey,
}

impl Spa {
    /// Loads the program for a mode, with a secret that has these flags of [`KeyRule`].
    pub fn load(mode: Mode, flags: u8) -> Self {
        Self::load_program(mode, flags, names::PROGRAM)
    }

    /// Does the same for a program of any place.
    pub fn load_program(mode: Mode, flags: u8, program: &'static str) -> Self {
        Self::load_programs(mode, flags, &[program])
    }

    /// Does the same for programs of several places, which have their maps in common.
    pub fn load_programs(mode: Mode, flags: u8, programs: &[&'static str]) -> Self {
        let generation = generation(mode);
        let programs = programs.iter().copied().collect();
        let options = Options { test_clock: true, programs, ..Options::default() };
        Self::load_with(&generation, flags, &options)
    }

    /// Loads the program on the real clock; as many events a second are told of as this says.
    pub fn load_live(mode: Mode, events: u32) -> Self {
        let mut generation = generation(mode);
        generation.settings.events = events;
        let mut spa = Self::load_with(&generation, 0, &Options::default());
        spa.look_at_clock(clock::now_ns(), BOOT);
        spa
    }

    /// Loads the program with lists of prefixes of IPv4: whose each is, its address and its length.
    pub fn load_listed(mode: Mode, flags: u8, prefixes: &[(List, u16, [u8; 5])]) -> Self {
        let mut generation = generation(mode);
        for (list, owner, [a, b, c, d, length]) in prefixes {
            generation.settings.lists |= list.bit();
            if *list == List::From {
                generation.doors[usize::from(*owner)].flags |= DoorRule::FROM;
            }
            let data = PrefixKey::new(list.number(), *owner, &mapped([*a, *b, *c, *d]));
            generation.prefixes.push((PrefixKey::FIXED_BITS + 96 + u32::from(*length), data));
        }
        let options = Options { test_clock: true, ..Options::default() };
        Self::load_with(&generation, flags, &options)
    }

    fn load_with(generation: &Generation, flags: u8, options: &Options<'_>) -> Self {
        let mode = Mode::from_number(generation.settings.mode);
        let mut gate = Gate::load(generation, options).unwrap_or_else(|error| panic!("{error:?}"));
        let ebpf = &mut gate.ebpf;
        let mut spa = Self {
            clock: take(ebpf, names::TEST_CLOCK),
            wall: take(ebpf, names::SPA_CLOCK),
            keys: take(ebpf, names::SPA_KEYS),
            rights: take(ebpf, names::SPA_RIGHTS),
            server: take(ebpf, names::SPA_SERVER),
            floors: take(ebpf, names::SPA_FLOORS),
            counts: take(ebpf, names::SPA_COUNTS),
            counters: take(ebpf, names::COUNTERS),
            replies: take(ebpf, names::REPLIES),
            grants: take(ebpf, names::GRANTS),
            bans: take(ebpf, names::BANS),
            bans_in_use: take(ebpf, names::BANS_IN_USE),
            events: take(ebpf, names::EVENTS),
            gate,
            mode,
            key: SpaKey::new(&[0x42; 32]),
        };
        spa.go_by(spa.key.clone(), flags);
        spa.set_identity("box");
        spa.set_now(START);
        spa.look_at_clock(START, BOOT);
        spa
    }

    /// Sets the boot time.
    pub fn set_now(&mut self, now_ns: u64) {
        self.clock.set(0, now_ns, 0).expect("an array");
    }

    /// Tells the kernel of the wall clock, as the daemon does.
    pub fn look_at_clock(&mut self, seen_ns: u64, offset_ns: u64) {
        self.wall.set(0, Wire(WallClock { offset_ns, seen_ns, since_ns: 0 }), 0).expect("an array");
    }

    /// Does so where floors are kept since a time.
    pub fn keep_floors_since(&mut self, since_ns: u64) {
        let WallClock { offset_ns, seen_ns, .. } = self.wall.get(&0, 0).expect("an array").0;
        self.wall.set(0, Wire(WallClock { offset_ns, seen_ns, since_ns }), 0).expect("an array");
    }

    /// Knows another secret from now on, which may open `ssh` as well.
    pub fn go_by(&mut self, key: SpaKey, flags: u8) {
        let rule = KeyRule { flags, number: KEY, ..key.rule() };
        self.keys.insert(key.id(), Wire(rule), 0).expect("room");
        let right =
            Right { open_for_ns: 30 * SECOND, longest_ns: 60 * SECOND, port: PORT, door: 0, _pad: [0; 5] };
        let asked = RightKey { key: key.id(), door: door_id(b"ssh") };
        self.rights.insert(Wire(asked), Wire(right), 0).expect("room");
        self.key = key;
        self.set_floor(0);
    }

    /// Calls the server by another name.
    pub fn set_identity(&mut self, name: &str) {
        let rule = ServerRule { identity: door_id(name.as_bytes()), window_ns: 30 * SECOND };
        self.server.set(0, Wire(rule), 0).expect("an array");
    }

    /// Notes a conversation that the host began just now.
    pub fn await_reply(&mut self, flow: FlowKey) {
        let asked = Flow { seen_ns: START, stage: Stage::Asked as u8, _pad: [0; 7] };
        self.replies.insert(Wire(flow), Wire(asked), 0).expect("room");
    }

    /// Bans an address until a time.
    pub fn ban(&mut self, source: Address, until_ns: u64) {
        self.bans.insert(Wire(source), Wire(Ban { until_ns, since_ns: 0 }), 0).expect("room");
        self.bans_in_use.set(0, 1, 0).expect("an array");
    }

    /// What asks for `ssh`, now, for its sender by name.
    pub fn request(&self) -> Request {
        Request {
            seconds: 0,
            door: door_id(b"ssh"),
            counter: BOOT + START,
            server: door_id(b"box"),
            source: Some(mapped(SENDER)),
        }
    }

    /// The packet of a request.
    pub fn seal(&self, request: &Request) -> Vec<u8> {
        Datagram::seal(request, &self.key).bytes().to_vec()
    }

    /// Sends bytes to the port from an address; panics unless they go the way of anything to a closed port.
    pub fn send_from(&mut self, source: [u8; 4], payload: &[u8]) {
        self.send_frame(&frame(source, payload));
    }

    /// Returns what becomes of anything to a closed port.
    pub fn fate(&self) -> Action {
        match self.mode {
            Mode::Observe | Mode::Guard => Action::Pass,
            Mode::Deny => Action::Drop,
        }
    }

    /// Sends a frame; panics unless it goes the way of anything to a closed port.
    pub fn send_frame(&mut self, frame: &[u8]) {
        let fate = self.fate();
        assert_eq!(run(self.program(), frame), fate);
    }

    /// Sends bytes to the port.
    pub fn send(&mut self, payload: &[u8]) {
        self.send_from(SENDER, payload);
    }

    /// Returns when the grant of an address for `ssh` ends.
    pub fn grant_until(&self, source: Address) -> Option<u64> {
        self.grant_for("ssh", source)
    }

    /// Returns when the grant of an address for a door ends.
    pub fn grant_for(&self, door: &str, source: Address) -> Option<u64> {
        let key = Wire(GrantKey { source, door: door_id(door.as_bytes()) });
        self.grants.get(&key, 0).ok().map(|grant| grant.0.until_ns)
    }

    /// Returns how many grants there are.
    pub fn grants(&self) -> usize {
        self.grants.keys().count()
    }

    /// Returns how many packets were accepted.
    pub fn accepted(&self) -> u64 {
        self.sum(0)
    }

    /// Returns how many were refused for a reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.sum(u32::from(refusal.number()))
    }

    /// Returns the highest counter that was accepted.
    pub fn floor(&self) -> u64 {
        self.floors.get(&self.key.id(), 0).expect("a floor")
    }

    /// Sets it.
    pub fn set_floor(&mut self, floor: u64) {
        self.floors.insert(self.key.id(), floor, 0).expect("room");
    }

    /// Sends bytes to the port from the sender, by an interface whose gate is at TC.
    pub fn send_by_tc(&mut self, payload: &[u8]) {
        self.send_by_tc_on(LOOPBACK, payload);
    }

    /// Does so by an interface of this thread's network namespace.
    pub fn send_by_tc_on(&mut self, interface: u32, payload: &[u8]) {
        let program = self.gate.program_at(Hook::Ingress, Header::Ethernet);
        let Program::SchedClassifier(program) = program.unwrap_or_else(|error| panic!("{error:?}")) else {
            panic!("the program is one of TC");
        };
        let frame = frame(SENDER, payload);
        let mut context = [0; SK_BUFF];
        context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&interface.to_ne_bytes());
        let (data_in, ctx_in) = (Some(&frame[..]), Some(&context[..]));
        let options = TestRunOptions { data_in, ctx_in, repeat: 1, ..TestRunOptions::default() };
        program.test_run(options).expect("a test run");
    }

    /// Takes the reasons of all refusals that were told of.
    pub fn told(&mut self) -> Vec<Option<Refusal>> {
        let mut told = Vec::new();
        while let Some(item) = self.events.next() {
            let event: Event = bytemuck::pod_read_unaligned(&item);
            if event.kind == Kind::SpaRejected as u8 {
                told.push(Refusal::from_number(event.reason));
            }
        }
        told
    }

    /// Returns the program.
    pub fn program(&mut self) -> &Xdp {
        self.gate.program().expect("the program")
    }

    /// Returns a counter of the program as a whole.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(&(counter as u32), 0).expect("a counter").iter().sum()
    }

    fn sum(&self, number: u32) -> u64 {
        self.counts.get(&number, 0).expect("a counter").iter().sum()
    }
}

/// Returns the frame of bytes to the port.
pub fn frame(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    frame_to(V4::new(UDP).destination, source, payload)
}

/// Returns the same to an address.
pub fn frame_to(destination: [u8; 4], source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    V4 { source, destination, ..V4::new(UDP) }.frame(&datagram(PORT, payload))
}

/// Returns the frame of bytes from the sender to a port.
pub fn frame_to_port(port: u16, payload: &[u8]) -> Vec<u8> {
    V4 { source: SENDER, ..V4::new(UDP) }.frame(&datagram(port, payload))
}

/// Returns the UDP datagram of bytes to a port.
pub fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len()).expect("a datagram");
    let mut datagram = udp(port, size);
    datagram.truncate(8);
    datagram.extend(payload);
    datagram
}

fn generation(mode: Mode) -> Generation {
    let mut generation = compile(CONFIG);
    generation.settings.mode = mode.number();
    generation.settings.flags |= Settings::SPA;
    for port in [PORT, OTHER_PORT] {
        generation.port_roles[PORTS + usize::from(port)].0 |= Role::LISTENS;
    }
    generation
}

fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
    M::try_from(map).unwrap_or_else(|_| panic!("map {name} is of another kind"))
}
