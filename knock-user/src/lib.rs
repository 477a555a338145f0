//! The parts of `xdp-knock`: configuration, loader, events, terminal output and the knock client.

pub mod client;
pub mod config;
pub mod generation;
pub mod loader;
pub mod service;
pub mod step;
pub mod wire;
