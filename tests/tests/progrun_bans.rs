//! Bans: a banned source knocks in vain, and nothing else changes for it or for anybody.

use knock_common::{
    abi::{Ban, mapped},
    counter::Counter,
    verdict::Action,
};
use knock_tests::kernel::{Kernel, compile, syn};
use knock_user::wire::Wire;

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

const BANNED: [u8; 4] = [198, 51, 100, 1];
const FREE: [u8; 4] = [198, 51, 100, 2];

fn kernel() -> Kernel {
    let mut kernel = Kernel::load(&compile(CONFIG));
    kernel.maps.set_now_ns(START_NS);
    kernel
}

fn ban(kernel: &mut Kernel, source: [u8; 4], until_ns: u64) {
    let ban = Ban { until_ns, since_ns: START_NS };
    kernel.maps.bans.insert(Wire(mapped(source)), Wire(ban), 0).expect("room");
    kernel.maps.use_bans(true);
}

/// Sends the right sequence, which passes on like any packet to a closed port; returns what becomes of a SYN to the hidden
/// port then.
fn knock(kernel: &mut Kernel, source: [u8; 4]) -> Action {
    for step in STEPS {
        assert_eq!(kernel.run(&syn(source, step)), Action::Pass, "a step of {source:?}");
    }
    kernel.run(&syn(source, HIDDEN))
}

#[test]
fn a_banned_source_knocks_in_vain_until_its_ban_is_over() {
    let mut kernel = kernel();
    let until_ns = START_NS + 5_000;
    ban(&mut kernel, BANNED, until_ns);

    assert_eq!(knock(&mut kernel, BANNED), Action::Drop);
    // Four steps, and the SYN to the hidden port, which is a wrong knock.
    assert_eq!(kernel.maps.count(Counter::KnockBanned), 5);
    assert_eq!(kernel.maps.take_events().len(), 0);
    assert_eq!(knock(&mut kernel, FREE), Action::Pass, "the ban is not of this source");

    kernel.maps.set_now_ns(until_ns);
    assert_eq!(knock(&mut kernel, BANNED), Action::Drop, "the last instant of the ban");
    assert!(!kernel.maps.attempts().iter().any(|records| records.contains_key(&mapped(BANNED))));

    kernel.maps.set_now_ns(until_ns + 1);
    assert_eq!(knock(&mut kernel, BANNED), Action::Pass, "the ban is over");
    assert_eq!(kernel.maps.count(Counter::KnockBanned), 10);
    assert_eq!(kernel.maps.count(Counter::Promoted), 2);
}

#[test]
fn a_ban_takes_no_grant_away_and_gives_none() {
    let mut kernel = kernel();
    assert_eq!(knock(&mut kernel, BANNED), Action::Pass);

    ban(&mut kernel, BANNED, u64::MAX);
    ban(&mut kernel, FREE, u64::MAX);

    assert_eq!(kernel.run(&syn(BANNED, HIDDEN)), Action::Pass, "granted before it was banned");
    assert_eq!(kernel.run(&syn(FREE, HIDDEN)), Action::Drop, "never granted");
}

#[test]
fn bans_are_not_asked_for_unless_the_word_says_that_there_are_some() {
    let mut kernel = kernel();
    ban(&mut kernel, BANNED, u64::MAX);
    assert_eq!(knock(&mut kernel, BANNED), Action::Drop);

    kernel.maps.use_bans(false);

    assert_eq!(knock(&mut kernel, BANNED), Action::Pass);
}
