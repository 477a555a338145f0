//! What a packet costs, in CPU time of the thread that runs it: other work on the machine counts least there.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_gettime};

/// Returns the nanoseconds that a packet costs, over so many in one run.
pub fn ns_a_packet(program: &Xdp, frame: &[u8], packets: u32) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat: packets, ..TestRunOptions::default() };
    let began = cpu_time();
    program.test_run(options).expect("a test run");
    (cpu_time() - began).as_secs_f64() * 1e9 / f64::from(packets)
}

/// Returns the CPU time of this thread, the kernel's part included.
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of every thread").into()
}
