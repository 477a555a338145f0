//! What becomes of a packet: from its segment, the configuration and the grants to a verdict, and to the knock in it.

use crate::{
    abi::{Address, DoorRule, List, PortDoors, Proto, Role},
    frame::Frame,
    machine::Knock,
    parse::{Segment, Transport},
    verdict::Verdict,
};

/// The configuration and the grants, as a packet may ask for them.
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
    /// Returns until when the source may pass the door.
    fn grant_until_ns(&self, source: &Address, door: u8) -> Option<u64>;
    /// Returns the time.
    fn now_ns(&self) -> u64;
}

/// A verdict, and what else is to be done about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet came with a grant that has expired.
    pub is_grant_expired: bool,
    /// The knock to be judged against the attempts of its source.
    pub knock: Option<Visit>,
}

/// A knock and its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The knock.
    pub knock: Knock,
    /// Its role.
    pub role: Role,
    /// Who knocks.
    pub source: Address,
    /// Where.
    pub destination: Address,
}

/// Returns the decision on a packet.
#[inline(always)]
pub fn decide<F: Frame + ?Sized, T: Tables>(frame: &F, segment: &Segment, tables: &T) -> Decision {
    let role = role_of(segment, tables);
    if role.is_none() {
        return only(Verdict::Unrelated);
    }
    let knock = if role.is_judged() { Knock::in_segment(segment) } else { None };
    if !role.is_hidden() && knock.is_none() {
        return only(Verdict::Unrelated);
    }
    let Some((source, destination)) = segment.addresses(frame) else { return only(Verdict::BadIp) };
    if !segment.is_checksum_right(frame) {
        return only(Verdict::BadIp);
    }
    if tables.has_allow() && tables.is_listed(List::Allow, 0, &source) {
        return only(Verdict::Allowed);
    }
    let (access, is_grant_expired) =
        if role.is_hidden() { access(role, &source, &destination, tables) } else { (Access::Open, false) };
    let verdict = match access {
        Access::Granted => return only(Verdict::Granted),
        Access::Refused => Verdict::Hidden,
        Access::Open if knock.is_some() => Verdict::Knock,
        Access::Open => return only(Verdict::Unrelated),
    };
    let knock = knock.map(|knock| Visit { knock, role, source, destination });
    Decision { verdict, is_grant_expired, knock }
}

#[inline(always)]
const fn only(verdict: Verdict) -> Decision {
    Decision { verdict, is_grant_expired: false, knock: None }
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

/// Whether a source reaches a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// No door hides the port at this destination.
    Open,
    /// A door hides it and the source has a grant for one that does.
    Granted,
    /// Doors hide it and the source has no grant for any.
    Refused,
}

#[inline(always)]
fn access<T: Tables>(role: Role, source: &Address, destination: &Address, tables: &T) -> (Access, bool) {
    let mut rest = tables.port_doors(role.index()).opens;
    let mut access = Access::Open;
    let mut is_grant_expired = false;
    for _ in 0..crate::abi::MAX_DOORS {
        let Some((door, others)) = lowest(rest) else { break };
        rest = others;
        if !is_at(door, destination, tables) {
            continue;
        }
        access = Access::Refused;
        let Some(until_ns) = tables.grant_until_ns(source, door) else { continue };
        if tables.now_ns() <= until_ns {
            return (Access::Granted, false);
        }
        is_grant_expired = true;
    }
    (access, is_grant_expired)
}

/// Returns whether the door exists at the destination.
#[inline(always)]
pub(crate) fn is_at<T: Tables>(door: u8, destination: &Address, tables: &T) -> bool {
    let Some(rule) = tables.door(door) else { return false };
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
