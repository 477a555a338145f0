//! What the gate is and holds, as plain facts: one set of types feeds the tables, `--json` and the metrics.

pub mod listing;
pub mod problems;
#[cfg(test)]
pub mod sample;
pub mod sight;
pub mod status;
pub mod text;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::Serialize;

use crate::events::{milliseconds, milliseconds_if_any};

/// Version of the JSON that `status` and `list` print; raised when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// The answer to "am I protected?", and all that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// [`VERSION`].
    pub v: u32,
    /// Whether every configured interface carries the gate, in a mode that drops.
    pub protected: bool,
    /// Why not, one sentence each.
    pub problems: Vec<String>,
    /// What else one should know, one sentence each.
    pub warnings: Vec<String>,
    /// Where links and maps are pinned.
    pub pin_dir: String,
    /// The process that serves this gate, if one does. Enforcement does not depend on it.
    pub daemon: Option<u32>,
    /// The loaded configuration; `None` when nothing is attached.
    pub generation: Option<Generation>,
    /// The rollback that waits for `confirm`.
    pub confirm: Option<Confirm>,
    /// Interfaces that carry the gate or ought to.
    pub interfaces: Vec<Interface>,
    /// Interfaces with addresses that carry no gate.
    pub uncovered: Vec<Uncovered>,
    /// The doors.
    pub doors: Vec<Door>,
    /// The tables in the kernel.
    pub tables: Vec<Table>,
    /// Every counter by its name; see `knock_common::counter::ALL` for the meanings.
    pub counters: BTreeMap<&'static str, u64>,
}

/// One loaded configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generation {
    /// Its number; it rises with each reload.
    pub number: u32,
    /// `observe`, `guard` or `deny`.
    pub mode: String,
    /// How a hidden service looks from outside: `filtered` or `closed`.
    pub hide_as: String,
    /// What becomes of packets that are not addressed to the host, `pass` or `deny`; `None` in a mode that lets them pass.
    pub forward: Option<String>,
    /// The file it was read from; `None` for the built-in example.
    pub config: Option<String>,
    /// When it was loaded.
    #[serde(serialize_with = "milliseconds")]
    pub loaded: Timestamp,
}

/// A rollback that waits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confirm {
    /// When the gate goes back to what was before.
    #[serde(serialize_with = "milliseconds")]
    pub deadline: Timestamp,
    /// Seconds until then; negative when it has happened.
    pub remaining_s: i64,
}

/// What an interface carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceState {
    /// The gate judges its packets.
    Attached,
    /// The gate's link is left, but its interface was deleted: nothing is judged.
    Dead,
    /// There is no such interface now.
    Absent,
    /// The interface is there, configured, and carries no gate.
    Bare,
    /// What is pinned for it is not of this program, or of another version.
    Foreign,
}

/// An interface that carries the gate or ought to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index, where it exists.
    pub index: Option<u32>,
    /// What it carries.
    pub state: InterfaceState,
    /// `native`, `generic`, `tcx`, or `None` where it is not attached.
    pub attach: Option<String>,
    /// `observe`, `guard` or `deny`, by the generation that judges there.
    pub mode: Option<String>,
    /// Number of that generation.
    pub generation: Option<u32>,
    /// Id of the kernel's program behind the link.
    pub program: Option<u32>,
    /// Id of the program that takes notes of what the host sends, where there is one.
    pub egress: Option<u32>,
}

/// An interface with addresses that carries no gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uncovered {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A door.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Door {
    /// Its name.
    pub name: String,
    /// What it hides and opens.
    pub opens: Vec<String>,
    /// The ways to open it: `sequence`, `rotating`, `list`, `spa`.
    pub ways: Vec<String>,
    /// Steps of the sequence.
    pub steps: usize,
    /// Seconds that a promotion grants.
    pub open_for_s: f64,
    /// What becomes of what it let in when the grant ends: `keep` or `cut`.
    pub sessions: String,
    /// Sources with a grant that holds now.
    pub grants: usize,
}

/// A table in the kernel and how full it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// `grants`, `bans`, `first_attempts`, `later_attempts`, `sessions`, `spa_floors` or `replies`.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it can hold.
    pub capacity: usize,
}

/// What the tables hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listing {
    /// [`VERSION`].
    pub v: u32,
    /// Who may pass which door.
    pub grants: Vec<Grant>,
    /// Who is judged as if no door existed.
    pub bans: Vec<Ban>,
    /// Who has begun to knock.
    pub attempts: Vec<Attempt>,
}

/// A source's permission for a door.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grant {
    /// Who.
    pub source: IpAddr,
    /// The door's name.
    pub door: String,
    /// `sequence`, `rotating`, `list`, `spa` or `manual`.
    pub via: String,
    /// When it was first given.
    #[serde(serialize_with = "milliseconds")]
    pub since: Timestamp,
    /// When it ends; `None` until it is revoked.
    #[serde(serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
    /// Seconds until then.
    pub remaining_s: Option<f64>,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ban {
    /// Who.
    pub source: IpAddr,
    /// When it was given.
    #[serde(serialize_with = "milliseconds")]
    pub since: Timestamp,
    /// When it ends; `None` until it is lifted.
    #[serde(serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
    /// Seconds until then.
    pub remaining_s: Option<f64>,
}

/// How far a source has got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// Who.
    pub source: IpAddr,
    /// The door's name.
    pub door: String,
    /// Steps accepted.
    pub step: u8,
    /// Steps of the sequence.
    pub of: usize,
    /// When the first one was.
    #[serde(serialize_with = "milliseconds")]
    pub started: Timestamp,
    /// When the latest one was.
    #[serde(serialize_with = "milliseconds")]
    pub last: Timestamp,
}

/// What a verb changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changes {
    /// [`VERSION`].
    pub v: u32,
    /// One entry a change; empty when all was as wanted already.
    pub changes: Vec<Change>,
    /// What else one should know, one sentence each.
    pub notes: Vec<String>,
}

/// What was done to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It may pass a door.
    Granted,
    /// It may no longer.
    Revoked,
    /// Its knocks are not judged.
    Banned,
    /// They are again.
    Unbanned,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What was done.
    pub change: Deed,
    /// To whom.
    pub source: IpAddr,
    /// At which door; `None` for bans.
    pub door: Option<String>,
    /// When it ends; `None` for what was taken back, and for what lasts until it is.
    #[serde(serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
    /// Seconds until then.
    pub remaining_s: Option<f64>,
    /// What held before, if anything did.
    pub before: Option<Before>,
}

/// What held before a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Before {
    /// When it would have ended; `None` for what lasted until it was taken back.
    #[serde(serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
}

impl Changes {
    /// Returns a report of nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { v: VERSION, changes: Vec::new(), notes: Vec::new() }
    }
}
