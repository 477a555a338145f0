//! A source's attempts in their two maps: who may change them, and when they move from one to the other.
//!
//! Lookups go first map, then later map, and a record is in the later map before it leaves the first. So a CPU that
//! finds neither has found a source without attempts, and a knock is never judged against nothing by accident. Both
//! maps may forget a record at any moment. `knock-common/tests/claim.rs` runs a model of this file in every
//! interleaving: change both together.

use core::ptr;

use knock_common::{
    abi::{Attempts, MAX_SLOTS},
    claim,
    counter::Counter,
    decide::{Tables, Visit, lowest},
    machine::{self, Change, Occasion},
};

use crate::{
    atomic, clock, constants,
    maps::{self, Scratch},
    publish,
};

/// EEXIST, from the kernel's `errno-base.h`.
const EEXIST: i32 = -17;

/// Judges the knock of the visit in the working room against the attempts of its source.
#[inline(always)]
pub fn knock(scratch: &mut Scratch) {
    scratch.is_kept = false;
    scratch.scene.source = scratch.visit.source;
    scratch.occasion.note(&scratch.visit, &maps::NO_PACKET);
    if let Some(record) = maps::first_attempts(&scratch.visit.source) {
        on_record(record, scratch, true);
    } else if let Some(record) = maps::later_attempts(&scratch.visit.source) {
        on_record(record, scratch, false);
    } else if scratch.occasion.starts != 0 {
        on_stranger(scratch);
    }
    if scratch.is_kept {
        publish::publish(&scratch.change, &scratch.scene);
    }
}

/// Judges a knock of a source that has a record.
#[inline(never)]
fn on_record(record: *mut Attempts, scratch: &mut Scratch, is_first: bool) {
    let Scratch { visit, scene, occasion, change, is_kept, .. } = scratch;
    let turn_word = turn_word(record);
    // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
    let turn = unsafe { ptr::read_volatile(turn_word) };
    let Some(claimed) = claim::claimed(turn) else { return contended(turn_word, visit, is_first) };
    // SAFETY: as above.
    if !unsafe { atomic::compare_and_swap(turn_word, turn, claimed) } {
        return contended(turn_word, visit, is_first);
    }
    scene.now_ns = clock::now_ns();
    occasion.now_ns = scene.now_ns;
    // SAFETY: the claim makes this CPU the record's only writer; should the kernel give the memory to another source
    // meanwhile, the slots written here carry the old epoch and are void there.
    let attempts = unsafe { &mut *record };
    attempts.renew(turn, constants::settings().generation());
    if !attempts.belongs_to(&visit.source) {
        return not_ours(attempts, visit, claimed, is_first);
    }
    advance(attempts, occasion, change);
    *is_kept = if is_first && change.is_later {
        move_on(attempts, visit, claimed)
    } else {
        release(attempts, claimed)
    };
}

/// The kernel gave the memory to another source between the lookup and the claim: it is given back as it was found, and
/// the knock finds nothing to be judged against.
#[inline(never)]
fn not_ours(attempts: &mut Attempts, visit: &Visit, claimed: u64, is_first: bool) {
    maps::count(Counter::AttemptContended);
    release(attempts, claimed);
    if is_first {
        void_later(visit);
    }
}

#[inline(never)]
fn advance(attempts: &mut Attempts, occasion: &mut Occasion, change: &mut Change) {
    change.clear();
    machine::advance(attempts, occasion, &maps::NO_PACKET, change);
}

/// Ends a claim; returns whether what was made of the record holds. It does not if a knock went unjudged meanwhile.
#[inline(always)]
fn release(attempts: &mut Attempts, claimed: u64) -> bool {
    let turn_word = turn_word(attempts);
    // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
    if unsafe { atomic::compare_and_swap(turn_word, claimed, claim::released(claimed)) } {
        return true;
    }
    attempts.void();
    let poisoned = claimed | claim::POISONED;
    // SAFETY: as above. If this fails too, the memory is another source's by now.
    let _ = unsafe { atomic::compare_and_swap(turn_word, poisoned, claim::released(claimed)) };
    false
}

/// Moves a claimed record to the later map and ends the claim; returns as [`release`] does.
#[inline(always)]
fn move_on(attempts: &mut Attempts, visit: &Visit, claimed: u64) -> bool {
    if maps::insert_later(&visit.source, attempts).is_err() {
        // It lives on among the first, unprotected.
        maps::count(Counter::AttemptNotStored);
        return release(attempts, claimed);
    }
    // Had the first map lost the record before the later one had it, a knock that came between found a source without
    // attempts and went unjudged.
    if maps::first_attempts(&visit.source) != Some(ptr::from_mut(attempts)) {
        maps::remove_later(&visit.source);
        return false;
    }
    let turn_word = turn_word(attempts);
    // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
    if !unsafe { atomic::compare_and_swap(turn_word, claimed, claim::moved(claimed)) } {
        maps::remove_later(&visit.source);
        return release(attempts, claimed);
    }
    let is_kept = match maps::later_attempts(&visit.source) {
        // SAFETY: the copy was stored claimed, and this CPU holds that claim.
        Some(moved) => release(unsafe { &mut *moved }, claimed),
        None => false,
    };
    maps::remove_first(&visit.source);
    is_kept
}

/// A knock that came while another CPU had the record: it goes unjudged, so the attempts are void.
#[inline(never)]
fn contended(turn_word: *mut u64, visit: &Visit, is_first: bool) {
    maps::count(Counter::AttemptContended);
    // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
    unsafe { atomic::set_bits(turn_word, claim::POISONED) };
    if is_first {
        void_later(visit);
    }
}

/// Voids the source's record in the later map, if there is one: a knock went by it.
#[inline(always)]
fn void_later(visit: &Visit) {
    if let Some(moved) = maps::later_attempts(&visit.source) {
        // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
        unsafe { atomic::set_bits(turn_word(moved), claim::POISONED) };
    }
}

/// Begins the attempts of a source that has none.
#[inline(never)]
fn on_stranger(scratch: &mut Scratch) {
    let Scratch { visit, scene, occasion, change, fresh, is_kept, .. } = scratch;
    scene.now_ns = clock::now_ns();
    occasion.now_ns = scene.now_ns;
    keep_within_budget(occasion);
    if occasion.starts == 0 {
        return;
    }
    fresh.reset_to(
        &visit.source,
        claim::fresh(scene.now_ns),
        scene.now_ns,
        constants::settings().generation(),
    );
    advance(fresh, occasion, change);
    match maps::insert_first(&visit.source, fresh) {
        Ok(()) => {
            void_later(visit);
            *is_kept = true;
        }
        Err(EEXIST) => {
            if let Some(record) = maps::first_attempts(&visit.source) {
                contended(turn_word(record), visit, true);
            }
        }
        Err(_) => maps::count(Counter::AttemptNotStored),
    }
}

/// Leaves the doors that may begin another attempt now; a fresh record has room for [`MAX_SLOTS`].
#[inline(always)]
fn keep_within_budget(occasion: &mut Occasion) {
    let mut rest = occasion.starts;
    occasion.starts = 0;
    for _ in 0..MAX_SLOTS {
        let Some((door, others)) = lowest(rest) else { return };
        rest = others;
        spend(occasion, door);
    }
}

#[inline(never)]
fn spend(occasion: &mut Occasion, door: u8) {
    let limit = maps::NO_PACKET.door(door).map_or(0, |rule| rule.new_attempts);
    if maps::admit_attempt(door, occasion.now_ns, limit) {
        occasion.starts |= 1_u64.wrapping_shl(u32::from(door));
    } else {
        maps::count(Counter::AttemptOverBudget);
    }
}

#[inline(always)]
fn turn_word(record: *mut Attempts) -> *mut u64 {
    record.cast()
}
