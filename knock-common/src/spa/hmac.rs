//! HMAC-SHA256 (RFC 2104) with the key already taken in: two chaining values, so that a short message costs two blocks.

use bytemuck::{Pod, Zeroable};

use super::sha256::{self, BLOCK, INITIAL, State, Work};

/// A key, as the two chaining values after its padded block.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct HmacKey {
    /// After the key with `ipad`.
    pub inner: State,
    /// After the key with `opad`.
    pub outer: State,
}

impl HmacKey {
    /// Takes in a key of 32 bytes, which is shorter than a block and so used as it is.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { inner: after(key, 0x36), outer: after(key, 0x5c) }
    }

    /// Returns the code of a message.
    #[must_use]
    pub fn code(&self, message: &[u8]) -> [u8; 32] {
        let inner = sha256::digest(&sha256::finish(&self.inner, KEY_BYTES, message));
        sha256::digest(&sha256::finish(&self.outer, KEY_BYTES, &inner))
    }

    /// Turns the words of a last, padded block into those of the code: what the kernel runs. `work.state` has the code.
    #[inline(always)]
    pub fn code_of_block(&self, work: &mut Work) {
        work.state = self.inner;
        sha256::compress(work);
        let [a, b, c, d, e, f, g, h] = work.state;
        work.words = [a, b, c, d, e, f, g, h, 0x8000_0000, 0, 0, 0, 0, 0, 0, CODE_BITS];
        work.state = self.outer;
        sha256::compress(work);
    }
}

/// What the key's block adds to the length of the message.
const KEY_BYTES: u64 = 64;
const _: () = assert!(BLOCK == 64);
/// Bits of the outer message: the key's block and a digest.
const CODE_BITS: u32 = (64 + 32) * 8;

fn after(key: &[u8; 32], pad: u8) -> State {
    let mut block = [pad; BLOCK];
    for (place, byte) in block.iter_mut().zip(key) {
        *place ^= *byte;
    }
    let mut work = Work { state: INITIAL, words: sha256::words(&block) };
    sha256::compress(&mut work);
    work.state
}
