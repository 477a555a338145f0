//! From the entries of the tables to what `list` tells: only what holds at this moment, in a fixed order.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    abi::{self, Address, Attempts, GrantKey},
    claim,
    event::Via,
};
use serde::Serialize;

use super::{Attempt, Ban, Grant, Listing, VERSION, sight::Sight};
use crate::{
    about::{About, AboutDoor},
    clock::Moment,
    generation::address,
    state::State,
};

/// What one source may do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceAccess {
    /// [`VERSION`].
    pub v: u32,
    /// Who.
    pub source: IpAddr,
    /// Whether it is in an `allow` prefix: never judged, so every door is open to it.
    pub allowed: bool,
    /// Whether the gate lets everything pass (`observe`), whatever is said below.
    pub observed: bool,
    /// Its ban, if its knocks are not judged.
    pub ban: Option<Ban>,
    /// Every door, by name.
    pub doors: Vec<DoorAccess>,
}

/// Whether one door is open to one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DoorAccess {
    /// The door's name.
    pub door: String,
    /// Whether the source may pass.
    pub open: bool,
    /// What it passes by.
    pub grant: Option<Grant>,
    /// How far it has got with its sequence.
    pub attempt: Option<Attempt>,
}

impl SourceAccess {
    /// Returns whether the source may pass some door.
    #[must_use]
    pub fn is_any_open(&self) -> bool {
        self.doors.iter().any(|door| door.open)
    }
}

/// Reads all tables.
///
/// # Errors
/// When one cannot be read.
pub fn list(state: &State, sight: &Sight) -> Result<Listing> {
    let now = Moment::now();
    let abouts: Vec<&About> = sight.links.iter().filter_map(|seen| seen.judging()).collect();
    // Later records after first ones: where a source has both for a door, the later one holds.
    let mut records = state.first_attempts.entries()?;
    records.extend(state.later_attempts.entries()?);
    Ok(Listing {
        v: VERSION,
        grants: grants(&state.grants.entries()?, sight.in_force(), now),
        bans: bans(&state.bans.entries()?, now),
        attempts: attempts(&records, &abouts, now),
    })
}

/// Returns what one source of a listing may do.
#[must_use]
pub fn of_source(listing: &Listing, about: &About, source: IpAddr) -> SourceAccess {
    let is_allowed = is_allowed(about, source);
    let door = |name: &String| {
        let grant = listing.grants.iter().find(|grant| grant.source == source && grant.door == *name);
        let attempt = listing.attempts.iter().find(|one| one.source == source && one.door == *name);
        DoorAccess {
            door: name.clone(),
            open: is_allowed || grant.is_some(),
            grant: grant.cloned(),
            attempt: attempt.cloned(),
        }
    };
    SourceAccess {
        v: VERSION,
        source,
        allowed: is_allowed,
        observed: about.mode == crate::config::Mode::Observe,
        ban: listing.bans.iter().find(|ban| ban.source == source).cloned(),
        doors: about.doors.keys().map(door).collect(),
    }
}

/// Returns whether a generation never judges the source.
#[must_use]
pub fn is_allowed(about: &About, source: IpAddr) -> bool {
    about.allow.iter().any(|net: &IpNet| net.contains(&source))
}

/// Returns the name of a door that grants and events call by its id; one that the generation does not have keeps the id.
#[must_use]
pub fn door_name(about: Option<&About>, id: u64) -> String {
    about.and_then(|about| about.door_name(id)).map_or_else(|| format!("#{id:x}"), str::to_owned)
}

/// Returns a grant as it is shown.
#[must_use]
pub fn grant(key: &GrantKey, entry: &abi::Grant, about: Option<&About>, now: Moment) -> Grant {
    let via = u8::try_from(entry.via).ok().and_then(Via::from_number);
    Grant {
        source: address(&key.source),
        door: door_name(about, key.door),
        via: via.map_or_else(|| format!("#{}", entry.via), |via| via.name().to_owned()),
        since: now.wall_of(entry.since_ns),
        expires: now.end(entry.until_ns),
        remaining_s: now.left_s(entry.until_ns),
    }
}

/// Returns a ban as it is shown.
#[must_use]
pub fn ban(source: &Address, entry: &abi::Ban, now: Moment) -> Ban {
    Ban {
        source: address(source),
        since: now.wall_of(entry.since_ns),
        expires: now.end(entry.until_ns),
        remaining_s: now.left_s(entry.until_ns),
    }
}

fn grants(entries: &[(GrantKey, abi::Grant)], about: Option<&About>, now: Moment) -> Vec<Grant> {
    let live = entries.iter().filter(|(_, entry)| entry.is_live(now.ns));
    let mut grants: Vec<Grant> = live.map(|(key, entry)| grant(key, entry, about, now)).collect();
    grants.sort_by(|a, b| (a.source, &a.door).cmp(&(b.source, &b.door)));
    grants
}

fn bans(entries: &[(Address, abi::Ban)], now: Moment) -> Vec<Ban> {
    let live = entries.iter().filter(|(_, entry)| now.ns <= entry.until_ns);
    let mut bans: Vec<Ban> = live.map(|(source, entry)| ban(source, entry, now)).collect();
    bans.sort_by_key(|ban| ban.source);
    bans
}

fn attempts(records: &[(Address, Attempts)], abouts: &[&About], now: Moment) -> Vec<Attempt> {
    let mut attempts = BTreeMap::new();
    for (source, record) in records {
        let Some(about) = abouts.iter().find(|about| about.generation == record.generation) else { continue };
        // A knock went by a poisoned record unjudged: it is void at the next one.
        if claim::is_poisoned(record.turn) || record.source != *source {
            continue;
        }
        for slot in record.slots.iter().filter(|slot| slot.epoch_ns == record.epoch_ns) {
            let door = about.doors.iter().find(|(_, door)| door.number == slot.door);
            let Some((name, door)) = door.filter(|(_, door)| is_open(slot, door, now.ns)) else { continue };
            let attempt = attempt(source, slot, name, door, now);
            attempts.insert((attempt.source, attempt.door.clone()), attempt);
        }
    }
    attempts.into_values().collect()
}

/// Returns whether the next right knock would be accepted: the same comparisons as in the kernel.
fn is_open(slot: &abi::Attempt, door: &AboutDoor, now_ns: u64) -> bool {
    let within =
        |since_ns: u64, limit_ms: u64| now_ns.saturating_sub(since_ns) <= limit_ms.saturating_mul(1_000_000);
    (1..door.steps).contains(&usize::from(slot.step))
        && within(slot.last_ns, door.step_timeout_ms)
        && within(slot.started_ns, door.total_timeout_ms)
}

fn attempt(source: &Address, slot: &abi::Attempt, name: &str, door: &AboutDoor, now: Moment) -> Attempt {
    Attempt {
        source: address(source),
        door: name.to_owned(),
        step: slot.step,
        of: door.steps,
        started: now.wall_of(slot.started_ns),
        last: now.wall_of(slot.last_ns),
    }
}
