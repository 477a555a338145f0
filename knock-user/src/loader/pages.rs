//! The sequences of doors that have one after the other: laid in when a generation is loaded, and for time steps to come
//! while a daemon serves it.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Context, Result, bail};
use aya::maps::MapError;
use knock_common::{abi::MAX_DOORS, pages::Page, spa::abi::KeyId};

use super::{BPF_NOEXIST, Gate};
use crate::{
    clock,
    pages::{Entry, Pages, Volume},
    wire::{self, Wire},
};

/// The books of a gate, with the numbers of the pages that lie in the kernel.
#[derive(Debug, Default)]
pub(super) struct Shelf(Vec<(Volume, Range<u64>)>);

impl Gate {
    pub(super) fn fill_pages(&mut self, pages: &Pages) -> Result<()> {
        if pages.volumes.is_empty() {
            return Ok(());
        }
        let unix_ns = clock::unix_ns();
        let used = self.fill_page_floors(pages, unix_ns)?;
        let mut books = wire::books(&mut self.ebpf)?;
        for volume in &pages.volumes {
            for (number, book) in volume.books(|floor| used.contains(floor)) {
                books.set(number, Wire(book), 0).context("writing what a door's sequences are")?;
                if books.get(&number, 0)?.0 != book {
                    bail!(
                        "what a door's sequences are reads back other than it was written: nothing was attached"
                    );
                }
            }
        }
        self.shelf = Shelf(pages.volumes.iter().map(|volume| (volume.clone(), 0..0)).collect());
        self.lay_pages(unix_ns)
    }

    /// Makes the floors that claims raise, where they are not there yet; returns those that have been raised.
    fn fill_page_floors(&mut self, pages: &Pages, unix_ns: u64) -> Result<BTreeSet<KeyId>> {
        let mut floors = wire::spa_floors(&mut self.ebpf)?;
        let mut used = BTreeSet::new();
        for (id, unknown) in pages.floors(unix_ns) {
            match floors.insert(id, unknown, BPF_NOEXIST) {
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                other => other.context(
                    "no room for what sequences were used: those of former configurations have it; detach, and begin anew",
                )?,
            }
            if floors.get(&id, 0).context("what sequences were used was written and is not there")? > 0 {
                used.insert(id);
            }
        }
        Ok(used)
    }

    /// Lays in the sequences that are to be there at a time and are not.
    ///
    /// # Errors
    /// When the maps cannot be written, or read back other than they were written.
    pub fn lay_pages(&mut self, unix_ns: u64) -> Result<()> {
        let mut shelf = std::mem::take(&mut self.shelf);
        let laid = shelf.0.iter_mut().try_for_each(|(volume, laid)| self.lay(volume, laid, unix_ns));
        self.shelf = shelf;
        laid
    }

    fn lay(&mut self, volume: &Volume, laid: &mut Range<u64>, unix_ns: u64) -> Result<()> {
        let wanted = volume.wanted(unix_ns);
        // A clock that was set elsewhere: nothing of what is there counts.
        if !laid.contains(&wanted.start) {
            *laid = wanted.start..wanted.start;
        }
        while laid.end < wanted.end {
            self.put(&volume.entry(laid.end))?;
            laid.end += 1;
        }
        // What lies there of before has been written over.
        laid.start = wanted.start;
        Ok(())
    }

    /// Puts a page into its place, which is nobody's while it is written.
    fn put(&mut self, Entry { place, page, rule }: &Entry) -> Result<()> {
        let context = "laying in a sequence";
        wire::pages(&mut self.ebpf)?.set(*place, Wire(Page::NONE), 0).context(context)?;
        let behind = u32::try_from(MAX_DOORS)?.saturating_add(*place);
        let mut doors = wire::doors(&mut self.ebpf)?;
        doors.set(behind, Wire(*rule), 0).context(context)?;
        if doors.get(&behind, 0)?.0 != *rule {
            bail!("a sequence reads back other than it was written");
        }
        wire::pages(&mut self.ebpf)?.set(*place, Wire(*page), 0).context(context)
    }
}
