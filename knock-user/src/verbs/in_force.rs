//! A gate in force, opened by what is pinned: what the verbs on its tables begin with.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytemuck::Pod;
use jiff::Timestamp;

use crate::{
    about::{About, AboutDoor},
    control::{Address, Request},
    events::Line,
    pins::Pins,
    report::sight::Sight,
    run::BadUsage,
    state::State,
    state_file::Saved,
    table::{Full, Table},
};

/// How long the process that serves may take to hear of an event.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long telling of many events may take.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(5);

/// Nothing is in force, so there is nothing to ask or to change.
#[derive(Debug, thiserror::Error)]
#[error("no gate is in force here: {0}")]
pub struct NotInForce(String);

/// A gate in force.
pub struct InForce {
    /// What is pinned.
    pub sight: Sight,
    /// The generation that judges.
    pub about: About,
    /// Its tables.
    pub state: State,
}

impl InForce {
    /// Opens it.
    ///
    /// # Errors
    /// [`NotInForce`], or when the state is not what this program knows.
    pub fn open(pins: &Pins) -> Result<Self> {
        let sight = Sight::of_root(pins)?;
        let Some(about) = sight.in_force().cloned() else {
            let reason = match sight.foreign.first() {
                Some(foreign) => foreign.reason.clone(),
                None => "`xdp-knock run` or `xdp-knock attach` brings one into force".to_owned(),
            };
            return Err(NotInForce(reason).into());
        };
        Ok(Self { state: State::open(pins)?, sight, about })
    }

    /// Writes the file that keeps grants and bans across a reboot, if the configuration has one.
    fn save(&self) -> Result<()> {
        let Some(path) = &self.about.state else { return Ok(()) };
        // One that cannot be read may tell which packets were accepted.
        Saved::load(path)?;
        let names = self.about.doors.iter().map(|(name, door)| (door.id, name.clone())).collect();
        Saved::of(&self.state, &names, Timestamp::now())?.write(path)
    }

    /// Returns a door by its name.
    ///
    /// # Errors
    /// [`BadUsage`] with the names that are.
    pub fn door(&self, name: &str) -> Result<&AboutDoor, BadUsage> {
        self.about.doors.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.about.doors.keys().map(String::as_str).collect();
            BadUsage(format!("there is no door `{name}`: there are {}", known.join(", ")))
        })
    }
}

/// Stores an entry, and for want of room first takes out those that have ended, where no daemon does.
///
/// # Errors
/// [`Full`], or when the kernel refuses.
pub fn put_making_room<K: Pod, V: Pod>(
    table: &mut Table<K, V>,
    (key, value): (&K, &V),
    pins: &Pins,
    has_ended: impl Fn(&V) -> bool,
) -> Result<()> {
    match table.put(key, value) {
        Err(error) if error.is::<Full>() && !pins.is_held() => {
            table.take_ended(has_ended)?;
            table.put(key, value)
        }
        other => other,
    }
}

/// Tells the process that serves, if one does, of events that this one caused, so that its readers and hooks follow; where
/// no daemon does, brings the file up to date that keeps grants and bans across a reboot. What was done is done whether or
/// not that succeeds; returns a note if it does not.
pub fn tell(pins: &Pins, gate: &InForce, lines: Vec<Line>) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    match tell_server(pins, lines) {
        Ok(Heard::ByDaemon) => None,
        Ok(Heard::ByNoDaemon) => gate.save().err().map(|error| format!("{error:#}")),
        Err(note) => Some(note),
    }
}

/// Who heard of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    ByDaemon,
    /// Nobody, or a reader of events that serves for want of a daemon.
    ByNoDaemon,
}

fn tell_server(pins: &Pins, lines: Vec<Line>) -> Result<Heard, String> {
    let server = Address::of(pins);
    let started = Instant::now();
    let total = lines.len();
    let mut heard = Heard::ByNoDaemon;
    for (told, line) in lines.into_iter().enumerate() {
        let request = Request::Tell { line: Box::new(line) };
        let reply = if started.elapsed() < PATIENCE_FOR_ALL {
            server.ask_within(&request, PATIENCE).map_err(|_| told)
        } else {
            Err(told)
        };
        match reply {
            Ok(None) => return Ok(Heard::ByNoDaemon),
            Ok(Some(reply)) if reply.is_daemon => heard = Heard::ByDaemon,
            Ok(Some(_)) => {}
            Err(told) => {
                return Err(format!(
                    "the daemon did not hear of {} of {total} events in time; what is said above is done all the same",
                    total - told
                ));
            }
        }
    }
    Ok(heard)
}
