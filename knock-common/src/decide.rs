//! What becomes of a packet: from its segment, the configuration, the grants and the bans to a verdict, and to the knock
//! in it.

use crate::{
    abi::{Address, DoorRule, List, MAX_DOORS, PortDoors, Proto, Role},
    frame::Frame,
    machine::Knock,
    parse::{Segment, Transport},
    verdict::Verdict,
};

/// The configuration, the grants and the bans, as a packet may ask for them.
///
/// Two implementations: the maps of the kernel program, and plain collections in the tests.
pub trait Tables {
    /// Returns the role of a TCP or UDP port, or of echo requests.
    fn role(&self, proto: Proto, port: u16) -> Role;
    /// Returns an interned set of doors.
    fn port_doors(&self, index: u32) -> PortDoors;
    /// Returns the rule of a door.
    fn door(&self, door: u8) -> Option<&DoorRule>;
    /// Returns whether there is an allow list.
    fn has_allow(&self) -> bool;
    /// Returns whether a prefix of the list holds the address.
    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool;
    /// Returns whether the port lies in the host's ephemeral range.
    fn is_ephemeral(&self, port: u16) -> bool;
    /// Returns until when the source may pass the door with this id.
    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64>;
    /// Returns whether there may be bans.
    fn has_bans(&self) -> bool;
    /// Returns until when the source is banned.
    fn ban_until_ns(&self, source: &Address) -> Option<u64>;
    /// Returns the time.
    fn now_ns(&self) -> u64;
}

/// A packet that may concern a door: all that the rest of the decision needs of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Its role.
    pub role: Role,
    /// The knock in it, if a knock at this port is judged.
    pub knock: Option<Knock>,
    /// Who comes.
    pub source: Address,
    /// Where to.
    pub destination: Address,
}

/// A verdict, and what else is to be done about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The knock in it is to be judged against the attempts of its source.
    pub is_judged: bool,
    /// It would be, were its source not banned.
    pub is_banned: bool,
}

impl Decision {
    const fn without_judgement(verdict: Verdict) -> Self {
        Self { verdict, is_judged: false, is_banned: false }
    }
}

/// What the doors of a port say of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Some door hides the port at the destination.
    pub is_hidden: bool,
    /// The source has a grant for one that does.
    pub is_granted: bool,
    /// It has one that has expired.
    pub is_expired: bool,
}

/// Fills in the visit that a packet is, or returns the verdict on one that needs no more looking into.
///
/// # Errors
///
/// The verdict: the packet concerns no door, or its IP header is not sound.
#[inline(always)]
pub fn classify<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    segment: &Segment,
    tables: &T,
    visit: &mut Visit,
) -> Result<(), Verdict> {
    let role = role_of(segment, tables);
    if role.is_none() {
        return Err(Verdict::Unrelated);
    }
    let knock = if role.is_judged() { Knock::in_segment(segment) } else { None };
    if !role.is_hidden() && knock.is_none() {
        return Err(Verdict::Unrelated);
    }
    if !segment.is_checksum_right(frame) {
        return Err(Verdict::BadIp);
    }
    visit.role = role;
    visit.knock = knock;
    visit.source = segment.source(frame).ok_or(Verdict::BadIp)?;
    visit.destination = segment.destination(frame).ok_or(Verdict::BadIp)?;
    Ok(())
}

/// Returns the decision on a visit; `access` is left saying what the doors of the port said.
#[inline(always)]
pub fn decide<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> Decision {
    *access = Access::default();
    if tables.has_allow() && tables.is_listed(List::Allow, 0, &visit.source) {
        return Decision::without_judgement(Verdict::Allowed);
    }
    if visit.role.is_hidden() {
        ask_doors(visit, tables, access);
    }
    if access.is_granted {
        return Decision::without_judgement(Verdict::Granted);
    }
    let is_knock = visit.knock.is_some();
    let verdict = match (access.is_hidden, is_knock) {
        (true, _) => Verdict::Hidden,
        (false, true) => Verdict::Knock,
        (false, false) => Verdict::Unrelated,
    };
    let is_banned = is_knock && is_banned(&visit.source, tables);
    Decision { verdict, is_judged: is_knock && !is_banned, is_banned }
}

/// Returns whether the source's knocks are not judged: the verdict on its packets is the same, but they lead nowhere.
#[inline(always)]
fn is_banned<T: Tables>(source: &Address, tables: &T) -> bool {
    tables.has_bans() && tables.ban_until_ns(source).is_some_and(|until_ns| tables.now_ns() <= until_ns)
}

#[inline(always)]
fn role_of<T: Tables>(segment: &Segment, tables: &T) -> Role {
    match segment.transport {
        Transport::Tcp { port, .. } => tables.role(Proto::Tcp, port),
        Transport::Udp { port, .. } => tables.role(Proto::Udp, port),
        Transport::Echo { .. } => tables.role(Proto::Icmp, 0),
        Transport::Other => Role(0),
    }
}

#[inline(always)]
fn ask_doors<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) {
    let mut rest = tables.port_doors(visit.role.index()).opens;
    for _ in 0..MAX_DOORS {
        let Some((door, others)) = lowest(rest) else { return };
        rest = others;
        ask_door(visit, door, tables, access);
        if access.is_granted {
            return;
        }
    }
}

// Not inlined, and answering through memory: the verifier then goes on with one state a door, not one for each of
// its answers.
#[inline(never)]
fn ask_door<T: Tables>(visit: &Visit, door: u8, tables: &T, access: &mut Access) {
    let Some(rule) = tables.door(door).filter(|rule| is_at(rule, door, &visit.destination, tables)) else {
        return;
    };
    access.is_hidden = true;
    let Some(until_ns) = tables.grant_until_ns(&visit.source, rule.id) else { return };
    if tables.now_ns() <= until_ns {
        access.is_granted = true;
    } else {
        access.is_expired = true;
    }
}

/// Returns whether the door exists at the destination.
#[inline(always)]
pub(crate) fn is_at<T: Tables>(rule: &DoorRule, door: u8, destination: &Address, tables: &T) -> bool {
    !rule.has(DoorRule::TO) || tables.is_listed(List::To, door, destination)
}

/// Returns the lowest door of a set, and the others.
#[must_use]
#[inline(always)]
pub fn lowest(doors: u64) -> Option<(u8, u64)> {
    if doors == 0 {
        return None;
    }
    let [door, ..] = doors.trailing_zeros().to_le_bytes();
    Some((door & 63, doors & doors.wrapping_sub(1)))
}
