//! The programs load on this kernel, in time, and their sizes are printed.

use std::{collections::BTreeSet, time::Duration};

use aya::maps::MapInfo;
use knock_common::{
    abi::{List, Settings},
    names,
};
use knock_tests::{cost::cpu_time, kernel::compile};
use knock_user::{
    generation::Generation,
    loader::{Gate, Options},
};

/// What the verifier may go through with every list in use: far from its limit of a million.
const VERIFIED_BUDGET: u32 = 250_000;
/// What single packets add: the rounds of two blocks of SHA-256, and those of SipHash.
const SPA_BUDGET: u32 = 40_000;
/// What sequences that change add: a door's page may not be there.
const PAGES_BUDGET: u32 = 25_000;

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

/// Everything that deny mode asks for: lists, doors that keep, one to everything, and one to a port that is not everywhere.
const DENY: &str = r#"
[xdp]
mode = "deny"
allow = ["192.0.2.0/24"]
public = ["tcp/443", "udp/53", "icmp/echo", "proto/47"]
[[door]]
name = "ssh"
opens = ["tcp/22", "udp/51820"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172", "tcp/5124"]
from = ["0.0.0.0/0"]
to = ["10.0.0.0/8"]
[[door]]
name = "all"
opens = ["any"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=173", "tcp/5124"]
"#;

#[test]
fn the_programs_load_in_under_a_second() {
    let deny = compile(DENY);
    let asked = |trace, confirm_by_ns| Options { trace, confirm_by_ns, ..Options::default() };
    let plain = asked(false, None);
    for generation in [&compile(CONFIG), &deny, &closed(&compile(CONFIG)), &closed(&deny)] {
        assert_loads(generation, &plain, names::PROGRAM);
    }
    for program in [names::TC_PROGRAM, names::TC_PROGRAM_IP, names::EGRESS, names::EGRESS_IP] {
        for generation in [&compile(CONFIG), &deny] {
            assert_loads(generation, &plain, program);
        }
    }
    for program in [names::PROGRAM, names::TC_PROGRAM] {
        for flags in [Settings::SPA, Settings::PAGES, Settings::SPA | Settings::PAGES] {
            assert_loads(&with(&closed(&deny), flags), &plain, program);
        }
    }
    for options in [asked(true, None), asked(false, Some(1))] {
        for program in [names::PROGRAM, names::TC_PROGRAM, names::EGRESS] {
            assert_loads(&deny, &options, program);
        }
    }
}

fn closed(generation: &Generation) -> Generation {
    let mut closed = generation.clone();
    closed.settings.flags |= Settings::CLOSED | Settings::LABELS;
    closed
}

fn with(generation: &Generation, flags: u8) -> Generation {
    let mut with = generation.clone();
    with.settings.flags |= flags;
    if flags & Settings::SPA != 0 {
        with.settings.lists |= List::Key.bit();
    }
    with
}

fn assert_loads(generation: &Generation, options: &Options<'_>, program: &'static str) {
    let options = Options { programs: BTreeSet::from([program]), ..options.clone() };
    let took = (0..3).map(|_| time_of_load(generation, &options)).min().expect("three loads");
    let gate = Gate::load(generation, &options).unwrap_or_else(|error| panic!("{error:?}"));
    let info = gate.ebpf.program(program).expect("the program").info().expect("program info");
    let verified = info.verified_instruction_count().expect("kernel 5.16 and later tells");
    let Settings { mode, flags, .. } = generation.settings;
    println!(
        "{program}, mode {mode}, flags {flags:#x}, trace {}, confirm {}: loads in {took:?} of CPU time, {verified} verified instructions, {} bytes jited",
        options.trace,
        options.confirm_by_ns.is_some(),
        info.size_jitted()
    );
    assert!(took < Duration::from_secs(1), "loading took {took:?}");
    let more = [(Settings::SPA, SPA_BUDGET), (Settings::PAGES, PAGES_BUDGET)];
    let budget = more
        .into_iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(VERIFIED_BUDGET, |all, (_, one)| all + one);
    assert!(verified < budget, "{verified} verified instructions: name the reason and raise the budget");
}

/// The maps that user space may look for by way of the program.
const FOUND: [&str; 19] = [
    names::ANSWERS,
    names::LINKS,
    names::DOORS,
    names::PORT_DOORS,
    names::PREFIXES,
    names::FIRST_ATTEMPTS,
    names::LATER_ATTEMPTS,
    names::GRANTS,
    names::BANS,
    names::BANS_IN_USE,
    names::SESSIONS,
    names::REPLIES,
    names::BUDGETS,
    names::COUNTERS,
    names::EVENTS,
    names::TEST_CLOCK,
    names::ABOUT,
    names::CONFIRM,
    names::PREVIOUS,
];

#[test]
fn the_kernel_lists_every_map_for_the_program_also_those_that_a_generation_never_asks() {
    for (config, confirm_by_ns) in [(CONFIG, None), (CONFIG, Some(1)), (DENY, None)] {
        let options = Options { confirm_by_ns, ..Options::default() };
        let mut gate = Gate::load(&compile(config), &options).unwrap_or_else(|error| panic!("{error:?}"));
        let info = gate.program().expect("the program").info().expect("program info");
        let ids = info.map_ids().expect("readable").expect("kernel 4.15 and later tells");
        let maps = ids.into_iter().map(|id| MapInfo::from_id(id).expect("a map of the program"));
        let listed: BTreeSet<String> =
            maps.map(|map| map.name_as_str().expect("a name in ASCII").to_owned()).collect();

        let missing: Vec<_> = FOUND.into_iter().filter(|name| !listed.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?} are not among {listed:?}");
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
