//! What a packet costs in the program, by BPF_PROG_TEST_RUN: ns of this thread's CPU time a packet, harness included.
//!
//! `cargo bench -p knock-tests --bench program`, as root. The program before a change and after it are to be measured in
//! turns, since other work on the machine moves all figures alike.

use knock_common::abi::{Ban, mapped};
use knock_tests::{
    cost::ns_a_packet,
    kernel::{Kernel, compile, syn},
    packet::{ACK, TCP, V4, tcp},
    pages::config,
};
use knock_user::{loader::Options, wire::Wire};

/// Packets a run; long enough that the system call is nothing.
const PACKETS: u32 = 1_000_000;
/// Runs, of which the fastest counts: whatever else the machine does only adds.
const RUNS: usize = 9;

const CONFIG: &str = r#"
[xdp]
mode = "guard"
public = ["tcp/80"]
[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/7101", "tcp/9032", "tcp/1200", "tcp/5124"]
open_for = "1h"
"#;
const STEPS: [u16; 4] = [7101, 9032, 1200, 5124];

const STRANGER: [u8; 4] = [198, 51, 100, 1];
const HOLDER: [u8; 4] = [198, 51, 100, 2];
const BEGINNER: [u8; 4] = [198, 51, 100, 3];

fn main() {
    let mut plain = Kernel::load_live(&compile(CONFIG));
    print("as it is", &mut plain);

    let awaited = Options { confirm_by_ns: Some(u64::MAX), ..Options::default() };
    print("awaiting its confirmation", &mut Kernel::load_with(&compile(CONFIG), &awaited));

    let ban = Ban { until_ns: u64::MAX, since_ns: 0 };
    plain.maps.bans.insert(Wire(mapped([10, 0, 0, 1])), Wire(ban), 0).expect("room");
    plain.maps.use_bans(true);
    print("with a ban of somebody else", &mut plain);

    let folder = tempfile::tempdir().expect("a folder");
    // Both sequences in one: the steps of the first door lie outside the ports of the second.
    let rotating = format!("{CONFIG}{}", config(folder.path(), "").replace("[xdp]\nmode = \"guard\"\n", ""));
    print("with a door whose sequence rotates", &mut Kernel::load_live(&compile(&rotating)));
}

fn print(title: &str, kernel: &mut Kernel) {
    for step in STEPS {
        kernel.run(&syn(HOLDER, step));
    }
    kernel.run(&syn(BEGINNER, STEPS[0]));
    let visit = |source, port| V4 { source, ..V4::new(TCP) }.frame(&tcp(port, ACK));
    let packets = [
        ("unrelated: an ACK to tcp/80", visit(STRANGER, 80)),
        ("hidden: an ACK to tcp/22, no grant", visit(STRANGER, 22)),
        ("granted: an ACK to tcp/22", visit(HOLDER, 22)),
        ("wrong knock: a SYN to tcp/4444, no attempt", syn(STRANGER, 4444)),
        ("hidden and wrong: a SYN to tcp/22, no grant", syn(STRANGER, 22)),
        ("a SYN to tcp/25000, which a rotating sequence may begin with", syn(STRANGER, 25_000)),
        ("copy of an accepted first step", syn(BEGINNER, STEPS[0])),
    ];
    println!("{title}");
    let (program, _) = kernel.parts();
    for (name, frame) in packets {
        let fastest = (0..RUNS).map(|_| ns_a_packet(program, &frame, PACKETS)).min_by(f64::total_cmp);
        println!("  {:>7.1} ns  {name}", fastest.expect("some runs"));
    }
}
