//! The one clock: nanoseconds since boot, suspend included, so that no grant outlives its time asleep.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

use crate::{constants, maps};

/// Returns the time, in nanoseconds of the boot-time clock (user space: `CLOCK_BOOTTIME`).
#[inline(always)]
pub fn now_ns() -> u64 {
    if constants::settings().is_test_clock() {
        return maps::test_clock_ns();
    }
    // SAFETY: the helper takes no argument and has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}
