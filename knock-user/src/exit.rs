//! Exit statuses, as documented.

/// It failed.
pub const FAILED: u8 = 1;
/// The command line makes no sense (clap's own status).
pub const USAGE: u8 = 2;
/// Not attached or not protected, in the sense of LSB's "not running".
pub const NOT_PROTECTED: u8 = 3;
/// The door is still shut: `knock --verify`, `list --source`.
pub const SHUT: u8 = 4;
/// sysexits.h: `EX_NOPERM`.
pub const NO_PERMISSION: u8 = 77;
/// sysexits.h: `EX_CONFIG`.
pub const BAD_CONFIG: u8 = 78;
