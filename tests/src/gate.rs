//! A configuration in plain collections: what the kernel program asks its maps for, and the tests set up by hand.

use std::{collections::HashMap, ops::RangeInclusive};

use knock_common::{
    abi::{
        Address, DoorRule, Flow, FlowKey, FragmentKey, List, MAX_STEPS, PortDoors, Proto, Role, Sessions,
        StepRule, is_mapped,
    },
    decide::{Tables, Visit},
    door::door_id,
};

/// One second.
pub const SECOND: u64 = 1_000_000_000;
/// Step timeout of [`rule`].
pub const STEP_TIMEOUT: u64 = 5 * SECOND;
/// Total timeout of [`rule`].
pub const TOTAL_TIMEOUT: u64 = 15 * SECOND;

/// Returns the step of a SYN to a TCP port.
pub fn tcp(port: u16) -> StepRule {
    step(Proto::Tcp, port)
}

/// Returns the step of a datagram to a UDP port.
pub fn udp(port: u16) -> StepRule {
    step(Proto::Udp, port)
}

/// Returns the step of an echo request with so many bytes of payload.
pub fn echo(size: u16) -> StepRule {
    StepRule { conditions: StepRule::SIZE, size, ..step(Proto::Icmp, 0) }
}

fn step(proto: Proto, port: u16) -> StepRule {
    StepRule { proto: proto.bit(), conditions: 0, port, size: 0, id: 0 }
}

/// Returns a door with these steps, 5 s for each and 15 s for all, that opens for 30 s.
pub fn rule(sequence: &[StepRule]) -> DoorRule {
    let mut steps = [StepRule { proto: 0, ..tcp(0) }; MAX_STEPS];
    steps[..sequence.len()].copy_from_slice(sequence);
    DoorRule {
        id: 0,
        step_timeout_ns: STEP_TIMEOUT,
        total_timeout_ns: TOTAL_TIMEOUT,
        open_for_ns: 30 * SECOND,
        new_attempts: 10_000,
        step_count: u8::try_from(sequence.len()).expect("a short sequence"),
        protos: sequence.iter().fold(0, |protos, step| protos | step.proto),
        flags: 0,
        prefixes: 0,
        page: 0,
        _pad: 0,
        steps,
    }
}

/// A range of ports of a protocol; port 0 stands for echo.
pub type Service = (Proto, RangeInclusive<u16>);

/// An address prefix: how many leading bits of the mapped form count.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    /// Any address in it.
    pub address: Address,
    /// Leading bits that count, of 128.
    pub bits: usize,
}

impl Prefix {
    fn holds(&self, address: &Address) -> bool {
        is_mapped(&self.address) == is_mapped(address) && self.holds_bits(address)
    }

    fn holds_bits(&self, address: &Address) -> bool {
        (0..self.bits).all(|bit| {
            let mask = 0x80 >> (bit % 8);
            self.address[bit / 8] & mask == address[bit / 8] & mask
        })
    }
}

/// A door: its rule, what it hides, and for whom and where.
#[derive(Clone, Debug)]
pub struct Door {
    /// As the kernel judges it; [`Gate::new`] sets the id and the flags.
    pub rule: DoorRule,
    /// What it hides.
    pub opens: Vec<Service>,
    /// Sources that may use it; empty for any.
    pub from: Vec<Prefix>,
    /// Destinations it exists for; empty for any.
    pub to: Vec<Prefix>,
}

impl Door {
    /// Returns the door of these steps, for anybody anywhere, that hides nothing.
    pub fn of(sequence: &[StepRule]) -> Self {
        Self { rule: rule(sequence), opens: vec![], from: vec![], to: vec![] }
    }
}

/// Until when a source may pass a door.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    /// The source.
    pub source: Address,
    /// Door number.
    pub door: u8,
    /// The last instant.
    pub until_ns: u64,
}

/// A gate at one instant.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Its doors, in order of their numbers.
    pub doors: Vec<Door>,
    /// Sources never judged.
    pub allow: Vec<Prefix>,
    /// Grants given.
    pub grants: Vec<Permit>,
    /// Banned sources, each with the last instant of its ban.
    pub bans: Vec<(Address, u64)>,
    /// Whether they are asked for; [`Gate::new`] says so.
    pub are_bans_in_use: bool,
    /// The host's ephemeral range.
    pub ephemeral: RangeInclusive<u16>,
    /// The time.
    pub now_ns: u64,
    /// Whether it is in deny mode.
    pub is_deny: bool,
    /// Interned sets of doors.
    pub sets: Vec<PortDoors>,
    special: HashMap<(u8, u16), Role>,
    judged: u8,
}

impl Gate {
    /// Returns the gate of these doors, at time 0, with Linux's own ephemeral range. Public echo requests may still be
    /// steps.
    pub fn new(doors: Vec<Door>, public: &[Service]) -> Self {
        let judged = doors.iter().fold(0, |protos, door| protos | door.rule.protos);
        let mut gate = Self {
            doors,
            allow: vec![],
            grants: vec![],
            bans: vec![],
            are_bans_in_use: true,
            ephemeral: 32_768..=60_999,
            now_ns: 0,
            is_deny: false,
            sets: vec![PortDoors::default()],
            special: HashMap::new(),
            judged,
        };
        let is_echo = |service: &&Service| service.0 == Proto::Icmp;
        for (number, door) in (0_u8..).zip(&mut gate.doors) {
            door.rule.id = door_id(&[number]);
            door.rule.prefixes = number;
        }
        gate.flag_doors(public.iter().any(|service| is_echo(&service)));
        gate.give_roles();
        for (proto, ports) in public.iter().filter(|service| !is_echo(service)) {
            gate.special.extend(ports.clone().map(|port| ((proto.bit(), port), Role(0))));
        }
        gate
    }

    fn flag_doors(&mut self, is_echo_public: bool) {
        for door in &mut self.doors {
            let steps = &door.rule.steps[..usize::from(door.rule.step_count)];
            let is_ephemeral = steps
                .iter()
                .any(|step| step.proto == Proto::Udp.bit() && self.ephemeral.contains(&step.port));
            let flags = [
                (is_ephemeral, DoorRule::UDP_EPHEMERAL),
                (!door.from.is_empty(), DoorRule::FROM),
                (!door.to.is_empty(), DoorRule::TO),
                (is_echo_public, DoorRule::ECHO_PUBLIC),
            ];
            door.rule.flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        }
    }

    fn give_roles(&mut self) {
        let mut concerned: HashMap<(u8, u16), PortDoors> = HashMap::new();
        for (number, door) in self.doors.iter().enumerate() {
            let first = &door.rule.steps[0];
            concerned.entry((first.proto, first.port)).or_default().first |= 1 << number;
            for (proto, port) in
                door.opens.iter().flat_map(|(proto, ports)| ports.clone().map(|p| (*proto, p)))
            {
                concerned.entry((proto.bit(), port)).or_default().opens |= 1 << number;
            }
        }
        for (place, doors) in concerned {
            let index = self.sets.iter().position(|set| *set == doors).unwrap_or_else(|| {
                self.sets.push(doors);
                self.sets.len() - 1
            });
            let hidden = if doors.opens == 0 { 0 } else { Role::HIDDEN };
            let index = u16::try_from(index).expect("few sets");
            self.special.insert(place, Role(index | hidden | self.judged_bit(place)));
        }
    }

    /// UDP to the ephemeral range is taken for replies where no door has a step there.
    fn judged_bit(&self, (proto, port): (u8, u16)) -> u16 {
        let is_flagged = |door: &Door| door.rule.has(DoorRule::UDP_EPHEMERAL);
        let is_reply =
            proto == Proto::Udp.bit() && self.ephemeral.contains(&port) && !self.doors.iter().any(is_flagged);
        if self.judged & proto == 0 || is_reply { 0 } else { Role::JUDGED }
    }
}

impl Tables for Gate {
    fn role(&self, proto: Proto, port: u16) -> Role {
        let fallback = Role(self.judged_bit((proto.bit(), port)));
        self.special.get(&(proto.bit(), port)).copied().unwrap_or(fallback)
    }

    fn port_doors(&self, index: u32) -> PortDoors {
        self.sets.get(index as usize).copied().unwrap_or_default()
    }

    fn door(&self, door: u8) -> Option<&DoorRule> {
        self.doors.get(usize::from(door)).map(|door| &door.rule)
    }

    fn page(&self, _door: u8, _now_ns: u64) -> Option<&DoorRule> {
        None
    }

    fn has_allow(&self) -> bool {
        !self.allow.is_empty()
    }

    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool {
        let of_door = || self.doors.get(usize::from(door)).expect("a door that exists");
        let prefixes = match list {
            List::Allow => &self.allow,
            List::From => &of_door().from,
            List::To => &of_door().to,
            // Asked for by single packets, of which there are none here.
            List::Key => return false,
        };
        prefixes.iter().any(|prefix| prefix.holds(address))
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral.contains(&port)
    }

    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64> {
        let is_for = |permit: &&Permit| self.doors[usize::from(permit.door)].rule.id == door_id;
        let permit = self.grants.iter().filter(is_for).find(|permit| permit.source == *source)?;
        Some(permit.until_ns)
    }

    fn has_bans(&self) -> bool {
        self.are_bans_in_use
    }

    fn ban_until_ns(&self, source: &Address) -> Option<u64> {
        self.bans.iter().find(|(banned, _)| banned == source).map(|(_, until_ns)| *until_ns)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn is_deny(&self) -> bool {
        self.is_deny
    }

    fn any_doors(&self) -> u64 {
        0
    }

    fn is_public_proto(&self, _proto: u8) -> bool {
        false
    }

    fn has_socket(&self, _flow: &FlowKey) -> bool {
        false
    }

    fn sessions(&self, _source: &Address) -> Option<&Sessions> {
        None
    }

    fn udp_idle_ns(&self) -> u64 {
        0
    }

    fn reply(&self, _flow: &FlowKey) -> Option<Flow> {
        None
    }

    fn fragments_until_ns(&self, _key: &FragmentKey) -> Option<u64> {
        None
    }

    fn is_forwarded(&self, _visit: &Visit) -> bool {
        false
    }
}
