//! What becomes of a packet whose code is right: whether it is for this server, now, and within the rights of its secret.

use super::{
    abi::{KeyRule, Right, ServerRule, WallClock},
    packet::Request,
};
use crate::abi::Address;

/// How long the daemon's last look at the wall clock counts. The boot-time clock is steered by the same corrections as the
/// wall clock and differs from it by steps alone, so that only a step goes unseen meanwhile.
pub const CLOCK_TRUST_NS: u64 = 12 * 3600 * 1_000_000_000;

/// Why a packet is refused. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Not of the length, version or flags that are known here.
    Malformed = 1,
    /// No secret here has this id.
    UnknownKey = 2,
    /// It is not made with the secret that it names: the gate saw it.
    BadGate = 3,
    /// The gate passed it and the code is wrong.
    BadCode = 4,
    /// For a server of another name.
    OtherServer = 5,
    /// The secret may not ask for this door, or there is no such door.
    NotAllowed = 6,
    /// It names another source than the one it comes from, or none, and the secret may not.
    WrongSource = 7,
    /// The kernel does not know the wall time well enough.
    NoClock = 8,
    /// Older than the window, or than the floors.
    Stale = 9,
    /// Further in the future than the window.
    Future = 10,
    /// Not above the highest counter that was accepted.
    Replayed = 11,
    /// Who sends it is banned, or who is to be let in.
    Banned = 12,
}

/// All refusals, in the order of their numbers.
pub const REFUSALS: [Refusal; 12] = [
    Refusal::Malformed,
    Refusal::UnknownKey,
    Refusal::BadGate,
    Refusal::BadCode,
    Refusal::OtherServer,
    Refusal::NotAllowed,
    Refusal::WrongSource,
    Refusal::NoClock,
    Refusal::Stale,
    Refusal::Future,
    Refusal::Replayed,
    Refusal::Banned,
];

impl Refusal {
    /// Returns the word used in events and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadGate => "bad_gate",
            Self::BadCode => "bad_code",
            Self::OtherServer => "other_server",
            Self::NotAllowed => "not_allowed",
            Self::WrongSource => "wrong_source",
            Self::NoClock => "no_clock",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Replayed => "replayed",
            Self::Banned => "banned",
        }
    }

    /// Returns what it is a refusal of, in words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Malformed => "of another version, or with unknown flags",
            Self::UnknownKey => "no secret here has their id",
            Self::BadGate => "not made with the secret that they name",
            Self::BadCode => "right gate, wrong code",
            Self::OtherServer => "for a server of another name",
            Self::NotAllowed => "the key may not ask for that",
            Self::WrongSource => {
                "for another source than their own, or for any, which the key may not ask for"
            }
            Self::NoClock => "nobody tells the kernel the time",
            Self::Stale => "too old",
            Self::Future => "too far ahead",
            Self::Replayed => "used before",
            Self::Banned => "from, or for, a banned source",
        }
    }

    /// Returns the refusal with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        REFUSALS.into_iter().find(|refusal| refusal.number() == number)
    }

    /// Returns the number of the refusal.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Malformed => 1,
            Self::UnknownKey => 2,
            Self::BadGate => 3,
            Self::BadCode => 4,
            Self::OtherServer => 5,
            Self::NotAllowed => 6,
            Self::WrongSource => 7,
            Self::NoClock => 8,
            Self::Stale => 9,
            Self::Future => 10,
            Self::Replayed => 11,
            Self::Banned => 12,
        }
    }
}

/// The server that a packet arrives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// What its configuration says.
    pub rule: ServerRule,
    /// What the kernel knows of wall time.
    pub clock: WallClock,
    /// Boot time.
    pub now_ns: u64,
}

/// Returns whom an authentic packet asks to let in.
///
/// # Errors
///
/// The refusal, if it is for another server, or names a source that its secret may not name.
#[inline(always)]
pub fn beneficiary(
    request: &Request,
    rule: &KeyRule,
    server: &Server,
    sender: &Address,
) -> Result<Address, Refusal> {
    if request.server != server.rule.identity {
        return Err(Refusal::OtherServer);
    }
    match request.source {
        None if rule.has(KeyRule::ANY_SOURCE) => Ok(*sender),
        Some(source) if source == *sender || rule.has(KeyRule::OTHER_SOURCE) => Ok(source),
        None | Some(_) => Err(Refusal::WrongSource),
    }
}

/// Checks that a counter is near enough to the wall time.
///
/// # Errors
///
/// The refusal, if it is not, or if the wall time is not known.
#[inline(always)]
pub fn check_time(counter: u64, server: &Server) -> Result<(), Refusal> {
    let wall_ns = wall_ns(&server.clock, server.now_ns).ok_or(Refusal::NoClock)?;
    let kept_since_ns = server.clock.since_ns.wrapping_add(server.clock.offset_ns);
    if counter < wall_ns.saturating_sub(server.rule.window_ns) || counter < kept_since_ns {
        return Err(Refusal::Stale);
    }
    if counter > wall_ns.saturating_add(server.rule.window_ns) {
        return Err(Refusal::Future);
    }
    Ok(())
}

/// Returns the Unix time in nanoseconds, unless too long ago somebody last looked at it.
#[must_use]
#[inline(always)]
pub fn wall_ns(clock: &WallClock, now_ns: u64) -> Option<u64> {
    let is_trusted = clock.seen_ns != 0 && now_ns.saturating_sub(clock.seen_ns) <= CLOCK_TRUST_NS;
    is_trusted.then(|| now_ns.wrapping_add(clock.offset_ns))
}

/// Returns how long to let in: what was asked for, no longer than the right allows.
#[must_use]
#[inline(always)]
pub fn open_for_ns(request: &Request, right: &Right) -> u64 {
    let wanted_ns = if request.seconds == 0 {
        right.open_for_ns
    } else {
        u64::from(request.seconds).saturating_mul(1_000_000_000)
    };
    if wanted_ns < right.longest_ns { wanted_ns } else { right.longest_ns }
}
