//! Shared types as aya takes them, and typed handles to the maps of a loaded program.

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, ProgramArray},
};
use bytemuck::Pod;
use knock_common::{abi, names, pages, spa::abi as spa};

/// A plain value on its way into or out of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

// SAFETY: `T: bytemuck::Pod` has no padding and every bit pattern is valid; `Wire` is transparent.
unsafe impl<T: Pod> aya::Pod for Wire<T> {}

/// A map of the program has another kind than its name says: the embedded object is not of this build.
#[derive(Debug, thiserror::Error)]
#[error(
    "map {0} is not in the embedded object as this program knows it: build again with `cargo xtask build`"
)]
pub struct WrongMap(&'static str);

/// The map of door rules.
pub type Doors<T> = Array<T, Wire<abi::DoorRule>>;
/// The map of interned sets of doors.
pub type PortDoors<T> = Array<T, Wire<abi::PortDoors>>;
/// The trie of prefixes.
pub type Prefixes<T> = LpmTrie<T, Wire<abi::PrefixKey>, u32>;
/// The map of grants.
pub type Grants<T> = HashMap<T, Wire<abi::GrantKey>, Wire<abi::Grant>>;
/// The map of bans.
pub type Bans<T> = HashMap<T, Wire<abi::Address>, Wire<abi::Ban>>;
/// An array of one word, or of a few.
pub type Words<T> = Array<T, u64>;
/// What a generation says of itself.
pub type About<T> = Array<T, [u8; abi::ABOUT_CHUNK]>;
/// A map of attempts.
pub type AttemptMap<T> = HashMap<T, Wire<abi::Address>, Wire<abi::Attempts>>;
/// The map of interfaces' link-layer addresses.
pub type Links<T> = HashMap<T, u32, u64>;
/// The map of what doors have one sequence after the other.
pub type Books<T> = Array<T, Wire<pages::Book>>;
/// The map of their sequences.
pub type Pages<T> = Array<T, Wire<pages::Page>>;
/// The map of secrets for single packets.
pub type SpaKeys<T> = HashMap<T, spa::KeyId, Wire<spa::KeyRule>>;
/// The map of what secrets may ask for.
pub type SpaRights<T> = HashMap<T, Wire<spa::RightKey>, Wire<spa::Right>>;
/// The map of the highest counters that were accepted.
pub type SpaFloors<T> = HashMap<T, spa::KeyId, u64>;
/// What a generation says of the server.
pub type SpaServer<T> = Array<T, Wire<spa::ServerRule>>;
/// What the kernel knows of wall time.
pub type SpaClock<T> = Array<T, Wire<spa::WallClock>>;
/// The counters.
pub type Counters<T> = PerCpuArray<T, u64>;

macro_rules! handle {
    ($(#[$doc:meta])* $function:ident, $name:expr, $kind:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// When the object has no such map.
        pub fn $function(ebpf: &mut Ebpf) -> Result<$kind<&mut MapData>, WrongMap> {
            map(ebpf, $name)?.try_into().map_err(|_| WrongMap($name))
        }
    };
}

handle!(
    /// Opens the map of door rules.
    doors, names::DOORS, Doors
);
handle!(
    /// Opens the map of sets of doors.
    port_doors, names::PORT_DOORS, PortDoors
);
handle!(
    /// Opens the trie of prefixes.
    prefixes, names::PREFIXES, Prefixes
);
handle!(
    /// Opens the map of grants.
    grants, names::GRANTS, Grants
);
handle!(
    /// Opens the map of bans.
    bans, names::BANS, Bans
);
handle!(
    /// Opens the word that tells whether there are bans.
    bans_in_use, names::BANS_IN_USE, Words
);
handle!(
    /// Opens the generation's description of itself.
    about, names::ABOUT, About
);
handle!(
    /// Opens the word that says until when the generation is to be confirmed.
    confirm, names::CONFIRM, Words
);
handle!(
    /// Opens the slot of the program that judges again when the generation is not confirmed in time.
    previous, names::PREVIOUS, ProgramArray
);
handle!(
    /// Opens the slots of the programs of traffic control that take over likewise.
    previous_tc, names::PREVIOUS_TC, ProgramArray
);
handle!(
    /// Opens the map of sources with a first step.
    first_attempts, names::FIRST_ATTEMPTS, AttemptMap
);
handle!(
    /// Opens the map of sources that got further.
    later_attempts, names::LATER_ATTEMPTS, AttemptMap
);
handle!(
    /// Opens the map of interfaces' link-layer addresses.
    links, names::LINKS, Links
);
handle!(
    /// Opens the map of what doors have one sequence after the other.
    books, names::BOOKS, Books
);
handle!(
    /// Opens the map of their sequences.
    pages, names::PAGES, Pages
);
handle!(
    /// Opens the map of secrets for single packets.
    spa_keys, names::SPA_KEYS, SpaKeys
);
handle!(
    /// Opens the map of what secrets may ask for.
    spa_rights, names::SPA_RIGHTS, SpaRights
);
handle!(
    /// Opens the map of the highest counters that were accepted.
    spa_floors, names::SPA_FLOORS, SpaFloors
);
handle!(
    /// Opens what the generation says of the server.
    spa_server, names::SPA_SERVER, SpaServer
);
handle!(
    /// Opens what the kernel knows of wall time.
    spa_clock, names::SPA_CLOCK, SpaClock
);
handle!(
    /// Opens the counters.
    counters, names::COUNTERS, Counters
);

fn map<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, WrongMap> {
    ebpf.map_mut(name).ok_or(WrongMap(name))
}
