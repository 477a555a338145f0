//! Grants and bans on disk, so that a reboot does not shut out who had knocked. Times are wall-clock times here, since the
//! kernel's clock begins anew with the machine.

pub mod packets;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use knock_common::{
    abi::{Ban, Grant, GrantKey},
    event::Via,
};
use nix::{fcntl::OFlag, unistd::geteuid};
use serde::{Deserialize, Serialize};

use crate::{
    about::About,
    bans::Bans,
    clock,
    generation::{address, key_of},
    pins::Pins,
    state::State,
};

/// Version of the file; another one is not read.
const VERSION: u32 = 1;
/// A larger file is not one of ours: the tables hold 65,536 entries each.
const MAX_BYTES: u64 = 32 << 20;

/// What is kept across a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    v: u32,
    saved: Timestamp,
    /// The machine's run that it was written in, by the kernel's name for it; a gate with this file has judged since.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    boot: String,
    /// Where that gate has ended: what was made before this may have been accepted and is not told of below; what was made
    /// since is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_since: Option<Timestamp>,
    grants: Vec<SavedGrant>,
    bans: Vec<SavedBan>,
    /// The highest counters of single packets, by the id of their secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    floors: BTreeMap<String, u64>,
}

/// A grant, by the name of its door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedGrant {
    source: IpAddr,
    door: String,
    via: String,
    since: Timestamp,
    /// `null` until it is revoked.
    expires: Option<Timestamp>,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedBan {
    source: IpAddr,
    since: Timestamp,
    /// `null` until it is lifted.
    expires: Option<Timestamp>,
}

/// How much was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Grants.
    pub grants: usize,
    /// Bans.
    pub bans: usize,
}

/// An end on the kernel's clock; `None` on disk is "for ever" there.
fn until_ns(expires: Option<Timestamp>) -> u64 {
    expires.map_or(u64::MAX, clock::instant_ns)
}

impl Saved {
    fn empty(now: Timestamp) -> Self {
        Self {
            v: VERSION,
            saved: now,
            boot: String::new(),
            ended_since: None,
            grants: Vec::new(),
            bans: Vec::new(),
            floors: BTreeMap::new(),
        }
    }

    /// Leaves nothing in the file of a gate that was taken off, but for which single packets were accepted: those of `state`,
    /// where it can still be read, and those that the file knows. One that cannot be read stays as it is.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::write`], or when the kernel's maps cannot be read.
    pub fn forget(path: &Path, state: Option<&State>, now: Timestamp) -> Result<()> {
        let before = Self::load(path).context(
            "the state file stays as it is, since it may tell which packets were accepted; remove it, or its grants may come back",
        )?;
        let mut kept = before.map(|saved| saved.floors).unwrap_or_default();
        for (id, floor) in state.map_or(Ok(BTreeMap::new()), packets::floors)? {
            let known = kept.entry(id).or_default();
            *known = floor.max(*known);
        }
        let ended_since = state.map_or(Ok(None), State::kept_since)?;
        Self { boot: packets::boot(), ended_since, floors: kept, ..Self::empty(now) }.write(path)
    }

    /// Takes down what is left when nothing judges any more.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn of_ended(state: &State, door_names: &BTreeMap<u64, String>, now: Timestamp) -> Result<Self> {
        Ok(Self { ended_since: state.kept_since()?, ..Self::of(state, door_names, now)? })
    }

    /// Takes down the live grants and bans.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn of(state: &State, door_names: &BTreeMap<u64, String>, now: Timestamp) -> Result<Self> {
        let now_ns = clock::now_ns();
        let mut grants = Vec::new();
        for (key, grant) in state.grants.entries()? {
            let (Some(door), Some(via)) = (door_names.get(&key.door), via_of(&grant)) else { continue };
            if grant.until_ns >= now_ns {
                grants.push(SavedGrant {
                    source: address(&key.source),
                    door: door.clone(),
                    via: via.name().to_owned(),
                    since: clock::wall(grant.since_ns),
                    expires: clock::wall_end(grant.until_ns),
                });
            }
        }
        let live = |(source, ban): (_, Ban)| {
            (ban.until_ns >= now_ns).then(|| SavedBan {
                source: address(&source),
                since: clock::wall(ban.since_ns),
                expires: clock::wall_end(ban.until_ns),
            })
        };
        let bans = state.bans.entries()?.into_iter().filter_map(live).collect();
        Ok(Self { boot: packets::boot(), grants, bans, floors: packets::floors(state)?, ..Self::empty(now) })
    }

    /// Gives the grants that still hold, of doors that still are, and the bans.
    ///
    /// # Errors
    /// When the kernel's maps cannot be written.
    pub fn restore(&self, pins: &Pins, state: &mut State, about: &About, now: Timestamp) -> Result<Restored> {
        let holds = |expires: Option<Timestamp>| expires.is_none_or(|at| at > now);
        let mut restored = Restored::default();
        for grant in self.grants.iter().filter(|grant| holds(grant.expires)) {
            let (Some(door), Some(via)) = (about.doors.get(&grant.door), via_named(&grant.via)) else {
                continue;
            };
            let key = GrantKey { source: key_of(grant.source), door: door.id };
            let value = Grant {
                until_ns: until_ns(grant.expires),
                since_ns: clock::instant_ns(grant.since),
                via: via as u32,
                generation: about.generation,
            };
            // A grant that was given since then stays.
            restored.grants += usize::from(state.grants.put_if_absent(&key, &value)?);
        }
        let mut bans = Bans::hold(pins, state)?;
        for ban in self.bans.iter().filter(|ban| holds(ban.expires)) {
            let value = Ban { until_ns: until_ns(ban.expires), since_ns: clock::instant_ns(ban.since) };
            bans.put(&key_of(ban.source), &value)?;
            restored.bans += 1;
        }
        Ok(restored)
    }

    /// Writes the file: whoever reads it finds the old one or the new one, whole, whatever happens meanwhile.
    ///
    /// # Errors
    /// When the disk is full or the folder is not there; the old file stays.
    pub fn write(&self, path: &Path) -> Result<()> {
        let context = || format!("writing the state file {}: the one before stays", path.display());
        let folder = path.parent().context("a state file lies in a folder")?;
        fs::create_dir_all(folder).with_context(context)?;
        // Beside its place, since a rename does not cross file systems; its mode is 0600.
        let mut file = tempfile::Builder::new()
            .prefix(&beginning(path))
            .suffix(ENDING)
            .tempfile_in(folder)
            .with_context(context)?;
        let text = serde_json::to_vec_pretty(self).context("writing the state as JSON")?;
        file.write_all(&text).with_context(context)?;
        file.as_file().sync_all().with_context(context)?;
        file.persist(path).map_err(|error| error.error).with_context(context)?;
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(context)
    }

    /// Reads the file to give back what it holds; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::load`], or when the clock says that it is from the future.
    pub fn read(path: &Path, now: Timestamp) -> Result<Option<Self>> {
        let Some(saved) = Self::load(path)? else { return Ok(None) };
        ensure!(
            saved.saved <= now,
            "the state file {} is of {}, and the clock says {now}: nothing is restored until the clock is right",
            path.display(),
            saved.saved
        );
        Ok(Some(saved))
    }

    /// Reads the file, whatever the clock says; `None` where there is none.
    ///
    /// # Errors
    /// When others could have written it, or it is not one of ours.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        // Without waiting, should it be a pipe.
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("opening the state file {}", path.display()))?,
        };
        let facts = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
        ensure!(facts.is_file(), "the state file {} is not a file: name another", path.display());
        let is_ours = facts.uid() == 0 || facts.uid() == geteuid().as_raw();
        if !is_ours || facts.mode() & 0o022 != 0 {
            bail!(
                "the state file {} may be written by others (owner {}, mode {:04o}): nothing is restored from it; run chown root and chmod 600 on it, or remove it",
                path.display(),
                facts.uid(),
                facts.mode() & 0o7777
            );
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut text)
            .with_context(|| format!("reading {}", path.display()))?;
        ensure!(text.len() as u64 <= MAX_BYTES, "the state file {} is larger than 32 MiB", path.display());
        let saved: Self = serde_json::from_slice(&text)
            .with_context(|| format!("the state file {} is damaged: remove it", path.display()))?;
        ensure!(
            saved.v == VERSION,
            "the state file {} is of version {}, not {VERSION}",
            path.display(),
            saved.v
        );
        Ok(Some(saved))
    }
}

/// How a file that is being written begins and ends its name.
const ENDING: &str = ".new";

fn beginning(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what a process that was killed while it wrote left beside the file.
fn clear_leavings(path: &Path) {
    let beginning = beginning(path);
    let is_left = |name: &str| name.starts_with(&beginning) && name.ends_with(ENDING);
    for entry in path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_left) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives back what the file of a generation holds, to a state that holds nothing yet: the machine has started anew.
///
/// # Errors
/// When the file is not to be trusted, or the kernel's maps refuse; the gate is in force without it.
pub fn restore_fresh(pins: &Pins, about: &About) -> Result<Restored> {
    let Some(path) = &about.state else { return Ok(Restored::default()) };
    clear_leavings(path);
    let mut state = State::open(pins)?;
    if !state.grants.entries()?.is_empty() || !state.bans.entries()?.is_empty() {
        return Ok(Restored::default());
    }
    let now = Timestamp::now();
    match Saved::read(path, now)? {
        Some(saved) => saved.restore(pins, &mut state, about, now),
        None => Ok(Restored::default()),
    }
}

fn via_of(grant: &Grant) -> Option<Via> {
    Via::from_number(u8::try_from(grant.via).ok()?)
}

fn via_named(name: &str) -> Option<Via> {
    (0..=u8::MAX).filter_map(Via::from_number).find(|via| via.name() == name)
}

#[cfg(test)]
mod tests;
