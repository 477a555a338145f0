//! The program loads on this kernel, in time, and its size is printed.

use std::time::Duration;

use knock_user::{
    config::Config,
    generation::{DEFAULT_EPHEMERAL, Generation},
    loader::{Gate, Options},
};
use nix::time::{ClockId, clock_gettime};

/// What the verifier may go through with every list in use: far from its limit of a million.
const VERIFIED_BUDGET: u32 = 250_000;

const CONFIG: &str = r#"
[xdp]
mode = "guard"
allow = ["192.0.2.0/24"]
[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172", "tcp/5124"]
from = ["0.0.0.0/0"]
to = ["10.0.0.0/8"]
"#;

#[test]
fn the_program_loads_in_under_a_second() {
    let (config, _) = Config::parse("test", CONFIG).expect("a good configuration");
    let generation = Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).expect("compiles");
    for options in [Options::default(), Options { trace: true, ..Options::default() }] {
        let mut gate = Gate::load(&generation, &options).unwrap_or_else(|error| panic!("{error:?}"));
        let took = (0..3).map(|_| time_of_load(&generation, &options)).min().expect("three loads");
        let info = gate.program().expect("the program").info().expect("program info");
        let verified = info.verified_instruction_count().expect("kernel 5.16 and later tells");
        println!(
            "{options:?}: loads in {took:?} of CPU time, {verified} verified instructions, {} bytes jited",
            info.size_jitted()
        );
        assert!(took < Duration::from_secs(1), "loading took {took:?}");
        assert!(
            verified < VERIFIED_BUDGET,
            "{verified} verified instructions: name the reason and raise the budget"
        );
    }
}

/// Returns what a load costs this thread, kernel included: other tests share the machine, so the wall clock says little.
fn time_of_load(generation: &Generation, options: &Options<'_>) -> Duration {
    let started = cpu_time();
    let gate = Gate::load(generation, options);
    let took = cpu_time() - started;
    gate.unwrap_or_else(|error| panic!("{error:?}"));
    took
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of every thread").into()
}
