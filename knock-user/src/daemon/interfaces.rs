//! Interfaces that come and go while the daemon serves: the gate is put on each by its name, as soon as it is there.

use jiff::Timestamp;
use nix::net::if_::if_nametoindex;

use super::Daemon;
use crate::{
    attach,
    events::{Line, Name},
    install::warn_of,
    survey,
};

/// Where an interface stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has this index, and the gate is on it.
    Attached(u32),
    /// There is no such interface now.
    Absent,
    /// It refuses the gate; the reason as told last.
    Refuses(String),
    /// Somebody else took the gate off it. Putting it back could lock out the one who did.
    Taken,
}

fn index_of(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

impl Daemon {
    /// Finds out where the interfaces of the generation stand, whoever attached them.
    pub(super) fn find_places(&mut self) {
        let links = survey::bare_links(&self.service.held.pins).unwrap_or_default();
        let place = |name: &String| {
            let link = links.iter().find(|link| link.interface == *name && !link.is_dead());
            (name.clone(), link.map_or(Place::Absent, |link| Place::Attached(link.index)))
        };
        self.places = self.service.installed.about.interfaces.iter().map(place).collect();
    }

    /// Returns whether some interface came, went, or is another one than it was.
    pub(super) fn has_moved(&self) -> bool {
        self.places.iter().any(|(name, place)| match (place, index_of(name)) {
            (Place::Attached(known), Some(now)) => *known != now,
            (Place::Attached(_), None) | (Place::Absent | Place::Refuses(_), Some(_)) => true,
            (Place::Absent, None) | (Place::Taken, _) => false,
            (Place::Refuses(_), None) => true,
        }) || self.is_pin_gone()
    }

    fn is_pin_gone(&self) -> bool {
        let is_gone = |name: &str| !self.service.held.pins.link(name).exists();
        self.places.iter().any(|(name, place)| matches!(place, Place::Attached(_)) && is_gone(name))
    }

    /// Returns whether every interface was taken from the daemon.
    pub(super) fn is_bereft(&self) -> bool {
        !self.places.is_empty() && self.places.values().all(|place| *place == Place::Taken)
    }

    /// Puts the gate on interfaces that came, and notes those that went.
    pub(super) fn follow_interfaces(&mut self) {
        // Those that came, and those whose address is another now.
        warn_of(self.service.installed.gate.know_links());
        let links = match survey::bare_links(&self.service.held.pins) {
            Ok(links) => links,
            Err(error) => return warn_of(Err(error)),
        };
        for (interface, place) in self.places.clone() {
            let link = links.iter().find(|link| link.interface == interface);
            let next = match (index_of(&interface), link, &place) {
                (_, _, Place::Taken) => Place::Taken,
                (Some(index), Some(link), _) if link.index == index => Place::Attached(index),
                (Some(index), None, Place::Attached(known)) if index == *known => self.note_taken(&interface),
                (Some(index), _, _) => self.put_on(&interface, index, &place),
                (None, _, _) => self.note_absent(&interface, &place),
            };
            self.places.insert(interface, next);
        }
    }

    fn put_on(&mut self, interface: &str, index: u32, before: &Place) -> Place {
        let pins = &self.service.held.pins;
        let wish = self.service.plan.overrides.attach;
        // What is pinned under the name judges on no interface any more, or on one that has another name now.
        let attached = attach::detach(interface, pins)
            .and_then(|()| attach::attach(&mut self.service.installed.gate, interface, wish, pins));
        if attached.is_err() {
            // Of a gate that cannot judge there nothing is left.
            warn_of(attach::detach(interface, pins));
        }
        match attached {
            Ok(way) => {
                self.publish(Line {
                    iface: Some(interface.to_owned()),
                    attach: Some(way.to_string()),
                    mode: Some(self.service.installed.about.mode.to_string()),
                    ..Line::new(Timestamp::now(), Name::Attached)
                });
                Place::Attached(index)
            }
            Err(error) => {
                let reason = format!("{error:#}");
                if *before != Place::Refuses(reason.clone()) {
                    say!("xdp-knock: {interface} is NOT guarded: {reason}");
                }
                Place::Refuses(reason)
            }
        }
    }

    fn note_absent(&mut self, interface: &str, before: &Place) -> Place {
        if matches!(before, Place::Attached(_)) {
            self.note_detached(
                interface,
                "the interface is gone: the gate is put on it again when it comes back",
            );
        }
        Place::Absent
    }

    fn note_taken(&mut self, interface: &str) -> Place {
        self.note_detached(interface, "another process removed its pin: it is left alone from now on");
        Place::Taken
    }

    fn note_detached(&mut self, interface: &str, why: &str) {
        self.publish(Line {
            iface: Some(interface.to_owned()),
            detail: Some(why.to_owned()),
            ..Line::new(Timestamp::now(), Name::Detached)
        });
    }
}
