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
    events::{self, Scene},
    maps::{self, Maps},
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
    let Some(rule) = Maps.door(door) else { return };
    let until_ns = scene.now_ns.saturating_add(rule.open_for_ns);
    let key = GrantKey { source: scene.source, door: rule.id };
    let grant = Grant {
        until_ns,
        since_ns: scene.now_ns,
        via: Via::Sequence as u32,
        generation: maps::settings().generation(),
    };
    if refresh(&key, &grant) || maps::insert_grant(&key, &grant).is_ok() || refresh(&key, &grant) {
        events::emit(scene, Kind::Promoted, door, step, until_ns);
        return;
    }
    maps::count(Counter::GrantTableFull);
    events::emit(scene, Kind::TableFull, door, step, 0);
}

/// Moves on the expiry of a grant that is there; returns whether it is.
#[inline(always)]
fn refresh(key: &GrantKey, fresh: &Grant) -> bool {
    let Some(grant) = maps::grant(key) else { return false };
    // SAFETY: the kernel keeps the entry's memory until this run ends; aligned words.
    let until_ns = unsafe { ptr::read_volatile(&raw const (*grant).until_ns) };
    if until_ns < fresh.since_ns {
        // SAFETY: as above. An expired grant begins anew.
        unsafe { ptr::write_volatile(&raw mut (*grant).since_ns, fresh.since_ns) };
    } else {
        maps::count(Counter::GrantRefreshed);
    }
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut (*grant).generation, fresh.generation) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut (*grant).until_ns, fresh.until_ns) };
    true
}
