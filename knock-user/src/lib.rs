//! The parts of `xdp-knock`: configuration, loader, events, terminal output and the knock client.

/// Writes a line to stderr, with its colours where they are wanted. `eprintln!` panics where that fails (a terminal that is
/// gone, a log on a full disk), and a gate that is in force must neither end nor report failure for want of a listener.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr(), $($words)*);
    }};
}

pub mod about;
pub mod attach;
pub mod bans;
pub mod before;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod devices;
pub mod events;
pub mod exit;
pub mod generation;
pub mod greeting;
pub mod hook;
pub mod hooks;
pub mod install;
pub mod journal;
pub mod keygen;
pub mod loader;
pub mod lockout;
pub mod metrics;
pub mod nic;
pub mod notify;
pub mod pages;
pub mod pins;
pub mod present;
pub mod privilege;
pub mod report;
pub mod rollback;
pub mod rotating;
pub mod run;
pub mod sandbox;
pub mod secret;
pub mod service;
pub mod spa;
pub mod state;
pub mod state_file;
pub mod step;
pub mod survey;
pub mod sweep;
pub mod table;
pub mod trace;
pub mod verbs;
pub mod wire;
