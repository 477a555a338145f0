//! `grant`: open a door to a source by hand.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use knock_common::{
    abi::{Grant, GrantKey},
    event::Via,
};

use super::{
    arguments::{Lasting, lasting, source},
    in_force::{InForce, put_making_room, tell},
    show,
};
use crate::{
    clock::Moment,
    config::Mode,
    events::{Line, Name},
    generation::key_of,
    pins::Pins,
    report::{Before, Change, Changes, Deed, listing::is_allowed},
    table::Full,
};

/// Opens a door to a source.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The address that may pass
    #[arg(value_parser = source)]
    pub source: IpAddr,
    /// The door's name
    pub door: String,
    /// How long, as in 30s, 7d or forever; without it as long as a knock would, and no grant is cut short
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasting: Option<Lasting>,
    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,
}

/// Gives the grant and prints what changed.
///
/// # Errors
/// When nothing is in force, there is no such door, or no room.
pub fn run(args: &Args, pins: &Pins) -> Result<()> {
    show::changes(&give(args, pins)?, args.json, "nothing changed: the grant that is there holds for longer")
}

fn give(args: &Args, pins: &Pins) -> Result<Changes> {
    let mut gate = InForce::open(pins)?;
    let door = gate.door(&args.door)?;
    let usual = Lasting::For(Duration::from_millis(door.open_for_ms));
    let key = GrantKey { source: key_of(args.source), door: door.id };
    let now = Moment::now();
    let present = gate.state.grants.get(&key)?.filter(|grant| grant.is_live(now.ns));
    let fresh = Grant {
        until_ns: args.lasting.unwrap_or(usual).until_ns(now.ns),
        since_ns: now.ns,
        via: Via::Manual as u32,
        generation: gate.about.generation,
    };
    let mut report = Changes { notes: notes(&gate, args.source)?, ..Changes::none() };
    let Some(grant) = to_store(present, &fresh, args.lasting.is_some()) else { return Ok(report) };
    let stored = put_making_room(&mut gate.state.grants, (&key, &grant), pins, |old| old.until_ns < now.ns);
    stored.map_err(no_room)?;
    report.changes.push(Change {
        change: Deed::Granted,
        source: args.source,
        door: Some(args.door.clone()),
        expires: now.end(grant.until_ns),
        remaining_s: now.left_s(grant.until_ns),
        before: present.map(|grant| Before { expires: now.end(grant.until_ns) }),
    });
    report.notes.extend(tell(pins, &gate, vec![line(args, &grant, now)]));
    Ok(report)
}

/// Returns what is to be stored, or `None` when what is there is to stay. A time that was asked for is what holds; without
/// one, a grant by hand is as one by a knock, which never cuts another short.
fn to_store(present: Option<Grant>, fresh: &Grant, is_time_given: bool) -> Option<Grant> {
    match present {
        None => Some(*fresh),
        Some(present) if is_time_given => Some(Grant { since_ns: present.since_ns, ..*fresh }),
        Some(present) => present.renewed(fresh),
    }
}

fn no_room(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Full>() {
        Some(Full(entries)) => anyhow::anyhow!(
            "nothing was granted: all {entries} grants that there is room for are in use; `xdp-knock revoke` makes room"
        ),
        None => error,
    }
}

fn notes(gate: &InForce, source: IpAddr) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if gate.about.mode == Mode::Observe {
        notes.push("mode observe: everything passes, with and without a grant".to_owned());
    }
    if is_allowed(&gate.about, source) {
        notes.push(format!("{source} is under `allow`: it passes every door without a grant"));
    }
    let ban = gate.state.bans.get(&key_of(source)).context("looking for a ban")?;
    if ban.is_some_and(|ban| Moment::now().ns <= ban.until_ns) {
        notes.push(format!("{source} is banned: it cannot knock, but a grant holds all the same"));
    }
    Ok(notes)
}

fn line(args: &Args, grant: &Grant, now: Moment) -> Line {
    Line {
        source: Some(args.source),
        door: Some(args.door.clone()),
        via: Some(Via::Manual.name().to_owned()),
        expires: now.end(grant.until_ns),
        ..Line::new(Timestamp::now(), Name::Promoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(since_ns: u64, until_ns: u64, via: Via) -> Grant {
        Grant { until_ns, since_ns, via: via as u32, generation: 3 }
    }

    #[test]
    fn without_a_grant_the_new_one_is_stored() {
        let fresh = grant(500, 800, Via::Manual);

        assert_eq!(to_store(None, &fresh, false), Some(fresh));
        assert_eq!(to_store(None, &fresh, true), Some(fresh));
    }

    #[test]
    fn a_time_that_was_asked_for_holds_whatever_was_there() {
        let present = grant(100, u64::MAX, Via::Sequence);
        let fresh = grant(500, 800, Via::Manual);

        assert_eq!(to_store(Some(present), &fresh, true), Some(grant(100, 800, Via::Manual)));
    }

    #[test]
    fn without_a_time_no_grant_is_cut_short() {
        let fresh = grant(500, 800, Via::Manual);

        assert_eq!(to_store(Some(grant(100, 900, Via::Sequence)), &fresh, false), None);
        let renewed = to_store(Some(grant(100, 700, Via::Sequence)), &fresh, false);
        assert_eq!(renewed, Some(grant(100, 800, Via::Sequence)));
    }
}
