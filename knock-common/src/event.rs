//! The record that the kernel puts into the event ring at a change of state.

use core::mem::size_of;

use bytemuck::{Pod, Zeroable};

use crate::abi::{Address, DoorRule};

/// What happened, as stored in [`Event::kind`]. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A step was accepted; [`Event::step`] of them now are.
    Step = 1,
    /// A wrong knock ended an attempt that had [`Event::step`] steps.
    Reset = 2,
    /// A source completed a door's sequence.
    Promoted = 3,
    /// A promotion was refused for want of room.
    TableFull = 4,
    /// A single packet was refused, for [`Event::reason`].
    SpaRejected = 5,
    /// A source completed a sequence that had been completed before, or that no page keeps.
    Spent = 6,
}

impl Kind {
    /// Returns the kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Step),
            2 => Some(Self::Reset),
            3 => Some(Self::Promoted),
            4 => Some(Self::TableFull),
            5 => Some(Self::SpaRejected),
            6 => Some(Self::Spent),
            _ => None,
        }
    }
}

/// How a grant came about, as stored in [`crate::abi::Grant::via`] and [`Event::via`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Via {
    /// By a sequence of knocks that stays the same.
    Sequence = 1,
    /// By hand.
    Manual = 2,
    /// By a single packet.
    Spa = 3,
    /// By a rotating sequence.
    Rotating = 4,
    /// By a one-time sequence of a list.
    List = 5,
}

impl Via {
    /// Returns how the sequence of a rule opens its door.
    #[must_use]
    #[inline(always)]
    pub const fn of(rule: &DoorRule) -> Self {
        if rule.has(DoorRule::ROTATES) {
            Self::Rotating
        } else if rule.has(DoorRule::LISTED) {
            Self::List
        } else {
            Self::Sequence
        }
    }

    /// Returns the word used in events and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Manual => "manual",
            Self::Spa => "spa",
            Self::Rotating => "rotating",
            Self::List => "list",
        }
    }

    /// Returns the way with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Sequence),
            2 => Some(Self::Manual),
            3 => Some(Self::Spa),
            4 => Some(Self::Rotating),
            5 => Some(Self::List),
            _ => None,
        }
    }
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// When, by the kernel's boot-time clock.
    pub time_ns: u64,
    /// When the grant ends; of a single packet that came with a wrong time, its counter; 0 elsewhere.
    pub until_ns: u64,
    /// Who.
    pub source: Address,
    /// [`crate::abi::DoorRule::id`]; 0 where no door is known.
    pub door: u64,
    /// Interface index.
    pub interface: u32,
    /// Generation of the program.
    pub generation: u32,
    /// [`Kind`] as a number.
    pub kind: u8,
    /// [`Via`] as a number; 0 where there is none.
    pub via: u8,
    /// Steps accepted.
    pub step: u8,
    /// Why a single packet was refused: [`crate::spa::verdict::Refusal`] as a number; 0 elsewhere.
    pub reason: u8,
    /// Zero.
    pub _pad2: u32,
}

const _: () = assert!(size_of::<Event>() == 56);
