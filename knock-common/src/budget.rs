//! Rate budgets in one 64-bit word: the upper half names a window of time, the lower half counts what it used.

/// Length of a window: 2^30 ns, about 1.07 s, so that a shift finds it.
pub const WINDOW_NS: u64 = 1 << 30;

/// Returns the word after one more use at `now_ns`, or `None` when `limit` uses of this window are spent.
#[must_use]
#[inline(always)]
pub fn admit(word: u64, now_ns: u64, limit: u32) -> Option<u64> {
    let window = (now_ns >> 30) << 32;
    let used = if word & !0xffff_ffff == window { word & 0xffff_ffff } else { 0 };
    if used >= u64::from(limit) {
        return None;
    }
    Some(window | used.wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_its_limit_and_the_next_one_begins_anew() {
        let mut word = 0;
        for _ in 0..3 {
            word = admit(word, WINDOW_NS, 3).expect("within the limit");
        }

        assert_eq!(admit(word, WINDOW_NS, 3), None);
        assert_eq!(admit(word, 2 * WINDOW_NS - 1, 3), None);
        assert!(admit(word, 2 * WINDOW_NS, 3).is_some());
    }

    #[test]
    fn a_limit_of_nothing_admits_nothing() {
        assert_eq!(admit(0, 5 * WINDOW_NS, 0), None);
    }
}
