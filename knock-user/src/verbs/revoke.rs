//! `revoke`: shut doors to a source, or to everybody.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use jiff::Timestamp;
use knock_common::abi::{Grant, GrantKey};

use super::{
    arguments::source,
    in_force::{InForce, tell},
    show,
};
use crate::{
    about::About,
    clock::Moment,
    config::SessionRule,
    events::{Line, Name},
    generation::{address, key_of},
    pins::Pins,
    report::{
        Before, Change, Changes, Deed,
        listing::{door_name, is_allowed},
    },
};

/// Takes grants back.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The address that may no longer pass
    #[arg(value_parser = source, required_unless_present = "all", conflicts_with = "all")]
    pub source: Option<IpAddr>,
    /// The door's name; every door without it
    pub door: Option<String>,
    /// Every grant of every source
    #[arg(long)]
    pub all: bool,
    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,
}

/// Takes the grants back and prints what changed.
///
/// # Errors
/// When nothing is in force, there is no such door, or the kernel refuses.
pub fn run(args: &Args, pins: &Pins) -> Result<()> {
    show::changes(&take_back(args, pins)?, args.json, "nothing changed: there was no such grant")
}

fn take_back(args: &Args, pins: &Pins) -> Result<Changes> {
    let gate = InForce::open(pins)?;
    let door = args.door.as_deref().map(|name| gate.door(name)).transpose()?.map(|door| door.id);
    let source = args.source.map(key_of);
    let now = Moment::now();
    let is_meant = |key: &GrantKey| {
        source.is_none_or(|source| source == key.source) && door.is_none_or(|door| door == key.door)
    };
    let mut report = Changes::none();
    let mut lines = Vec::new();
    for (key, _) in gate.state.grants.entries()?.into_iter().filter(|(key, _)| is_meant(key)) {
        let Some(grant) = gate.state.grants.take(&key)? else { continue };
        let door = door_name(Some(&gate.about), key.door);
        lines.push(line(&key, &grant, &door, now));
        if grant.is_live(now.ns) {
            report.changes.push(change(&key, &grant, door, now));
        }
    }
    report.changes.sort_by(|a, b| (a.source, &a.door).cmp(&(b.source, &b.door)));
    if let Some(source) = args.source.filter(|source| is_allowed(&gate.about, *source)) {
        report.notes.push(format!(
            "{source} is under `allow`: it passes every door all the same, until it is taken out there and the configuration is reloaded"
        ));
    }
    report.notes.extend(what_goes_on(&gate.about, &report.changes));
    report.notes.extend(tell(pins, &gate, lines));
    Ok(report)
}

/// Says that what came in with the grants is still in, where a door keeps it.
fn what_goes_on(about: &About, changes: &[Change]) -> Option<String> {
    let keeps = |name: &str| about.doors.get(name).is_some_and(|door| door.sessions == SessionRule::Keep);
    let names: BTreeSet<&str> =
        changes.iter().filter_map(|change| change.door.as_deref()).filter(|name| keeps(name)).collect();
    let doors = names.into_iter().collect::<Vec<_>>().join(", ");
    (!doors.is_empty()).then(|| {
        format!(
            "what came in by {doors} goes on: `ss -K` ends connections of this machine, and `sessions = \"cut\"` has the next ones end with their grant"
        )
    })
}

fn change(key: &GrantKey, grant: &Grant, door: String, now: Moment) -> Change {
    Change {
        change: Deed::Revoked,
        source: address(&key.source),
        door: Some(door),
        expires: None,
        remaining_s: None,
        before: Some(Before { expires: now.end(grant.until_ns) }),
    }
}

/// A grant that was over already has expired: only nobody had swept it out.
fn line(key: &GrantKey, grant: &Grant, door: &str, now: Moment) -> Line {
    let line = if grant.is_live(now.ns) {
        Line { detail: Some("by hand".to_owned()), ..Line::new(Timestamp::now(), Name::Revoked) }
    } else {
        Line::new(now.wall_of(grant.until_ns), Name::Expired)
    };
    Line { source: Some(address(&key.source)), door: Some(door.to_owned()), ..line }
}
