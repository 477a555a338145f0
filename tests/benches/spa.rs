//! What a single packet costs in the program, by BPF_PROG_TEST_RUN: ns of this thread's CPU time a packet, harness included,
//! beside a program that does nothing and a packet that concerns no door.
//!
//! `cargo bench -p knock-tests --bench spa`, as root. On the real clock, as the kernel has it in use. A right packet is
//! refused as replayed from its second run on: all but the grant is in its figure.

use aya::programs::Xdp;
use knock_common::{
    spa::{
        key::SpaKey,
        packet::{Datagram, Request},
        verdict::Refusal,
    },
    verdict::Mode,
};
use knock_tests::{
    cost::ns_a_packet,
    empty::Empty,
    spa::{BOOT, SENDER, Spa, frame, frame_to_port},
};
use knock_user::{clock, generation::EVENTS_PER_S};

/// Packets a run; long enough that the system call is nothing.
const PACKETS: u32 = 100_000;
/// Runs, of which the fastest counts: whatever else the machine does only adds.
const RUNS: usize = 20;

fn main() {
    let empty = Empty::load();
    let arp = {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame
    };
    print("a program that does nothing", empty.program(), &arp);
    for (events, title) in
        [(EVENTS_PER_S, "told of 1000 times a second"), (u32::MAX, "told of without a cap")]
    {
        for mode in [Mode::Guard, Mode::Deny] {
            println!("mode {}, refusals {title}", mode.number());
            print_all(&mut Spa::load_live(mode, events), &arp);
        }
    }
}

fn print_all(spa: &mut Spa, arp: &[u8]) {
    let now_ns = BOOT + clock::now_ns();
    let request = Request { counter: now_ns, ..spa.request() };
    let right = spa.seal(&request);
    let unknown = Datagram::seal(&request, &SpaKey::new(&[1; 32])).bytes().to_vec();
    let changed = |at: usize| {
        let mut packet = right.clone();
        packet[at] ^= 1;
        packet
    };
    let packets = [
        ("not IP: the least that the program does", arp.to_vec()),
        ("a datagram that concerns no door", frame_to_port(40_000, &right)),
        ("another version", frame(SENDER, &changed(0))),
        ("unknown key", frame(SENDER, &unknown)),
        ("known key, wrong gate", frame(SENDER, &changed(20))),
        ("known key, right gate, wrong code", frame(SENDER, &changed(70))),
    ];
    for (name, frame) in packets {
        print(name, spa.program(), &frame);
    }
    let right = spa.seal(&Request { counter: BOOT + clock::now_ns(), ..request });
    print("right packet", spa.program(), &frame(SENDER, &right));
    println!("  accepted {}, replayed {}", spa.accepted(), spa.refused(Refusal::Replayed));
}

fn print(name: &str, program: &Xdp, frame: &[u8]) {
    let fastest = (0..RUNS).map(|_| ns_a_packet(program, frame, PACKETS)).min_by(f64::total_cmp);
    println!("  {:>7.1} ns  {name}", fastest.expect("some runs"));
}
