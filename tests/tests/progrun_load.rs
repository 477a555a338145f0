//! The program loads on this kernel, in time, and its size is printed.

use std::time::Instant;

use knock_user::{
    config::Config,
    generation::{DEFAULT_EPHEMERAL, Generation},
    loader::{Gate, Options},
};

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
        let started = Instant::now();
        let mut gate = Gate::load(&generation, options).unwrap_or_else(|error| panic!("{error:?}"));
        let took = started.elapsed();
        let program = gate.program().expect("the program");
        let info = program.info().expect("program info");
        println!(
            "{options:?}: loaded in {took:?}, {:?} verified instructions, {:?} bytes translated, {} jited",
            info.verified_instruction_count(),
            info.size_translated(),
            info.size_jitted()
        );
        assert!(took.as_secs() < 1, "loading took {took:?}");
    }
}
