//! The primitives of single packet authorization against what is published of them, and against the reference crates.

use hmac::{Hmac, KeyInit, Mac as _};
use knock_common::spa::{
    hmac::HmacKey,
    sha256::{self, INITIAL, Work, compress, sha256},
};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;

#[path = "../../tests/src/random.rs"]
#[expect(dead_code, reason = "bytes and lengths are all that is drawn here")]
mod random;

use random::Random;

/// Messages drawn against each reference crate.
const MESSAGES: usize = 100_000;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn sha256_gives_the_published_digests() {
    // FIPS 180-4's examples: one block, two blocks, and a million bytes; the empty message from the CAVP vectors.
    let million = vec![b'a'; 1_000_000];
    let vectors: [(&[u8], &str); 4] = [
        (b"abc", "ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61 d20638b8 e5c02693 0c3e6039 a33ce459 64ff2167 f6ecedd4 19db06c1",
        ),
        (&million, "cdc76e5c 9914fb92 81a1c7e2 84d73e67 f1809a48 a497200e 046d39cc c7112cd0"),
        (b"", "e3b0c442 98fc1c14 9afbf4c8 996fb924 27ae41e4 649b934c a495991b 7852b855"),
    ];

    for (message, digest) in vectors {
        assert_eq!(sha256(message).to_vec(), bytes(digest), "{} bytes", message.len());
    }
}

#[test]
fn a_key_of_32_bytes_or_fewer_gives_the_published_codes() {
    // RFC 4231, test cases 1 to 4; HMAC fills shorter keys up with zeros, so ours are given filled up.
    let case_3 = (vec![0xaa; 20], vec![0xdd; 50]);
    let case_4 = ((1..=25).collect(), vec![0xcd; 50]);
    let vectors = [
        (
            (vec![0x0b; 20], b"Hi There".to_vec()),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (case_3, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (case_4, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ];

    for ((mut key, message), code) in vectors {
        key.resize(32, 0);
        assert_eq!(HmacKey::new(&key.try_into().unwrap()).code(&message).to_vec(), bytes(code));
    }
}

#[test]
fn siphash_gives_the_published_tag() {
    // `test_siphash_1_3` of Rust's core library, of which the standard's authors have none: key 00..0f, message 00..0e.
    let message: Vec<u8> = (0..15).collect();

    let tag = SipHasher13::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908).hash(&message);

    assert_eq!(tag.to_le_bytes(), [0x56, 0x99, 0x51, 0x2a, 0x6d, 0xd8, 0x20, 0xd3]);
}

#[test]
fn any_message_has_the_digest_and_the_code_of_the_reference_crates() {
    let mut random = Random::new(0x5ba);
    for _ in 0..MESSAGES {
        let length = random.below(200);
        let message: Vec<u8> = (0..length).map(|_| random.byte()).collect();
        let key: [u8; 32] = std::array::from_fn(|_| random.byte());

        let expected = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&message).finalize();

        assert_eq!(sha256(&message)[..], Sha256::digest(&message)[..], "{message:02x?}");
        assert_eq!(
            HmacKey::new(&key).code(&message)[..],
            expected.into_bytes()[..],
            "{key:02x?} {message:02x?}"
        );
    }
}

#[test]
fn every_length_around_a_block_is_padded_right() {
    for length in 0..=260 {
        let message = vec![0x61; length];

        assert_eq!(sha256(&message)[..], Sha256::digest(&message)[..], "{length} bytes");
    }
}

#[test]
fn the_kernels_way_over_a_padded_block_gives_the_same_code() {
    let key = HmacKey::new(&[0x42; 32]);
    for length in 0..=sha256::TAIL {
        let message: Vec<u8> = (0..length).map(|at| u8::try_from(at).unwrap()).collect();
        let mut block = [0; 64];
        block[..length].copy_from_slice(&message);
        block[length] = 0x80;
        let bits = u64::try_from((64 + length) * 8).unwrap();
        block[56..].copy_from_slice(&bits.to_be_bytes());

        let mut work = Work { state: [0; 8], words: sha256::words(&block) };
        key.code_of_block(&mut work);

        assert_eq!(sha256::digest(&work.state), key.code(&message), "{length} bytes");
    }
}

#[test]
fn a_block_taken_in_by_hand_is_the_digest_of_the_standards_example() {
    let mut block = [0; 64];
    block[..4].copy_from_slice(b"abc\x80");
    block[63] = 24;

    let mut work = Work { state: INITIAL, words: sha256::words(&block) };
    compress(&mut work);

    assert_eq!(sha256::digest(&work.state), sha256(b"abc"));
}
