//! A host whose conversations a test holds both ends of: what it sends and what it gets, packet by packet.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{Program, TestRun as _, TestRunOptions},
};
use bytemuck::Zeroable as _;
use knock_common::{
    abi::{Address, Flow, FlowKey, Grant, GrantKey, Session, Sessions, is_mapped, mapped},
    counter::Counter,
    door::door_id,
    flow::Stage,
    names,
    verdict::Action,
};
use knock_tests::{
    kernel::{self, compile},
    packet::{ACK, HOST, HOST6, ICMP, ICMPV6, STRANGER, STRANGER6, TCP, UDP, V4, V6, icmp, tcp, udp},
};
use knock_user::{
    hook::{Header, Hook},
    loader::{Gate, Options},
    wire::{Counters, Grants, Wire},
};

/// One second.
pub const SECOND: u64 = 1_000_000_000;
/// The time at first.
pub const START_NS: u64 = 10_000_000 * SECOND;
/// A port that the door hides, for TCP and UDP; so are the next hundred.
pub const HIDDEN: u16 = 7000;
/// A port of the other side that is no step of the door.
pub const REMOTE: u16 = 40_000;
/// TCX_NEXT of the kernel: whoever comes next decides.
const NEXT: u32 = u32::MAX;

type Table<K, V> = HashMap<MapData, Wire<K>, Wire<V>>;

/// The programs, attached to nothing, and their maps.
pub struct Host {
    gate: Gate,
    clock: Array<MapData, u64>,
    counters: Counters<MapData>,
    grants: Grants<MapData>,
    sessions: Table<Address, Sessions>,
    replies: Table<FlowKey, Flow>,
    /// The time that was set last.
    pub now_ns: u64,
}

impl Host {
    /// Loads the programs in a mode, with one door. What is not the host's is dropped, whatever the routes of the machine.
    pub fn new(mode: &str) -> Self {
        let forward = if mode == "deny" { "forward = \"deny\"\n" } else { "" };
        let generation = compile(&format!(
            "[xdp]\nmode = \"{mode}\"\n{forward}[[door]]\nname = \"all\"\nopens = [\"tcp/{HIDDEN}-7099\", \"udp/{HIDDEN}-7099\"]\n\
             knock = [\"tcp/7101\", \"tcp/9032\", \"tcp/1200\", \"tcp/5124\"]\n"
        ));
        let options = Options { test_clock: true, ..Options::default() };
        let mut gate = Gate::load(&generation, &options).unwrap_or_else(|error| panic!("{error:?}"));
        let ebpf = &mut gate.ebpf;
        let [clock, counters, grants, sessions, replies] =
            [names::TEST_CLOCK, names::COUNTERS, names::GRANTS, names::SESSIONS, names::REPLIES]
                .map(|name| take(ebpf, name));
        let mut host = Self {
            clock: clock.try_into().expect("an array"),
            counters: PerCpuArray::try_from(counters).expect("counters"),
            grants: grants.try_into().expect("a hash map"),
            sessions: sessions.try_into().expect("a hash map"),
            replies: replies.try_into().expect("a hash map"),
            gate,
            now_ns: 0,
        };
        host.set_now_ns(START_NS);
        host
    }

    /// Sets the time.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.clock.set(0, now_ns, 0).expect("the clock is an array");
    }

    /// Lets time pass.
    pub fn rest(&mut self, more_ns: u64) {
        self.set_now_ns(self.now_ns + more_ns);
    }

    /// Lets a source pass the door for a second from now on.
    pub fn grant(&mut self, source: Address) {
        let until_ns = self.now_ns + SECOND;
        let grant = Grant { until_ns, since_ns: self.now_ns, via: 1, generation: 1 };
        self.grants.insert(Wire(GrantKey { source, door: door_id(b"all") }), Wire(grant), 0).expect("room");
    }

    /// Runs a frame that comes in; returns whether it passes.
    pub fn gets(&mut self, frame: &[u8]) -> bool {
        kernel::run(self.gate.program().expect("the program"), frame) == Action::Pass
    }

    /// Runs a frame that leaves.
    pub fn sends(&mut self, frame: &[u8]) {
        let program = self.gate.program_at(Hook::Egress, Header::Ethernet);
        let Program::SchedClassifier(program) = program.unwrap_or_else(|error| panic!("{error:?}")) else {
            panic!("what leaves is seen at TC");
        };
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
        assert_eq!(program.test_run(options).expect("a test run").return_value, NEXT);
    }

    /// Notes a conversation with a hidden service of a host behind this one, seen now: a test run's packets never are of one,
    /// since the kernel gives each a socket.
    pub fn keep(&mut self, flow: FlowKey, stage: Stage) {
        let mut sessions = Sessions::zeroed();
        sessions.slots[0] = Session { seen_ns: self.now_ns, flow, stage: stage.number(), _pad: [0; 7] };
        self.sessions.insert(Wire(flow.remote), Wire(sessions), 0).expect("room");
    }

    /// Notes a conversation whose answers are awaited by a host behind this one, seen now.
    pub fn await_reply(&mut self, flow: FlowKey, stage: Stage) {
        self.replies.insert(Wire(flow), Wire(Flow::new(stage, self.now_ns)), 0).expect("room");
    }

    /// Returns when the conversation in the first slot of a source was last written.
    pub fn seen_ns(&self, source: Address) -> u64 {
        self.sessions.get(&Wire(source), 0).expect("a record").0.slots[0].seen_ns
    }

    /// Returns what is known of an awaited reply.
    pub fn reply(&self, flow: FlowKey) -> Option<Flow> {
        self.replies.get(&Wire(flow), 0).ok().map(|known| known.0)
    }

    /// Returns a counter.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.get(&(counter as u32), 0).expect("a counter").iter().sum()
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Map {
    ebpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"))
}

/// A conversation of the host with the stranger.
pub fn flow(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: mapped(STRANGER), local: mapped(HOST), remote_port, local_port, proto, _pad: [0; 3] }
}

/// The same over IPv6.
pub fn flow6(proto: u8, remote_port: u16, local_port: u16) -> FlowKey {
    FlowKey { remote: STRANGER6, local: HOST6, ..flow(proto, remote_port, local_port) }
}

/// Returns what the other side of a conversation sends: an ACK, a datagram or an echo reply.
pub fn incoming(flow: &FlowKey) -> Vec<u8> {
    segment(flow, ACK)
}

/// Returns the same, with these flags if it is TCP.
pub fn segment(flow: &FlowKey, flags: u8) -> Vec<u8> {
    let echo = if is_mapped(&flow.remote) { 0 } else { 129 };
    let body = body(flow.proto, (flow.remote_port, flow.local_port), flags, echo);
    packet(flow.remote, flow.local, flow.proto, &body)
}

/// Returns what the host sends in it.
pub fn outgoing(flow: &FlowKey) -> Vec<u8> {
    leaving(flow, ACK)
}

/// Returns the same, with these flags if it is TCP.
pub fn leaving(flow: &FlowKey, flags: u8) -> Vec<u8> {
    let echo = if is_mapped(&flow.remote) { 8 } else { 128 };
    let body = body(flow.proto, (flow.local_port, flow.remote_port), flags, echo);
    packet(flow.local, flow.remote, flow.proto, &body)
}

fn body(proto: u8, (from, to): (u16, u16), flags: u8, echo: u8) -> Vec<u8> {
    let mut body = match proto {
        TCP => tcp(to, flags),
        UDP => udp(to, 8),
        ICMP => icmp(echo, 0, 8),
        other => panic!("no conversation of protocol {other}"),
    };
    let at = if proto == ICMP { 4 } else { 0 };
    body[at..at + 2].copy_from_slice(&from.to_be_bytes());
    body
}

fn packet(source: Address, destination: Address, proto: u8, body: &[u8]) -> Vec<u8> {
    let v4 = |address: Address| [address[12], address[13], address[14], address[15]];
    if is_mapped(&source) {
        return V4 { source: v4(source), destination: v4(destination), ..V4::new(proto) }.frame(body);
    }
    let proto = if proto == ICMP { ICMPV6 } else { proto };
    V6 { source, destination, ..V6::new(proto) }.frame(body)
}
