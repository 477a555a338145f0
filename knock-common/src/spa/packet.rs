//! The datagram: fields in network byte order, the gate's tag and the code behind them.

use core::hash::Hasher as _;

use bytemuck::{Pod, Zeroable};
use siphasher::sip::SipHasher13;

use super::{
    abi::{KeyId, KeyRule},
    key::SpaKey,
    sha256::Work,
};
use crate::abi::Address;

/// Bytes of the datagram; any other length is no packet.
pub const LENGTH: usize = 78;
/// Words that it takes.
pub const WORDS: usize = 10;
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

/// A datagram of the right length, as the words that it is read by: by bytes it would cost a multiple, since the target of
/// the kernel program reads nothing at once that may be unaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Datagram {
    /// Its bytes as they come, eight a word; the last two are zero.
    pub words: [u64; WORDS],
}

impl Datagram {
    /// A datagram of zeros, which is no packet.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: [u8; LENGTH]) -> Self {
        let mut datagram = Self::EMPTY;
        datagram.put(0, bytes);
        datagram
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
    pub fn bytes(&self) -> &[u8; LENGTH] {
        bytemuck::bytes_of(self).first_chunk().unwrap_or(&[0; LENGTH])
    }

    /// Returns whether it is of a version and has flags that are known here.
    #[must_use]
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        let [version, flags, ..] = self.eight(0);
        version == VERSION && flags & !ANY_SOURCE == 0
    }

    /// Returns the id of the secret that it claims to be made with.
    #[must_use]
    #[inline(always)]
    pub fn key_id(&self) -> KeyId {
        self.eight(KEY_AT)
    }

    /// Returns whether it passes the gate of a secret: SipHash-1-3, which costs a fortieth of the code.
    #[must_use]
    #[inline(always)]
    pub fn passes(&self, rule: &KeyRule) -> bool {
        // One comparison of two words: its time tells nothing of where they differ.
        self.gate(&rule.gate) == u64::from_le_bytes(self.eight(GATE_AT))
    }

    /// Returns whether its code is the one of a secret; `work` is room for it.
    #[must_use]
    #[inline(always)]
    pub fn is_authentic(&self, rule: &KeyRule, work: &mut Work) -> bool {
        self.fill(&mut work.words);
        rule.code.code_of_block(work);
        let [a, b, c, d, ..] = work.state;
        let ([e, f], [g, h]) = (two(self.eight(CODE_AT)), two(self.eight(CODE_AT + 8)));
        // All differences together: the time tells nothing of where they are.
        ((a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)) == 0
    }

    /// Returns what it says, whether or not it is authentic. A source beside [`ANY_SOURCE`] is nothing.
    #[must_use]
    #[inline(always)]
    pub fn request(&self) -> Request {
        let [_, flags, a, b, c, d, ..] = self.eight(0);
        Request {
            seconds: u32::from_be_bytes([a, b, c, d]),
            door: u64::from_be_bytes(self.eight(DOOR_AT)),
            counter: u64::from_be_bytes(self.eight(COUNTER_AT)),
            server: u64::from_be_bytes(self.eight(SERVER_AT)),
            source: if flags & ANY_SOURCE == 0 { Some(self.source()) } else { None },
        }
    }

    #[inline(always)]
    fn source(&self) -> Address {
        let [a, b, c, d, e, f, g, h] = self.eight(SOURCE_AT);
        let [i, j, k, l, m, n, o, p] = self.eight(SOURCE_AT + 8);
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    #[inline(always)]
    fn gate(&self, [low, high]: &[u64; 2]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(*low, *high);
        let [first, second, third, fourth, fifth, sixth, last, ..] = self.words;
        // One by one: a loop stays a loop in the kernel program.
        hasher.write_u64(first);
        hasher.write_u64(second);
        hasher.write_u64(third);
        hasher.write_u64(fourth);
        hasher.write_u64(fifth);
        hasher.write_u64(sixth);
        let [a, b, c, d, e, f, ..] = last.to_ne_bytes();
        hasher.write_u32(u32::from_ne_bytes([a, b, c, d]));
        hasher.write_u16(u16::from_ne_bytes([e, f]));
        hasher.finish()
    }

    fn covered(&self) -> &[u8] {
        self.bytes().first_chunk::<COVERED>().map_or(&[], |covered| covered)
    }

    /// Fills in the padded block of SHA-256 that the covered bytes are.
    #[inline(always)]
    fn fill(&self, words: &mut [u32; 16]) {
        let (pairs, _) = words.as_chunks_mut::<2>();
        for (pair, word) in pairs.iter_mut().zip(self.words) {
            *pair = two(word.to_ne_bytes());
        }
        let [.., last, zero, length] = words;
        *last = *last & 0xffff_0000 | 0x8000;
        *zero = 0;
        *length = CODE_BITS;
    }

    /// Returns the eight bytes at an offset.
    #[inline(always)]
    fn eight(&self, at: usize) -> [u8; 8] {
        let word = |index: usize| u64::from_le(self.words.get(index).copied().unwrap_or(0));
        let index = at >> 3;
        let [low, high] = [word(index), word(index.wrapping_add(1))];
        // All fields are at even offsets, asserted below.
        match at & 7 {
            0 => low,
            2 => low >> 16 | high << 48,
            4 => low >> 32 | high << 32,
            _ => low >> 48 | high << 16,
        }
        .to_le_bytes()
    }

    fn put<const N: usize>(&mut self, at: usize, field: [u8; N]) {
        let bytes = bytemuck::bytes_of_mut(self);
        if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
            *place = field;
        }
    }
}

/// Returns the two big-endian numbers that eight bytes are.
#[inline(always)]
const fn two([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

/// Bits of the message of the code: the key's block and the covered bytes.
const CODE_BITS: u32 = (64 + 54) * 8;
const _: () = assert!(COVERED == 54 && GATE_AT == COVERED && CODE_AT + 16 == LENGTH);
const _: () = assert!((KEY_AT | DOOR_AT | COUNTER_AT | SERVER_AT | SOURCE_AT | GATE_AT | CODE_AT) & 1 == 0);
