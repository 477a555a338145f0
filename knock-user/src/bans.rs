//! Changing the bans. So that nobody pays for an empty table, the kernel looks into it only while a word says that there
//! may be some; whoever changes the table or the word holds a lock, for a ban that the word denies would be none.

use std::{
    fs::{File, TryLockError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use knock_common::abi::{Address, Ban};

use crate::{pins::Pins, state::State};

/// How long another process may hold the bans, which takes it a few microseconds an entry.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bans, which nobody else changes meanwhile. The lock ends with the process at the latest.
pub struct Bans<'a> {
    state: &'a mut State,
    _lock: File,
}

impl<'a> Bans<'a> {
    /// Waits until nobody else changes them.
    ///
    /// # Errors
    /// When another process does not come to an end.
    pub fn hold(pins: &Pins, state: &'a mut State) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = lock(pins)? {
                return Ok(Self { state, _lock: lock });
            }
            if Instant::now() >= deadline {
                bail!(
                    "another xdp-knock is changing the bans and does not come to an end: nothing was changed"
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes hold of them without waiting; `None` while somebody else changes them, or has taken the gate off.
    ///
    /// # Errors
    /// When the folder of the state cannot be opened.
    pub fn try_hold(pins: &Pins, state: &'a mut State) -> Result<Option<Self>> {
        if !pins.state().exists() {
            return Ok(None);
        }
        Ok(lock(pins)?.map(|lock| Self { state, _lock: lock }))
    }

    /// Returns a source's ban, in force or over.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn get(&self, source: &Address) -> Result<Option<Ban>> {
        self.state.bans.get(source)
    }

    /// Returns every ban, in force or over.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn entries(&self) -> Result<Vec<(Address, Ban)>> {
        self.state.bans.entries()
    }

    /// Bans a source, or changes its ban.
    ///
    /// # Errors
    /// [`crate::table::Full`], or when the kernel refuses.
    pub fn put(&mut self, source: &Address, ban: &Ban) -> Result<()> {
        // The word comes first: a process that dies in between leaves a look into the table that finds nothing.
        self.use_bans(true)?;
        self.state.bans.put(source, ban)
    }

    /// Lifts a source's ban; returns what it was.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&mut self, source: &Address) -> Result<Option<Ban>> {
        self.state.bans.take(source)
    }

    /// Takes out the bans that are over.
    ///
    /// # Errors
    /// When the map cannot be read or changed.
    pub fn take_ended(&mut self, now_ns: u64) -> Result<Vec<(Address, Ban)>> {
        self.state.bans.take_ended(|ban| ban.until_ns < now_ns)
    }

    /// Spares the kernel the look into the table, where it is empty.
    ///
    /// # Errors
    /// When the maps cannot be read or changed.
    pub fn rest_if_empty(&mut self) -> Result<()> {
        if self.state.bans.count()? > 0 {
            return Ok(());
        }
        self.use_bans(false)
    }

    fn use_bans(&mut self, is_in_use: bool) -> Result<()> {
        let word = u64::from(is_in_use);
        self.state.bans_in_use.set(0, word, 0).context("telling the kernel whether there are bans")
    }
}

/// Locks the folder of the state; `None` while another process has it.
fn lock(pins: &Pins) -> Result<Option<File>> {
    let path = pins.state();
    let folder = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}
