//! The highest counter that was accepted of a secret: one word, raised by compare-and-swap.
//!
//! It is raised once a packet has passed every other test, so that no packet spends a counter in vain, and by one CPU
//! alone, so that of two copies at the same instant one is refused.

/// A word that several CPUs raise.
pub trait Floor {
    /// Returns what is in it.
    fn read(&self) -> u64;
    /// Puts `new` into it if it holds `old`; returns whether it did.
    fn swap(&self, old: u64, new: u64) -> bool;
}

/// Other packets of one secret that may get ahead of one while it is judged: more means it is refused.
const TRIES: usize = 8;

/// Raises the floor to a counter; returns whether the counter was above it, which only one caller is ever told.
#[must_use]
#[inline(always)]
pub fn claim<F: Floor + ?Sized>(floor: &F, counter: u64) -> bool {
    for _ in 0..TRIES {
        let seen = floor.read();
        if counter <= seen {
            return false;
        }
        if floor.swap(seen, counter) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    impl Floor for AtomicU64 {
        fn read(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }

        fn swap(&self, old: u64, new: u64) -> bool {
            self.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }

    #[test]
    fn a_counter_counts_once_and_only_upwards() {
        let floor = AtomicU64::new(10);

        let claimed = [10, 9, 11, 11, 10, u64::MAX, u64::MAX, 12].map(|counter| claim(&floor, counter));

        assert_eq!(claimed, [false, false, true, false, false, true, false, false]);
    }

    #[test]
    fn of_copies_at_the_same_instant_one_is_accepted() {
        let floor = AtomicU64::new(0);
        for counter in 1..=10_000 {
            let one = || claim(&floor, counter);
            let accepted = std::thread::scope(|scope| {
                let other = scope.spawn(one);
                usize::from(one()) + usize::from(other.join().unwrap())
            });

            assert_eq!(accepted, 1, "counter {counter}");
        }
    }

    /// A word that others raise just before each swap.
    struct Contended(std::cell::Cell<u64>);

    impl Floor for Contended {
        fn read(&self) -> u64 {
            self.0.get()
        }

        fn swap(&self, old: u64, new: u64) -> bool {
            self.0.set(old + 1);
            assert!(new > old);
            false
        }
    }

    #[test]
    fn a_packet_that_others_keep_overtaking_is_refused() {
        assert!(!claim(&Contended(0.into()), u64::MAX));
    }
}
