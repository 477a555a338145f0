//! What follows from a change: grants, counters, events.

use core::ptr;

use knock_common::{
    abi::{Grant, GrantKey, MAX_SLOTS},
    counter::Counter,
    decide::{Tables, lowest},
    event::{Kind, Via},
    machine::Change,
};

use crate::{
    constants,
    events::{self, Scene},
    maps, pages,
};

/// Counts a change, gives the grants it earned and tells of it.
#[inline(never)]
pub fn publish(change: &Change, scene: &Scene) {
    count(change);
    each(change.reset, |door| events::emit_capped(scene, Kind::Reset, door, steps(change, door)));
    each(change.started & !change.promoted, |door| events::emit_capped(scene, Kind::Step, door, 1));
    each(change.advanced, |door| events::emit_capped(scene, Kind::Step, door, steps(change, door)));
    each(change.promoted, |door| promote(scene, door, steps(change, door)));
}

#[inline(always)]
fn count(change: &Change) {
    for (counter, doors) in change.facts() {
        if doors != 0 {
            maps::count_by(counter, u64::from(doors.count_ones()));
        }
    }
}

/// Calls `act` for each door of a set; a source has at most one slot a door.
#[inline(always)]
fn each(doors: u64, mut act: impl FnMut(u8)) {
    let mut rest = doors;
    for _ in 0..MAX_SLOTS {
        let Some((door, others)) = lowest(rest) else { break };
        rest = others;
        act(door);
    }
}

#[inline(always)]
fn steps(change: &Change, door: u8) -> u8 {
    change.steps.get(usize::from(door)).copied().unwrap_or(0)
}

#[inline(never)]
fn promote(scene: &Scene, door: u8, step: u8) {
    // At the time at which the knock was judged: the same page.
    let Some(rule) = maps::NO_PACKET.sequence(door, scene.now_ns) else { return };
    if rule.changes() && !pages::claim(door, scene.now_ns) {
        maps::count(Counter::SequenceSpent);
        events::emit_capped(scene, Kind::Spent, door, step);
        return;
    }
    let key = GrantKey { source: scene.source, door: rule.id };
    let fresh = Grant {
        until_ns: scene.now_ns.saturating_add(rule.open_for_ns),
        since_ns: scene.now_ns,
        via: Via::of(rule) as u32,
        generation: constants::settings().generation(),
    };
    if let Some(until_ns) = give(&key, &fresh) {
        events::emit(scene, Kind::Promoted, door, step, until_ns);
        return;
    }
    maps::count(Counter::GrantTableFull);
    events::emit(scene, Kind::TableFull, door, step, 0);
}

/// Gives a grant, or renews the one that is there; returns when it now ends, or `None` for want of room.
#[inline(always)]
pub fn give(key: &GrantKey, fresh: &Grant) -> Option<u64> {
    if let Some(until_ns) = renew(key, fresh) {
        return Some(until_ns);
    }
    if maps::insert_grant(key, fresh).is_ok() {
        return Some(fresh.until_ns);
    }
    // Another CPU may have given it meanwhile.
    renew(key, fresh)
}

/// Renews a grant that is there; returns when it now ends.
#[inline(always)]
fn renew(key: &GrantKey, fresh: &Grant) -> Option<u64> {
    let present = maps::grant(key)?;
    // SAFETY: the kernel keeps the entry's memory until this run ends, and any bytes are a grant. The memory may be another
    // grant's by now, but only if this one was revoked: its end is never taken over from there.
    let present = unsafe { ptr::read_volatile(present) };
    let until_ns = match present.renewed(fresh) {
        Some(renewed) => {
            maps::replace_grant(key, &renewed).ok()?;
            fresh.until_ns
        }
        None => present.until_ns,
    };
    if present.is_live(fresh.since_ns) {
        maps::count(Counter::GrantRefreshed);
    }
    Some(until_ns)
}
