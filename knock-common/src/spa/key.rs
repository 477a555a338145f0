//! What is made of a secret: one sub-key for each use, so that none tells anything of another.

use super::{
    abi::{KeyId, KeyRule},
    hmac::HmacKey,
};

/// Bytes of a secret.
pub const SECRET: usize = 32;

/// Label of the id.
const ID: &[u8] = b"xdp-knock spa 1 id";
/// Label of the gate's key.
const GATE: &[u8] = b"xdp-knock spa 1 gate";
/// Label of the code's key.
const CODE: &[u8] = b"xdp-knock spa 1 code";

/// A secret, ready for use. It has no `Debug`, so that it gets into no message.
#[derive(Clone)]
pub struct SpaKey {
    secret: HmacKey,
}

impl SpaKey {
    /// Takes in a secret.
    #[must_use]
    pub fn new(secret: &[u8; SECRET]) -> Self {
        Self { secret: HmacKey::new(secret) }
    }

    /// Returns what the secret is known by: the first 8 bytes of its code of [`ID`]. It may be shown.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = self.secret.code(ID);
        [a, b, c, d, e, f, g, h]
    }

    /// Returns the SipHash key of the gate: the first 16 bytes of the code of [`GATE`], as little-endian words.
    #[must_use]
    pub fn gate(&self) -> [u64; 2] {
        let bytes = self.secret.code(GATE);
        let (words, _) = bytes.as_chunks::<8>();
        let mut gate = [0; 2];
        for (word, bytes) in gate.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        gate
    }

    /// Returns the key of the code: the code of [`CODE`].
    #[must_use]
    pub fn code(&self) -> HmacKey {
        HmacKey::new(&self.secret.code(CODE))
    }

    /// Returns the key for another use: the code of its label.
    pub(crate) fn sub_key(&self, label: &[u8]) -> HmacKey {
        HmacKey::new(&self.secret.code(label))
    }

    /// Returns the secret as the kernel needs it, with no flag set.
    #[must_use]
    pub fn rule(&self) -> KeyRule {
        KeyRule { gate: self.gate(), code: self.code(), flags: 0, _pad: 0, number: 0, _pad2: [0; 4] }
    }
}
