//! What the kernel is to know of single packets, and of what was accepted before: before anything judges.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use aya::maps::MapError;
use knock_common::spa::abi::KeyId;

use super::{BPF_NOEXIST, Gate, Options};
use crate::{
    clock,
    spa::Spa,
    wire::{self, Wire},
};

impl Gate {
    pub(super) fn fill_spa(&mut self, spa: &Spa) -> Result<()> {
        let Some(server) = spa.server else { return Ok(()) };
        let mut keys = wire::spa_keys(&mut self.ebpf)?;
        for (id, rule) in &spa.keys {
            keys.insert(id, Wire(*rule), 0).context("writing a key")?;
        }
        let mut rights = wire::spa_rights(&mut self.ebpf)?;
        for (right, value) in &spa.rights {
            rights.insert(Wire(*right), Wire(*value), 0).context("writing what a key may ask for")?;
        }
        wire::spa_server(&mut self.ebpf)?.set(0, Wire(server), 0).context("writing the server's name")?;
        Ok(())
    }

    /// Tells the kernel the time before the first packet is judged; the daemon looks again and again.
    pub(super) fn tell_time(&mut self, gap: Option<Duration>) -> Result<()> {
        let mut clock = wire::spa_clock(&mut self.ebpf)?;
        let fresh = match gap {
            Some(gap) => clock::begun(gap),
            None => clock::seen(clock.get(&0, 0).context("reading the clock")?.0),
        };
        clock.set(0, Wire(fresh), 0).context("telling the kernel the time")
    }

    /// Gives every secret, and every sequence that opens once, its floor: the highest counter that is known to have been
    /// accepted. One that is there stays, for the kernel may raise it at any moment. `is_whole` says that nothing else was.
    ///
    /// # Errors
    /// When there is no room for that of a secret of this generation.
    pub fn begin_floors(&mut self, known: &BTreeMap<KeyId, u64>, is_whole: bool) -> Result<()> {
        let keys: Vec<KeyId> =
            wire::spa_keys(&mut self.ebpf)?.keys().collect::<Result<_, _>>().context("reading the keys")?;
        let mut least: BTreeMap<KeyId, u64> = keys.into_iter().map(|id| (id, 0)).collect();
        least.extend(self.shelf.floors(is_whole));
        let mut floors = wire::spa_floors(&mut self.ebpf)?;
        for (id, least) in &least {
            let floor = known.get(id).copied().unwrap_or(0).max(*least);
            match floors.insert(id, floor, BPF_NOEXIST) {
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                other => other.context(
                    "no room for the counter of a key or the use of a sequence: those of former configurations have it; detach, remove the state file, and begin anew",
                )?,
            }
        }
        // Those of former secrets, which may come back, as far as there is room.
        for (id, floor) in known.iter().filter(|(id, _)| !least.contains_key(*id)) {
            let _ = floors.insert(id, floor, BPF_NOEXIST);
        }
        Ok(())
    }

    pub(super) fn read_back_spa(&mut self, spa: &Spa, options: &Options<'_>) -> Result<()> {
        let Some(server) = spa.server else { return Ok(()) };
        let keys = wire::spa_keys(&mut self.ebpf)?;
        for (id, rule) in &spa.keys {
            if keys.get(id, 0)? != Wire(*rule) {
                bail!("a key reads back other than it was written: nothing was attached");
            }
        }
        let rights = wire::spa_rights(&mut self.ebpf)?;
        for (right, value) in &spa.rights {
            if rights.get(&Wire(*right), 0)? != Wire(*value) {
                bail!("what a key may ask for reads back other than it was written: nothing was attached");
            }
        }
        if wire::spa_server(&mut self.ebpf)?.get(&0, 0)? != Wire(server) {
            bail!("the server's name reads back other than it was written: nothing was attached");
        }
        let floors = wire::spa_floors(&mut self.ebpf)?;
        for (id, _) in spa.keys.iter().filter(|_| options.start.floors.is_some()) {
            floors.get(id, 0).context("the counter of a key was written and is not there")?;
        }
        Ok(())
    }
}
