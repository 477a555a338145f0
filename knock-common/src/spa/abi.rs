//! What lies in maps for single packet authorization, with its layout asserted.

use core::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use super::hmac::HmacKey;

/// Most secrets of a configuration.
pub const KEYS_ENTRIES: usize = 1024;
/// Most pairs of a secret and a door that it may ask for.
pub const RIGHTS_ENTRIES: usize = 4096;
/// Most secrets and one-time sequences whose use is remembered, those of former configurations included.
pub const FLOORS_ENTRIES: usize = 16_384;

/// What a secret is known by outside, made of it: [`super::key::SpaKey::id`].
pub type KeyId = [u8; 8];

/// A secret as the kernel needs it: the value of the map of keys, found by its [`KeyId`].
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KeyRule {
    /// SipHash key of the gate: little-endian words.
    pub gate: [u64; 2],
    /// Key of the code.
    pub code: HmacKey,
    /// [`KeyRule::ANY_SOURCE`], [`KeyRule::OTHER_SOURCE`], [`KeyRule::FROM`].
    pub flags: u8,
    /// Zero.
    pub _pad: u8,
    /// Number of the key, by which [`crate::abi::List::Key`] knows it: both secrets of a key have one.
    pub number: u16,
    /// Zero.
    pub _pad2: [u8; 4],
}

impl KeyRule {
    /// May ask for whoever sends the packet (`nat = true`).
    pub const ANY_SOURCE: u8 = 1;
    /// May name another address than the one it sends from.
    pub const OTHER_SOURCE: u8 = 2;
    /// May open for sources of its own prefixes alone.
    pub const FROM: u8 = 4;

    /// Returns whether the flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Key of the map of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct RightKey {
    /// The secret.
    pub key: KeyId,
    /// [`crate::abi::DoorRule::id`].
    pub door: u64,
}

/// What a secret may ask of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Right {
    /// How long the door opens for a packet that wants no time of its own.
    pub open_for_ns: u64,
    /// The longest that it opens for one that does.
    pub longest_ns: u64,
    /// UDP port that the door listens on.
    pub port: u16,
    /// Number of the door.
    pub door: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

/// What a generation says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServerRule {
    /// [`crate::door::door_id`] of its name.
    pub identity: u64,
    /// How far a counter may be from the wall time, either way.
    pub window_ns: u64,
}

/// What the kernel knows of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct WallClock {
    /// Unix time less boot time, wrapping.
    pub offset_ns: u64,
    /// Boot time when the daemon last looked; 0 if it never did.
    pub seen_ns: u64,
    /// Boot time since which floors are kept: what is older may have been accepted before, by floors that are gone.
    pub since_ns: u64,
}

const _: () = assert!(size_of::<KeyRule>() == 88 && offset_of!(KeyRule, number) == 82);
const _: () =
    assert!(size_of::<RightKey>() == 16 && size_of::<Right>() == 24 && size_of::<WallClock>() == 24);
const _: () = assert!(size_of::<ServerRule>() == 16);
