//! The policy on one page: what each verdict does in each mode, and what it is counted as.

use crate::counter::Counter;

/// What a packet was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not IP: ARP, LLDP and the like.
    NotIp,
    /// Concerns no door.
    Unrelated,
    /// From an `allow` prefix.
    Allowed,
    /// To a hidden service, with a grant.
    Granted,
    /// To a hidden service, without a grant.
    Hidden,
    /// A knock, right or wrong, at a port that is not hidden.
    Knock,
    /// To a public service, in deny mode.
    Public,
    /// Neighbour discovery, group membership: what an interface lives by.
    Control,
    /// To a hidden service, without a grant, in a live session.
    Session,
    /// Answers the host's own traffic.
    Reply,
    /// Not addressed to the host.
    Forwarded,
    /// To nothing that is open.
    Denied,
    /// A fragment that is not the first: useless without the first, which is judged.
    LaterFragment,
    /// A fragment that is not the first, and its first did not pass.
    StrayFragment,
    /// Shorter than its Ethernet or VLAN headers.
    LinkCut,
    /// More than two VLAN tags.
    VlanDepth,
    /// An IP header that the stack would refuse.
    BadIp,
    /// IPv6 with a v4-mapped source, which would borrow an IPv4 source's grant.
    MappedSource,
    /// IPv6 extension headers too many, cut short or out of place.
    BadExtension,
    /// A fragment that would overwrite part of an L4 header (RFC 1858).
    FragmentOverlap,
    /// An L4 header cut short or with lengths that the stack would refuse.
    BadTransport,
}

/// What the gate does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Judges, counts, promotes, emits events; drops nothing.
    Observe,
    /// Drops packets to hidden services and what cannot be parsed.
    Guard,
    /// Drops everything to the host that is neither public, granted, in a session nor an answer.
    Deny,
}

impl Mode {
    /// Returns the number of the mode in [`crate::abi::Settings::mode`].
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Observe => 0,
            Self::Guard => 1,
            Self::Deny => 2,
        }
    }

    /// Returns the mode with this number; an unknown number guards.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Observe,
            2 => Self::Deny,
            _ => Self::Guard,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the network stack.
    Pass,
    /// Nowhere.
    Drop,
}

impl Verdict {
    /// Returns what the verdict does in a mode.
    #[must_use]
    #[inline(always)]
    pub const fn action(self, mode: Mode) -> Action {
        match (mode, self) {
            (Mode::Observe, _)
            | (
                Mode::Guard,
                Self::NotIp
                | Self::Unrelated
                | Self::Allowed
                | Self::Granted
                | Self::Knock
                | Self::Public
                | Self::Control
                | Self::Session
                | Self::Reply
                | Self::Forwarded
                | Self::Denied
                | Self::LaterFragment,
            )
            | (
                Mode::Deny,
                Self::NotIp
                | Self::Allowed
                | Self::Granted
                | Self::Public
                | Self::Control
                | Self::Session
                | Self::Reply
                | Self::Forwarded
                | Self::LaterFragment,
            ) => Action::Pass,
            (Mode::Deny, Self::Unrelated | Self::Knock | Self::Denied)
            | (
                Mode::Guard | Mode::Deny,
                Self::Hidden
                | Self::StrayFragment
                | Self::LinkCut
                | Self::VlanDepth
                | Self::BadIp
                | Self::MappedSource
                | Self::BadExtension
                | Self::FragmentOverlap
                | Self::BadTransport,
            ) => Action::Drop,
        }
    }

    /// Returns whether a packet that is dropped asked for a port, so that it is answered where hidden ports look closed.
    #[must_use]
    #[inline(always)]
    pub const fn asks_for_a_port(self) -> bool {
        match self {
            Self::Hidden | Self::Knock | Self::Denied | Self::Unrelated => true,
            Self::NotIp
            | Self::Allowed
            | Self::Granted
            | Self::Public
            | Self::Control
            | Self::Session
            | Self::Reply
            | Self::Forwarded
            | Self::LaterFragment
            | Self::StrayFragment
            | Self::LinkCut
            | Self::VlanDepth
            | Self::BadIp
            | Self::MappedSource
            | Self::BadExtension
            | Self::FragmentOverlap
            | Self::BadTransport => false,
        }
    }

    /// Returns the one counter of the verdict.
    #[must_use]
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::NotIp => Counter::NotIp,
            Self::Unrelated => Counter::Unrelated,
            Self::Allowed => Counter::Allowed,
            Self::Granted => Counter::Granted,
            Self::Hidden => Counter::Hidden,
            Self::Knock => Counter::Knock,
            Self::Public => Counter::Public,
            Self::Control => Counter::Control,
            Self::Session => Counter::Session,
            Self::Reply => Counter::Reply,
            Self::Forwarded => Counter::Forwarded,
            Self::Denied => Counter::Denied,
            Self::LaterFragment => Counter::LaterFragment,
            Self::StrayFragment => Counter::StrayFragment,
            Self::LinkCut => Counter::LinkCut,
            Self::VlanDepth => Counter::VlanDepth,
            Self::BadIp => Counter::BadIp,
            Self::MappedSource => Counter::MappedSource,
            Self::BadExtension => Counter::BadExtension,
            Self::FragmentOverlap => Counter::FragmentOverlap,
            Self::BadTransport => Counter::BadTransport,
        }
    }
}
