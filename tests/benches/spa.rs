//! What a single packet costs in the program, by BPF_PROG_TEST_RUN: ns of this thread's CPU time a packet, harness included,
//! beside a packet that leaves the program at once.
//!
//! `cargo bench -p knock-tests --bench spa`, as root. A right packet is refused as replayed from its second run on: all but
//! the grant is in its figure.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use knock_common::{
    spa::{key::SpaKey, packet::Datagram, verdict::Refusal},
    verdict::Mode,
};
use knock_tests::spa::{SENDER, Spa, frame};
use nix::time::{ClockId, clock_gettime};

/// Packets a run; long enough that the system call is nothing.
const PACKETS: u32 = 300_000;
/// Runs, of which the fastest counts: whatever else the machine does only adds.
const RUNS: usize = 9;

fn main() {
    let mut spa = Spa::load(Mode::Guard, 0);
    let right = spa.seal(&spa.request());
    let unknown = Datagram::seal(&spa.request(), &SpaKey::new(&[1; 32])).bytes().to_vec();
    let changed = |at: usize| {
        let mut packet = right.clone();
        packet[at] ^= 1;
        packet
    };
    let arp = {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame
    };
    let packets = [
        ("not IP: the least that the program does", arp),
        ("a datagram of another length", frame(SENDER, &right[1..])),
        ("unknown key", frame(SENDER, &unknown)),
        ("known key, wrong gate", frame(SENDER, &changed(20))),
        ("known key, right gate, wrong code", frame(SENDER, &changed(70))),
        ("right packet", frame(SENDER, &right)),
    ];
    for (name, frame) in packets {
        let fastest = (0..RUNS).map(|_| ns_a_packet(spa.program(), &frame)).min_by(f64::total_cmp);
        println!("  {:>7.1} ns  {name}", fastest.expect("some runs"));
    }
    println!("  accepted {}, replayed {}", spa.accepted(), spa.refused(Refusal::Replayed));
}

fn ns_a_packet(program: &Xdp, frame: &[u8]) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat: PACKETS, ..TestRunOptions::default() };
    let began = cpu_time();
    program.test_run(options).expect("a test run");
    (cpu_time() - began).as_secs_f64() * 1e9 / f64::from(PACKETS)
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of every thread").into()
}
