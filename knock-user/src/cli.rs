//! The command line: types only.

use clap::{Parser, Subcommand};

use crate::{client, config, run};

/// Hides services behind knocks that the kernel itself recognises, at XDP.
#[derive(Debug, Parser)]
#[command(name = "xdp-knock", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Load the gate, attach it and tail its events
    Run(run::Args),
    /// Write a commented configuration with a strong random sequence
    Init(config::init::Args),
    /// Validate a configuration and say what is doubtful about it
    Check(config::check::Args),
    /// Knock at a host
    Knock(client::Args),
}
