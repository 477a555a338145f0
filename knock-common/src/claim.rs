//! Who may change a source's attempts: one 64-bit word, moved on by compare-and-swap.
//!
//! Knocks of one source arrive on several CPUs at once. One CPU claims the record; another that comes meanwhile
//! does not wait but poisons it, and the claimer then voids the attempts instead of keeping what it made of them.
//! So two knocks at the same instant cost their sender a retry, and never let one of them go unjudged.

/// Set while a CPU changes the record; stays set for ever in a record that has moved to the other map.
pub const CLAIMED: u64 = 1;
/// Set by a CPU that could not claim: a knock went unjudged, so the attempts are void.
pub const POISONED: u64 = 2;
/// Added at each release, so that a claimer sees when the record is no longer the one it claimed.
const TURN: u64 = 4;

/// Returns the word of a fresh record inserted at `now_ns`.
#[must_use]
#[inline(always)]
pub const fn fresh(now_ns: u64) -> u64 {
    now_ns << 2
}

/// Returns the word to swap in for a claim, or `None` while another CPU has the record.
#[must_use]
#[inline(always)]
pub const fn claimed(turn: u64) -> Option<u64> {
    if turn & CLAIMED != 0 {
        return None;
    }
    Some((turn | CLAIMED) & !POISONED)
}

/// Returns the word to swap in for a release of the claimed word.
#[must_use]
#[inline(always)]
pub const fn released(claimed: u64) -> u64 {
    (claimed & !(CLAIMED | POISONED)).wrapping_add(TURN)
}

/// Returns the word of a record that has moved away: no CPU can claim it again.
#[must_use]
#[inline(always)]
pub const fn moved(claimed: u64) -> u64 {
    released(claimed) | CLAIMED
}

/// Returns whether a knock went unjudged since the last release.
#[must_use]
#[inline(always)]
pub const fn is_poisoned(turn: u64) -> bool {
    turn & POISONED != 0
}
