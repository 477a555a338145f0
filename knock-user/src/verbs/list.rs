//! `list`: who may pass, who is banned, who has begun to knock.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use jiff::Timestamp;

use super::{arguments::source, in_force::InForce, show};
use crate::{
    pins::Pins,
    report::{
        Attempt, Ban, Grant, Listing,
        listing::{DoorAccess, SourceAccess, list, of_source},
        text::{ago, columns, count, ends, span},
    },
};

/// Lists grants, bans and attempts.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What one address may do: status 0 if it may pass some door, 4 if every door is shut to it
    #[arg(long, value_name = "ADDR", value_parser = source)]
    pub source: Option<IpAddr>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything; or a source that may pass some door.
    Listed,
    /// A source that may pass none.
    Shut,
}

/// Prints the list.
///
/// # Errors
/// When nothing is in force or a table cannot be read.
pub fn run(args: &Args, pins: &Pins) -> Result<Answer> {
    let gate = InForce::open(pins)?;
    let listing = list(&gate.state, &gate.sight)?;
    let now = Timestamp::now();
    let Some(source) = args.source else {
        show::facts(&listing, args.json, |listing| everything(listing, now))?;
        return Ok(Answer::Listed);
    };
    let access = of_source(&listing, &gate.about, source);
    show::facts(&access, args.json, |access| one_source(access, now))?;
    Ok(if access.is_any_open() { Answer::Listed } else { Answer::Shut })
}

fn everything(listing: &Listing, now: Timestamp) -> String {
    let grants = listing.grants.iter().map(|grant: &Grant| {
        let [since, expires] = [ago(grant.since, now), ends(grant.remaining_s)];
        vec![grant.source.to_string(), grant.door.clone(), grant.via.clone(), since, expires]
    });
    let bans = listing
        .bans
        .iter()
        .map(|ban: &Ban| vec![ban.source.to_string(), ago(ban.since, now), ends(ban.remaining_s)]);
    let attempts = listing.attempts.iter().map(|one: &Attempt| {
        let [started, last] = [ago(one.started, now), ago(one.last, now)];
        vec![one.source.to_string(), one.door.clone(), progress(one), started, last]
    });
    let parts = [
        section("grant", &["source", "door", "via", "since", "ends"], grants.collect()),
        section("ban", &["source", "since", "ends"], bans.collect()),
        section("attempt", &["source", "door", "steps", "started", "last knock"], attempts.collect()),
    ];
    parts.join("\n")
}

fn section(noun: &str, head: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return format!("no {noun}s\n");
    }
    format!("{}\n{}", count(rows.len(), noun), columns(head, rows))
}

fn progress(attempt: &Attempt) -> String {
    format!("{} of {}", attempt.step, attempt.of)
}

fn one_source(access: &SourceAccess, now: Timestamp) -> String {
    let mut text = columns(&["door", "for it", "by"], access.doors.iter().map(|door| row(access, door)));
    if let Some(ban) = &access.ban {
        let until =
            if ban.expires.is_some() { ends(ban.remaining_s) } else { "when it is lifted".to_owned() };
        text += &format!("banned {}: its knocks are not judged; ends {until}\n", ago(ban.since, now));
    }
    if access.observed {
        text += "mode observe: everything passes, whatever is said above\n";
    }
    text
}

fn row(access: &SourceAccess, door: &DoorAccess) -> Vec<String> {
    let why = match (&door.grant, &door.attempt) {
        _ if access.allowed => "an `allow` prefix, always".to_owned(),
        (Some(Grant { via, remaining_s: Some(left_s), .. }), _) => {
            format!("{via}, for {}", span(Duration::from_secs_f64(left_s.max(0.0))))
        }
        (Some(Grant { via, remaining_s: None, .. }), _) => format!("{via}, until it is revoked"),
        (None, Some(attempt)) => format!("{} steps", progress(attempt)),
        (None, None) => String::new(),
    };
    vec![door.door.clone(), if door.open { "open" } else { "shut" }.to_owned(), why]
}
