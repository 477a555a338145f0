//! SHA-256 (FIPS 180-4), one block at a time, in a shape that the verifier of the kernel goes through quickly: a loop that
//! is not unrolled, over memory instead of the stack.
//!
//! Own code, since the `sha2` crate needs more stack than the 512 bytes of a BPF program; it is what the tests compare with.

/// Bytes of a block.
pub const BLOCK: usize = 64;
/// Longest end of a message that is padded within one block: the block less a mark and the length.
pub const TAIL: usize = 55;
/// The chaining value between blocks.
pub type State = [u32; 8];

/// The chaining value at the start (FIPS 180-4, section 5.3.3).
pub const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// One constant a round (FIPS 180-4, section 4.2.2).
static ROUNDS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// A block that is worked on, and the chaining value that takes it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Work {
    /// The chaining value.
    pub state: State,
    /// The block as big-endian words; spent by [`compress`].
    pub words: [u32; 16],
}

/// Takes the block into the chaining value (FIPS 180-4, section 6.2.2).
// Not inlined: the verifier then has one place with this loop. Sixteen words are enough, each overwritten by the one
// that is due sixteen rounds later.
#[inline(never)]
pub fn compress(work: &mut Work) {
    let Work { state, words } = work;
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (round, constant) in ROUNDS.iter().enumerate() {
        let word = at(words, round);
        let sum_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let first = h.wrapping_add(sum_1).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
        let sum_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(sum_0).wrapping_add(majority));
        extend(words, round, word);
    }
    for (sum, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(more);
    }
}

/// Puts the word that is due sixteen rounds later in the place of the one just used.
#[inline(always)]
fn extend(words: &mut [u32; 16], round: usize, word: u32) {
    let (two, fifteen) = (at(words, round.wrapping_add(14)), at(words, round.wrapping_add(1)));
    let sigma_1 = two.rotate_right(17) ^ two.rotate_right(19) ^ (two >> 10);
    let sigma_0 = fifteen.rotate_right(7) ^ fifteen.rotate_right(18) ^ (fifteen >> 3);
    let next =
        sigma_1.wrapping_add(at(words, round.wrapping_add(9))).wrapping_add(sigma_0).wrapping_add(word);
    if let Some(place) = words.get_mut(round & 15) {
        *place = next;
    }
}

#[inline(always)]
fn at(words: &[u32; 16], round: usize) -> u32 {
    words.get(round & 15).copied().unwrap_or_default()
}

/// Returns the big-endian words of a block.
#[must_use]
#[inline(always)]
pub fn words(block: &[u8; BLOCK]) -> [u32; 16] {
    let mut words = [0; 16];
    let (bytes, _) = block.as_chunks::<4>();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

/// Returns the digest that a chaining value is, as bytes.
#[must_use]
pub fn digest(state: &State) -> [u8; 32] {
    let mut digest = [0; 32];
    let (places, _) = digest.as_chunks_mut::<4>();
    for (place, word) in places.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    digest
}

/// Returns the chaining value after the rest of a message and its padding (FIPS 180-4, section 5.1.1); `before` counts the
/// bytes, whole blocks, that `state` has taken in already.
#[must_use]
pub fn finish(state: &State, before: u64, message: &[u8]) -> State {
    let mut work = Work { state: *state, words: [0; 16] };
    let (blocks, tail) = message.as_chunks::<BLOCK>();
    for block in blocks {
        work.words = words(block);
        compress(&mut work);
    }
    let mut last = [0; BLOCK];
    for (place, byte) in last.iter_mut().zip(tail.iter().chain(&[0x80])) {
        *place = *byte;
    }
    if tail.len() > TAIL {
        work.words = words(&last);
        compress(&mut work);
        last = [0; BLOCK];
    }
    let bytes = u64::try_from(message.len()).unwrap_or(u64::MAX).wrapping_add(before);
    if let Some(place) = last.last_chunk_mut::<8>() {
        *place = bytes.wrapping_mul(8).to_be_bytes();
    }
    work.words = words(&last);
    compress(&mut work);
    work.state
}

/// Returns the hash of a message.
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    digest(&finish(&INITIAL, 0, message))
}
