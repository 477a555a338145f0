//! From what is pinned and what is there to what keeps this machine from being protected.

use crate::{
    attach::Way,
    config::Mode,
    devices::Device,
    hook::Hook,
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
    let way = attached.and_then(|seen| match seen.hook {
        Hook::Xdp => device?.carried?.way,
        Hook::Ingress => Some(Way::Tcx),
        Hook::Egress => None,
    });
    let judging = attached.and_then(Seen::judging);
    Interface {
        index: device.map(|device| device.index),
        state,
        attach: way.map(|way| way.to_string()),
        mode: judging.map(|about| about.mode.to_string()),
        generation: judging.map(|about| about.generation),
        program: seen.map(|seen| seen.program),
        egress: attached.and_then(|seen| seen.egress),
        name,
    }
}

/// Returns whether the interface carries the link's program, by what the interface itself says. Of TCX it says nothing: there
/// the link is what holds the program on it, and nothing but the link.
fn is_carried(device: &Device, seen: &Seen) -> bool {
    seen.hook == Hook::Ingress
        || device.carried.is_some_and(|carried| carried.program.is_none_or(|id| id == seen.program))
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
    problems.extend(interfaces.iter().filter_map(|interface| unanswered(interface, sight)));
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

/// In deny mode answers to the host pass only where what it sends is noted.
fn unanswered(interface: &Interface, sight: &Sight) -> Option<String> {
    let name = &interface.name;
    let seen = sight.links.iter().find(|seen| seen.interface == *name)?;
    let is_cut = interface.state == InterfaceState::Attached
        && interface.egress.is_none()
        && seen.judging().is_some_and(|about| about.egress && about.mode == Mode::Deny);
    is_cut.then(|| {
        format!(
            "{name} has no program for outgoing packets, so answers to what the host sends there are dropped: `xdp-knock reload` puts it on"
        )
    })
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::{
        about::About,
        report::sample::{KNOCK, about, device, pins, seen, sight},
    };

    fn judge(sight: &Sight, devices: &[Device]) -> Vec<String> {
        let interfaces = interfaces(sight, devices);
        problems(&pins(), sight, &interfaces, devices)
    }

    fn guard() -> About {
        about(7, KNOCK, "guard")
    }

    fn here() -> Vec<Device> {
        vec![device("eth0", 2), device("eth1", 3)]
    }

    /// The gate on both interfaces: each test takes something away.
    fn whole() -> Sight {
        sight(vec![seen("eth0", 2, &guard()), seen("eth1", 3, &guard())])
    }

    fn assert_says(problems: &[String], words: &[&str]) {
        assert_eq!(problems.len(), 1, "{problems:#?}");
        for word in words {
            assert!(problems[0].contains(word), "nothing about `{word}`: {problems:?}");
        }
    }

    #[test]
    fn the_gate_on_every_interface_in_guard_mode_is_no_problem() {
        assert_eq!(judge(&whole(), &here()), Vec::<String>::new());
        let shown: Vec<_> =
            interfaces(&whole(), &here()).into_iter().map(|one| (one.name, one.mode)).collect();
        let guarded = Some("guard".to_owned());
        assert_eq!(shown, [("eth0".to_owned(), guarded.clone()), ("eth1".to_owned(), guarded)]);
    }

    #[test]
    fn nothing_pinned_is_no_protection() {
        assert_says(&judge(&Sight::default(), &here()), &["no gate is in force"]);
    }

    #[test]
    fn observing_is_no_protection() {
        let observe = about(7, KNOCK, "observe");

        let all = sight(vec![seen("eth0", 2, &observe), seen("eth1", 3, &observe)]);
        let one = sight(vec![seen("eth0", 2, &guard()), seen("eth1", 3, &observe)]);

        assert_says(&judge(&all, &here()), &["mode observe: "]);
        assert_says(&judge(&one, &here()), &["mode observe on eth1"]);
    }

    #[test]
    fn a_link_whose_interface_was_deleted_is_no_protection() {
        let mut dead = whole();
        dead.links[1].index = 0;

        assert_says(&judge(&dead, &here()[..1]), &["eth1 was deleted"]);
        assert_says(&judge(&dead, &here()), &["eth1", "there again", "reload"]);
    }

    #[test]
    fn an_interface_that_is_bare_or_absent_is_no_protection() {
        let one = sight(vec![seen("eth0", 2, &guard())]);

        assert_says(&judge(&one, &here()), &["eth1", "carries no gate"]);
        assert_says(&judge(&one, &here()[..1]), &["no interface eth1"]);
    }

    #[test]
    fn a_gate_that_is_on_an_interface_of_another_name_is_told_where() {
        let devices = [device("eth0", 2), device("wan", 3)];

        assert_says(&judge(&whole(), &devices), &["no interface eth1", "on wan now"]);
    }

    #[test]
    fn an_interface_that_carries_another_program_than_its_link_is_no_protection() {
        let mut devices = here();
        devices[1].carried = None;

        assert_says(&judge(&whole(), &devices), &["eth1", "carries no gate"]);
    }

    #[test]
    fn pins_of_others_are_no_protection() {
        let mut foreign = whole();
        foreign.links.remove(1);
        foreign.foreign.push(Foreign { interface: "eth1".to_owned(), reason: "not ours".to_owned() });
        let mut left = whole();
        left.other_states.push(PathBuf::from("/nowhere/maps"));

        assert_says(&judge(&foreign, &here()), &["not ours"]);
        assert_says(&judge(&left, &here()), &["/nowhere/maps", "another version"]);
    }

    #[test]
    fn a_generation_that_was_not_confirmed_is_no_protection_and_it_is_said_what_holds() {
        let went_back = |previous: &[(&str, u32)], before: Option<About>| {
            let mut sight = whole();
            for seen in &mut sight.links {
                let ids: BTreeMap<_, _> =
                    previous.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect();
                seen.about.previous = Some(ids);
            }
            sight.links[1].standing = Standing::WentBack(1);
            sight.links[1].before = before;
            judge(&sight, &here())
        };

        assert_says(&went_back(&[], None), &["eth1", "its packets pass"]);
        assert_says(&went_back(&[("eth1", 33)], None), &["eth1", "program 33"]);
        let old = about(6, KNOCK, "guard");
        assert_says(&went_back(&[("eth1", 33)], Some(old)), &["eth1", "generation 6, mode guard"]);
    }

    /// In deny mode on both interfaces, with their programs for outgoing packets.
    fn denying() -> Sight {
        let deny = about(7, KNOCK, "deny");
        let mut sight = sight(vec![seen("eth0", 2, &deny), seen("eth1", 3, &deny)]);
        sight.links.iter_mut().for_each(|seen| seen.egress = Some(seen.program + 1));
        sight
    }

    #[test]
    fn deny_mode_that_does_not_note_what_goes_out_is_no_protection_and_another_mode_needs_no_notes() {
        assert_eq!(judge(&denying(), &here()), Vec::<String>::new());

        let mut deaf = denying();
        deaf.links[1].egress = None;

        assert_says(&judge(&deaf, &here()), &["eth1", "outgoing", "reload"]);
        assert_eq!(judge(&whole(), &here()), Vec::<String>::new());
    }

    #[test]
    fn a_dead_link_is_told_once_though_its_program_for_outgoing_packets_is_gone_too() {
        let mut dead = denying();
        dead.links[1].index = 0;
        dead.links[1].egress = None;

        assert_says(&judge(&dead, &here()), &["eth1 was deleted"]);
    }

    #[test]
    fn by_tcx_a_link_that_is_alive_judges_whatever_xdp_program_the_interface_carries() {
        let mut tcx = whole();
        tcx.links[1].hook = Hook::Ingress;
        let mut devices = here();
        devices[1].carried = None;

        assert_eq!(judge(&tcx, &devices), Vec::<String>::new());
        assert_eq!(interfaces(&tcx, &devices)[1].attach.as_deref(), Some("tcx"));
        assert_says(&judge(&whole(), &devices), &["eth1", "carries no gate"]);
    }

    #[test]
    fn an_update_cut_short_shows_the_generation_of_each() {
        let cut = sight(vec![seen("eth0", 2, &about(8, KNOCK, "guard")), seen("eth1", 3, &guard())]);

        let words = cut_short(&interfaces(&cut, &here())).expect("two generations");

        assert!(words.contains("eth0 has 8, eth1 has 7"), "{words}");
        assert_eq!(cut_short(&interfaces(&whole(), &here())), None);
    }
}
