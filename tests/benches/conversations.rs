//! What conversations cost, by BPF_PROG_TEST_RUN: the look into the kernel's sockets, awaited replies, the egress program; ns
//! of this thread's CPU time a packet, harness included.
//!
//! `cargo bench -p knock-tests --bench conversations`, as root. Compare within one run: the first lines are what the harness
//! and a packet that concerns nothing cost.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use aya::programs::{Program, TestRun, TestRunOptions};
use knock_common::{
    abi::{Flow, FlowKey, mapped},
    flow::Stage,
};
use knock_tests::{
    cost::cpu_time,
    kernel::compile,
    packet::{ACK, SYN, TCP, UDP, V4, tcp, udp},
};
use knock_user::{
    clock,
    hook::{Header, Hook},
    loader::{Gate, Options},
    wire::Wire,
};

/// Packets a run; long enough that the system call is nothing.
const PACKETS: u32 = 1_000_000;
/// Runs, of which the fastest counts: whatever else the machine does only adds.
const RUNS: usize = 9;
const STRANGER: [u8; 4] = [198, 51, 100, 1];
const RESOLVER: [u8; 4] = [192, 0, 2, 53];
const HOST: [u8; 4] = [203, 0, 113, 1];

fn main() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let client_port = client.local_addr().expect("an address").port();
    let _server = listener.accept().expect("its other end");
    let alive = Connection { port, client_port };

    for sessions in ["cut", "keep"] {
        println!("guard, sessions = \"{sessions}\"");
        guard(&config("guard", port, sessions), alive);
    }
    println!("deny");
    deny(&config("deny", 22, "keep"), alive);
}

/// A TCP connection of this process with itself.
#[derive(Clone, Copy)]
struct Connection {
    port: u16,
    client_port: u16,
}

fn config(mode: &str, port: u16, sessions: &str) -> String {
    format!(
        "[xdp]\nmode = \"{mode}\"\npublic = [\"tcp/80\"]\n[[door]]\nname = \"main\"\nopens = [\"tcp/{port}\", \"udp/7000\"]\n\
         sessions = \"{sessions}\"\nknock = [\"tcp/7101\", \"tcp/9032\", \"tcp/1200\", \"tcp/5124\"]\n"
    )
}

fn from(source: [u8; 4], destination: [u8; 4], proto: u8, ports: (u16, u16), segment: Vec<u8>) -> Vec<u8> {
    let mut segment = segment;
    segment[0..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    V4 { source, destination, ..V4::new(proto) }.frame(&segment)
}

fn segment(source: [u8; 4], ports: (u16, u16), flags: u8) -> Vec<u8> {
    from(source, HOST, TCP, ports, tcp(1, flags))
}

fn guard(config: &str, alive: Connection) {
    let local = [127, 0, 0, 1];
    let mut gate = load(config);
    let program = program(&mut gate, Hook::Xdp);
    let live = from(local, local, TCP, (alive.client_port, alive.port), tcp(1, ACK));
    let listening = from(STRANGER, local, TCP, (5000, alive.port), tcp(1, ACK));
    print(program, "unrelated: an ACK to tcp/80", &segment(STRANGER, (5000, 80), ACK));
    print(
        program,
        "a SYN to a hidden port: no socket is asked for",
        &segment(STRANGER, (5000, alive.port), SYN),
    );
    print(program, "an ACK to a hidden port, no socket", &segment(STRANGER, (5000, alive.port), ACK));
    print(program, "an ACK to a hidden port, a listener", &listening);
    print(program, "an ACK to a hidden port, a live connection", &live);
}

fn deny(config: &str, alive: Connection) {
    let local = [127, 0, 0, 1];
    let mut gate = load(config);
    await_reply(&mut gate);
    let incoming = program(&mut gate, Hook::Xdp);
    let live = from(local, local, TCP, (alive.client_port, alive.port), tcp(1, ACK));
    print(incoming, "public: an ACK to tcp/80", &segment(STRANGER, (5000, 80), ACK));
    print(incoming, "denied: an ACK to tcp/81", &segment(STRANGER, (5000, 81), ACK));
    print(incoming, "denied: a SYN to tcp/81, a wrong knock", &segment(STRANGER, (5000, 81), SYN));
    print(incoming, "reply: TCP of a live connection", &live);
    print(incoming, "reply: UDP that was asked for", &from(RESOLVER, HOST, UDP, (53, 40_000), udp(1, 40)));
    print(incoming, "denied: UDP that was not", &from(RESOLVER, HOST, UDP, (53, 40_001), udp(1, 40)));
    let outgoing = program(&mut gate, Hook::Egress);
    print(outgoing, "egress: from public tcp/80", &from(HOST, STRANGER, TCP, (80, 5000), tcp(1, ACK)));
    print(
        outgoing,
        "egress: an ACK of a socket's TCP",
        &from(HOST, STRANGER, TCP, (40_000, 444), tcp(1, ACK)),
    );
    print(
        outgoing,
        "egress: its SYN",
        &from(local, local, TCP, (alive.client_port, alive.port), tcp(1, SYN)),
    );
    print(
        outgoing,
        "egress: UDP of a known conversation",
        &from(HOST, RESOLVER, UDP, (40_000, 53), udp(1, 40)),
    );
}

fn load(config: &str) -> Gate {
    Gate::load(&compile(config), &Options::default()).unwrap_or_else(|error| panic!("{error:?}"))
}

fn program(gate: &mut Gate, hook: Hook) -> &mut Program {
    gate.program_at(hook, Header::Ethernet).unwrap_or_else(|error| panic!("{error:?}"))
}

fn await_reply(gate: &mut Gate) {
    let now_ns = clock::now_ns();
    let flow = FlowKey {
        remote: mapped(RESOLVER),
        local: mapped(HOST),
        remote_port: 53,
        local_port: 40_000,
        proto: UDP,
        _pad: [0; 3],
    };
    let map = gate.ebpf.map_mut(knock_common::names::REPLIES).expect("the map of awaited replies");
    let mut replies = aya::maps::HashMap::try_from(map).expect("a hash map");
    replies.insert(Wire(flow), Wire(Flow::new(Stage::Asked, now_ns)), 0).expect("room");
}

fn print(program: &mut Program, name: &str, frame: &[u8]) {
    let fastest = (0..RUNS).map(|_| ns_a_packet(program, frame)).min_by(f64::total_cmp);
    println!("  {:>7.1} ns  {name}", fastest.expect("some runs"));
}

fn ns_a_packet(program: &Program, frame: &[u8]) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat: PACKETS, ..TestRunOptions::default() };
    let began = cpu_time();
    let ran = if let Program::SchedClassifier(program) = program {
        program.test_run(options)
    } else {
        let Program::Xdp(program) = program else { panic!("a program of another kind") };
        program.test_run(options)
    };
    ran.expect("a test run");
    (cpu_time() - began).as_secs_f64() * 1e9 / f64::from(PACKETS)
}
