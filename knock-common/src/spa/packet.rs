//! The datagram: fields in network byte order, the gate's tag and the code behind them.

use siphasher::sip::SipHasher24;

use super::{
    abi::{KeyId, KeyRule},
    key::SpaKey,
    sha256::Work,
};
use crate::abi::Address;

/// Bytes of the datagram; any other length is no packet.
pub const LENGTH: usize = 78;
/// Bytes that the gate's tag and the code cover: all that means anything, and one padded block of SHA-256 at most.
pub const COVERED: usize = 54;
/// Version that this page speaks: the first byte.
pub const VERSION: u8 = 1;
/// Flag: whoever sends this is let in, and no address is named.
pub const ANY_SOURCE: u8 = 1;

const KEY_AT: usize = 6;
const DOOR_AT: usize = 14;
const COUNTER_AT: usize = 22;
const SERVER_AT: usize = 30;
const SOURCE_AT: usize = 38;
const GATE_AT: usize = COVERED;
const CODE_AT: usize = 62;

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How long it wants to be let in; 0 is as long as the door gives.
    pub seconds: u32,
    /// [`crate::door::door_id`] of the door's name.
    pub door: u64,
    /// Unix time in nanoseconds, higher than in any packet of this secret before.
    pub counter: u64,
    /// [`crate::door::door_id`] of the server's name.
    pub server: u64,
    /// Whom to let in; nothing is whoever sends the packet.
    pub source: Option<Address>,
}

/// A datagram of the right length, aligned so that it is read by words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Datagram {
    bytes: [u8; LENGTH],
}

impl Datagram {
    /// A datagram of zeros, which is no packet.
    pub const EMPTY: Self = Self { bytes: [0; LENGTH] };

    /// Takes the bytes.
    #[must_use]
    #[inline(always)]
    pub const fn new(bytes: [u8; LENGTH]) -> Self {
        Self { bytes }
    }

    /// Makes the packet of a request under a secret.
    #[must_use]
    pub fn seal(request: &Request, key: &SpaKey) -> Self {
        let mut sealed = Self::EMPTY;
        let flags = if request.source.is_none() { ANY_SOURCE } else { 0 };
        sealed.put(0, [VERSION, flags]);
        sealed.put(2, request.seconds.to_be_bytes());
        sealed.put(KEY_AT, key.id());
        sealed.put(DOOR_AT, request.door.to_be_bytes());
        sealed.put(COUNTER_AT, request.counter.to_be_bytes());
        sealed.put(SERVER_AT, request.server.to_be_bytes());
        sealed.put(SOURCE_AT, request.source.unwrap_or_default());
        sealed.put(GATE_AT, sealed.gate(&key.gate()).to_le_bytes());
        let code = key.code().code(sealed.covered());
        if let Some(code) = code.first_chunk::<16>() {
            sealed.put(CODE_AT, *code);
        }
        sealed
    }

    /// Returns the bytes to send.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }

    /// Returns the place for the bytes of a packet that arrives.
    #[must_use]
    #[inline(always)]
    pub const fn bytes_mut(&mut self) -> &mut [u8; LENGTH] {
        &mut self.bytes
    }

    /// Returns whether it is of a version and has flags that are known here.
    #[must_use]
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        let [version, flags] = self.field(0);
        version == VERSION && flags & !ANY_SOURCE == 0
    }

    /// Returns the id of the secret that it claims to be made with.
    #[must_use]
    #[inline(always)]
    pub fn key_id(&self) -> KeyId {
        self.field(KEY_AT)
    }

    /// Returns whether it passes the gate of a secret: SipHash-2-4, which costs a tenth of the code.
    #[must_use]
    #[inline(always)]
    pub fn passes(&self, rule: &KeyRule) -> bool {
        // One comparison of two words: its time tells nothing of where they differ.
        self.gate(&rule.gate) == u64::from_le_bytes(self.field(GATE_AT))
    }

    /// Returns whether its code is the one of a secret; `work` is room for it.
    #[must_use]
    #[inline(always)]
    pub fn is_authentic(&self, rule: &KeyRule, work: &mut Work) -> bool {
        self.fill(&mut work.words);
        rule.code.code_of_block(work);
        let [a, b, c, d, ..] = work.state;
        let [e, f, g, h]: [u32; 4] = [
            u32::from_be_bytes(self.field(CODE_AT)),
            u32::from_be_bytes(self.field(CODE_AT + 4)),
            u32::from_be_bytes(self.field(CODE_AT + 8)),
            u32::from_be_bytes(self.field(CODE_AT + 12)),
        ];
        // All differences together: the time tells nothing of where they are.
        ((a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)) == 0
    }

    /// Returns what it says, whether or not it is authentic. A source beside [`ANY_SOURCE`] is nothing.
    #[must_use]
    #[inline(always)]
    pub fn request(&self) -> Request {
        let [_, flags] = self.field(0);
        Request {
            seconds: u32::from_be_bytes(self.field(2)),
            door: u64::from_be_bytes(self.field(DOOR_AT)),
            counter: u64::from_be_bytes(self.field(COUNTER_AT)),
            server: u64::from_be_bytes(self.field(SERVER_AT)),
            source: if flags & ANY_SOURCE == 0 { Some(self.field(SOURCE_AT)) } else { None },
        }
    }

    #[inline(always)]
    fn gate(&self, [low, high]: &[u64; 2]) -> u64 {
        SipHasher24::new_with_keys(*low, *high).hash(self.covered())
    }

    #[inline(always)]
    fn covered(&self) -> &[u8] {
        self.bytes.first_chunk::<COVERED>().map_or(&[], |covered| covered)
    }

    /// Fills in the padded block of SHA-256 that the covered bytes are.
    #[inline(always)]
    fn fill(&self, words: &mut [u32; 16]) {
        let (whole, _) = self.bytes.as_chunks::<4>();
        for (word, bytes) in words.iter_mut().zip(whole).take(COVERED / 4) {
            *word = u32::from_be_bytes(*bytes);
        }
        let [high, low] = self.field(COVERED - 2);
        let [.., last, zero, length] = words;
        *last = u32::from_be_bytes([high, low, 0x80, 0]);
        *zero = 0;
        *length = CODE_BITS;
    }

    #[inline(always)]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().unwrap_or([0; N])
    }

    fn put<const N: usize>(&mut self, at: usize, field: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
            *place = field;
        }
    }
}

/// Bits of the message of the code: the key's block and the covered bytes.
const CODE_BITS: u32 = (64 + 54) * 8;
const _: () = assert!(COVERED == 54 && COVERED / 4 == 13 && CODE_AT + 16 == LENGTH);
