//! A configuration in the kernel's terms: what the loader patches and fills in for one generation.

mod roles;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;
use knock_common::{
    abi::{
        ABI_VERSION, DoorRule, List, MAX_PORT_DOORS, MAX_STEPS, PortDoors, PrefixKey, Proto, Role, Settings,
        StepRule, mapped,
    },
    budget::WINDOW_NS,
    door::door_id,
    verdict,
};

use self::roles::Roles;
use crate::{
    config::{Config, Door, Forward, HideAs, Mode, SessionRule},
    pages::Pages,
    service::Service,
    spa::Spa,
    step::Step,
};

/// Events a second that strangers may cause; the rest is counted.
pub const EVENTS_PER_S: u32 = 1000;

/// The kernel's default ephemeral range (`ip_local_port_range` in `ip-sysctl.rst`).
pub const DEFAULT_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// One configuration, compiled.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Constants of the whole program.
    pub settings: Settings,
    /// Role words: TCP ports, then UDP ports.
    pub port_roles: Vec<Role>,
    /// Door rules by door number: those of the configuration, then the lanes of doors whose sequence changes.
    pub doors: Vec<DoorRule>,
    /// Door names by door number.
    pub door_names: Vec<String>,
    /// Interned sets of doors; the first is empty.
    pub port_doors: Vec<PortDoors>,
    /// Prefixes of all lists, with the bits of the key that count.
    pub prefixes: Vec<(u32, PrefixKey)>,
    /// What it knows of single packets.
    pub spa: Spa,
    /// The sequences of doors that have one after the other.
    pub pages: Pages,
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
        let numbered = config.doors.iter().zip(0_u8..);
        let fixed = numbered
            .map(|(door, number)| DoorRule { prefixes: number, ..door_rule(door, ephemeral, echo_public) });
        let pages = Pages::of(config, |door| blank_rule(door, ephemeral, echo_public));
        let doors: Vec<DoorRule> = fixed.chain(pages.lane_rules()).collect();
        let names: Vec<&str> = config.doors.iter().map(|door| door.name.as_str()).collect();
        refuse_same_ids(&names, door_id)?;
        let mut roles = Roles::of(config, &doors, &pages, ephemeral).words()?;
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
                    Mode::Deny => verdict::Mode::Deny.number(),
                },
                lists: lists(config),
                test_clock: 0,
                confirm: 0,
                flags: flags(config),
                ttl: host_number("/proc/sys/net/ipv4/ip_default_ttl"),
                hop_limit: host_number("/proc/sys/net/ipv6/conf/all/hop_limit"),
                _pad: [0; 7],
                any_doors: any_doors(config),
                udp_idle_ns: nanoseconds(config.udp_idle),
                public_protos: public_protos(config),
            },
            port_roles: roles.words.concat(),
            doors,
            door_names: config.doors.iter().map(|door| door.name.clone()).collect(),
            port_doors: roles.sets,
            prefixes: prefixes(config),
            spa: Spa::of(config),
            pages,
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

/// Returns a number of the host's settings; the hops that it gives its packets by default (`IPDEFTTL`) if it is not there.
fn host_number(path: &str) -> u8 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(64)
}

/// Returns the flags of [`Settings::flags`] that a configuration sets.
fn flags(config: &Config) -> u8 {
    let flags = [
        (config.hide_as == HideAs::Closed, Settings::CLOSED),
        // As `auto_flowlabels` of `ip-sysctl.rst`: any number but 0 has the kernel label what it sends.
        (host_number("/proc/sys/net/ipv6/auto_flowlabels") != 0, Settings::LABELS),
        (config.forward == Forward::Deny, Settings::DENY_FORWARD),
        (config.doors.iter().any(|door| door.sessions == SessionRule::Keep), Settings::SESSIONS),
        (config.doors.iter().any(|door| door.spa.is_some()), Settings::SPA),
        (config.doors.iter().any(|door| door.rotate.is_some() || !door.list.is_empty()), Settings::PAGES),
    ];
    flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag)
}

/// Returns the doors that open everything, one bit each.
fn any_doors(config: &Config) -> u64 {
    let numbered = config.doors.iter().enumerate();
    numbered
        .filter(|(_, door)| door.opens.contains(&Service::Any))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

/// Returns the bits of the protocols that are public; none outside deny mode, which alone asks for them.
fn public_protos(config: &Config) -> [u64; 4] {
    let mut bits = [0; 4];
    for service in config.public.iter().filter(|_| config.mode == Mode::Deny) {
        if let Service::Proto(number) = service {
            bits[usize::from(number / 64)] |= 1 << (number % 64);
        }
    }
    bits
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
    let mut rule = blank_rule(door, ephemeral, echo_public);
    for (step, slot) in door.knock.iter().zip(&mut rule.steps) {
        *slot = step_rule(*step);
        rule.protos |= slot.proto;
    }
    rule.step_count = u8::try_from(door.knock.len()).expect("at most 16 steps, by the configuration's rules");
    rule
}

/// The rule of a door without its sequence.
fn blank_rule(door: &Door, ephemeral: &RangeInclusive<u16>, echo_public: bool) -> DoorRule {
    let mut rule = DoorRule {
        id: door_id(door.name.as_bytes()),
        step_timeout_ns: nanoseconds(door.step_timeout),
        total_timeout_ns: nanoseconds(door.total_timeout),
        open_for_ns: nanoseconds(door.open_for),
        new_attempts: per_window(door.new_attempts_per_s),
        step_count: 0,
        protos: 0,
        flags: 0,
        prefixes: 0,
        page: 0,
        _pad: 0,
        steps: [StepRule { proto: 0, conditions: 0, port: 0, size: 0, id: 0 }; MAX_STEPS],
    };
    let flags = [
        (!door.from.is_empty(), DoorRule::FROM),
        (!door.to.is_empty(), DoorRule::TO),
        (has_ephemeral_step(door, ephemeral), DoorRule::UDP_EPHEMERAL),
        (echo_public, DoorRule::ECHO_PUBLIC),
    ];
    rule.flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
    rule
}

/// Returns whether a UDP step of any of its sequences may lie in the host's range for its own traffic.
fn has_ephemeral_step(door: &Door, ephemeral: &RangeInclusive<u16>) -> bool {
    let lines = door.list.iter().flat_map(|line| &line.steps);
    let mut steps = door.knock.iter().chain(lines);
    steps.any(|step| matches!(step, Step::Udp(port) if ephemeral.contains(&port.get())))
        || door.rotate.as_ref().is_some_and(|rotate| rotate.shape.ports.meets(ephemeral))
}

/// Returns a step as the kernel compares it.
pub(crate) fn step_rule(step: Step) -> StepRule {
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

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A rate in uses a budget window, rounded up.
fn per_window(per_s: u32) -> u32 {
    let uses = (u64::from(per_s) * WINDOW_NS).div_ceil(1_000_000_000);
    u32::try_from(uses).unwrap_or(u32::MAX)
}

/// Returns the bits of the lists that hold a prefix.
fn lists(config: &Config) -> u8 {
    let is_used = [
        (List::Allow, !config.allow.is_empty()),
        (List::From, config.doors.iter().any(|door| !door.from.is_empty())),
        (List::To, config.doors.iter().any(|door| !door.to.is_empty())),
        (List::Key, config.keys.iter().any(|key| !key.from.is_empty())),
    ];
    is_used.iter().filter(|(_, is_used)| *is_used).fold(0, |bits, (list, _)| bits | list.bit())
}

fn prefixes(config: &Config) -> Vec<(u32, PrefixKey)> {
    let allow = config.allow.iter().map(|net| prefix(List::Allow, 0, net));
    let of_doors = config.doors.iter().zip(0_u16..).flat_map(|(door, number)| {
        let from = door.from.iter().map(move |net| prefix(List::From, number, net));
        let to = door.to.iter().map(move |net| prefix(List::To, number, net));
        from.chain(to)
    });
    let keys = config.keys.iter().zip(0_u16..);
    let of_keys =
        keys.flat_map(|(key, number)| key.from.iter().map(move |net| prefix(List::Key, number, net)));
    allow.chain(of_doors).chain(of_keys).collect()
}

fn prefix(list: List, owner: u16, net: &IpNet) -> (u32, PrefixKey) {
    let (address, before) = match net.network() {
        IpAddr::V4(address) => (mapped(address.octets()), 96),
        IpAddr::V6(address) => (address.octets(), 0),
    };
    let key =
        PrefixKey { list: list.number(), family: if net.addr().is_ipv4() { 4 } else { 6 }, owner, address };
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
    use knock_common::abi::PORTS;

    use super::*;

    const DOORS: &str = r#"
        public = ["tcp/443", "icmp/echo", "proto/47", "proto/255"]
        [[door]]
        name = "ssh"
        opens = ["tcp/22"]
        knock = ["tcp/12017", "udp/3044", "tcp/9321", "udp/7121"]
        [[door]]
        name = "vpn"
        opens = ["udp/51820"]
        knock = ["tcp/13017", "udp/4044", "tcp/9322", "udp/7122"]
        sessions = "cut"
    "#;

    fn compiled(text: &str) -> Generation {
        let (config, _) = Config::parse("test", text).unwrap_or_else(|error| panic!("{error}"));
        Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn only_deny_mode_knows_what_is_public_and_judges_the_ephemeral_range() {
        let [guard, deny] =
            ["guard", "deny"].map(|mode| compiled(&format!("[xdp]\nmode = \"{mode}\"\n{DOORS}")));

        assert!(guard.port_roles[443].is_none(), "in guard mode it is the hot path");
        assert!(deny.port_roles[443].is_public() && deny.settings.echo_role.is_public());
        assert!(!deny.port_roles[80].is_public());
        assert!(
            guard.port_roles[PORTS + 40_000].is_none(),
            "replies come there, and nothing tells them apart"
        );
        assert!(deny.port_roles[PORTS + 40_000].is_judged());
        assert_eq!(guard.settings.public_protos, [0; 4]);
        assert_eq!(deny.settings.public_protos, [1 << 47, 0, 0, 1 << 63]);
    }

    #[test]
    fn ports_keep_what_their_doors_keep() {
        let guard = compiled(&format!("[xdp]\nmode = \"guard\"\n{DOORS}"));

        assert!(guard.port_roles[22].keeps());
        assert!(guard.port_roles[PORTS + 51_820].is_hidden() && !guard.port_roles[PORTS + 51_820].keeps());
        // Flow labels are the host's setting.
        assert_eq!(guard.settings.flags & !Settings::LABELS, Settings::SESSIONS);
        assert_eq!(guard.settings.udp_idle_ns, 900 * 1_000_000_000);
    }

    #[test]
    fn a_door_to_everything_is_known_by_its_bit() {
        let deny = compiled(
            "[xdp]\nmode = \"deny\"\nhide_as = \"closed\"\nforward = \"deny\"\n[[door]]\nname = \"trusted\"\n\
             opens = [\"any\"]\nknock = [\"tcp/12017\", \"udp/3044\", \"tcp/9321\", \"udp/7121\"]\n",
        );

        assert_eq!(deny.settings.any_doors, 1);
        assert_eq!(
            deny.settings.flags & !Settings::LABELS,
            Settings::CLOSED | Settings::DENY_FORWARD | Settings::SESSIONS
        );
        assert!(deny.port_roles.iter().all(|role| !role.is_hidden()));
    }

    #[test]
    fn doors_whose_names_make_one_id_are_refused_by_name() {
        let length = |name: &[u8]| name.len() as u64;

        let refused = refuse_same_ids(&["ssh", "web-admin", "vpn"], length);
        let error = refused.expect_err("names of one length");

        assert_eq!(error, CompileError::SameId("ssh".to_owned(), "vpn".to_owned()));
        assert_eq!(refuse_same_ids(&["ssh", "web-admin", "vpn"], door_id), Ok(()));
    }
}
