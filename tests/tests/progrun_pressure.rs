//! Full tables: a flood costs strangers a retry, never a right that was earned, and never opens anything.

use knock_common::{
    abi::{FIRST_ATTEMPTS_ENTRIES, GRANTS_ENTRIES, Grant, GrantKey, mapped},
    counter::Counter,
    door::door_id,
    event::Kind,
    verdict::Action,
};
use knock_tests::kernel::{Kernel, compile, syn};
use knock_user::{generation::Generation, wire::Wire};

const START_NS: u64 = 1_000_000_000_000;
const STEPS: [u16; 4] = [7101, 9032, 1200, 5124];
const HIDDEN: u16 = 22;
const CONFIG: &str = r#"
[xdp]
mode = "guard"
[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/7101", "tcp/9032", "tcp/1200", "tcp/5124"]
"#;

/// The program for [`CONFIG`] with no limit on new attempts, so that nothing but the maps holds a flood back.
fn kernel() -> Kernel {
    let mut generation: Generation = compile(CONFIG);
    generation.doors[0].new_attempts = u32::MAX;
    let mut kernel = Kernel::load(&generation);
    kernel.maps.set_now_ns(START_NS);
    kernel
}

fn knock(kernel: &mut Kernel, source: [u8; 4], steps: &[u16]) {
    for step in steps {
        assert_eq!(kernel.run(&syn(source, *step)), Action::Pass);
    }
}

#[test]
fn attempts_past_their_first_step_survive_a_flood_of_first_knocks_and_their_copies() {
    let mut kernel = kernel();
    let flood = u32::try_from(4 * FIRST_ATTEMPTS_ENTRIES).expect("32 bits");
    let early = [198, 51, 100, 1];
    let (going, late) = ([198, 51, 100, 2], [198, 51, 100, 3]);
    knock(&mut kernel, early, &STEPS[..1]);
    knock(&mut kernel, going, &STEPS[..2]);
    knock(&mut kernel, late, &STEPS[..3]);

    for number in 0..flood {
        let [_, b, c, d] = number.to_be_bytes();
        // Twice, as a retransmitting client does: a record that is looked up again would outlive one-shot ones in the
        // same map without being worth more.
        knock(&mut kernel, [10 + b, c, d, 1], &[STEPS[0], STEPS[0]]);
    }
    let is_early_kept = kernel.maps.first.get(&Wire(mapped(early)), 0).is_ok();
    knock(&mut kernel, going, &STEPS[2..]);
    knock(&mut kernel, late, &STEPS[3..]);

    println!(
        "after {flood} first knocks of other sources, each sent twice, the idle first step is kept: {is_early_kept}"
    );
    assert_eq!(kernel.maps.count(Counter::AttemptStarted), u64::from(flood) + 3);
    assert_eq!(kernel.maps.count(Counter::AttemptNotStored), 0);
    assert_eq!(kernel.maps.count(Counter::Promoted), 2);
    for source in [going, late] {
        assert_eq!(kernel.run(&syn(source, HIDDEN)), Action::Pass, "{source:?} lost its attempt");
    }
    assert_eq!(kernel.run(&syn(early, HIDDEN)), Action::Drop);
}

#[test]
fn a_full_table_of_grants_refuses_the_next_and_keeps_the_others() {
    let mut kernel = kernel();
    let until_ns = START_NS + 1_000_000_000;
    let grant = Grant { until_ns, since_ns: START_NS, via: 1, generation: 1 };
    for number in 0..u32::try_from(GRANTS_ENTRIES).expect("32 bits") {
        let [_, b, c, d] = number.to_be_bytes();
        let key = GrantKey { source: mapped([10 + b, c, d, 1]), door: door_id(b"ssh") };
        kernel.maps.grants.insert(Wire(key), Wire(grant), 0).expect("room for all that the map promises");
    }
    let before = kernel.maps.all_grants();
    let (stranger, holder) = ([198, 51, 100, 1], [10, 0, 7, 1]);
    kernel.maps.take_events();

    knock(&mut kernel, stranger, &STEPS);

    let last = *kernel.maps.take_events().last().expect("an event");
    assert_eq!((last.kind, last.source, last.until_ns), (Kind::TableFull as u8, mapped(stranger), 0));
    assert_eq!(kernel.maps.count(Counter::GrantTableFull), 1);
    assert_eq!(kernel.run(&syn(stranger, HIDDEN)), Action::Drop);
    assert_eq!(kernel.run(&syn(holder, HIDDEN)), Action::Pass);
    assert!(kernel.maps.all_grants() == before, "a refused promotion changed the grants");

    knock(&mut kernel, holder, &STEPS);

    let last = *kernel.maps.take_events().last().expect("an event");
    assert_eq!((last.kind, last.source), (Kind::Promoted as u8, mapped(holder)));
    assert_eq!(kernel.maps.count(Counter::GrantRefreshed), 1, "who holds a grant needs no room");
    assert_eq!(kernel.maps.all_grants().len(), GRANTS_ENTRIES);
}
