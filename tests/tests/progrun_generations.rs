//! Two generations that share their state: rights follow their door by its name, whatever its number is.

use knock_common::{
    abi::{Ban, mapped},
    counter::Counter,
    door::door_id,
    event::Kind,
    verdict::Action,
};
use knock_tests::{
    bpffs::BpfFs,
    kernel::{Kernel, compile, syn},
    packet::STRANGER,
};
use knock_user::{loader::Options, wire::Wire};

const NOW_NS: u64 = 1_000_000_000_000;
const HOLDER: [u8; 4] = [198, 51, 100, 1];

/// A door: its name, the port it opens, its steps.
type Door = (&'static str, u16, [u16; 4]);

const SSH: Door = ("ssh", 22, [7101, 9032, 1200, 5124]);
const WEB: Door = ("web", 8443, [6201, 4932, 3300, 8124]);
const VPN: Door = ("vpn", 1194, [2711, 7032, 6611, 4124]);

/// Loads a generation of these doors, in this order, on the state of a file system.
fn load(state: &BpfFs, number: u32, doors: &[Door]) -> Kernel {
    let doors = doors.iter().map(|(name, opens, steps)| {
        let knock = steps.map(|step| format!("\"tcp/{step}\"")).join(", ");
        format!("[[door]]\nname = \"{name}\"\nopens = [\"tcp/{opens}\"]\nknock = [{knock}]\n")
    });
    let mut generation = compile(&format!("[xdp]\nmode = \"guard\"\n{}", doors.collect::<String>()));
    generation.settings.generation = number;
    let options = Options { test_clock: true, state: Some(state.path()), ..Options::default() };
    let mut kernel = Kernel::load_with(&generation, &options);
    kernel.maps.set_now_ns(NOW_NS);
    kernel
}

fn knock(kernel: &mut Kernel, source: [u8; 4], steps: &[u16]) {
    for step in steps {
        assert_eq!(kernel.run(&syn(source, *step)), Action::Pass, "step {step}");
    }
}

fn visit(kernel: &mut Kernel, source: [u8; 4], door: &Door) -> Action {
    kernel.run(&syn(source, door.1))
}

#[test]
fn a_grant_follows_its_door_by_name_and_opens_none_that_has_its_number() {
    let state = BpfFs::new();
    let mut first = load(&state, 1, &[SSH, VPN]);
    knock(&mut first, HOLDER, &SSH.2);
    assert_eq!(visit(&mut first, HOLDER, &SSH), Action::Pass);

    let mut second = load(&state, 2, &[WEB, SSH]);

    assert_eq!(visit(&mut second, HOLDER, &SSH), Action::Pass, "the same door, now number 1");
    assert_eq!(visit(&mut second, HOLDER, &WEB), Action::Drop, "another door, now number 0");
    assert_eq!(visit(&mut second, STRANGER, &SSH), Action::Drop);
    drop(first);
    assert_eq!(visit(&mut second, HOLDER, &SSH), Action::Pass, "the first generation is gone");
}

#[test]
fn a_door_that_was_renamed_opens_to_nobody_until_it_has_its_name_again() {
    let state = BpfFs::new();
    let mut first = load(&state, 1, &[SSH]);
    knock(&mut first, HOLDER, &SSH.2);
    let renamed = ("admin", SSH.1, SSH.2);

    let mut second = load(&state, 2, &[renamed]);
    assert_eq!(visit(&mut second, HOLDER, &renamed), Action::Drop);

    let mut third = load(&state, 3, &[SSH]);
    assert_eq!(visit(&mut third, HOLDER, &SSH), Action::Pass);
}

#[test]
fn an_attempt_does_not_outlive_its_generation() {
    let state = BpfFs::new();
    let (mut first, mut second) = (load(&state, 1, &[SSH]), load(&state, 2, &[SSH]));
    let (before, last) = SSH.2.split_at(3);
    knock(&mut first, HOLDER, before);

    knock(&mut second, HOLDER, last);
    assert_eq!(visit(&mut second, HOLDER, &SSH), Action::Drop);

    knock(&mut second, HOLDER, &SSH.2);
    assert_eq!(visit(&mut second, HOLDER, &SSH), Action::Pass);
}

#[test]
fn bans_counters_and_events_are_of_all_generations() {
    let state = BpfFs::new();
    let (mut first, mut second) = (load(&state, 1, &[VPN, SSH]), load(&state, 2, &[SSH]));
    let ban = Ban { until_ns: u64::MAX, since_ns: NOW_NS };
    first.maps.bans.insert(Wire(mapped(STRANGER)), Wire(ban), 0).expect("room");
    first.maps.use_bans(true);

    knock(&mut second, STRANGER, &SSH.2);
    knock(&mut second, HOLDER, &SSH.2);

    assert_eq!(visit(&mut second, STRANGER, &SSH), Action::Drop);
    assert_eq!(first.maps.count(Counter::KnockBanned), 5);
    assert_eq!(first.maps.count(Counter::Promoted), 1);
    let events = first.maps.take_events();
    let promoted = events.last().expect("an event");
    assert_eq!((promoted.kind, promoted.generation), (Kind::Promoted as u8, 2));
    assert_eq!(promoted.door, door_id(b"ssh"));
}
