//! What is pinned, as far as the one who looks can see. Root looks into every program; a daemon that gave root up knows its
//! own.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    about::About,
    hook::Hook,
    pins::Pins,
    rollback::{self, Standing},
    survey::{self, Link},
};

/// All that is pinned for one gate.
#[derive(Debug, Default)]
pub struct Sight {
    /// The links, by interface.
    pub links: Vec<Seen>,
    /// Pins that are no links of this program.
    pub foreign: Vec<Foreign>,
    /// Folders of state that other versions of this program left.
    pub other_states: Vec<PathBuf>,
}

/// A pinned link and what judges behind it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The interface that it was made for.
    pub interface: String,
    /// Index of the interface that it is on; 0 when that was deleted.
    pub index: u32,
    /// Id of the program on it.
    pub program: u32,
    /// Where that judges.
    pub hook: Hook,
    /// Id of the program for outgoing packets on the same interface, if there is one.
    pub egress: Option<u32>,
    /// The generation of that program.
    pub about: About,
    /// How it stands with its confirmation.
    pub standing: Standing,
    /// Where the kernel went back: the generation before it, if there was one and it can be looked into.
    pub before: Option<About>,
}

/// A pin that is no link of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The interface that it is named for.
    pub interface: String,
    /// What is wrong with it, and the way out.
    pub reason: String,
}

impl Seen {
    fn of(link: Link, about: About, standing: Standing, before: Option<About>) -> Self {
        let egress = link.egress();
        let Link { interface, index, program_id: program, hook, .. } = link;
        Self { interface, index, program, hook, egress, about, standing, before }
    }

    /// Returns the generation that judges there: its own, unless the kernel went back to the one before.
    #[must_use]
    pub const fn judging(&self) -> Option<&About> {
        match self.standing {
            Standing::Settled | Standing::Awaited(_) => Some(&self.about),
            Standing::WentBack(_) => self.before.as_ref(),
        }
    }

    /// Returns whether the interface it was on has been deleted.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        self.index == 0
    }
}

impl Sight {
    /// Looks at everything. Takes root, since programs are looked up by their ids.
    ///
    /// # Errors
    /// When the folder of pins cannot be read.
    pub fn of_root(pins: &Pins) -> Result<Self> {
        Self::of(pins, |interface| seen(survey::link(pins, interface)?))
    }

    /// Looks at what a process can see that loaded the gate itself and gave root up since: the pins; the rest it knows.
    ///
    /// # Errors
    /// When the folder of pins cannot be read.
    pub fn of_own(pins: &Pins, about: &About, standing: Standing) -> Result<Self> {
        Self::of(pins, |interface| {
            let link = survey::bare_link(pins, interface)?;
            Ok(Seen::of(link, about.clone(), standing, None))
        })
    }

    fn of(pins: &Pins, look: impl Fn(String) -> Result<Seen>) -> Result<Self> {
        let mut sight = Self { other_states: pins.other_states()?, ..Self::default() };
        for interface in pins.linked()? {
            match look(interface.clone()) {
                Ok(seen) => sight.links.push(seen),
                Err(error) => sight.foreign.push(Foreign { interface, reason: format!("{error:#}") }),
            }
        }
        Ok(sight)
    }

    /// Returns the generation that is in force: the highest number, should an update have been cut short.
    #[must_use]
    pub fn in_force(&self) -> Option<&About> {
        self.links.iter().filter_map(Seen::judging).max_by_key(|about| about.generation)
    }

    /// Returns the generation that is in force, or the one that ought to be.
    #[must_use]
    pub fn newest(&self) -> Option<&About> {
        let loaded = || self.links.iter().map(|seen| &seen.about).max_by_key(|about| about.generation);
        self.in_force().or_else(loaded)
    }
}

fn seen(link: Link) -> Result<Seen> {
    let standing = rollback::standing(&link)?;
    let about = link.about().cloned().ok_or_else(|| anyhow::anyhow!("it was not looked into"))?;
    let before = match standing {
        Standing::Settled | Standing::Awaited(_) => None,
        // A program that cannot be looked into judges all the same; nothing can be said of it.
        Standing::WentBack(_) => before(&about, &link.interface).and_then(|id| survey::program(id).ok()),
    };
    let before = before.map(|program| program.about);
    Ok(Seen::of(link, about, standing, before))
}

/// Returns the id of the program that was on an interface before a generation that had to be confirmed.
#[must_use]
pub fn before(about: &About, interface: &str) -> Option<u32> {
    about.previous.as_ref()?.get(interface).copied()
}
