//! The verbs that look at a gate in force, or change it. Each works on the kernel's own objects, whoever put them there and
//! whether or not a daemon lives; where one serves, what it must know is told to it.

pub mod arguments;
pub mod ban;
pub mod confirm;
pub mod detach;
pub mod doctor;
pub mod events;
pub mod grant;
pub mod in_force;
pub mod list;
pub mod reload;
pub mod revoke;
pub mod show;
pub mod status;
