//! The verbs that look at a gate in force, or change it. Each works on the kernel's own objects, whoever put them there and
//! whether or not a daemon lives; where one serves, what it must know is told to it.

pub mod confirm;
pub mod detach;
pub mod events;
pub mod reload;
