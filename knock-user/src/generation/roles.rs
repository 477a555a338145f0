//! What each port is: the words that the program reads one of a packet, and the sets of doors that they point to.

use std::{collections::HashMap, ops::RangeInclusive};

use knock_common::{
    abi::{DoorRule, MAX_PORT_DOORS, PORTS, PortDoors, Proto, Role},
    pages::LANES,
};

use super::CompileError;
use crate::{
    config::{Config, Door, Mode, SessionRule},
    pages::{FirstSteps, Pages, Volume},
    service::Service,
    step::Step,
};

/// A port and everything that may be said of it, for each protocol that has a table.
const PROTOCOLS: usize = 3;

/// What is said of each port, before it is put into words. Index: TCP, UDP, echo (which has one entry).
pub(super) struct Roles {
    doors: [Vec<PortDoors>; PROTOCOLS],
    judged: [Vec<bool>; PROTOCOLS],
    public: [Vec<bool>; PROTOCOLS],
    keeps: [Vec<bool>; PROTOCOLS],
    /// Ports of UDP.
    listens: Vec<usize>,
}

/// Role words by protocol, and the sets they point to.
pub(super) struct Words {
    pub(super) words: Vec<Vec<Role>>,
    pub(super) sets: Vec<PortDoors>,
}

impl Roles {
    pub(super) fn of(
        config: &Config,
        rules: &[DoorRule],
        pages: &Pages,
        ephemeral: &RangeInclusive<u16>,
    ) -> Self {
        let occurs = |proto: Proto| rules.iter().any(|rule| rule.protos & proto.bit() != 0);
        let nowhere = || [PORTS, PORTS, 1].map(|ports| vec![false; ports]);
        let is_deny = config.mode == Mode::Deny;
        let mut roles = Self {
            public: nowhere(),
            keeps: nowhere(),
            listens: Vec::new(),
            doors: [PORTS, PORTS, 1].map(|ports| vec![PortDoors::default(); ports]),
            judged: [
                vec![occurs(Proto::Tcp); PORTS],
                vec![occurs(Proto::Udp); PORTS],
                vec![occurs(Proto::Icmp)],
            ],
        };
        // Deny mode knows the replies to the host's own traffic, so the rest of that range is judged.
        if !is_deny && !rules.iter().any(|rule| rule.has(DoorRule::UDP_EPHEMERAL)) {
            roles.judged[1][ports_of(ephemeral)].fill(false);
        }
        for service in &config.public {
            // Echo requests may be public and a step at once: `DoorRule::ECHO_PUBLIC`.
            let Some((proto, ports)) = place(service) else { continue };
            roles.public[proto][ports.clone()].fill(is_deny);
            if *service != Service::IcmpEcho {
                roles.judged[proto][ports].fill(false);
            }
        }
        for (number, door) in config.doors.iter().enumerate() {
            if let Some(spa) = &door.spa {
                roles.judged[1][usize::from(spa.listen)] = true;
                roles.listens.push(usize::from(spa.listen));
            }
            roles.add_door(door, 1 << number);
        }
        pages.volumes.iter().for_each(|volume| roles.add_pages(volume));
        roles
    }

    fn add_pages(&mut self, volume: &Volume) {
        match volume.first_steps() {
            FirstSteps::Range(ports) => {
                let lanes = ((1 << LANES) - 1) << volume.base;
                for doors in &mut self.doors[..2] {
                    doors[ports_of(&ports.range())].iter_mut().for_each(|port| port.first |= lanes);
                }
            }
            FirstSteps::Each(steps) => {
                for (number, step) in steps {
                    let proto = usize::from(step.proto / 2);
                    self.doors[proto][usize::from(step.port)].first |= 1 << number;
                }
            }
        }
    }

    fn add_door(&mut self, door: &Door, bit: u64) {
        for service in &door.opens {
            let Some((proto, ports)) = place(service) else { continue };
            self.keeps[proto][ports.clone()].fill(door.sessions == SessionRule::Keep);
            self.doors[proto][ports].iter_mut().for_each(|port| port.opens |= bit);
        }
        let Some(first) = door.knock.first() else { return };
        let (proto, port) = match first {
            Step::Tcp(port) => (0, usize::from(port.get())),
            Step::Udp(port) => (1, usize::from(port.get())),
            Step::Icmp { .. } => (2, 0),
        };
        self.doors[proto][port].first |= bit;
    }

    pub(super) fn words(self) -> Result<Words, CompileError> {
        let mut sets = vec![PortDoors::default()];
        let mut known = HashMap::from([(PortDoors::default(), 0)]);
        let mut words: Vec<Vec<Role>> = Vec::new();
        let said = self.judged.into_iter().zip(self.public).zip(self.keeps);
        for (doors, ((judged, public), keeps)) in self.doors.into_iter().zip(said) {
            let word = |(doors, ((judged, public), keeps)): (PortDoors, ((bool, bool), bool))| {
                let index = *known.entry(doors).or_insert_with(|| {
                    sets.push(doors);
                    sets.len() - 1
                });
                let hidden = if doors.opens == 0 { 0 } else { Role::HIDDEN };
                let judged = if judged { Role::JUDGED } else { 0 };
                let public = if public { Role::PUBLIC } else { 0 };
                let keeps = if keeps { Role::KEEPS } else { 0 };
                Role(u16::try_from(index).unwrap_or(0) & Role::INDEX | hidden | judged | public | keeps)
            };
            let said = judged.into_iter().zip(public).zip(keeps);
            words.push(doors.into_iter().zip(said).map(word).collect());
        }
        for port in self.listens {
            words[1][port].0 |= Role::LISTENS;
        }
        if sets.len() > MAX_PORT_DOORS {
            return Err(CompileError::TooManySets(sets.len()));
        }
        Ok(Words { words, sets })
    }
}

/// Returns the table and the entries of a service; none for what is known by no port.
fn place(service: &Service) -> Option<(usize, RangeInclusive<usize>)> {
    match service {
        Service::Tcp(ports) => Some((0, ports_of(ports))),
        Service::Udp(ports) => Some((1, ports_of(ports))),
        Service::IcmpEcho => Some((2, 0..=0)),
        Service::Proto(_) | Service::Any => None,
    }
}

fn ports_of(ports: &RangeInclusive<u16>) -> RangeInclusive<usize> {
    usize::from(*ports.start())..=usize::from(*ports.end())
}
