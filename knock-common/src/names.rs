//! Names of maps, programs and patched constants, written once for kernel, loader and tests.
//!
//! The kernel cuts a map or program name to 15 characters (`BPF_OBJ_NAME_LEN` less its NUL).

/// The XDP program.
pub const PROGRAM: &str = "xdp_knock";
/// The same decisions at the TC ingress hook, where frames begin with an Ethernet header.
pub const TC_PROGRAM: &str = "tc_knock";
/// The same for interfaces whose packets have no link header (tun, WireGuard).
pub const TC_PROGRAM_IP: &str = "tc_knock_ip";
/// What is told of outgoing packets, at the TC egress hook.
pub const EGRESS: &str = "tc_egress";
/// The same for interfaces whose packets have no link header.
pub const EGRESS_IP: &str = "tc_egress_ip";

/// Array of [`crate::abi::DoorRule`]: the doors, then the pages of [`PAGES`].
pub const DOORS: &str = "DOORS";
/// Array of [`crate::abi::PortDoors`], interned: a port's role word holds the index.
pub const PORT_DOORS: &str = "PORT_DOORS";
/// Longest-prefix trie of `allow`, `from` and `to` lists.
pub const PREFIXES: &str = "PREFIXES";
/// LRU hash: source -> [`crate::abi::Attempts`] that got no further than a first step.
pub const FIRST_ATTEMPTS: &str = "FIRST_ATTEMPTS";
/// LRU hash: source -> [`crate::abi::Attempts`] that got further.
pub const LATER_ATTEMPTS: &str = "LATER_ATTEMPTS";
/// Hash: [`crate::abi::GrantKey`] -> [`crate::abi::Grant`].
pub const GRANTS: &str = "GRANTS";
/// Hash: source -> [`crate::abi::Ban`].
pub const BANS: &str = "BANS";
/// Array of one word: 0 while the map of bans is empty, so that nobody pays for looking into it.
pub const BANS_IN_USE: &str = "BANS_IN_USE";
/// LRU hash: source -> [`crate::abi::Sessions`], its conversations with hidden services.
pub const SESSIONS: &str = "SESSIONS";
/// LRU hash: [`crate::abi::FlowKey`] -> [`crate::abi::Flow`], conversations whose answers are awaited.
pub const REPLIES: &str = "REPLIES";
/// LRU hash: [`crate::abi::FragmentKey`] -> until when its later fragments pass.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// LRU hash: source -> word of its rate of answers from closed ports.
pub const ANSWERS: &str = "ANSWERS";
/// Hash: interface index -> its link-layer address, in the low 48 bits, and [`crate::abi::LINK_PARTIAL`].
pub const LINKS: &str = "LINKS";
/// Hash: [`crate::spa::abi::KeyId`] -> [`crate::spa::abi::KeyRule`].
pub const SPA_KEYS: &str = "SPA_KEYS";
/// Hash: [`crate::spa::abi::RightKey`] -> [`crate::spa::abi::Right`].
pub const SPA_RIGHTS: &str = "SPA_RIGHTS";
/// Hash: [`crate::spa::abi::KeyId`] -> the highest counter that was accepted.
pub const SPA_FLOORS: &str = "SPA_FLOORS";
/// Array of one [`crate::spa::abi::WallClock`].
pub const SPA_CLOCK: &str = "SPA_CLOCK";
/// Array of one [`crate::spa::abi::ServerRule`].
pub const SPA_SERVER: &str = "SPA_SERVER";
/// Array of [`crate::pages::Book`] by door number: what is said of doors whose sequence changes.
pub const BOOKS: &str = "BOOKS";
/// Array of [`crate::pages::Page`]; the sequence of an entry is the rule as far behind the doors in [`DOORS`].
pub const PAGES: &str = "PAGES";
/// Per-CPU array: packets accepted, then refused by [`crate::spa::verdict::Refusal`].
pub const SPA_COUNTS: &str = "SPA_COUNTS";
/// Array of rate budgets: one word a door, then one for events.
pub const BUDGETS: &str = "BUDGETS";
/// Per-CPU array of [`crate::counter::Counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "EVENTS";
/// Array of words that user space keeps for its own processes to come: see [`crate::abi::Ledger`].
pub const LEDGER: &str = "LEDGER";
/// Array of one word: the time a program under test takes for the clock.
pub const TEST_CLOCK: &str = "TEST_CLOCK";
/// Array of chunks of [`crate::abi::ABOUT_CHUNK`] bytes: what the generation says of itself, read by user space alone.
pub const ABOUT: &str = "ABOUT";
/// Array of one word: [`crate::abi::CONFIRMED`], or the deadline of a generation that is to be confirmed.
pub const CONFIRM: &str = "CONFIRM";
/// Program array: by interface, the program that judges again once that deadline has passed. See
/// [`crate::abi::PREVIOUS_SLOTS`].
pub const PREVIOUS: &str = "PREVIOUS";

/// Program array of the TC programs, likewise: ingress, then egress from slot [`crate::abi::PREVIOUS_SLOTS`] on.
pub const PREVIOUS_TC: &str = "PREVIOUS_TC";

/// Read-only constant: [`crate::abi::Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Read-only constant: the role words of all ports, TCP first, then UDP.
pub const PORT_ROLES: &str = "PORT_ROLES";
