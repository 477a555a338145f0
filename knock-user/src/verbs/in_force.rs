//! A gate in force, opened by what is pinned: what the verbs on its tables begin with.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytemuck::Pod;
use knock_common::abi::{Address, mapped};

use crate::{
    about::{About, AboutDoor},
    control::{Address as Server, Request},
    events::Line,
    pins::Pins,
    report::sight::Sight,
    run::BadUsage,
    state::State,
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

/// Returns an address as the kernel's tables have it.
#[must_use]
pub fn key(source: IpAddr) -> Address {
    match source.to_canonical() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
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

/// Tells the process that serves, if one does, of events that this one caused, so that its readers and hooks follow. What
/// was done is done whether or not it hears of it; returns a note if it did not.
pub fn tell(pins: &Pins, lines: Vec<Line>) -> Option<String> {
    let server = Server::of(pins);
    let started = Instant::now();
    let total = lines.len();
    for (told, line) in lines.into_iter().enumerate() {
        let request = Request::Tell { line: Box::new(line) };
        let is_late = started.elapsed() > PATIENCE_FOR_ALL;
        match server.ask_within(&request, PATIENCE) {
            Ok(None) => return None,
            Ok(Some(_)) if !is_late => {}
            Ok(Some(_)) | Err(_) => {
                return Some(format!(
                    "the daemon did not hear of {} of {total} events in time; what is said above is done all the same",
                    total - told
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::address;

    #[test]
    fn a_source_is_the_same_in_the_tables_and_out_of_them() {
        for text in ["192.0.2.7", "2001:db8::7", "fe80::1", "::1"] {
            let source: IpAddr = text.parse().expect("an address");
            assert_eq!(address(&key(source)), source);
        }
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
        let plain: IpAddr = "192.0.2.7".parse().expect("an address");
        assert_eq!(key(mapped), key(plain));
    }
}
