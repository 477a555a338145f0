//! Grants and bans kept across a reboot: the daemon writes them to their file soon after they change.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::{Daemon, Service};
use crate::{
    events::Name,
    install::warn_of,
    state_file::{Restored, Saved, packets},
};

/// The file is not written more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a file that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long the end waits for a write that is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Taking down full tables takes a while; so much of the time, at most, is spent on it: one part in this many.
const SHARE: u32 = 50;

/// What is still to be written.
#[derive(Debug, Default)]
pub struct Saving {
    has_changed: bool,
    not_before: Option<Instant>,
    /// The write under way: a disk that is slow holds up nothing else.
    writing: Option<JoinHandle<Result<()>>>,
    complaint: Option<String>,
}

impl Saving {
    /// Notes that something happened.
    pub fn note(&mut self, event: Name) {
        match event {
            Name::Promoted | Name::Expired | Name::Revoked | Name::Banned | Name::Unbanned => {
                self.has_changed = true;
            }
            Name::Attached
            | Name::Detached
            | Name::Reloaded
            | Name::Step
            | Name::Reset
            | Name::TableFull
            | Name::SpaRejected
            | Name::Spent
            | Name::Lost => {}
        }
    }

    /// Waits for the write under way, since the one after it must win. Returns whether it has ended.
    fn is_settled(&mut self) -> bool {
        let Some(writing) = &self.writing else { return true };
        let deadline = Instant::now() + PATIENCE;
        while !writing.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        writing.is_finished()
    }

    /// Says once what keeps the file from being written, and tries again later.
    fn complain(&mut self, outcome: Result<()>) {
        let complaint = outcome.err().map(|error| format!("{error:#}"));
        if let Some(words) = complaint.as_ref().filter(|words| self.complaint.as_ref() != Some(*words)) {
            say!("xdp-knock: WARNING: {words}");
        }
        self.has_changed |= complaint.is_some();
        self.complaint = complaint;
    }
}

impl Service {
    /// Returns whether all that the state file told is in force, so that it may be written over.
    const fn is_dealt_with(&self) -> bool {
        self.is_restored && self.installed.knows_floors
    }
}

impl Daemon {
    /// Writes the file if something changed. Must be called inside the runtime.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub(super) fn save(&mut self) -> Result<()> {
        if let Some(writing) = &mut self.saving.writing {
            if !writing.is_finished() {
                return Ok(());
            }
            if let Some(Ok(outcome)) =
                self.saving.writing.take().and_then(futures_util::FutureExt::now_or_never)
            {
                self.saving.complain(outcome);
            }
        }
        let started = Instant::now();
        let Some(path) = self.service.installed.about.state.clone() else { return Ok(()) };
        if !self.restore_again(&path) {
            return Ok(());
        }
        if !self.saving.has_changed || self.saving.not_before.is_some_and(|at| started < at) {
            return Ok(());
        }
        let saved = Saved::of(&self.state, &self.door_names, Timestamp::now())?;
        self.saving.has_changed = false;
        self.saving.not_before = Some(started + PAUSE.max(started.elapsed() * SHARE));
        self.saving.writing = Some(tokio::task::spawn_blocking(move || saved.write(&path)));
        Ok(())
    }

    /// Tries again to read a file that could not be read at the start: a clock that was wrong then may be right by now.
    /// Returns whether it has been dealt with.
    fn restore_again(&mut self, path: &Path) -> bool {
        let now = Instant::now();
        if self.service.is_dealt_with() || self.saving.not_before.is_some_and(|at| now < at) {
            return self.service.is_dealt_with();
        }
        self.saving.not_before = Some(now + RETRY);
        self.floor_again(path);
        if !self.service.is_restored {
            self.give_again(path);
        }
        self.service.is_dealt_with()
    }

    fn give_again(&mut self, path: &Path) {
        let wall = Timestamp::now();
        let restored = Saved::read(path, wall).and_then(|saved| match saved {
            Some(saved) => {
                let Service { held, installed, .. } = &self.service;
                saved.restore(&held.pins, &mut self.state, &installed.about, wall)
            }
            None => Ok(Restored::default()),
        });
        if let Ok(Restored { grants, bans }) = restored {
            say!("xdp-knock: restored grants: {grants}, bans: {bans}");
            self.service.is_restored = true;
        }
    }

    /// Gives secrets their floors, now that the file can be read, or was removed.
    fn floor_again(&mut self, path: &Path) {
        let installed = &mut self.service.installed;
        if installed.knows_floors {
            return;
        }
        let known =
            packets::of_file(path).map(|known| known.map_or_else(BTreeMap::new, |(_, floors)| floors));
        if known.and_then(|known| installed.gate.begin_floors(&known, false)).is_ok() {
            installed.knows_floors = true;
            say!(
                "xdp-knock: it is known again which single packets were accepted: those of every secret are judged"
            );
        }
    }

    /// Writes the file at the end of a process that leaves the gate in force.
    pub(super) fn save_now(&mut self) {
        let saved = Saved::of(&self.state, &self.door_names, Timestamp::now());
        self.save_last(saved);
    }

    /// Writes the file of a gate that was taken off.
    pub(super) fn save_ended(&mut self) {
        let saved = Saved::of_ended(&self.state, &self.door_names, Timestamp::now());
        self.save_last(saved);
    }

    fn save_last(&mut self, saved: Result<Saved>) {
        let Some(path) = self.service.installed.about.state.clone() else { return };
        if !self.service.is_dealt_with() || !self.saving.is_settled() {
            return;
        }
        warn_of(saved.and_then(|saved| saved.write(&path)));
    }

    /// Empties the file: grants and bans go with a gate that is taken off by `detach`.
    pub(super) fn forget_saved(&mut self) {
        let Some(path) = &self.service.installed.about.state else { return };
        if !self.saving.is_settled() {
            eprintln!(
                "xdp-knock: WARNING: {} is still being written: remove it, or its grants come back",
                path.display()
            );
        }
        warn_of(Saved::forget(path, Some(&self.state), Timestamp::now()));
    }
}
