//! How the verbs print: one JSON object or text for people, to a reader that may stop reading.

use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::report::{Change, Changes, Deed, text};

/// Prints to standard output; colour is left out where it is no terminal. A reader that has gone is no error: `| head`.
///
/// # Errors
/// When it cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

/// Prints facts as one line of JSON, or as what `people` makes of them.
///
/// # Errors
/// When it cannot be written.
pub fn facts<T: Serialize>(facts: &T, json: bool, people: impl FnOnce(&T) -> String) -> Result<()> {
    if !json {
        return print(&people(facts));
    }
    let mut text = serde_json::to_string(facts).context("writing JSON")?;
    text.push('\n');
    print(&text)
}

/// Prints what a verb changed; `unchanged` is said where nothing was.
///
/// # Errors
/// When it cannot be written.
pub fn changes(changes: &Changes, json: bool, unchanged: &str) -> Result<()> {
    facts(changes, json, |changes| people(changes, unchanged))
}

fn people(changes: &Changes, unchanged: &str) -> String {
    let mut lines: Vec<String> = changes.changes.iter().map(line).collect();
    if lines.is_empty() {
        lines.push(unchanged.to_owned());
    }
    lines.extend(changes.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n") + "\n"
}

fn line(change: &Change) -> String {
    let door = change.door.as_ref().map(|door| format!(" at {door}")).unwrap_or_default();
    let source = change.source;
    match change.change {
        Deed::Granted => format!("granted {source}{door}: {}{}", end(change), before(change)),
        Deed::Banned => format!("banned {source}: {}{}", end(change), before(change)),
        Deed::Revoked => format!("revoked {source}{door}"),
        Deed::Unbanned => format!("unbanned {source}"),
    }
}

fn end(change: &Change) -> String {
    match change.remaining_s {
        Some(_) => format!("ends {}", text::ends(change.remaining_s)),
        None => "until it is taken back".to_owned(),
    }
}

fn before(change: &Change) -> String {
    let Some(before) = &change.before else { return String::new() };
    match before.expires {
        Some(expires) => format!(" (it would have ended in {})", text::since(Timestamp::now(), expires)),
        None => " (it would have lasted until taken back)".to_owned(),
    }
}
