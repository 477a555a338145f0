//! Doors whose sequence changes: the page that a door number has now, and its use.

use core::ptr;

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use knock_common::{
    abi::{MAX_DOORS, Settings},
    pages::{Book, Page},
};

use crate::{atomic, constants, spa};

#[btf_map]
static BOOKS: Array<Book, MAX_DOORS> = Array::new();
/// As many as the generation has, and one at least.
#[btf_map]
static PAGES: Array<Page, 1> = Array::new();

/// No page: beyond every map of doors.
const NOWHERE: u32 = u32::MAX;

/// Returns the entry in the map of doors where the live page of a door number is.
#[inline(always)]
pub fn entry(door: u8, now_ns: u64) -> Option<u32> {
    // Constant once loaded: without such doors the verifier never sees the rest.
    if constants::settings().flags() & Settings::PAGES == 0 {
        return None;
    }
    find_page(u32::from(door), now_ns).checked_add(MAX_DOORS as u32)
}

/// Uses up the live page of a door number; returns whether nobody had before.
#[inline(always)]
pub fn claim(door: u8, now_ns: u64) -> bool {
    constants::settings().flags() & Settings::PAGES != 0 && claim_page(u32::from(door), now_ns) != 0
}

/// Returns the place of the live page of a door number, or [`NOWHERE`].
// Exported, as the one below, which makes it a global function to the verifier: gone through once, by itself (kernel commit
// 51c39bb1d5d1).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_page(door: u32, now_ns: u64) -> u32 {
    let Some(book) = BOOKS.get(door) else { return NOWHERE };
    let first = if book.is_rotating() {
        let Some(wall_ns) = spa::wall_ns(now_ns) else { return NOWHERE };
        book.first_live(wall_ns)
    } else {
        let Some(next) = next(book.base) else { return NOWHERE };
        // SAFETY: an array entry lives as long as the program; an aligned word.
        unsafe { ptr::read_volatile(next) }
    };
    let number = book.page(first);
    let Some(place) = book.place(number) else { return NOWHERE };
    match PAGES.get(place) {
        Some(page) if page.number == number => place,
        Some(_) | None => NOWHERE,
    }
}

/// Returns the word that says which line of a list is the first that is not used.
#[inline(always)]
fn next(base: u32) -> Option<*mut u64> {
    let book = BOOKS.get_ptr_mut(base)?;
    // SAFETY: the entry is there, and so is its field.
    Some(unsafe { &raw mut (*book).next })
}

/// Does [`claim`]; returns 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_page(door: u32, now_ns: u64) -> u32 {
    let Some(page) = PAGES.get(find_page(door, now_ns)) else { return 0 };
    let is_first = spa::claim_floor(&page.floor, page.counter);
    if let Some(book) = BOOKS.get(door).filter(|book| !book.is_rotating()) {
        turn_over(book.base, page.number);
    }
    u32::from(is_first)
}

/// Has a list go on behind a line, if it is not further by then.
#[inline(always)]
fn turn_over(base: u32, line: u64) {
    let Some(next) = next(base) else { return };
    let after = line.wrapping_add(1);
    // Another CPU may turn over too; one that loses four times in a row leaves it, and the line is spent by its floor.
    for _ in 0..4 {
        // SAFETY: an array entry lives as long as the program; an aligned word.
        let seen = unsafe { ptr::read_volatile(next) };
        if seen >= after {
            return;
        }
        // SAFETY: as above.
        if unsafe { atomic::compare_and_swap(next, seen, after) } {
            return;
        }
    }
}
