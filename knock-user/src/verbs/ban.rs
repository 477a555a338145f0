//! `ban` and `unban`: a source whose knocks are not judged.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use knock_common::abi::{Address, Ban};

use super::{
    arguments::{Lasting, lasting, source},
    in_force::{InForce, tell},
    show,
};
use crate::{
    bans::Bans,
    clock::Moment,
    events::{Line, Name},
    generation::{address, key_of},
    pins::Pins,
    report::{
        Before, Change, Changes, Deed,
        listing::{door_name, is_allowed},
    },
    table::Full,
};

/// How long a ban lasts unless another time is asked for.
const USUAL: Lasting = Lasting::For(Duration::from_secs(3600));

/// Bans a source.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The address whose knocks are no longer judged
    #[arg(value_parser = source)]
    pub source: IpAddr,
    /// How long, as in 30m, 7d or forever; without it an hour, and no ban is cut short
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasting: Option<Lasting>,
    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,
}

/// Lifts bans.
#[derive(Clone, Debug, clap::Args)]
pub struct UnbanArgs {
    /// The address whose knocks are judged again
    #[arg(value_parser = source, required_unless_present = "all", conflicts_with = "all")]
    pub source: Option<IpAddr>,
    /// Every ban
    #[arg(long)]
    pub all: bool,
    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,
}

/// Bans and prints what changed.
///
/// # Errors
/// When nothing is in force, or there is no room.
pub fn run(args: &Args, pins: &Pins) -> Result<()> {
    show::changes(&ban(args, pins)?, args.json, "nothing changed: the ban that is there holds for longer")
}

fn ban(args: &Args, pins: &Pins) -> Result<Changes> {
    let mut gate = InForce::open(pins)?;
    let mut report = Changes { notes: untouched(&gate, args.source)?, ..Changes::none() };
    let mut bans = Bans::hold(pins, &mut gate.state)?;
    let (key, now) = (key_of(args.source), Moment::now());
    let present = bans.get(&key)?.filter(|ban| now.ns <= ban.until_ns);
    let fresh = Ban { until_ns: args.lasting.unwrap_or(USUAL).until_ns(now.ns), since_ns: now.ns };
    let Some(ban) = to_store(present, fresh, args.lasting.is_some()) else { return Ok(report) };
    put(&mut bans, &key, &ban, pins, now)?;
    drop(bans);
    // What the source has begun must not wait for the end of a short ban. To the kernel it is as if they had been evicted.
    gate.state.first_attempts.take(&key)?;
    gate.state.later_attempts.take(&key)?;
    report.changes.push(Change {
        change: Deed::Banned,
        source: args.source,
        door: None,
        expires: now.end(ban.until_ns),
        remaining_s: now.left_s(ban.until_ns),
        before: present.map(|ban| Before { expires: now.end(ban.until_ns) }),
    });
    let line = Line {
        source: Some(args.source),
        expires: now.end(ban.until_ns),
        detail: Some("by hand".to_owned()),
        ..Line::new(Timestamp::now(), Name::Banned)
    };
    report.notes.extend(tell(pins, &gate, vec![line]));
    Ok(report)
}

/// Lifts bans and prints what changed.
///
/// # Errors
/// When nothing is in force, or the kernel refuses.
pub fn run_unban(args: &UnbanArgs, pins: &Pins) -> Result<()> {
    show::changes(&lift(args, pins)?, args.json, "nothing changed: there was no such ban")
}

fn lift(args: &UnbanArgs, pins: &Pins) -> Result<Changes> {
    let mut gate = InForce::open(pins)?;
    let mut bans = Bans::hold(pins, &mut gate.state)?;
    let now = Moment::now();
    let meant: Vec<Address> = match args.source {
        Some(source) => vec![key_of(source)],
        None => bans.entries()?.into_iter().map(|(source, _)| source).collect(),
    };
    let (mut report, mut lines) = (Changes::none(), Vec::new());
    for source in meant {
        let Some(ban) = bans.take(&source)? else { continue };
        lines.push(lifted(&source, &ban, now));
        if now.ns <= ban.until_ns {
            report.changes.push(unbanned(&source, &ban, now));
        }
    }
    bans.rest_if_empty()?;
    drop(bans);
    report.changes.sort_by_key(|change| change.source);
    report.notes.extend(tell(pins, &gate, lines));
    Ok(report)
}

/// Returns what is to be stored, or `None` when what is there is to stay: as with grants.
fn to_store(present: Option<Ban>, fresh: Ban, is_time_given: bool) -> Option<Ban> {
    match present {
        None => Some(fresh),
        Some(present) if !is_time_given && present.until_ns > fresh.until_ns => None,
        Some(present) => Some(Ban { since_ns: present.since_ns, ..fresh }),
    }
}

fn put(bans: &mut Bans<'_>, source: &Address, ban: &Ban, pins: &Pins, now: Moment) -> Result<()> {
    let mut stored = bans.put(source, ban);
    // A daemon sweeps out what is over; where there is none, it is done for want of room.
    if stored.as_ref().is_err_and(|error| error.is::<Full>()) && !pins.is_held() {
        bans.take_ended(now.ns)?;
        stored = bans.put(source, ban);
    }
    stored.map_err(|error| match error.downcast_ref::<Full>() {
        Some(Full(entries)) => anyhow!(
            "not banned: all {entries} bans that there is room for are in use; `xdp-knock unban` makes room"
        ),
        None => error,
    })
}

/// Returns what a ban of the source does not touch.
fn untouched(gate: &InForce, source: IpAddr) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if is_allowed(&gate.about, source) {
        notes.push(format!(
            "{source} is under `allow`, which the ban does not touch: it passes every door until it is taken out there and the configuration is reloaded"
        ));
    }
    let (key, now) = (key_of(source), Moment::now());
    let grants = gate.state.grants.entries()?;
    let live = grants.iter().filter(|(grant, entry)| grant.source == key && entry.is_live(now.ns));
    let doors: Vec<String> = live.map(|(grant, _)| door_name(Some(&gate.about), grant.door)).collect();
    if !doors.is_empty() {
        notes.push(format!(
            "{source} has a grant for {}, which the ban does not touch: `xdp-knock revoke {source}` takes it back",
            doors.join(", ")
        ));
    }
    Ok(notes)
}

fn unbanned(source: &Address, ban: &Ban, now: Moment) -> Change {
    Change {
        change: Deed::Unbanned,
        source: address(source),
        door: None,
        expires: None,
        remaining_s: None,
        before: Some(Before { expires: now.end(ban.until_ns) }),
    }
}

fn lifted(source: &Address, ban: &Ban, now: Moment) -> Line {
    let (time, why) = if now.ns <= ban.until_ns {
        (now.wall, "by hand")
    } else {
        (now.wall_of(ban.until_ns), "its time is over")
    };
    Line { source: Some(address(source)), detail: Some(why.to_owned()), ..Line::new(time, Name::Unbanned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_keeps_its_beginning_and_gets_the_end_that_was_asked_for() {
        let present = Ban { until_ns: 900, since_ns: 100 };
        let fresh = Ban { until_ns: 800, since_ns: 500 };

        assert_eq!(to_store(None, fresh, false), Some(fresh));
        assert_eq!(to_store(Some(present), fresh, true), Some(Ban { until_ns: 800, since_ns: 100 }));
        assert_eq!(to_store(Some(present), fresh, false), None, "no ban is cut short unasked");
    }
}
