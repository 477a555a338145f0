//! Events: changes of state only; what a stranger can cause at will is capped a second, with a count of the rest.

use knock_common::{
    abi::Address,
    counter::Counter,
    decide::Tables as _,
    event::{Event, Kind, Via},
};

use crate::{constants, maps};

/// What all events of one knock have in common.
#[derive(Clone, Copy)]
pub struct Scene {
    /// The time.
    pub now_ns: u64,
    /// Who knocks.
    pub source: Address,
    /// Interface index.
    pub interface: u32,
}

/// Tells of a step or a reset, unless the cap is reached.
#[inline(never)]
pub fn emit_capped(scene: &Scene, kind: Kind, door: u8, step: u8) {
    if !maps::admit_event(scene.now_ns) {
        maps::count(Counter::EventCapped);
        return;
    }
    emit(scene, kind, door, step, 0);
}

/// Tells of a promotion or its refusal; never capped.
#[inline(always)]
pub fn emit(scene: &Scene, kind: Kind, door: u8, step: u8, until_ns: u64) {
    let rule = maps::NO_PACKET.door(door);
    let via = match kind {
        Kind::Promoted | Kind::TableFull | Kind::Spent => rule.map_or(0, |rule| Via::of(rule) as u8),
        Kind::Step | Kind::Reset | Kind::SpaRejected => 0,
    };
    let event = Event {
        time_ns: scene.now_ns,
        until_ns,
        source: scene.source,
        door: rule.map_or(0, |rule| rule.id),
        interface: scene.interface,
        generation: constants::settings().generation(),
        kind: kind as u8,
        via,
        step,
        reason: 0,
        _pad2: 0,
    };
    if !maps::push_event(event) {
        maps::count(Counter::EventLost);
    }
}
