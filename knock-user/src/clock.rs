//! Kernel time for people: the boot-time clock on one side, the wall clock on the other.

use std::time::Duration;

use jiff::Timestamp;
use knock_common::spa::abi::WallClock;
use nix::time::{ClockId, clock_gettime};

/// Returns the time of the kernel program's clock (`CLOCK_BOOTTIME`), in nanoseconds since boot.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// One instant, read on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// On the kernel program's clock, in nanoseconds since boot.
    pub ns: u64,
    /// On the wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// Returns the present one.
    #[must_use]
    pub fn now() -> Self {
        Self { ns: now_ns(), wall: Timestamp::now() }
    }

    /// Returns the wall-clock time of an instant of the kernel's clock: for display only, since wall clocks jump.
    #[must_use]
    pub fn wall_of(self, instant_ns: u64) -> Timestamp {
        let moved = if instant_ns >= self.ns {
            self.wall.checked_add(Duration::from_nanos(instant_ns - self.ns))
        } else {
            self.wall.checked_sub(Duration::from_nanos(self.ns - instant_ns))
        };
        moved.unwrap_or(Timestamp::MAX)
    }

    /// Returns the wall-clock time of an end on the kernel's clock; `None` where there is none, or for what lasts until it
    /// is taken back.
    #[must_use]
    pub fn end(self, until_ns: u64) -> Option<Timestamp> {
        (until_ns != 0 && until_ns != u64::MAX).then(|| self.wall_of(until_ns))
    }

    /// Returns the seconds until an end on the kernel's clock, to the millisecond; `None` as in [`Self::end`].
    #[must_use]
    pub fn left_s(self, until_ns: u64) -> Option<f64> {
        self.end(until_ns)?;
        let left_ms = (i128::from(until_ns) - i128::from(self.ns)) / 1_000_000;
        Some(left_ms as f64 / 1000.0)
    }
}

/// Returns what the kernel is to know of wall time from now on; `before` is what it knew.
#[must_use]
pub fn seen(before: WallClock) -> WallClock {
    let Moment { ns, wall } = Moment::now();
    let unix_ns = u64::try_from(wall.as_nanosecond()).unwrap_or(0);
    WallClock { offset_ns: unix_ns.wrapping_sub(ns), seen_ns: ns, ..before }
}

/// Returns the same for a kernel that is told for the first time, whose floors tell of what is made later than a time from
/// now.
#[must_use]
pub fn begun(gap: Duration) -> WallClock {
    seen(WallClock { offset_ns: 0, seen_ns: 0, since_ns: after_ns(gap) })
}

/// Returns the Unix time in nanoseconds.
#[must_use]
pub fn unix_ns() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// Returns the wall-clock time of an instant of the kernel's clock, as [`Moment::wall_of`] does.
#[must_use]
pub fn wall(instant_ns: u64) -> Timestamp {
    Moment::now().wall_of(instant_ns)
}

/// Returns the wall-clock time of an end on the kernel's clock, as [`Moment::end`] does.
#[must_use]
pub fn wall_end(until_ns: u64) -> Option<Timestamp> {
    Moment::now().end(until_ns)
}

/// Returns the instant of the kernel's clock that comes after a time from now.
#[must_use]
pub fn after_ns(time: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns the instant of the kernel's clock at a wall-clock time; 0 for one before the machine started.
#[must_use]
pub fn instant_ns(wall: Timestamp) -> u64 {
    let ahead = wall.as_nanosecond() - Timestamp::now().as_nanosecond();
    u64::try_from(i128::from(now_ns()) + ahead).unwrap_or(0)
}

/// Returns whether something keeps the wall clock in step; `None` where the kernel does not tell.
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: plain numbers, for which zero is a value; with `modes` 0 the call below only reads.
    let mut facts: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the struct, which lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut facts) };
    (state >= 0).then_some(state != libc::TIME_ERROR && facts.status & libc::STA_UNSYNC == 0)
}
