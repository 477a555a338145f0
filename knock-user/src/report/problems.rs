//! From what is pinned and what is there to what keeps this machine from being protected.

use crate::{
    config::Mode,
    devices::Device,
    pins::Pins,
    report::{
        Interface, InterfaceState,
        sight::{Foreign, Seen, Sight, before},
    },
    rollback::Standing,
};

/// Returns every interface that carries the gate or ought to, by name.
#[must_use]
pub fn interfaces(sight: &Sight, devices: &[Device]) -> Vec<Interface> {
    let configured = sight.newest().map(|about| about.interfaces.clone()).unwrap_or_default();
    let pinned = sight.links.iter().map(|seen| seen.interface.clone());
    let foreign = sight.foreign.iter().map(|foreign| foreign.interface.clone());
    let mut names: Vec<String> = configured.into_iter().chain(pinned).chain(foreign).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| interface(name, sight, devices)).collect()
}

fn interface(name: String, sight: &Sight, devices: &[Device]) -> Interface {
    let device = devices.iter().find(|device| device.name == name);
    let seen = sight.links.iter().find(|seen| seen.interface == name);
    let is_foreign = sight.foreign.iter().any(|foreign| foreign.interface == name);
    let state = match (seen, device) {
        _ if is_foreign => InterfaceState::Foreign,
        (Some(seen), _) if seen.is_dead() => InterfaceState::Dead,
        (Some(seen), Some(device)) if seen.index == device.index && is_carried(device, seen) => {
            InterfaceState::Attached
        }
        (_, Some(_)) => InterfaceState::Bare,
        (_, None) => InterfaceState::Absent,
    };
    let attached = seen.filter(|_| state == InterfaceState::Attached);
    let way = device.and_then(|device| device.carried?.way).filter(|_| attached.is_some());
    let judging = attached.and_then(Seen::judging);
    Interface {
        index: device.map(|device| device.index),
        state,
        attach: way.map(|way| way.to_string()),
        mode: judging.map(|about| about.mode.to_string()),
        generation: judging.map(|about| about.generation),
        program: seen.map(|seen| seen.program),
        name,
    }
}

/// Returns whether the interface carries the link's program, by what the interface itself says.
fn is_carried(device: &Device, seen: &Seen) -> bool {
    device.carried.is_some_and(|carried| carried.program.is_none_or(|id| id == seen.program))
}

/// Returns why this machine is not protected, one sentence each; nothing where it is.
#[must_use]
pub fn problems(pins: &Pins, sight: &Sight, interfaces: &[Interface], devices: &[Device]) -> Vec<String> {
    let mut problems = Vec::new();
    if sight.links.is_empty() && sight.foreign.is_empty() {
        problems.push(format!("no gate is in force here (there is no link in {})", pins.links().display()));
    }
    problems.extend(sight.foreign.iter().map(|Foreign { reason, .. }| reason.clone()));
    problems.extend(sight.other_states.iter().map(|folder| {
        format!(
            "{} was left by another version of xdp-knock: `xdp-knock run --discard-state` goes on without it",
            folder.display()
        )
    }));
    problems.extend(interfaces.iter().filter_map(|interface| misplaced(interface, sight, devices)));
    problems.extend(sight.links.iter().filter_map(went_back));
    problems.extend(observed(sight, interfaces));
    problems
}

fn misplaced(interface: &Interface, sight: &Sight, devices: &[Device]) -> Option<String> {
    let name = &interface.name;
    let link = sight.links.iter().find(|seen| seen.interface == *name);
    let elsewhere = link.and_then(|seen| devices.iter().find(|device| device.index == seen.index));
    let elsewhere = match elsewhere {
        Some(device) if device.name != *name => format!(" (its gate is on {} now)", device.name),
        Some(_) | None => String::new(),
    };
    match interface.state {
        InterfaceState::Attached | InterfaceState::Foreign => None,
        InterfaceState::Dead if interface.index.is_some() => Some(format!(
            "{name} was deleted, its gate with it, and is there again without one: a daemon would have put it on; `xdp-knock reload` does"
        )),
        InterfaceState::Dead => Some(format!("{name} was deleted, and its gate with it")),
        InterfaceState::Absent => Some(format!("there is no interface {name} here{elsewhere}")),
        InterfaceState::Bare => Some(format!(
            "{name} is to be guarded and carries no gate{elsewhere}: `xdp-knock reload` puts it on"
        )),
    }
}

fn went_back(seen: &Seen) -> Option<String> {
    let Standing::WentBack(_) = seen.standing else { return None };
    let (name, number) = (&seen.interface, seen.about.generation);
    let holds = match (&seen.before, before(&seen.about, name)) {
        (Some(about), _) => format!("generation {}, mode {}, judges again", about.generation, about.mode),
        (None, Some(program)) => format!("program {program}, which was there before, judges again"),
        (None, None) => "nothing was there before, so its packets pass".to_owned(),
    };
    Some(format!("generation {number} was not confirmed in time on {name}: {holds}"))
}

fn observed(sight: &Sight, interfaces: &[Interface]) -> Option<String> {
    let is_observing = |seen: &&Seen| seen.judging().is_some_and(|about| about.mode == Mode::Observe);
    let observing: Vec<&str> =
        sight.links.iter().filter(is_observing).map(|seen| seen.interface.as_str()).collect();
    if observing.is_empty() {
        return None;
    }
    let where_ = if observing.len() == interfaces.len() {
        String::new()
    } else {
        format!(" on {}", observing.join(", "))
    };
    Some(format!("mode observe{where_}: everything is judged and nothing is dropped"))
}

/// Returns what is odd about the generations on the interfaces, if anything is.
#[must_use]
pub fn cut_short(interfaces: &[Interface]) -> Option<String> {
    let attached = || interfaces.iter().filter(|one| one.state == InterfaceState::Attached);
    let first = attached().next()?.generation;
    if attached().all(|one| one.generation == first) {
        return None;
    }
    let number =
        |one: &Interface| one.generation.map_or("one of before".to_owned(), |number| number.to_string());
    let each: Vec<String> = attached().map(|one| format!("{} has {}", one.name, number(one))).collect();
    Some(format!(
        "an update was cut short: of the generations {}; `xdp-knock reload` puts one on all",
        each.join(", ")
    ))
}
