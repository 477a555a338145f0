//! A configuration in the kernel's terms: what the loader patches and fills in for one generation.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;
use knock_common::{
    abi::{
        ABI_VERSION, DoorRule, List, MAX_PORT_DOORS, MAX_STEPS, PORTS, PortDoors, PrefixKey, Proto, Role,
        Settings, StepRule, mapped,
    },
    budget::WINDOW_NS,
    door::door_id,
    verdict,
};

use crate::{
    config::{Config, Door, Mode},
    service::Service,
    step::Step,
};

/// Events a second that strangers may cause; the rest is counted.
pub const EVENTS_PER_S: u32 = 1000;

/// The kernel's default ephemeral range (`ip_local_port_range` in `ip-sysctl.rst`).
pub const DEFAULT_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// A port and everything that may be said of it, for each protocol that has a table.
const PROTOCOLS: usize = 3;

/// One configuration, compiled.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Constants of the whole program.
    pub settings: Settings,
    /// Role words: TCP ports, then UDP ports.
    pub port_roles: Vec<Role>,
    /// Door rules by door number.
    pub doors: Vec<DoorRule>,
    /// Door names by door number.
    pub door_names: Vec<String>,
    /// Interned sets of doors; the first is empty.
    pub port_doors: Vec<PortDoors>,
    /// Prefixes of all lists, with the bits of the key that count.
    pub prefixes: Vec<(u32, PrefixKey)>,
}

/// Why a configuration cannot be put into the kernel's terms.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The doors' ports differ too much for the kernel's table.
    #[error(
        "the doors make {0} different sets of doors a port can belong to; {MAX_PORT_DOORS} are possible: use fewer or wider ranges"
    )]
    TooManySets(usize),
    /// Two doors have names with the same hash, by which the kernel knows them.
    #[error("doors \"{0}\" and \"{1}\" have names that the kernel cannot tell apart (one hash): rename one")]
    SameId(String, String),
}

impl Generation {
    /// Compiles a configuration. `ephemeral` is the host's range of ports for its own traffic.
    ///
    /// # Errors
    /// When the doors' ports make more sets than the kernel's table holds, or two doors have the same id.
    pub fn compile(
        config: &Config,
        number: u32,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<Self, CompileError> {
        let echo_public = config.public.contains(&Service::IcmpEcho);
        let doors: Vec<DoorRule> =
            config.doors.iter().map(|door| door_rule(door, ephemeral, echo_public)).collect();
        let names: Vec<&str> = config.doors.iter().map(|door| door.name.as_str()).collect();
        refuse_same_ids(&names, door_id)?;
        let mut roles = Roles::of(config, &doors, ephemeral).words()?;
        let echo_role = roles.words.pop().map_or(Role(0), |echo| echo.first().copied().unwrap_or(Role(0)));
        Ok(Self {
            settings: Settings {
                abi: ABI_VERSION,
                generation: number,
                events: per_window(EVENTS_PER_S),
                echo_role,
                ephemeral_first: *ephemeral.start(),
                ephemeral_last: *ephemeral.end(),
                mode: match config.mode {
                    Mode::Observe => verdict::Mode::Observe.number(),
                    Mode::Guard => verdict::Mode::Guard.number(),
                },
                lists: lists(config),
                test_clock: 0,
                confirm: 0,
                flags: 0,
                ttl: 64,
                hop_limit: 64,
                _pad: [0; 7],
                any_doors: 0,
                udp_idle_ns: 0,
                public_protos: [0; 4],
            },
            port_roles: roles.words.concat(),
            doors,
            door_names: config.doors.iter().map(|door| door.name.clone()).collect(),
            port_doors: roles.sets,
            prefixes: prefixes(config),
        })
    }

    /// Returns the name of the door with this id, or `None` when the configuration has no such door.
    #[must_use]
    pub fn door_name(&self, id: u64) -> Option<&str> {
        let number = self.doors.iter().position(|door| door.id == id)?;
        self.door_names.get(number).map(String::as_str)
    }
}

/// Returns the host's ephemeral port range, or the kernel's default where it cannot be read.
#[must_use]
pub fn host_ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => DEFAULT_EPHEMERAL,
    }
}

/// Refuses names that `id` makes the same number of.
fn refuse_same_ids(names: &[&str], id: impl Fn(&[u8]) -> u64) -> Result<(), CompileError> {
    let mut known = HashMap::new();
    for name in names {
        if let Some(other) = known.insert(id(name.as_bytes()), name) {
            return Err(CompileError::SameId((*other).to_owned(), (*name).to_owned()));
        }
    }
    Ok(())
}

fn door_rule(door: &Door, ephemeral: &RangeInclusive<u16>, echo_public: bool) -> DoorRule {
    let mut rule = DoorRule {
        id: door_id(door.name.as_bytes()),
        step_timeout_ns: nanoseconds(door.step_timeout),
        total_timeout_ns: nanoseconds(door.total_timeout),
        open_for_ns: nanoseconds(door.open_for),
        new_attempts: per_window(door.new_attempts_per_s),
        step_count: u8::try_from(door.knock.len()).expect("at most 16 steps, by the configuration's rules"),
        protos: 0,
        flags: 0,
        _pad: 0,
        steps: [StepRule { proto: 0, conditions: 0, port: 0, size: 0, id: 0 }; MAX_STEPS],
    };
    for (step, slot) in door.knock.iter().zip(&mut rule.steps) {
        *slot = step_rule(*step);
        rule.protos |= slot.proto;
    }
    let is_ephemeral = |step: &Step| matches!(step, Step::Udp(port) if ephemeral.contains(&port.get()));
    let flags = [
        (!door.from.is_empty(), DoorRule::FROM),
        (!door.to.is_empty(), DoorRule::TO),
        (door.knock.iter().any(is_ephemeral), DoorRule::UDP_EPHEMERAL),
        (echo_public, DoorRule::ECHO_PUBLIC),
    ];
    rule.flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
    rule
}

fn step_rule(step: Step) -> StepRule {
    let any = StepRule { proto: 0, conditions: 0, port: 0, size: 0, id: 0 };
    match step {
        Step::Tcp(port) => StepRule { proto: Proto::Tcp.bit(), port: port.get(), ..any },
        Step::Udp(port) => StepRule { proto: Proto::Udp.bit(), port: port.get(), ..any },
        Step::Icmp { size, id } => StepRule {
            proto: Proto::Icmp.bit(),
            conditions: size.map_or(0, |_| StepRule::SIZE) | id.map_or(0, |_| StepRule::ID),
            size: size.unwrap_or(0),
            id: id.unwrap_or(0),
            ..any
        },
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A rate in uses a budget window, rounded up.
fn per_window(per_s: u32) -> u32 {
    let uses = (u64::from(per_s) * WINDOW_NS).div_ceil(1_000_000_000);
    u32::try_from(uses).unwrap_or(u32::MAX)
}

/// What is said of each port, before it is put into words. Index: TCP, UDP, echo (which has one entry).
struct Roles {
    doors: [Vec<PortDoors>; PROTOCOLS],
    judged: [Vec<bool>; PROTOCOLS],
}

/// Role words by protocol, and the sets they point to.
struct Words {
    words: Vec<Vec<Role>>,
    sets: Vec<PortDoors>,
}

impl Roles {
    fn of(config: &Config, rules: &[DoorRule], ephemeral: &RangeInclusive<u16>) -> Self {
        let occurs = |proto: Proto| rules.iter().any(|rule| rule.protos & proto.bit() != 0);
        let mut roles = Self {
            doors: [PORTS, PORTS, 1].map(|ports| vec![PortDoors::default(); ports]),
            judged: [
                vec![occurs(Proto::Tcp); PORTS],
                vec![occurs(Proto::Udp); PORTS],
                vec![occurs(Proto::Icmp)],
            ],
        };
        if !rules.iter().any(|rule| rule.has(DoorRule::UDP_EPHEMERAL)) {
            roles.judged[1][ports_of(ephemeral)].fill(false);
        }
        for service in &config.public {
            // Echo requests may be public and a step at once: `DoorRule::ECHO_PUBLIC`.
            let (proto, ports) = place(service);
            if *service != Service::IcmpEcho {
                roles.judged[proto][ports].fill(false);
            }
        }
        for (number, door) in config.doors.iter().enumerate() {
            roles.add_door(door, 1 << number);
        }
        roles
    }

    fn add_door(&mut self, door: &Door, bit: u64) {
        for service in &door.opens {
            let (proto, ports) = place(service);
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

    fn words(self) -> Result<Words, CompileError> {
        let mut sets = vec![PortDoors::default()];
        let mut known = HashMap::from([(PortDoors::default(), 0)]);
        let mut words = Vec::new();
        for (doors, judged) in self.doors.into_iter().zip(self.judged) {
            let word = |(doors, judged): (PortDoors, bool)| {
                let index = *known.entry(doors).or_insert_with(|| {
                    sets.push(doors);
                    sets.len() - 1
                });
                let hidden = if doors.opens == 0 { 0 } else { Role::HIDDEN };
                let judged = if judged { Role::JUDGED } else { 0 };
                Role(u16::try_from(index).unwrap_or(0) & Role::INDEX | hidden | judged)
            };
            words.push(doors.into_iter().zip(judged).map(word).collect());
        }
        if sets.len() > MAX_PORT_DOORS {
            return Err(CompileError::TooManySets(sets.len()));
        }
        Ok(Words { words, sets })
    }
}

/// Returns the table and the entries of a service.
fn place(service: &Service) -> (usize, RangeInclusive<usize>) {
    match service {
        Service::Tcp(ports) => (0, ports_of(ports)),
        Service::Udp(ports) => (1, ports_of(ports)),
        Service::IcmpEcho => (2, 0..=0),
    }
}

fn ports_of(ports: &RangeInclusive<u16>) -> RangeInclusive<usize> {
    usize::from(*ports.start())..=usize::from(*ports.end())
}

/// Returns the bits of the lists that hold a prefix.
fn lists(config: &Config) -> u8 {
    let is_used = [
        (List::Allow, !config.allow.is_empty()),
        (List::From, config.doors.iter().any(|door| !door.from.is_empty())),
        (List::To, config.doors.iter().any(|door| !door.to.is_empty())),
    ];
    is_used.iter().filter(|(_, is_used)| *is_used).fold(0, |bits, (list, _)| bits | list.bit())
}

fn prefixes(config: &Config) -> Vec<(u32, PrefixKey)> {
    let allow = config.allow.iter().map(|net| prefix(List::Allow, 0, net));
    let of_doors = config.doors.iter().zip(0_u8..).flat_map(|(door, number)| {
        let from = door.from.iter().map(move |net| prefix(List::From, number, net));
        let to = door.to.iter().map(move |net| prefix(List::To, number, net));
        from.chain(to)
    });
    allow.chain(of_doors).collect()
}

fn prefix(list: List, door: u8, net: &IpNet) -> (u32, PrefixKey) {
    let (address, before) = match net.network() {
        IpAddr::V4(address) => (mapped(address.octets()), 96),
        IpAddr::V6(address) => (address.octets(), 0),
    };
    let key = PrefixKey {
        list: list.number(),
        door,
        family: if net.addr().is_ipv4() { 4 } else { 6 },
        _pad: 0,
        address,
    };
    (PrefixKey::FIXED_BITS + before + u32::from(net.prefix_len()), key)
}

/// Returns the address that a 16-byte address stands for.
#[must_use]
pub fn address(bytes: &knock_common::abi::Address) -> IpAddr {
    let v6 = std::net::Ipv6Addr::from(*bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), |v4: Ipv4Addr| IpAddr::V4(v4))
}

/// Returns the 16 bytes that stand for an address in the kernel's tables.
#[must_use]
pub fn key_of(address: IpAddr) -> knock_common::abi::Address {
    match address.to_canonical() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_whose_names_make_one_id_are_refused_by_name() {
        let length = |name: &[u8]| name.len() as u64;

        let refused = refuse_same_ids(&["ssh", "web-admin", "vpn"], length);
        let error = refused.expect_err("names of one length");

        assert_eq!(error, CompileError::SameId("ssh".to_owned(), "vpn".to_owned()));
        assert_eq!(refuse_same_ids(&["ssh", "web-admin", "vpn"], door_id), Ok(()));
    }
}
