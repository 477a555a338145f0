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
            let door = about.doors.iter().find_map(|(name, door)| {
                let own = (door.number, door.steps);
                let mut lanes = [own].into_iter().chain(door.lanes.iter().copied());
                lanes.find(|(number, _)| *number == slot.door).map(|(_, steps)| (name, door, steps))
            });
            let Some((name, _, steps)) = door.filter(|(_, door, steps)| is_open(slot, door, *steps, now.ns))
            else {
                continue;
            };
            let attempt = attempt(source, slot, name, steps, now);
            attempts.insert((attempt.source, attempt.door.clone()), attempt);
        }
    }
    attempts.into_values().collect()
}

/// Returns whether the next right knock would be accepted: the same comparisons as in the kernel.
fn is_open(slot: &abi::Attempt, door: &AboutDoor, steps: usize, now_ns: u64) -> bool {
    let within =
        |since_ns: u64, limit_ms: u64| now_ns.saturating_sub(since_ns) <= limit_ms.saturating_mul(1_000_000);
    (1..steps).contains(&usize::from(slot.step))
        && within(slot.last_ns, door.step_timeout_ms)
        && within(slot.started_ns, door.total_timeout_ms)
}

fn attempt(source: &Address, slot: &abi::Attempt, name: &str, steps: usize, now: Moment) -> Attempt {
    Attempt {
        source: address(source),
        door: name.to_owned(),
        step: slot.step,
        of: steps,
        started: now.wall_of(slot.started_ns),
        last: now.wall_of(slot.last_ns),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        generation::key_of,
        report::sample::{KNOCK, about},
    };

    type Change = fn(&mut Attempts);

    const SECOND: u64 = 1_000_000_000;
    const NOW: Moment = Moment { ns: 1000 * SECOND, wall: Timestamp::UNIX_EPOCH };

    fn source(last: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, last])
    }

    fn key(last: u8, about: &About, door: &str) -> GrantKey {
        GrantKey { source: key_of(source(last)), door: about.doors[door].id }
    }

    fn until(until_ns: u64) -> abi::Grant {
        abi::Grant { until_ns, since_ns: 990 * SECOND, via: 2, generation: 7 }
    }

    /// A record with one slot: door `ssh` (number 1), two steps, begun 4 s ago, the last one 2 s ago.
    fn record(last: u8) -> Attempts {
        let mut record = Attempts::zeroed();
        record.source = key_of(source(last));
        record.generation = 7;
        record.epoch_ns = 5;
        record.slots[0] = abi::Attempt {
            started_ns: NOW.ns - 4 * SECOND,
            last_ns: NOW.ns - 2 * SECOND,
            epoch_ns: 5,
            door: 1,
            step: 2,
            _pad: 0,
            page: 0,
        };
        record
    }

    fn listed(change: impl Fn(&mut Attempts)) -> Vec<Attempt> {
        let about = about(7, KNOCK, "guard");
        let mut record = record(1);
        change(&mut record);
        attempts(&[(key_of(source(1)), record)], &[&about], NOW)
    }

    #[test]
    fn grants_that_hold_are_listed_in_order_and_those_that_are_over_are_not() {
        let about = about(7, KNOCK, "guard");
        let entries = [
            (key(9, &about, "ssh"), until(u64::MAX)),
            (key(1, &about, "web"), until(NOW.ns)),
            (key(1, &about, "ssh"), until(1010 * SECOND)),
            (key(2, &about, "ssh"), until(NOW.ns - 1)),
        ];

        let listed = grants(&entries, Some(&about), NOW);

        let shown: Vec<_> =
            listed.iter().map(|one| (one.source, one.door.as_str(), one.remaining_s)).collect();
        assert_eq!(
            shown,
            [(source(1), "ssh", Some(10.0)), (source(1), "web", Some(0.0)), (source(9), "ssh", None)]
        );
        assert!(listed.iter().all(|one| one.via == "manual"));
        assert_eq!(listed[0].expires, Some(Timestamp::from_second(10).expect("a time")));
        assert_eq!(listed[0].since, Timestamp::from_second(-10).expect("a time"));
    }

    #[test]
    fn a_grant_of_a_door_that_is_no_more_is_listed_by_its_number() {
        let about = about(7, KNOCK, "guard");
        let stranger = GrantKey { source: key_of(source(1)), door: 0xabc };

        assert_eq!(grants(&[(stranger, until(u64::MAX))], Some(&about), NOW)[0].door, "#abc");
    }

    #[test]
    fn an_attempt_that_a_right_knock_would_go_on_with_is_listed() {
        let listed = listed(|_| {});

        let shown: Vec<_> =
            listed.iter().map(|one| (one.source, one.door.as_str(), one.step, one.of)).collect();
        assert_eq!(shown, [(source(1), "ssh", 2, 4)]);
        assert_eq!(listed[0].last, Timestamp::from_second(-2).expect("a time"));
    }

    #[test]
    fn an_attempt_that_is_void_is_not_listed() {
        let voids: [(&str, Change); 8] = [
            ("another generation", |record| record.generation = 6),
            ("another use of the memory", |record| record.slots[0].epoch_ns = 4),
            ("another source's memory", |record| record.source = key_of(source(2))),
            ("poisoned", |record| record.turn = claim::POISONED),
            ("a free slot", |record| record.slots[0].step = 0),
            ("complete", |record| record.slots[0].step = 4),
            ("too long since the last step", |record| record.slots[0].last_ns = NOW.ns - 5 * SECOND - 1),
            ("too long since the first", |record| record.slots[0].started_ns = NOW.ns - 15 * SECOND - 1),
        ];
        for (why, change) in voids {
            assert!(listed(change).is_empty(), "{why}");
        }
        let limits: [Change; 2] = [
            |record| record.slots[0].last_ns = NOW.ns - 5 * SECOND,
            |record| record.slots[0].started_ns = NOW.ns - 15 * SECOND,
        ];
        for change in limits {
            assert_eq!(listed(change).len(), 1, "still in time");
        }
    }

    #[test]
    fn a_source_may_pass_where_it_has_a_grant_or_is_allowed() {
        let about = about(7, KNOCK, "guard");
        let entries = [(key(1, &about, "web"), until(u64::MAX))];
        let listing = Listing {
            v: VERSION,
            grants: grants(&entries, Some(&about), NOW),
            bans: Vec::new(),
            attempts: listed(|_| {}),
        };
        let open = |source| {
            let access = of_source(&listing, &about, source);
            access.doors.into_iter().map(|door| (door.door, door.open)).collect::<Vec<_>>()
        };

        assert_eq!(open(source(1)), [("ssh".to_owned(), false), ("web".to_owned(), true)]);
        assert_eq!(open(source(2)), [("ssh".to_owned(), false), ("web".to_owned(), false)]);
        assert_eq!(open(IpAddr::from([192, 0, 2, 77])), [("ssh".to_owned(), true), ("web".to_owned(), true)]);
        let access = of_source(&listing, &about, source(1));
        assert_eq!(access.doors[0].attempt.as_ref().map(|one| one.step), Some(2));
        assert!(access.is_any_open() && !of_source(&listing, &about, source(2)).is_any_open());
    }
}
