//! `status`: am I protected?

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use knock_common::{counter, spa::verdict::REFUSALS};

use super::show;
use crate::{
    control::Address,
    pins::Pins,
    report::{
        Confirm, InterfaceState, Status,
        sight::Sight,
        status::collect,
        text::{BAD, DOUBTFUL, GOOD, ago, columns, count, since, span},
    },
    state,
};

/// How long a daemon may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says whether this machine is protected, and by what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints the status; returns whether the machine is protected.
///
/// # Errors
/// When the pins or the interfaces cannot be read.
pub fn run(args: &Args, pins: &Pins) -> Result<bool> {
    let sight = Sight::of_root(pins)?;
    let status = collect(pins, &sight, Address::of(pins).server(PATIENCE)?)?;
    show::facts(&status, args.json, |status| people(status, Timestamp::now()))?;
    Ok(status.protected)
}

fn people(status: &Status, now: Timestamp) -> String {
    let mut parts = vec![headline(status, now) + "\n" + &generation(status, now)];
    parts.extend([interfaces(status), doors(status), tables(status), counters(status)].into_iter().flatten());
    let warnings: String =
        status.warnings.iter().map(|warning| format!("{DOUBTFUL}warning{DOUBTFUL:#}: {warning}\n")).collect();
    if !warnings.is_empty() {
        parts.push(warnings);
    }
    parts.join("\n")
}

/// Answers the question in one line.
fn headline(status: &Status, now: Timestamp) -> String {
    if !status.protected {
        return format!("{BAD}NOT protected{BAD:#}: {}", status.problems.join("; "));
    }
    let attached = status.interfaces.iter().filter(|one| one.state == InterfaceState::Attached);
    let on: Vec<String> =
        attached.map(|one| format!("{} {}", one.name, one.attach.as_deref().unwrap_or("attached"))).collect();
    let open = status.doors.iter().filter(|door| door.grants > 0).count();
    let mut line = format!("{GOOD}protected{GOOD:#}: {}", on.join(", "));
    if let Some(generation) = &status.generation {
        line += &format!(
            ", mode {}, {}, {open} open, since {}",
            generation.mode,
            count(status.doors.len(), "door"),
            since(generation.loaded, now)
        );
    }
    line
}

fn generation(status: &Status, now: Timestamp) -> String {
    let mut lines = String::new();
    if let Some(generation) = &status.generation {
        let file = generation.config.as_deref().unwrap_or("the built-in example");
        lines += &format!(
            "generation {} of {file}, mode {}, loaded {}\n",
            generation.number,
            generation.mode,
            ago(generation.loaded, now)
        );
        lines += &match status.daemon {
            Some(pid) => format!("daemon: process {pid}\n"),
            None => "no daemon (enforcement does not need one)\n".to_owned(),
        };
    }
    lines + &status.confirm.as_ref().map(confirm).unwrap_or_default()
}

fn confirm(confirm: &Confirm) -> String {
    match u64::try_from(confirm.remaining_s) {
        Ok(left_s) => format!(
            "{DOUBTFUL}not confirmed yet{DOUBTFUL:#}: goes back to what was before in {} unless `xdp-knock confirm` comes\n",
            span(Duration::from_secs(left_s))
        ),
        Err(_) => format!(
            "{BAD}not confirmed in time{BAD:#}: went back to what was before {} ago\n",
            span(Duration::from_secs(confirm.remaining_s.unsigned_abs()))
        ),
    }
}

fn interfaces(status: &Status) -> Option<String> {
    let row = |one: &crate::report::Interface| {
        let state = match one.state {
            InterfaceState::Attached => "attached",
            InterfaceState::Dead => "DEAD",
            InterfaceState::Absent => "absent",
            InterfaceState::Bare => "BARE",
            InterfaceState::Foreign => "FOREIGN",
        };
        let number = one.generation.map(|number| number.to_string());
        let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
        vec![
            one.name.clone(),
            state.to_owned(),
            or_none(one.attach.as_deref()),
            or_none(one.mode.as_deref()),
            or_none(number.as_deref()),
        ]
    };
    let head = ["interface", "state", "attach", "mode", "generation"];
    (!status.interfaces.is_empty()).then(|| columns(&head, status.interfaces.iter().map(row)))
}

fn doors(status: &Status) -> Option<String> {
    let rows = status.doors.iter().map(|door| {
        vec![
            door.name.clone(),
            door.opens.join(" "),
            door.ways.join(" "),
            span(Duration::from_secs_f64(door.open_for_s)),
            if door.grants == 0 { "shut".to_owned() } else { format!("open to {}", door.grants) },
        ]
    });
    (!status.doors.is_empty()).then(|| columns(&["door", "opens", "by", "for", "now"], rows))
}

fn tables(status: &Status) -> Option<String> {
    let rows = status.tables.iter().map(|table| {
        let percent = table.entries * 100 / table.capacity.max(1);
        let cells = [table.entries.to_string(), table.capacity.to_string(), format!("{percent} %")];
        [table.name.to_owned()].into_iter().chain(cells).collect()
    });
    (!status.tables.is_empty()).then(|| columns(&["table", "entries", "of", "full"], rows))
}

/// Counters that have counted something, with their meaning.
fn counters(status: &Status) -> Option<String> {
    let packets = state::packet_counters().map(|(name, _)| name);
    let accepted = [String::from("single packets accepted")].into_iter();
    let refused = REFUSALS.map(|refusal| format!("single packets refused: {}", refusal.meaning()));
    let all = counter::ALL
        .iter()
        .map(|(_, name, meaning)| (*name, String::from(*meaning)))
        .chain(packets.zip(accepted.chain(refused)));
    let rows: Vec<Vec<String>> = all
        .filter_map(|(name, meaning)| {
            let count = status.counters.get(name).filter(|count| **count > 0)?;
            Some(vec![name.to_owned(), count.to_string(), meaning])
        })
        .collect();
    (!rows.is_empty()).then(|| columns(&["counter", "count", "meaning"], rows))
}
