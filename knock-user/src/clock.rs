//! Kernel time for people: the boot-time clock on one side, the wall clock on the other.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Returns the time of the kernel program's clock (`CLOCK_BOOTTIME`), in nanoseconds since boot.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the wall-clock time of an instant of the kernel's clock: for display only, since wall clocks jump.
#[must_use]
pub fn wall(instant_ns: u64) -> Timestamp {
    let (now, now_ns) = (Timestamp::now(), now_ns());
    let moved = if instant_ns >= now_ns {
        now.checked_add(Duration::from_nanos(instant_ns - now_ns))
    } else {
        now.checked_sub(Duration::from_nanos(now_ns - instant_ns))
    };
    moved.unwrap_or(Timestamp::MAX)
}

/// Returns the wall-clock time of an end on the kernel's clock; `None` where there is none, or for what lasts until it is
/// taken back.
#[must_use]
pub fn wall_end(until_ns: u64) -> Option<Timestamp> {
    (until_ns != 0 && until_ns != u64::MAX).then(|| wall(until_ns))
}

/// Returns the instant of the kernel's clock that comes after a time from now.
#[must_use]
pub fn after_ns(time: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
