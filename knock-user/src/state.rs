//! The maps that every generation and interface shares, opened by their pins: grants, bans, attempts, conversations,
//! counters, events.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, MapInfo, MapType, RingBuf};
use bytemuck::Pod;
use jiff::Timestamp;
use knock_common::{
    abi::{
        Address, Attempts, Ban, EVENTS_BYTES, Flow, FlowKey, Grant, GrantKey, LEDGER_WORDS, Ledger, Sessions,
    },
    counter::{self, COUNTERS, Counter},
    names,
    spa::{
        abi::{KeyId, WallClock},
        verdict::REFUSALS,
    },
};

use crate::{
    clock,
    pins::{self, Pins},
    table::Table,
    wire::{Counters, SpaClock, Wire},
};

/// What a pinned map must be for this program to use it.
struct Shape {
    name: &'static str,
    kind: MapType,
    key_bytes: usize,
    value_bytes: usize,
    /// Checked where the program relies on it.
    entries: Option<usize>,
}

const fn shape(name: &'static str, kind: MapType, key_bytes: usize, value_bytes: usize) -> Shape {
    Shape { name, kind, key_bytes, value_bytes, entries: None }
}

const SHAPES: [Shape; 13] = [
    shape(names::FIRST_ATTEMPTS, MapType::LruHash, size_of::<Address>(), size_of::<Attempts>()),
    shape(names::LATER_ATTEMPTS, MapType::LruHash, size_of::<Address>(), size_of::<Attempts>()),
    shape(names::GRANTS, MapType::Hash, size_of::<GrantKey>(), size_of::<Grant>()),
    shape(names::BANS, MapType::Hash, size_of::<Address>(), size_of::<Ban>()),
    shape(names::SESSIONS, MapType::LruHash, size_of::<Address>(), size_of::<Sessions>()),
    shape(names::REPLIES, MapType::LruHash, size_of::<FlowKey>(), size_of::<Flow>()),
    shape(names::SPA_FLOORS, MapType::Hash, size_of::<KeyId>(), 8),
    Shape { entries: Some(1), ..shape(names::SPA_CLOCK, MapType::Array, 4, size_of::<WallClock>()) },
    Shape { entries: Some(REFUSALS.len() + 1), ..shape(names::SPA_COUNTS, MapType::PerCpuArray, 4, 8) },
    Shape { entries: Some(1), ..shape(names::BANS_IN_USE, MapType::Array, 4, 8) },
    Shape { entries: Some(COUNTERS), ..shape(names::COUNTERS, MapType::PerCpuArray, 4, 8) },
    Shape { entries: Some(LEDGER_WORDS), ..shape(names::LEDGER, MapType::Array, 4, 8) },
    Shape { entries: Some(EVENTS_BYTES), ..shape(names::EVENTS, MapType::RingBuf, 0, 0) },
];

/// Names of the maps of the state.
pub fn maps() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// A pin of the state is not the map that this program knows.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pin {path} is not the map this xdp-knock knows: {reason}. Nothing was changed. Go on without its grants (--discard-state), or take the gate off: `xdp-knock detach --force`"
)]
pub struct WrongShape {
    path: String,
    reason: String,
}

/// Checks every pin of the state that is there.
///
/// # Errors
/// When one is no map, or a map of another shape.
pub fn check(pins: &Pins) -> Result<()> {
    let known: Vec<_> = maps().collect();
    for path in pins::entries(&pins.state())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wrong = |reason| WrongShape { path: path.display().to_string(), reason };
        let Some(shape) = known.iter().position(|one| *one == name).and_then(|at| SHAPES.get(at)) else {
            return Err(wrong("it has no such map".to_owned()).into());
        };
        match_shape(shape, &path).map_err(wrong)?;
    }
    Ok(())
}

fn match_shape(shape: &Shape, path: &Path) -> Result<(), String> {
    let info = MapInfo::from_pin(path).map_err(|error| format!("it cannot be opened as a map ({error})"))?;
    let kind = info.map_type().map_err(|error| error.to_string())?;
    let differs = |what: &str, is: usize, ought: usize| Err(format!("its {what} is {is}, not {ought}"));
    if kind != shape.kind {
        return Err(format!("it is of kind {kind:?}, not {:?}", shape.kind));
    }
    if info.key_size() as usize != shape.key_bytes {
        return differs("key size", info.key_size() as usize, shape.key_bytes);
    }
    if info.value_size() as usize != shape.value_bytes {
        return differs("value size", info.value_size() as usize, shape.value_bytes);
    }
    match shape.entries {
        Some(entries) if info.max_entries() as usize != entries => {
            differs("number of entries", info.max_entries() as usize, entries)
        }
        _ => Ok(()),
    }
}

/// The state, opened.
pub struct State {
    /// Who may pass which door.
    pub grants: Table<GrantKey, Grant>,
    /// Who is judged as if no door existed.
    pub bans: Table<Address, Ban>,
    /// Whether the kernel need ask for bans at all: one word.
    pub bans_in_use: Array<MapData, u64>,
    /// Sources that got no further than a first step.
    pub first_attempts: Table<Address, Attempts>,
    /// Sources that got further.
    pub later_attempts: Table<Address, Attempts>,
    /// Conversations with hidden services, by source; `None` where the gate was loaded by a program that keeps none.
    pub sessions: Option<Table<Address, Sessions>>,
    /// Conversations of the host's own whose answers are awaited; `None` likewise.
    pub replies: Option<Table<FlowKey, Flow>>,
    /// The highest counters of single packets that were accepted, by secret; `None` likewise.
    pub floors: Option<Table<KeyId, u64>>,
    wall: Option<SpaClock<MapData>>,
    packets: Option<Counters<MapData>>,
    ledger: Array<MapData, u64>,
    counters: Counters<MapData>,
}

impl State {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When one is missing or of another shape.
    pub fn open(pins: &Pins) -> Result<Self> {
        check(pins)?;
        let at = |name| pins.state().join(name);
        Ok(Self {
            grants: Table::open(&at(names::GRANTS))?,
            bans: Table::open(&at(names::BANS))?,
            bans_in_use: open(pins, names::BANS_IN_USE)?,
            first_attempts: Table::open(&at(names::FIRST_ATTEMPTS))?,
            later_attempts: Table::open(&at(names::LATER_ATTEMPTS))?,
            sessions: open_if_any(&at(names::SESSIONS))?,
            replies: open_if_any(&at(names::REPLIES))?,
            floors: open_if_any(&at(names::SPA_FLOORS))?,
            wall: open_array_if_any(pins, names::SPA_CLOCK)?,
            packets: open_array_if_any(pins, names::SPA_COUNTS)?,
            ledger: open(pins, names::LEDGER)?,
            counters: open(pins, names::COUNTERS)?,
        })
    }

    /// Returns a word of the ledger.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn noted(&self, word: Ledger) -> Result<u64> {
        self.ledger.get(&(word as u32), 0).context("reading the ledger")
    }

    /// Writes a word of the ledger.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn note(&mut self, word: Ledger, value: u64) -> Result<()> {
        self.ledger.set(word as u32, value, 0).context("writing the ledger")
    }

    /// Returns the sum of a counter over all CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn count(&self, counter: Counter) -> Result<u64> {
        let values = self.counters.get(&(counter as u32), 0).context("reading a counter")?;
        Ok(values.iter().sum())
    }

    /// Returns all counters by name.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&self) -> Result<Vec<(&'static str, u64)>> {
        let all = counter::ALL.iter().map(|(counter, name, _)| Ok((*name, self.count(*counter)?)));
        all.chain(self.packet_counts()).collect()
    }

    /// Returns what became of single packets, by name.
    fn packet_counts(&self) -> impl Iterator<Item = Result<(&'static str, u64)>> {
        let names = packet_counters().zip(0..);
        self.packets.iter().flat_map(move |packets| {
            names.clone().map(|((name, _), number)| {
                let values = packets.get(&number, 0).context("reading a counter of single packets")?;
                Ok((name, values.iter().sum()))
            })
        })
    }

    /// Tells the kernel the wall time, by which it judges single packets.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn tell_time(&mut self) -> Result<()> {
        let Some(wall) = &mut self.wall else { return Ok(()) };
        let before = wall.get(&0, 0).context("reading the clock of single packets")?.0;
        // It is begun by what knows since when floors are kept: the load of a generation.
        if before.seen_ns == 0 {
            return Ok(());
        }
        wall.set(0, Wire(clock::seen(before)), 0).context("telling the kernel the time")
    }

    /// Returns since when it is known which single packets were accepted, by today's clock; `None` where none ever was told
    /// the time.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn kept_since(&self) -> Result<Option<Timestamp>> {
        Ok(self.told_time()?.map(|told| clock::wall(told.since_ns)))
    }

    /// Returns what the kernel was told of the wall time; `None` where it never was.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn told_time(&self) -> Result<Option<WallClock>> {
        let Some(wall) = &self.wall else { return Ok(None) };
        let told = wall.get(&0, 0).context("reading the clock of single packets")?.0;
        Ok(Some(told).filter(|told| told.seen_ns != 0))
    }
}

/// Returns the counters of single packets, by their numbers: name, and what became of the packet in a word.
pub fn packet_counters() -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    const NAMES: [&str; REFUSALS.len()] = [
        "spa_malformed",
        "spa_unknown_key",
        "spa_bad_gate",
        "spa_bad_code",
        "spa_other_server",
        "spa_not_allowed",
        "spa_wrong_source",
        "spa_no_clock",
        "spa_stale",
        "spa_future",
        "spa_replayed",
        "spa_banned",
    ];
    let refused = NAMES.into_iter().zip(REFUSALS).map(|(name, refusal)| (name, refusal.name()));
    [("spa_accepted", "accepted")].into_iter().chain(refused)
}

fn open_array_if_any<M: TryFrom<Map>>(pins: &Pins, name: &'static str) -> Result<Option<M>>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    if pins::is_there(&pins.state().join(name))? { open(pins, name).map(Some) } else { Ok(None) }
}

/// A gate that was loaded before the map came to this layout has none.
fn open_if_any<K: Pod, V: Pod>(path: &Path) -> Result<Option<Table<K, V>>> {
    if pins::is_there(path)? { Table::open(path).map(Some) } else { Ok(None) }
}

/// Opens the floors alone; `None` where they are new, or nobody began to count since when they are kept.
///
/// # Errors
/// When they, or the clock, are of another shape.
pub fn known_floors(pins: &Pins) -> Result<Option<Table<KeyId, u64>>> {
    let clock: Option<SpaClock<MapData>> = open_array_if_any(pins, names::SPA_CLOCK)?;
    let Some(clock) = clock else { return Ok(None) };
    if clock.get(&0, 0).context("reading the clock of single packets")?.0.seen_ns == 0 {
        return Ok(None);
    }
    open_if_any(&pins.state().join(names::SPA_FLOORS))
}

/// Opens the event ring, which has room for one reader.
///
/// # Errors
/// When it is not pinned, or of another shape.
pub fn events(pins: &Pins) -> Result<RingBuf<MapData>> {
    check(pins)?;
    open(pins, names::EVENTS)
}

/// Opens the ledger alone.
///
/// # Errors
/// When it is not pinned, or of another shape.
pub fn ledger(pins: &Pins) -> Result<Array<MapData, u64>> {
    check(pins)?;
    open(pins, names::LEDGER)
}

fn open<M: TryFrom<Map>>(pins: &Pins, name: &'static str) -> Result<M>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let path = pins.state().join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("opening the pin {}", path.display()))?;
    let map = Map::from_map_data(data).with_context(|| format!("reading the pin {}", path.display()))?;
    M::try_from(map).with_context(|| format!("the pin {} is a map of another kind", path.display()))
}
