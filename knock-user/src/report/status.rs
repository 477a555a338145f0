//! Collecting what `status` tells. Works for root, and inside a daemon that gave root up.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::Result;
use knock_common::{
    abi::Grant as Entry,
    spa::{abi::WallClock, verdict::CLOCK_TRUST_NS},
};

use super::{
    Confirm, Door, Generation, Interface, InterfaceState, Status, Table, Uncovered, VERSION,
    problems::{cut_short, interfaces, problems},
    sight::Sight,
    text::span,
};
use crate::{
    about::{About, AboutDoor},
    clock::Moment,
    config::Mode,
    control::Server,
    devices::{self, Device},
    pins::Pins,
    rollback::Standing,
    state::State,
};

/// A table this full, in percent, is worth a warning.
pub const NEARLY_FULL_PERCENT: usize = 90;

/// A daemon that lives tells the time every second.
const UNTOLD_NS: u64 = 60 * 1_000_000_000;

/// Collects everything.
///
/// # Errors
/// When netlink does not answer.
pub fn collect(pins: &Pins, sight: &Sight, server: Server) -> Result<Status> {
    let now = Moment::now();
    let devices = devices::all()?;
    let interfaces = interfaces(sight, &devices);
    let mut problems = problems(pins, sight, &interfaces, &devices);
    let state =
        if sight.links.is_empty() { Ok(Held::default()) } else { Held::read(pins, sight.in_force(), now) };
    let held = state.unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        Held::default()
    });
    let uncovered = uncovered(&devices, &interfaces)?;
    let mut warnings = warnings(&interfaces, &uncovered, &held.tables, server);
    let takes_packets =
        sight.in_force().is_some_and(|about| about.doors.values().any(|door| door.spa.is_some()));
    warnings.extend(untold(held.told, now.ns).filter(|_| takes_packets));
    Ok(Status {
        v: VERSION,
        protected: problems.is_empty(),
        problems,
        warnings,
        pin_dir: pins.path().display().to_string(),
        daemon: match server {
            Server::Nobody => None,
            Server::Daemon(pid) | Server::Silent(pid) => Some(pid),
        },
        generation: sight.in_force().map(generation),
        confirm: confirm(sight, now),
        interfaces,
        uncovered,
        doors: held.doors,
        tables: held.tables,
        counters: held.counters,
    })
}

/// What the state holds.
#[derive(Default)]
struct Held {
    doors: Vec<Door>,
    tables: Vec<Table>,
    counters: BTreeMap<&'static str, u64>,
    /// What the kernel knows of wall time.
    told: Option<WallClock>,
}

impl Held {
    fn read(pins: &Pins, about: Option<&About>, now: Moment) -> Result<Self> {
        let state = State::open(pins)?;
        let grants = state.grants.entries()?;
        let live = |id: u64| {
            grants.iter().filter(|(key, grant): &&(_, Entry)| key.door == id && grant.is_live(now.ns)).count()
        };
        let table = |name, entries, capacity: u32| Table { name, entries, capacity: capacity as usize };
        let mut tables = vec![
            table("grants", grants.len(), state.grants.capacity()),
            table("bans", state.bans.count()?, state.bans.capacity()),
            table("first_attempts", state.first_attempts.count()?, state.first_attempts.capacity()),
            table("later_attempts", state.later_attempts.count()?, state.later_attempts.capacity()),
        ];
        if let Some(sessions) = &state.sessions {
            tables.push(table("sessions", sessions.count()?, sessions.capacity()));
        }
        if let Some(floors) = &state.floors {
            tables.push(table("spa_floors", floors.count()?, floors.capacity()));
        }
        if let Some(replies) = &state.replies {
            tables.push(table("replies", replies.count()?, replies.capacity()));
        }
        let doors = about.into_iter().flat_map(|about| &about.doors);
        Ok(Self {
            doors: doors.map(|(name, about)| door(name, about, live(about.id))).collect(),
            tables,
            counters: state.counts()?.into_iter().collect(),
            told: state.told_time()?,
        })
    }
}

fn door(name: &str, about: &AboutDoor, grants: usize) -> Door {
    Door {
        name: name.to_owned(),
        opens: about.opens.clone(),
        ways: ways(about),
        steps: about.steps,
        open_for_s: about.open_for_ms as f64 / 1000.0,
        sessions: about.sessions.to_string(),
        grants,
    }
}

fn ways(about: &AboutDoor) -> Vec<String> {
    let ways = [
        (about.steps > 0, "sequence"),
        (about.rotate.is_some(), "rotating"),
        (about.list.is_some(), "list"),
        (about.spa.is_some(), "spa"),
    ];
    ways.into_iter().filter(|(is, _)| *is).map(|(_, way)| way.to_owned()).collect()
}

fn generation(about: &About) -> Generation {
    Generation {
        number: about.generation,
        mode: about.mode.to_string(),
        hide_as: about.hide_as.to_string(),
        forward: (about.mode == Mode::Deny).then(|| about.forward.to_string()),
        config: about.config.as_ref().map(|file| file.display().to_string()),
        loaded: about.loaded,
    }
}

/// Returns the confirmation that is awaited, or did not come; the earliest, should there be several.
fn confirm(sight: &Sight, now: Moment) -> Option<Confirm> {
    let deadline = |standing| match standing {
        Standing::Settled => None,
        Standing::Awaited(by_ns) | Standing::WentBack(by_ns) => Some(by_ns),
    };
    let by_ns = sight.links.iter().filter_map(|seen| deadline(seen.standing)).min()?;
    let remaining_ns = i128::from(by_ns) - i128::from(now.ns);
    Some(Confirm {
        deadline: now.wall_of(by_ns),
        remaining_s: i64::try_from(remaining_ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX),
    })
}

/// Returns the interfaces with addresses that no gate covers.
///
/// # Errors
/// When the addresses cannot be listed.
pub fn uncovered(devices: &[Device], interfaces: &[Interface]) -> Result<Vec<Uncovered>> {
    let is_attached = |one: &&Interface| one.state == InterfaceState::Attached;
    let guarded: Vec<u32> = interfaces.iter().filter(is_attached).filter_map(|one| one.index).collect();
    let addresses = devices::addresses()?;
    let uncovered = devices::uncovered(devices, &addresses, &guarded);
    Ok(uncovered
        .into_iter()
        .map(|(name, addresses)| Uncovered { name, addresses: addresses.to_vec() })
        .collect())
}

fn warnings(
    interfaces: &[Interface],
    uncovered: &[Uncovered],
    tables: &[Table],
    server: Server,
) -> Vec<String> {
    let mut warnings: Vec<String> = cut_short(interfaces).into_iter().collect();
    let is_any = interfaces.iter().any(|one| one.state == InterfaceState::Attached);
    let bare = uncovered.iter().filter(|one| is_any && interfaces.iter().all(|known| known.name != one.name));
    warnings.extend(bare.map(|one| {
        let addresses: Vec<String> = one.addresses.iter().map(IpAddr::to_string).collect();
        format!("{} has addresses ({}) and no gate", one.name, addresses.join(", "))
    }));
    warnings.extend(tables.iter().filter(|table| table.is_nearly_full()).map(|table| {
        format!("the table of {} is nearly full: {} of {}", table.name, table.entries, table.capacity)
    }));
    if let Server::Silent(pid) = server {
        warnings.push(format!(
            "the daemon (process {pid}) does not answer: the gate stays in force; events, reloads and interfaces that come back wait for it"
        ));
    }
    warnings
}

/// Returns what there is to say of a kernel that is not told the time any more, by which it judges single packets.
fn untold(told: Option<WallClock>, now_ns: u64) -> Option<String> {
    let age_ns = told.map_or(u64::MAX, |told| now_ns.saturating_sub(told.seen_ns));
    if age_ns < UNTOLD_NS {
        return None;
    }
    let what = match CLOCK_TRUST_NS.checked_sub(age_ns) {
        Some(left_ns) => format!("are refused in {}", span(Duration::from_nanos(left_ns))),
        None => "are refused as `no_clock`".to_owned(),
    };
    Some(format!(
        "no daemon tells the kernel the time: single packets {what}; start one: `xdp-knock run --persist`"
    ))
}

impl Table {
    /// Returns whether the table is worth a warning. Those of attempts and conversations make room by themselves.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        let makes_room = matches!(self.name, "first_attempts" | "later_attempts" | "sessions" | "replies");
        !makes_room && self.entries * 100 > self.capacity * NEARLY_FULL_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_nobody_tells_the_time_is_told_of_before_it_refuses() {
        const HOUR_NS: u64 = 3600 * 1_000_000_000;
        let words = |told_ago_ns: u64| {
            let told = WallClock { offset_ns: 0, seen_ns: HOUR_NS, since_ns: 0 };
            untold(Some(told), HOUR_NS + told_ago_ns).unwrap_or_default()
        };

        assert_eq!(words(2_000_000_000), "");
        assert!(words(2 * HOUR_NS).contains("single packets are refused in 10h;"), "{}", words(2 * HOUR_NS));
        assert!(words(12 * HOUR_NS).contains("are refused in"), "{}", words(12 * HOUR_NS));
        assert!(words(12 * HOUR_NS + 1).contains("are refused as `no_clock`"), "{}", words(13 * HOUR_NS));
        assert!(untold(None, HOUR_NS).is_some_and(|words| words.contains("`no_clock`")));
    }
}
