//! The parts of `xdp-knock`: configuration, loader, events, terminal output and the knock client.

pub mod client;
pub mod config;
pub mod service;
pub mod step;
