//! Single packet authorization: one datagram that proves who sent it, for which door, where and when.
//!
//! `docs/spa.md` has the byte layout, the derivation of keys and test vectors.

pub mod abi;
pub mod find;
pub mod floor;
pub mod hmac;
pub mod key;
pub mod packet;
pub mod sha256;
pub mod verdict;
