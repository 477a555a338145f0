//! The command line: types only.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{client, config, keygen, pins, run, verbs};

/// Hides services behind knocks that the kernel itself recognises, at XDP.
#[derive(Debug, Parser)]
#[command(name = "xdp-knock", version, max_term_width = 100)]
pub struct Cli {
    /// Where links and maps are pinned: another folder is another instance
    #[arg(long, value_name = "DIR", global = true, default_value = pins::DEFAULT)]
    pub pin_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Load the gate, attach it and tail its events
    Run(run::Args),
    /// Load the gate, attach it and leave: enforcement without a daemon
    Attach(run::AttachArgs),
    /// Say whether this machine is protected, and by what; status 3 if it is not
    Status(verbs::status::Args),
    /// List who may pass, who is banned and who has begun to knock
    List(verbs::list::Args),
    /// Open a door to an address by hand
    Grant(verbs::grant::Args),
    /// Shut doors to an address, or to everybody
    Revoke(verbs::revoke::Args),
    /// Judge no knocks of an address
    Ban(verbs::ban::Args),
    /// Judge them again
    Unban(verbs::ban::UnbanArgs),
    /// Take the gate off; grants and bans go with it
    Detach(verbs::detach::Args),
    /// Bring the configuration into force as it is now, without a gap
    Reload(verbs::reload::Args),
    /// Keep a gate that was brought in with --confirm
    Confirm,
    /// Follow the event stream of a gate that is in force
    Events(verbs::events::Args),
    /// Look for what keeps the gate from working here, with one remedy a line
    Doctor(verbs::doctor::Args),
    /// Write a commented configuration with a strong random sequence
    Init(config::init::Args),
    /// Validate a configuration and say what is doubtful about it
    Check(config::check::Args),
    /// Make a key for single packet authorization
    Keygen(keygen::Args),
    /// Knock at a host
    Knock(client::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
