//! Doors whose sequence changes: which of their sequences count now.
//!
//! Such a door has a book of sequences, its pages: one for each time step, or the lines of a list. Three pages in a row are
//! live at once: a time step and its neighbours, or the first line that is not used and the two behind it. Each of the three
//! is a door of its own to the sequence machine, a lane: a page is in the lane of its number modulo three, so that the other
//! two keep theirs when one goes. Whoever completes a page claims it, by [`crate::spa::floor`]: nobody does so twice.

use core::mem::size_of;

use bytemuck::{Pod, Zeroable};

use crate::spa::abi::KeyId;

/// Pages of a book that are live at once, and doors of the machine that it takes.
pub const LANES: u64 = 3;
/// How long the pages of a time-stepped book are laid in for; as long as the kernel trusts its knowledge of wall time.
pub const AHEAD_NS: u64 = crate::spa::verdict::CLOCK_TRUST_NS;
/// Number of a page that is not there.
pub const NO_PAGE: u64 = u64::MAX;

/// What is said of one lane: the entry of its door number in the map of books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Book {
    /// Length of a time step; 0 for a list.
    pub period_ns: u64,
    /// The first line of a list that is not used. Counts in the entry of lane 0 alone, where the kernel raises it.
    pub next: u64,
    /// Where the book's pages begin in the map of pages.
    pub first: u32,
    /// Entries that it has there; page `n` lies in entry `n` modulo this. 0 is no book.
    pub count: u32,
    /// Which lane this is, below [`LANES`].
    pub lane: u32,
    /// Door number of lane 0.
    pub base: u32,
}

/// A page: the entry of the map of pages. Its sequence is the rule at the same place behind the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Page {
    /// Its number: the time step, or the line from 0; anything else than the number looked for, and there is no such page.
    pub number: u64,
    /// The floor that is raised when it is claimed.
    pub floor: KeyId,
    /// What the floor is raised to: the page counts if the floor is below.
    pub counter: u64,
}

impl Page {
    /// No page.
    pub const NONE: Self = Self { number: NO_PAGE, floor: [0; 8], counter: 0 };
}

impl Book {
    /// Returns whether its pages go by the time.
    #[must_use]
    #[inline(always)]
    pub const fn is_rotating(&self) -> bool {
        self.period_ns != 0
    }

    /// Returns the first of the pages that are live at a wall time, in a book that goes by it.
    #[must_use]
    #[inline(always)]
    pub fn first_live(&self, wall_ns: u64) -> u64 {
        // The time step before, for clocks that are behind.
        wall_ns.checked_div(self.period_ns).unwrap_or(0).saturating_sub(1)
    }

    /// Returns the live page of this lane, given the first that is live.
    #[must_use]
    #[inline(always)]
    pub fn page(&self, first_live: u64) -> u64 {
        let ahead = u64::from(self.lane).wrapping_add(LANES).wrapping_sub(first_live % LANES);
        first_live.wrapping_add(ahead % LANES)
    }

    /// Returns the place of a page in the map of pages; `None` where there is no book.
    #[must_use]
    #[inline(always)]
    pub fn place(&self, page: u64) -> Option<u32> {
        let [a, b, c, d, ..] = page.checked_rem(u64::from(self.count))?.to_le_bytes();
        Some(self.first.wrapping_add(u32::from_le_bytes([a, b, c, d])))
    }
}

const _: () = assert!(size_of::<Book>() == 32 && size_of::<Page>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn lanes(period_ns: u64) -> [Book; 3] {
        [0, 1, 2].map(|lane| Book { period_ns, lane, first: 10, count: 7, ..Book::default() })
    }

    fn live(first: impl Fn(&Book) -> u64) -> [u64; 3] {
        lanes(30 * SECOND).map(|book| book.page(first(&book)))
    }

    #[test]
    fn a_time_step_and_its_neighbours_are_live_each_in_its_lane() {
        for step in 1..100 {
            for moment_ns in [step * 30 * SECOND, (step + 1) * 30 * SECOND - 1] {
                for (lane, page) in (0..).zip(live(|book| book.first_live(moment_ns))) {
                    assert_eq!(page % 3, lane);
                    assert!(page.abs_diff(step) <= 1);
                }
            }
        }
    }

    #[test]
    fn of_a_list_the_first_lines_that_are_not_used_are_live() {
        assert_eq!(live(|_| 0), [0, 1, 2]);
        assert_eq!(live(|_| 7), [9, 7, 8]);
    }

    #[test]
    fn pages_lie_in_a_ring_and_without_a_book_nowhere() {
        let [book, ..] = lanes(30);

        assert_eq!([0, 6, 7, 20].map(|page| book.place(page)), [10, 16, 10, 16].map(Some));
        assert_eq!(Book::default().place(3), None);
    }
}
