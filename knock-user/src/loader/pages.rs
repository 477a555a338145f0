//! The sequences of doors that have one after the other: laid in when a generation is loaded, and for time steps to come
//! while a daemon serves it.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Context, Result, bail};
use knock_common::{abi::MAX_DOORS, pages::Page, spa::abi::KeyId};

use super::Gate;
use crate::{
    clock,
    pages::{Entry, Pages, Volume},
    wire::{self, Wire},
};

/// The books of a gate, with the numbers of the pages that lie in the kernel.
#[derive(Debug, Default)]
pub(super) struct Shelf(Vec<(Volume, Range<u64>)>);

impl Shelf {
    pub(super) fn of(pages: &Pages) -> Self {
        Self(pages.volumes.iter().map(|volume| (volume.clone(), 0..0)).collect())
    }

    /// Returns the floors of its sequences, with what they are to be at least: where not all that was used is known, time
    /// steps that may have been are used up.
    pub(super) fn floors(&self, is_whole: bool) -> Vec<(KeyId, u64)> {
        let unix_ns = clock::unix_ns();
        let floors = self.0.iter().flat_map(|(volume, _)| volume.floors(unix_ns));
        floors.map(|(id, least)| (id, if is_whole { 0 } else { least })).collect()
    }
}

impl Gate {
    /// Says what the doors' sequences are, and lays them in.
    pub(super) fn fill_books(&mut self) -> Result<()> {
        let shelf = std::mem::take(&mut self.shelf);
        let filled = shelf.0.iter().try_for_each(|(volume, _)| self.fill_book(volume));
        self.shelf = shelf;
        filled?;
        self.lay_pages(clock::unix_ns())
    }

    fn fill_book(&mut self, volume: &Volume) -> Result<()> {
        let mut used = BTreeSet::new();
        let floors = wire::spa_floors(&mut self.ebpf)?;
        for (id, _) in volume.floors(0) {
            // One that is not there opens nothing, and says nothing of what was used.
            if floors.get(&id, 0).is_ok_and(|floor| floor > 0) {
                used.insert(id);
            }
        }
        let mut books = wire::books(&mut self.ebpf)?;
        for (number, book) in volume.books(|floor| used.contains(floor)) {
            books.set(number, Wire(book), 0).context("writing what a door's sequences are")?;
            if books.get(&number, 0)?.0 != book {
                bail!(
                    "what a door's sequences are reads back other than it was written: nothing was attached"
                );
            }
        }
        Ok(())
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
