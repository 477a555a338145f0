//! Confirm or go back, in the kernel: who judges before the deadline, after it, and once a generation is confirmed.

use knock_common::{counter::Counter, verdict::Action};
use knock_tests::{
    kernel::{Kernel, compile, syn},
    packet::{IPV4, STRANGER, ethernet},
};
use knock_user::{generation::Generation, loader::Options};
use nix::net::if_::if_nametoindex;

const DEADLINE_NS: u64 = 1_000_000_000_000;
/// What the previous generation hides, and what the new one does.
const OLD: u16 = 8443;
const NEW: u16 = 22;

fn hiding(port: u16) -> Generation {
    compile(&format!(
        "[xdp]\nmode = \"guard\"\n[[door]]\nname = \"d\"\nopens = [\"tcp/{port}\"]\n\
         knock = [\"tcp/7101\", \"udp/9032\", \"tcp/1200\", \"udp/5124\"]\n"
    ))
}

/// The new program, to be confirmed by [`DEADLINE_NS`].
fn unconfirmed() -> Kernel {
    let options = Options { test_clock: true, confirm_by_ns: Some(DEADLINE_NS), ..Options::default() };
    Kernel::load_with(&hiding(NEW), &options)
}

/// The interface that a test run's packets come in on.
fn interface() -> u32 {
    if_nametoindex("lo").expect("a loopback")
}

/// What becomes of a stranger's SYN to the ports that the previous and the new generation hide, at an instant.
fn judged_at(kernel: &mut Kernel, now_ns: u64) -> [Action; 2] {
    kernel.maps.set_now_ns(now_ns);
    [OLD, NEW].map(|port| kernel.run(&syn(STRANGER, port)))
}

const BY_NEW: [Action; 2] = [Action::Pass, Action::Drop];
const BY_OLD: [Action; 2] = [Action::Drop, Action::Pass];
const BY_NONE: [Action; 2] = [Action::Pass, Action::Pass];

#[test]
fn the_previous_program_judges_again_from_the_nanosecond_after_the_deadline() {
    let (mut old, mut new) = (Kernel::load(&hiding(OLD)), unconfirmed());
    new.set_previous(interface(), &mut old);

    assert_eq!(judged_at(&mut new, DEADLINE_NS), BY_NEW);
    assert_eq!(new.maps.count(Counter::RolledBack), 0);
    assert_eq!(old.maps.count(Counter::Hidden), 0);

    assert_eq!(judged_at(&mut new, DEADLINE_NS + 1), BY_OLD);
    assert_eq!(new.maps.count(Counter::RolledBack), 2);
    assert_eq!(old.maps.count(Counter::Hidden), 1);
    assert_eq!(new.maps.count(Counter::Hidden), 1, "of the packet before the deadline");
}

#[test]
fn where_nothing_was_before_everything_passes_after_the_deadline() {
    let (mut other, mut new) = (Kernel::load(&hiding(OLD)), unconfirmed());
    // What was on another interface is of no account.
    new.set_previous(interface() + 1, &mut other);
    let malformed = ethernet(IPV4, &[0x45]);

    assert_eq!(judged_at(&mut new, DEADLINE_NS), BY_NEW);
    assert_eq!(new.run(&malformed), Action::Drop);
    assert_eq!(judged_at(&mut new, DEADLINE_NS + 1), BY_NONE);
    assert_eq!(new.run(&malformed), Action::Pass);
    assert_eq!(new.maps.count(Counter::RolledBack), 3);
}

#[test]
fn a_generation_that_was_confirmed_judges_for_good() {
    let (mut old, mut new) = (Kernel::load(&hiding(OLD)), unconfirmed());
    new.set_previous(interface(), &mut old);

    new.maps.set_confirm(0);

    assert_eq!(judged_at(&mut new, DEADLINE_NS + 1), BY_NEW);
    assert_eq!(judged_at(&mut new, u64::MAX), BY_NEW);
    assert_eq!(new.maps.count(Counter::RolledBack), 0);
}

#[test]
fn a_generation_that_need_not_be_confirmed_has_no_deadline() {
    let (mut old, mut new) = (Kernel::load(&hiding(OLD)), Kernel::load(&hiding(NEW)));
    new.set_previous(interface(), &mut old);

    new.maps.set_confirm(DEADLINE_NS);

    assert_eq!(judged_at(&mut new, u64::MAX), BY_NEW);
}

#[test]
fn two_generations_neither_of_which_was_confirmed_fall_back_to_what_was_before_both() {
    let (mut oldest, mut old) = (Kernel::load(&hiding(OLD)), unconfirmed());
    let mut new = unconfirmed();
    old.set_previous(interface(), &mut oldest);
    new.set_previous(interface(), &mut old);
    old.maps.set_now_ns(DEADLINE_NS + 1);

    assert_eq!(judged_at(&mut new, DEADLINE_NS), BY_NEW);
    assert_eq!(judged_at(&mut new, DEADLINE_NS + 1), BY_OLD);
}
