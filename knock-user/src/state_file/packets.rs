//! What the file tells of single packets and of sequences that open once, and what their floors begin with by it: before
//! anything judges, since a floor that is too low lets in twice.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use knock_common::spa::abi::KeyId;

use super::Saved;
use crate::{
    clock::Moment,
    config::spa::DEFAULT_WINDOW,
    generation::Generation,
    install::warn_of,
    pins::Pins,
    secret::hex,
    state::{self, State},
};

/// What secrets begin with, where the kernel does not know it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The highest counters that were accepted, of former secrets too; one that is not named has none. `None` where that is
    /// not known: a secret without a floor is refused.
    pub floors: Option<BTreeMap<KeyId, u64>>,
    /// How far ahead of now packets may be dated that were accepted by floors that are gone; `None` where the kernel has
    /// floors, and knows since when.
    pub gap: Option<Duration>,
    /// The floors tell all that was ever accepted: nobody judged since they were written down.
    pub is_whole: bool,
}

impl Default for Start {
    /// Of a state of one's own: nothing was ever accepted.
    fn default() -> Self {
        Self { floors: Some(BTreeMap::new()), gap: Some(Duration::ZERO), is_whole: true }
    }
}

impl Start {
    /// Finds out what the secrets of a generation begin with, and says what cannot be found out.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn of(pins: &Pins, generation: &Generation, file: Option<&Path>) -> Result<Self> {
        let Generation { spa, pages, .. } = generation;
        let known = state::known_floors(pins)?;
        let lacks = |id: &KeyId| -> Result<bool> {
            Ok(known.as_ref().map_or(Ok(None), |known| known.get(id))?.is_none())
        };
        let mut lacking = Lacking::default();
        for (id, _) in &spa.keys {
            if lacks(id)? {
                lacking.secrets.push(hex(id));
            }
        }
        for id in pages.floors() {
            lacking.has_sequences |= lacks(&id)?;
        }
        if known.is_some() && lacking.is_nothing() {
            return Ok(Self { floors: Some(BTreeMap::new()), gap: None, is_whole: false });
        }
        let window = spa.server.map_or(DEFAULT_WINDOW, |server| Duration::from_nanos(server.window_ns));
        let (floors, gap, is_whole) = match file.map_or(Ok(None), of_file) {
            Ok(None) => (Some(BTreeMap::new()), window, false),
            Ok(Some((saved, floors))) => {
                let is_whole = known.is_none() && saved.ended_since.is_some();
                (Some(floors), saved.gap(window, Moment::now(), &boot()), is_whole)
            }
            Err(error) => {
                lacking.refuse(&error);
                (None, window, false)
            }
        };
        let start = Self { floors, gap: known.is_none().then_some(gap), is_whole };
        start.tell(&lacking);
        Ok(start)
    }

    fn tell(&self, lacking: &Lacking) {
        if self.floors.is_none() {
            return;
        }
        if lacking.has_sequences && !self.is_whole {
            say!(
                "xdp-knock: rotating sequences open from the second next time step on: which were used before is not known to the last"
            );
        }
        let Some(gap) = self.gap.filter(|gap| !gap.is_zero()) else { return };
        if lacking.secrets.is_empty() {
            return;
        }
        say!(
            "xdp-knock: single packets are accepted that are made in {} s or later: which were accepted before is not known to the last (no [state] file, or one that was not written at the end)",
            gap.as_secs() + 1
        );
    }
}

/// What the kernel has no floors for.
#[derive(Debug, Default)]
struct Lacking {
    /// Secrets, by their ids.
    secrets: Vec<String>,
    /// Some sequence that opens once.
    has_sequences: bool,
}

impl Lacking {
    const fn is_nothing(&self) -> bool {
        self.secrets.is_empty() && !self.has_sequences
    }

    /// Says that what cannot be known opens nothing.
    fn refuse(&self, error: &anyhow::Error) {
        if !self.secrets.is_empty() {
            say!(
                "xdp-knock: WARNING: which single packets were accepted before is not known: {error:#}. Until that is mended, all with these secrets are refused as replayed: {}. To begin anew, remove the file and reload: what was made before the start is refused then",
                self.secrets.join(", ")
            );
        }
        if self.has_sequences {
            say!(
                "xdp-knock: WARNING: which rotating and one-time sequences were used before is not known: {error:#}. Until that is mended, none opens its door. To begin anew, remove the file and reload"
            );
        }
    }
}

/// Reads what a file knows; `None` where there is none.
///
/// # Errors
/// As [`Saved::load`], or when it names something else than secrets.
pub fn of_file(path: &Path) -> Result<Option<(Saved, BTreeMap<KeyId, u64>)>> {
    let Some(saved) = Saved::load(path)? else { return Ok(None) };
    let floors =
        saved.floors().with_context(|| format!("the state file {} is damaged: remove it", path.display()))?;
    Ok(Some((saved, floors)))
}

/// Notes in the file, where there are floors, that a gate is about to judge. What fails is said: should the gate end other
/// than in order before the file is next written, the one after it may take it for more than it knows.
pub fn begin(path: &Path, generation: &Generation) {
    let has_floors = !generation.spa.keys.is_empty() || !generation.pages.volumes.is_empty();
    if has_floors && Saved::load(path).is_ok() {
        warn_of(Saved::begin(path, Timestamp::now()));
    }
}

impl Saved {
    /// Notes in the file that a gate is about to judge, so that what it says of single packets may soon be behind.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::write`].
    pub fn begin(path: &Path, now: Timestamp) -> Result<()> {
        let before = Self::load(path)?.unwrap_or_else(|| Self::empty(now));
        let boot = boot();
        if before.boot == boot && before.ended_since.is_none() {
            return Ok(());
        }
        Self { boot, ended_since: None, ..before }.write(path)
    }

    /// Returns the highest counters that were accepted, by the id of their secret.
    ///
    /// # Errors
    /// When one is of no secret.
    pub fn floors(&self) -> Result<BTreeMap<KeyId, u64>> {
        let id = |text: &str| {
            let is_id =
                text.len() == 2 * size_of::<KeyId>() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            let number = u64::from_str_radix(text, 16).ok().filter(|_| is_id);
            number.map(u64::to_be_bytes).with_context(|| format!("`{text}` is no id of a secret"))
        };
        self.floors.iter().map(|(text, floor)| Ok((id(text)?, *floor))).collect()
    }

    /// Returns how far ahead of now packets may be dated that were accepted and are not in [`Self::floors`].
    #[must_use]
    pub fn gap(&self, window: Duration, now: Moment, boot: &str) -> Duration {
        let ahead = |since: Timestamp| Duration::try_from(since.duration_since(now.wall)).unwrap_or_default();
        match self.ended_since {
            // A clock that was set back is no reason to wait for what it said before.
            Some(since) => ahead(since).min(window),
            // Whatever it was that accepted them ended with the machine's run before this one, or earlier.
            None if !self.boot.is_empty() && !boot.is_empty() && self.boot != boot => {
                window.saturating_sub(Duration::from_nanos(now.ns))
            }
            None => window,
        }
    }
}

/// Returns the kernel's name for this run of the machine; nothing where it cannot be read.
pub(super) fn boot() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    name.trim().to_owned()
}

/// Returns the highest counters that the kernel knows of, by the id of their secret.
pub(super) fn floors(state: &State) -> Result<BTreeMap<String, u64>> {
    let Some(floors) = &state.floors else { return Ok(BTreeMap::new()) };
    Ok(floors
        .entries()?
        .into_iter()
        .filter(|(_, floor)| *floor > 0)
        .map(|(id, floor)| (hex(&id), floor))
        .collect())
}

#[cfg(test)]
mod tests;
