//! Every type that lies in a map or a patched constant, with its layout asserted.
//!
//! Integers are in the machine's own byte order; addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`.

use core::mem::{align_of, offset_of, size_of};

use bytemuck::{Pod, Zeroable};

/// Layout version of everything in this module; stored in [`Settings`] and compared before pins are used.
pub const ABI_VERSION: u32 = 2;
/// Most doors of a configuration: a set of doors is one 64-bit word.
pub const MAX_DOORS: usize = 64;
/// Most steps of a sequence.
pub const MAX_STEPS: usize = 16;
/// Most attempts that one source has open at once.
pub const MAX_SLOTS: usize = 8;
/// Accepted knocks remembered per source, to recognise their duplicates: one full sequence.
pub const MAX_ACCEPTED: usize = 16;
/// Most distinct sets of doors that ports can have.
pub const MAX_PORT_DOORS: usize = 2048;
/// Most `allow`, `from` and `to` prefixes together, those of keys included.
pub const MAX_PREFIXES: usize = 4096;
/// Sources with a first step that are remembered at once.
pub const FIRST_ATTEMPTS_ENTRIES: usize = 65_536;
/// Sources with more than a first step that are remembered at once.
pub const LATER_ATTEMPTS_ENTRIES: usize = 16_384;
/// Conversations of one source with hidden services that are remembered at once, beside the kernel's own sockets.
pub const MAX_SESSIONS: usize = 32;
/// Sources whose conversations with hidden services are remembered at once.
pub const SESSIONS_ENTRIES: usize = 8192;
/// Conversations that the host began, or forwards, whose answers are awaited at once.
pub const REPLIES_ENTRIES: usize = 65_536;
/// Datagrams in fragments whose later fragments are awaited at once.
pub const FRAGMENTS_ENTRIES: usize = 4096;
/// Sources whose rate of answers from closed ports is kept at once.
pub const ANSWERS_ENTRIES: usize = 16_384;
/// Most grants at once.
pub const GRANTS_ENTRIES: usize = 65_536;
/// Most banned sources at once.
pub const BANS_ENTRIES: usize = 65_536;
/// Bytes of one entry of the array in which a generation describes itself.
pub const ABOUT_CHUNK: usize = 1024;
/// The word of a generation that need not be confirmed any more; any other is the deadline, by the boot-time clock.
pub const CONFIRMED: u64 = 0;
/// Slots for the programs that judge again when a generation is not confirmed: an interface's is its index modulo this.
pub const PREVIOUS_SLOTS: u32 = 1024;
/// Words of the map that user space keeps for its own processes to come.
pub const LEDGER_WORDS: usize = 3;
/// Bytes of the event ring: a power of two and a multiple of the page.
pub const EVENTS_BYTES: usize = 1 << 20;
/// Index of the event budget in the map of budgets, behind those of the doors.
pub const EVENT_BUDGET: u32 = 64;
/// Index of the token bucket of [`crate::answer`] that all sources share, behind that.
pub const ANSWER_BUDGET: u32 = 65;
/// Index of the number that flow labels are made with; 0 until the first is made.
pub const LABEL_SECRET: u32 = 66;
/// Words in the map of budgets.
pub const BUDGETS_WORDS: usize = 67;
/// Interfaces whose link-layer address is known at once.
pub const LINKS_ENTRIES: usize = 1024;
/// Bit of a word of the map of links: packets come without a checksum, as they do from another namespace.
pub const LINK_PARTIAL: u64 = 1 << 48;
/// Ports of one protocol.
pub const PORTS: usize = 65_536;

/// An IPv6 address in network byte order; IPv4 is mapped into `::ffff:0:0/96`.
pub type Address = [u8; 16];

/// The IPv4-mapped form of an IPv4 address (RFC 4291, section 2.5.5.2).
#[must_use]
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> Address {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Returns whether the address is an IPv4 address in mapped form.
#[must_use]
#[inline(always)]
pub const fn is_mapped(address: &Address) -> bool {
    // One comparison instead of twelve: each would double what the verifier has to follow.
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *address;
    (a | b | c | d | e | f | g | h | i | j | !k | !l) == 0
}

/// A protocol that can knock, as stored in [`StepRule::proto`] and as a bit in [`DoorRule::protos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Proto {
    /// A TCP SYN.
    Tcp = 1,
    /// A UDP datagram.
    Udp = 2,
    /// An ICMP or ICMPv6 echo request.
    Icmp = 4,
}

impl Proto {
    /// Returns the bit of this protocol in a set of protocols.
    #[must_use]
    #[inline(always)]
    pub const fn bit(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
            Self::Icmp => 4,
        }
    }
}

/// What a port is, in one 16-bit word: five flags and an index into the sets of doors.
///
/// Zero is the role of a port that concerns no door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Role(pub u16);

impl Role {
    /// Some door opens this port; strangers do not reach it.
    pub const HIDDEN: u16 = 0x8000;
    /// A knock at this port is judged: it is a step or it is wrong.
    pub const JUDGED: u16 = 0x4000;
    /// Open to everybody; set in deny mode only, where a port without a role is not.
    pub const PUBLIC: u16 = 0x2000;
    /// What a grant let in may go on after its end: `sessions = "keep"` of a door that opens the port.
    pub const KEEPS: u16 = 0x1000;
    /// Some door listens here for single packets: what has their length is one of them and no knock. UDP alone.
    pub const LISTENS: u16 = 0x0800;
    /// The index into the sets of doors; 0 is the empty set.
    pub const INDEX: u16 = 0x07ff;

    /// Returns whether the port concerns no door.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// Returns whether some door opens the port.
    #[must_use]
    #[inline(always)]
    pub const fn is_hidden(self) -> bool {
        self.0 & Self::HIDDEN != 0
    }
    /// Returns whether a knock at the port is judged.
    #[must_use]
    #[inline(always)]
    pub const fn is_judged(self) -> bool {
        self.0 & Self::JUDGED != 0
    }
    /// Returns whether the port is open to everybody.
    #[must_use]
    #[inline(always)]
    pub const fn is_public(self) -> bool {
        self.0 & Self::PUBLIC != 0
    }
    /// Returns whether what a grant let in may go on after its end.
    #[must_use]
    #[inline(always)]
    pub const fn keeps(self) -> bool {
        self.0 & Self::KEEPS != 0
    }
    /// Returns whether some door listens here for single packets, and nobody else does.
    #[must_use]
    #[inline(always)]
    pub const fn listens(self) -> bool {
        self.0 & (Self::LISTENS | Self::HIDDEN | Self::PUBLIC) == Self::LISTENS
    }
    /// Returns the index of the port's set of doors.
    #[must_use]
    #[inline(always)]
    pub fn index(self) -> u32 {
        u32::from(self.0 & Self::INDEX)
    }
}

/// The doors that a port concerns, as sets with one bit a door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PortDoors {
    /// Doors whose first step is at this port.
    pub first: u64,
    /// Doors that open this port.
    pub opens: u64,
}

/// One step as the kernel compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StepRule {
    /// [`Proto`] as a number; 0 matches nothing.
    pub proto: u8,
    /// [`StepRule::SIZE`] and [`StepRule::ID`].
    pub conditions: u8,
    /// Destination port; 0 for echo.
    pub port: u16,
    /// Echo payload bytes, compared when [`StepRule::SIZE`] is set.
    pub size: u16,
    /// Echo identifier, compared when [`StepRule::ID`] is set.
    pub id: u16,
}

impl StepRule {
    /// The echo payload size is part of the step.
    pub const SIZE: u8 = 1;
    /// The echo identifier is part of the step.
    pub const ID: u8 = 2;
}

/// A door as the kernel judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DoorRule {
    /// [`crate::door::door_id`] of its name.
    pub id: u64,
    /// Longest time between two accepted steps.
    pub step_timeout_ns: u64,
    /// Longest time from the first accepted step to the last.
    pub total_timeout_ns: u64,
    /// How long a promotion grants.
    pub open_for_ns: u64,
    /// First knocks that may begin a new attempt, a window of [`crate::budget::WINDOW_NS`].
    pub new_attempts: u32,
    /// Steps in use.
    pub step_count: u8,
    /// [`Proto`] bits that occur in the sequence.
    pub protos: u8,
    /// [`DoorRule::FROM`], [`DoorRule::TO`], [`DoorRule::UDP_EPHEMERAL`], [`DoorRule::ECHO_PUBLIC`],
    /// [`DoorRule::ROTATES`], [`DoorRule::LISTED`].
    pub flags: u8,
    /// Door number under which its `from` and `to` prefixes are listed.
    pub prefixes: u8,
    /// Number of the page that the sequence is, cut to 32 bits; 0 where the sequence does not change. See [`crate::pages`].
    pub page: u32,
    /// Zero.
    pub _pad: u32,
    /// The sequence; entries past `step_count` are zero.
    pub steps: [StepRule; MAX_STEPS],
}

impl DoorRule {
    /// Only sources of a `from` prefix may use the door.
    pub const FROM: u8 = 1;
    /// The door exists only for destinations of a `to` prefix.
    pub const TO: u8 = 2;
    /// A UDP step lies in the host's ephemeral range, so UDP to that range counts for this door.
    pub const UDP_EPHEMERAL: u8 = 4;
    /// Echo requests are public: one that is not the next step is nothing to this door.
    pub const ECHO_PUBLIC: u8 = 8;
    /// The sequence goes by the time: the rule at the door's number is no sequence, and its page is to be looked for.
    pub const ROTATES: u8 = 16;
    /// The sequence is a line of a list, likewise.
    pub const LISTED: u8 = 32;

    /// Returns whether the sequence changes.
    #[must_use]
    #[inline(always)]
    pub const fn changes(&self) -> bool {
        self.flags & (Self::ROTATES | Self::LISTED) != 0
    }

    /// Returns whether the flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One source's attempt at one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attempt {
    /// Time of the first accepted step.
    pub started_ns: u64,
    /// Time of the latest accepted step.
    pub last_ns: u64,
    /// [`Attempts::epoch_ns`] of the record this slot was written for; anything else voids the slot.
    pub epoch_ns: u64,
    /// Door number.
    pub door: u8,
    /// Steps accepted; 0 is a free slot, the door's `step_count` a completed attempt.
    pub step: u8,
    /// Zero.
    pub _pad: u16,
    /// [`DoorRule::page`] of the sequence that they are of.
    pub page: u32,
}

/// A knock that some attempt accepted, kept whole so that its duplicates are recognised exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Accepted {
    /// TCP sequence number, ICMP echo sequence number, 0 for UDP.
    pub tag: u32,
    /// Time of acceptance in units of [`crate::machine::UNIT_SHIFT`], wrapping.
    pub at_units: u32,
    /// Destination port; echo payload size for ICMP.
    pub port: u16,
    /// Source port; echo identifier for ICMP.
    pub source_port: u16,
    /// [`Proto`] as a number.
    pub proto: u8,
    /// Slots that accepted it, one bit each; 0 is a free entry.
    pub slots: u8,
    /// Zero.
    pub _pad: u16,
}

/// All open attempts of one source: the value of both attempt maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attempts {
    /// The claim word of [`crate::claim`].
    pub turn: u64,
    /// Time of insertion: tells this use of the memory from any earlier one.
    pub epoch_ns: u64,
    /// Generation that the attempts belong to; another one voids them.
    pub generation: u32,
    /// Where the next accepted knock is noted if no entry is free, modulo [`MAX_ACCEPTED`].
    pub next: u32,
    /// Whose record it is: the kernel may hand the memory to another source between a lookup and a claim.
    pub source: Address,
    /// The attempts.
    pub slots: [Attempt; MAX_SLOTS],
    /// Knocks they accepted.
    pub accepted: [Accepted; MAX_ACCEPTED],
}

/// Key of the grant map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct GrantKey {
    /// The source.
    pub source: Address,
    /// [`DoorRule::id`].
    pub door: u64,
}

/// Permission of one source for one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Grant {
    /// Last instant at which it holds; [`u64::MAX`] until it is revoked.
    pub until_ns: u64,
    /// When it was first given.
    pub since_ns: u64,
    /// [`crate::event::Via`] as a number.
    pub via: u32,
    /// Generation that gave or refreshed it.
    pub generation: u32,
}

/// A source whose knocks are not judged: the value of the map of bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ban {
    /// Last instant at which it holds; [`u64::MAX`] until it is lifted.
    pub until_ns: u64,
    /// When it began.
    pub since_ns: u64,
}

/// One conversation, as the host sees it: the key of the map of awaited replies. Ports in the machine's byte order; an
/// echo exchange has its identifier in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// Who the other side is.
    pub remote: Address,
    /// Which of the host's addresses, or of those behind it, it talks to.
    pub local: Address,
    /// The other side's port.
    pub remote_port: u16,
    /// The port on this side.
    pub local_port: u16,
    /// Protocol number of IP; ICMP stands for ICMPv6 too.
    pub proto: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// What is known of a conversation: the value of the map of awaited replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// When it was last seen, to within [`crate::flow::REFRESH_NS`].
    pub seen_ns: u64,
    /// [`crate::flow::Stage`] as a number.
    pub stage: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// A conversation of one source with a hidden service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Session {
    /// When it was last seen, to within [`crate::flow::REFRESH_NS`]; the word by which a slot is claimed.
    pub seen_ns: u64,
    /// The conversation, its source included: the kernel may hand the memory to another source's record.
    pub flow: FlowKey,
    /// [`crate::flow::Stage`] as a number; 0 is a free slot.
    pub stage: u8,
    /// Zero.
    pub _pad: [u8; 7],
}

/// All conversations of one source with hidden services: the value of the map of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sessions {
    /// The conversations, in no order.
    pub slots: [Session; MAX_SESSIONS],
}

/// A datagram in fragments whose first one passed: the key of the map of fragments (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// The source.
    pub source: Address,
    /// The destination.
    pub destination: Address,
    /// Identification: 16 bits of IPv4, 32 of IPv6.
    pub id: u32,
    /// Protocol number behind the IPv4 header; 0 for IPv6, which does not tell datagrams apart by it.
    pub proto: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// Which list a prefix belongs to, as stored in [`PrefixKey::list`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Sources never judged.
    Allow,
    /// Sources that may use a door.
    From,
    /// Destinations for which a door exists.
    To,
    /// Sources that a key of single packets may open for.
    Key,
}

impl List {
    /// Returns the bit of the list in [`Settings::lists`].
    #[must_use]
    #[inline(always)]
    pub const fn bit(self) -> u8 {
        match self {
            Self::Allow => 1,
            Self::From => 2,
            Self::To => 4,
            Self::Key => 8,
        }
    }

    /// Returns the number of the list.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Allow => 1,
            Self::From => 2,
            Self::To => 3,
            Self::Key => 4,
        }
    }
}

/// Data part of the key of the prefix trie; the first [`PrefixKey::FIXED_BITS`] bits always count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixKey {
    /// [`List`] as a number.
    pub list: u8,
    /// 4 or 6, so that a prefix of one family holds no address of the other.
    pub family: u8,
    /// Number of the door or the key; 0 for the allow list.
    pub owner: u16,
    /// The address.
    pub address: Address,
}

impl PrefixKey {
    /// Returns the key for an address in a list, given by [`List::number`].
    #[must_use]
    #[inline(always)]
    pub fn new(list: u8, owner: u16, address: &Address) -> Self {
        let family = if is_mapped(address) { 4 } else { 6 };
        Self { list, family, owner, address: *address }
    }

    /// Bits before the address.
    pub const FIXED_BITS: u32 = 32;
    /// Bits of the key when the whole address counts.
    pub const ALL_BITS: u32 = 160;
}

/// A word that user space keeps in the kernel for its own processes to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ledger {
    /// Events left out by the cap that readers were told of.
    ToldCapped = 0,
    /// Events lost for want of room that readers were told of.
    ToldLost = 1,
    /// The highest number that a generation has had: none has it twice, so that attempts of another one never count.
    Generation = 2,
}

/// What a generation fixes for the whole program, patched in at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// Number of the loaded configuration.
    pub generation: u32,
    /// Events a second that strangers may cause.
    pub events: u32,
    /// Role of echo requests.
    pub echo_role: Role,
    /// First port of the host's ephemeral range.
    pub ephemeral_first: u16,
    /// Last port of the host's ephemeral range.
    pub ephemeral_last: u16,
    /// [`crate::verdict::Mode`] as a number.
    pub mode: u8,
    /// [`List`] bits of the lists that are not empty.
    pub lists: u8,
    /// 1 to take the time from the test clock; only the loader of the tests sets it.
    pub test_clock: u8,
    /// 1 for a generation that must be confirmed: past its deadline the program before it judges again.
    pub confirm: u8,
    /// [`Settings::CLOSED`], [`Settings::DENY_FORWARD`], [`Settings::SESSIONS`], [`Settings::LABELS`], [`Settings::SPA`],
    /// [`Settings::PAGES`].
    pub flags: u8,
    /// Time to live of what the gate sends (`net.ipv4.ip_default_ttl`).
    pub ttl: u8,
    /// Hop limit of what the gate sends (`net.ipv6.conf.default.hop_limit`).
    pub hop_limit: u8,
    /// Zero.
    pub _pad: [u8; 7],
    /// Doors that open everything (`any`), one bit each; deny mode only.
    pub any_doors: u64,
    /// How long a UDP conversation with a hidden service may rest.
    pub udp_idle_ns: u64,
    /// Protocols of IP that are public, one bit each, from the lowest bit of the first word; deny mode only.
    pub public_protos: [u64; 4],
}

impl Settings {
    /// What is hidden answers as a closed port does.
    pub const CLOSED: u8 = 1;
    /// What is not addressed to the host is judged as if it were (`forward = "deny"`).
    pub const DENY_FORWARD: u8 = 2;
    /// Some door keeps what it let in, so conversations are remembered.
    pub const SESSIONS: u8 = 4;
    /// What the gate sends over IPv6 has a flow label (`net.ipv6.auto_flowlabels`).
    pub const LABELS: u8 = 8;
    /// Some door opens by single packets.
    pub const SPA: u8 = 16;
    /// Some door has a sequence that changes.
    pub const PAGES: u8 = 32;
}

const _: () = assert!(size_of::<StepRule>() == 8);
const _: () = assert!(size_of::<DoorRule>() == 176 && offset_of!(DoorRule, steps) == 48);
const _: () = assert!(size_of::<Attempt>() == 32 && offset_of!(Attempt, door) == 24);
const _: () = assert!(size_of::<Accepted>() == 16);
const _: () = assert!(size_of::<Attempts>() == 552 && align_of::<Attempts>() == 8);
const _: () = assert!(offset_of!(Attempts, slots) == 40 && offset_of!(Attempts, accepted) == 296);
const _: () = assert!(size_of::<GrantKey>() == 24 && size_of::<Grant>() == 24);
const _: () = assert!(size_of::<Ban>() == 16);
const _: () = assert!(size_of::<PrefixKey>() == 20 && size_of::<PortDoors>() == 16);
const _: () = assert!(size_of::<Settings>() == 80 && offset_of!(Settings, any_doors) == 32);
const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<Flow>() == 16);
const _: () = assert!(size_of::<Session>() == 56 && size_of::<Sessions>() == 1792);
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(MAX_PORT_DOORS == 2048 && Role::INDEX == 2047);
const _: () = assert!(MAX_SLOTS == 8, "a set of slots is one byte");
