//! The clocks: the kernel's, by which grants end, and the wall clock, by which people and files tell the time.

use std::fs;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use super::Finding;
use crate::{clock, report::text::span};

/// A wall clock before this was never set: 2025-01-01.
const PLAUSIBLE_FROM_S: i64 = 1_735_689_600;

/// Looks at the clocks.
pub fn look() -> Vec<Finding> {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    vec![wall(Timestamp::now()), synchronised(clock::is_synchronised()), asleep(), own_time(&offsets)]
}

fn wall(now: Timestamp) -> Finding {
    if now.as_second() < PLAUSIBLE_FROM_S {
        let what = format!("the wall clock says {now}: events and kept grants would get wrong times");
        return Finding::fail("clock", what, "set it: timedatectl set-ntp true");
    }
    Finding::ok("clock", format!("the wall clock says {}", now.strftime("%Y-%m-%d %H:%M:%S UTC")))
}

fn synchronised(is_synchronised: Option<bool>) -> Finding {
    match is_synchronised {
        Some(true) => Finding::ok("clock", "the wall clock is kept in step"),
        Some(false) => Finding::warn(
            "clock",
            "nothing keeps the wall clock in step: no grant depends on it, but times in events may be off",
            "timedatectl set-ntp true",
        ),
        None => Finding::unseen(
            "clock",
            "the kernel does not tell whether the wall clock is kept in step",
            "timedatectl",
        ),
    }
}

fn asleep() -> Finding {
    let since_boot = |clock| clock_gettime(clock).map(std::time::Duration::from).unwrap_or_default();
    let awake = since_boot(ClockId::CLOCK_MONOTONIC);
    let asleep = since_boot(ClockId::CLOCK_BOOTTIME).saturating_sub(awake);
    if asleep.as_secs() == 0 {
        return Finding::ok("clock", "the machine has not slept since it started");
    }
    Finding::ok(
        "clock",
        format!("the machine has slept for {} since it started: grants count that time", span(asleep)),
    )
}

/// The kernel's program goes by the machine's clock, and this process, in a time namespace (`time_namespaces(7)`), by
/// another.
fn own_time(offsets: &str) -> Finding {
    let is_moved = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("boottime") && words.any(|word| word != "0")
    };
    if offsets.lines().any(is_moved) {
        return Finding::fail(
            "clock",
            "this is a time namespace with a boot time of its own: grants by hand would end at the wrong time",
            "run xdp-knock outside of it",
        );
    }
    Finding::ok("clock", "it is the clock that the kernel's program goes by")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::Level;

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!(wall(Timestamp::UNIX_EPOCH).level, Level::Fail);
        assert_eq!(wall(Timestamp::from_second(PLAUSIBLE_FROM_S).expect("a time")).level, Level::Ok);
    }

    #[test]
    fn a_boot_time_of_its_own_fails() {
        for (offsets, level) in [
            ("monotonic           0         0\nboottime            0         0\n", Level::Ok),
            ("monotonic         100         0\nboottime            0         0\n", Level::Ok),
            ("monotonic           0         0\nboottime        86400         0\n", Level::Fail),
            ("", Level::Ok),
        ] {
            assert_eq!(own_time(offsets).level, level, "{offsets}");
        }
    }
}
