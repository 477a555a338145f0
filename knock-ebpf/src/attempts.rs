//! A source's attempts in their two maps: who may change them, and when they move from one to the other.
//!
//! Lookups go first map, then later map, and a record is in the later map before it leaves the first. So a CPU that
//! finds neither has found a source without attempts, and a knock is never judged against nothing by accident.

use core::ptr;

use knock_common::{
    abi::{Attempts, MAX_DOORS},
    claim,
    counter::Counter,
    decide::{Tables, Visit, lowest},
    machine::{self, Change, Occasion},
};

use crate::{
    atomic, clock,
    events::Scene,
    maps::{self, Maps, Scratch},
    publish,
};

/// EEXIST, from the kernel's `errno-base.h`.
const EEXIST: i32 = -17;

/// Judges a knock against the attempts of its source.
#[inline(never)]
pub fn knock(visit: &Visit, interface: u32) {
    let Some(scratch) = maps::scratch() else { return };
    if let Some(record) = maps::first_attempts(&visit.source) {
        on_record(record, visit, interface, scratch, true);
    } else if let Some(record) = maps::later_attempts(&visit.source) {
        on_record(record, visit, interface, scratch, false);
    } else {
        on_stranger(visit, interface, scratch);
    }
}

/// Judges a knock of a source that has a record.
#[inline(never)]
fn on_record(record: *mut Attempts, visit: &Visit, interface: u32, scratch: *mut Scratch, is_first: bool) {
    let turn_word = turn_word(record);
    // SAFETY: the record's memory stays mapped until this run ends; an aligned word.
    let turn = unsafe { ptr::read_volatile(turn_word) };
    let Some(claimed) = claim::claimed(turn) else { return contended(turn_word, visit, is_first) };
    // SAFETY: as above.
    if !unsafe { atomic::compare_and_swap(turn_word, turn, claimed) } {
        return contended(turn_word, visit, is_first);
    }
    let now_ns = clock::now_ns();
    // SAFETY: the claim makes this CPU the record's only writer; should the kernel give the memory to another source
    // meanwhile, the slots written here carry the old epoch and are void there.
    let attempts = unsafe { &mut *record };
    attempts.renew(turn, maps::settings().generation());
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let change = unsafe { &mut (*scratch).change };
    advance(attempts, visit, machine::starts(visit, &Maps), now_ns, change);
    let is_kept = if is_first && change.is_later {
        move_on(attempts, visit, claimed)
    } else {
        release(attempts, claimed)
    };
    if is_kept {
        publish::publish(change, &Scene { now_ns, source: visit.source, interface });
    }
}

#[inline(never)]
fn advance(attempts: &mut Attempts, visit: &Visit, starts: u64, now_ns: u64, change: &mut Change) {
    change.clear();
    let mut occasion = Occasion { now_ns, starts, destination: visit.destination, knock: visit.knock };
    machine::advance(attempts, &mut occasion, &Maps, change);
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
    // SAFETY: as above. If this fails too, the memory is another source's by now.
    let _ =
        unsafe { atomic::compare_and_swap(turn_word, claimed | claim::POISONED, claim::released(claimed)) };
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
    if is_first && let Some(moved) = maps::later_attempts(&visit.source) {
        // SAFETY: as above.
        unsafe { atomic::set_bits(self::turn_word(moved), claim::POISONED) };
    }
}

/// Begins the attempts of a source that has none.
#[inline(never)]
fn on_stranger(visit: &Visit, interface: u32, scratch: *mut Scratch) {
    let starts = machine::starts(visit, &Maps);
    if starts == 0 {
        return;
    }
    let now_ns = clock::now_ns();
    let starts = within_budget(starts, now_ns);
    if starts == 0 {
        return;
    }
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let scratch = unsafe { &mut *scratch };
    scratch.fresh.reset_to(claim::fresh(now_ns), now_ns, maps::settings().generation());
    advance(&mut scratch.fresh, visit, starts, now_ns, &mut scratch.change);
    match maps::insert_first(&visit.source, &scratch.fresh) {
        Ok(()) => publish::publish(&scratch.change, &Scene { now_ns, source: visit.source, interface }),
        Err(EEXIST) => {
            if let Some(record) = maps::first_attempts(&visit.source) {
                contended(turn_word(record), visit, true);
            }
        }
        Err(_) => maps::count(Counter::AttemptNotStored),
    }
}

/// Returns the doors of the set that may begin another attempt now.
#[inline(always)]
fn within_budget(doors: u64, now_ns: u64) -> u64 {
    let mut rest = doors;
    let mut admitted = doors;
    for _ in 0..MAX_DOORS {
        let Some((door, others)) = lowest(rest) else { break };
        rest = others;
        let limit = Maps.door(door).map_or(0, |rule| rule.new_attempts);
        if !maps::admit_attempt(door, now_ns, limit) {
            maps::count(Counter::AttemptOverBudget);
            admitted &= !1_u64.wrapping_shl(u32::from(door));
        }
    }
    admitted
}

#[inline(always)]
fn turn_word(record: *mut Attempts) -> *mut u64 {
    record.cast()
}
