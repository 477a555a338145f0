//! How far a conversation has come, and how long it may rest: for conversations that the kernel's own sockets do not show.
//!
//! The times are those of the kernel's connection tracking where it has one for the same thing
//! (`nf_conntrack-sysctl.rst`): a conversation that is translated on its way ends there anyway.

use crate::{abi::Flow, talk::Part};

const SECOND_NS: u64 = 1_000_000_000;

/// What is seen again within this time is not written again.
pub const REFRESH_NS: u64 = SECOND_NS;
/// How long the first answer to a datagram or an echo request of the host's is awaited.
pub const ASKED_NS: u64 = 60 * SECOND_NS;
/// How long a UDP conversation of the host's own may rest once it was answered.
pub const ANSWERED_NS: u64 = 180 * SECOND_NS;
/// How long the other side's next word is awaited while a forwarded TCP connection opens.
pub const OPENING_NS: u64 = 120 * SECOND_NS;
/// How long a forwarded TCP connection may rest.
pub const ESTABLISHED_NS: u64 = 432_000 * SECOND_NS;
/// How long what is left of a forwarded TCP connection may take once one side closed it.
pub const CLOSING_NS: u64 = 120 * SECOND_NS;

/// How far a conversation has come, as stored in [`Flow::stage`] and [`crate::abi::Session::stage`]. 0 is no conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The host sent something, and nothing has come back.
    Asked = 1,
    /// Something has come back.
    Answered = 2,
    /// TCP: one side has sent its SYN.
    Opening = 3,
    /// TCP: data may flow.
    Established = 4,
    /// TCP: one side has sent its FIN, or a RST.
    Closing = 5,
    /// UDP with a hidden service, begun by a source that had a grant.
    Granted = 6,
}

impl Stage {
    /// Returns the stage with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Asked),
            2 => Some(Self::Answered),
            3 => Some(Self::Opening),
            4 => Some(Self::Established),
            5 => Some(Self::Closing),
            6 => Some(Self::Granted),
            _ => None,
        }
    }

    /// Returns its number.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Asked => 1,
            Self::Answered => 2,
            Self::Opening => 3,
            Self::Established => 4,
            Self::Closing => 5,
            Self::Granted => 6,
        }
    }

    /// Returns the stage after a packet that belongs to the conversation.
    #[must_use]
    #[inline(always)]
    pub const fn after(self, part: Part, is_incoming: bool) -> Self {
        match (self, part) {
            (Self::Asked | Self::Answered, _) => {
                if is_incoming {
                    Self::Answered
                } else {
                    self
                }
            }
            (Self::Granted, _) => Self::Granted,
            (Self::Opening | Self::Established | Self::Closing, Part::Begins) => Self::Opening,
            (Self::Opening | Self::Established, Part::Ends) | (Self::Closing, _) => Self::Closing,
            (Self::Opening, Part::Goes) | (Self::Established, _) => Self::Established,
            (
                Self::Opening,
                Part::None
                | Part::Accepts
                | Part::Datagram
                | Part::Asks
                | Part::Answers
                | Part::Fails
                | Part::LaterFragment,
            ) => Self::Opening,
        }
    }

    /// Returns how long a conversation may rest; `udp_idle_ns` is what the configuration says of [`Stage::Granted`].
    #[must_use]
    #[inline(always)]
    pub const fn idle_ns(self, udp_idle_ns: u64) -> u64 {
        match self {
            Self::Asked => ASKED_NS,
            Self::Answered => ANSWERED_NS,
            Self::Opening => OPENING_NS,
            Self::Established => ESTABLISHED_NS,
            Self::Closing => CLOSING_NS,
            Self::Granted => udp_idle_ns,
        }
    }
}

/// Returns what is to be written of a conversation that a packet belongs to, or `None` where that says nothing new: the
/// stage is the same, and it was seen within [`REFRESH_NS`].
#[must_use]
#[inline(always)]
pub const fn renewed(stage: u8, seen_ns: u64, now_ns: u64, part: Part, is_incoming: bool) -> Option<u8> {
    let Some(before) = Stage::from_number(stage) else { return None };
    let after = before.after(part, is_incoming).number();
    if after == stage && now_ns.saturating_sub(seen_ns) < REFRESH_NS { None } else { Some(after) }
}

/// Returns whether a conversation at a stage, last seen at a time, still goes on. A stage of no meaning never does.
#[must_use]
#[inline(always)]
pub const fn is_live(stage: u8, seen_ns: u64, now_ns: u64, udp_idle_ns: u64) -> bool {
    let Some(stage) = Stage::from_number(stage) else { return false };
    now_ns.saturating_sub(seen_ns) <= stage.idle_ns(udp_idle_ns)
}

impl Flow {
    /// Returns a conversation seen now.
    #[must_use]
    #[inline(always)]
    pub const fn new(stage: Stage, now_ns: u64) -> Self {
        Self { seen_ns: now_ns, stage: stage.number(), _pad: [0; 7] }
    }

    /// Returns whether it still goes on.
    #[must_use]
    #[inline(always)]
    pub const fn is_live(&self, now_ns: u64) -> bool {
        is_live(self.stage, self.seen_ns, now_ns, 0)
    }
}
