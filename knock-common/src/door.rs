//! What a door is known by outside its configuration: a number made of its name.
//!
//! Doors of one configuration are numbered in the order of their tables, and another configuration numbers them anew.
//! Grants and events outlive a configuration, so they name a door by this.

/// Start of the hash (RFC 9923, section 5: `offset_basis` for 64 bits).
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// Factor of the hash (RFC 9923, section 5: `FNV_Prime` for 64 bits).
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Returns the id of the door with this name: FNV-1a of its bytes, in 64 bits.
#[must_use]
pub const fn door_id(name: &[u8]) -> u64 {
    let mut id = OFFSET_BASIS;
    let mut rest = name;
    while let [byte, others @ ..] = rest {
        id ^= u64::from_le_bytes([*byte, 0, 0, 0, 0, 0, 0, 0]);
        id = id.wrapping_mul(PRIME);
        rest = others;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_published_test_vectors_of_the_hash() {
        // RFC 9923, appendix C: the last column for "", "a" and "foobar".
        let vectors: [(&[u8], u64); 3] =
            [(b"", 0xcbf2_9ce4_8422_2325), (b"a", 0xaf63_dc4c_8601_ec8c), (b"foobar", 0x8594_4171_f739_67e8)];

        for (name, id) in vectors {
            assert_eq!(door_id(name), id, "{}", name.escape_ascii());
        }
    }
}
