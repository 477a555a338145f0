//! What becomes of a grant that is there when its source earns another.

use crate::abi::Grant;

impl Grant {
    /// Returns whether it holds at a time of the boot-time clock.
    #[must_use]
    #[inline(always)]
    pub const fn is_live(&self, now_ns: u64) -> bool {
        now_ns <= self.until_ns
    }

    /// Returns what is to be stored in its place when its source earns `fresh`, or `None` when it is to stay: it holds for
    /// longer. One that is over begins anew; a live one keeps its beginning.
    #[must_use]
    #[inline(always)]
    pub const fn renewed(&self, fresh: &Self) -> Option<Self> {
        if !self.is_live(fresh.since_ns) {
            return Some(*fresh);
        }
        if self.until_ns > fresh.until_ns {
            return None;
        }
        Some(Self { since_ns: self.since_ns, via: self.via, ..*fresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Via;

    const BY_HAND: Grant = Grant { until_ns: 1000, since_ns: 100, via: Via::Manual as u32, generation: 1 };

    fn earned(since_ns: u64, until_ns: u64) -> Grant {
        Grant { until_ns, since_ns, via: Via::Sequence as u32, generation: 2 }
    }

    #[test]
    fn a_live_grant_keeps_its_beginning_and_gets_the_later_end() {
        for now_ns in [500, 1000] {
            let renewed = BY_HAND.renewed(&earned(now_ns, 1001));

            assert_eq!(renewed, Some(Grant { until_ns: 1001, generation: 2, ..BY_HAND }), "at {now_ns}");
        }
    }

    #[test]
    fn a_grant_that_holds_for_longer_stays() {
        let for_good = Grant { until_ns: u64::MAX, ..BY_HAND };

        assert_eq!(BY_HAND.renewed(&earned(500, 999)), None);
        assert_eq!(for_good.renewed(&earned(500, u64::MAX - 1)), None);
    }

    #[test]
    fn a_grant_that_is_over_begins_anew() {
        let fresh = earned(1001, 1002);

        assert_eq!(BY_HAND.renewed(&fresh), Some(fresh));
    }
}
