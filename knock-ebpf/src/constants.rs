//! The constants of a generation, patched in at load: what the verifier knows, so that what they rule out is not in the
//! program at all.

use core::ptr;

use knock_common::abi::{PORTS, Proto, Role, Settings};

/// Read-only, patched at load.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    abi: 0,
    generation: 0,
    events: 0,
    echo_role: Role(0),
    ephemeral_first: 0,
    ephemeral_last: 0,
    mode: 0,
    lists: 0,
    test_clock: 0,
    confirm: 0,
    flags: 0,
    ttl: 0,
    hop_limit: 0,
    _pad: [0; 7],
    any_doors: 0,
    udp_idle_ns: 0,
    public_protos: [0; 4],
};

/// Read-only, patched at load: role words of the TCP ports, then of the UDP ports.
#[unsafe(no_mangle)]
static PORT_ROLES: [Role; 2 * PORTS] = [Role(0); 2 * PORTS];

/// The patched settings. Reads are volatile: the compiler would otherwise fold in the zeros it sees.
#[derive(Clone, Copy)]
pub struct LiveSettings(*const Settings);

/// Returns the settings.
#[inline(always)]
pub fn settings() -> LiveSettings {
    LiveSettings(&raw const SETTINGS)
}

macro_rules! setting {
    ($name:ident, $field:ident, $kind:ty) => {
        #[inline(always)]
        pub fn $name(self) -> $kind {
            // SAFETY: the pointer is to a static, its field is initialised and never written.
            unsafe { ptr::read_volatile(&raw const (*self.0).$field) }
        }
    };
}

impl LiveSettings {
    setting!(abi, abi, u32);
    setting!(generation, generation, u32);
    setting!(events, events, u32);
    setting!(echo_role, echo_role, Role);
    setting!(ephemeral_first, ephemeral_first, u16);
    setting!(ephemeral_last, ephemeral_last, u16);
    setting!(mode, mode, u8);
    setting!(lists, lists, u8);
    setting!(test_clock, test_clock, u8);
    setting!(confirm, confirm, u8);
    setting!(flags, flags, u8);
    setting!(ttl, ttl, u8);
    setting!(hop_limit, hop_limit, u8);
    setting!(any_doors, any_doors, u64);
    setting!(udp_idle_ns, udp_idle_ns, u64);

    /// Returns whether the time comes from the test clock.
    #[inline(always)]
    pub fn is_test_clock(self) -> bool {
        self.test_clock() != 0
    }
}

/// Returns whether a protocol of IP is public.
#[inline(always)]
pub fn is_public_proto(proto: u8) -> bool {
    let words = (&raw const SETTINGS.public_protos).cast::<u64>();
    // SAFETY: `proto >> 6` is below 4, the number of words.
    let word = unsafe { words.add(usize::from(proto >> 6)) };
    // SAFETY: within the static; volatile, since the loader patches it.
    let word = unsafe { ptr::read_volatile(word) };
    word >> (proto & 63) & 1 != 0
}

/// Returns the role of a TCP or UDP port, or of echo requests.
#[inline(always)]
pub fn role(proto: Proto, port: u16) -> Role {
    let index = match proto {
        Proto::Tcp => usize::from(port),
        Proto::Udp => usize::from(port) + PORTS,
        Proto::Icmp => return settings().echo_role(),
    };
    let roles = (&raw const PORT_ROLES).cast::<Role>();
    // SAFETY: `index` is below `2 * PORTS`, since `port` has 16 bits.
    let role = unsafe { roles.add(index) };
    // SAFETY: within the static; volatile, since the loader patches it.
    unsafe { ptr::read_volatile(role) }
}
