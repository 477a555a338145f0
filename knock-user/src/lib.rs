//! The parts of `xdp-knock`: configuration, loader, events, terminal output and the knock client.

pub mod attach;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod events;
pub mod generation;
pub mod greeting;
pub mod hooks;
pub mod loader;
pub mod pins;
pub mod present;
pub mod report;
pub mod run;
pub mod service;
pub mod stage;
pub mod step;
pub mod trace;
pub mod wire;
