//! Project tasks: `cargo xtask setup`, `build`, `run`, `test` and `check`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

mod command;
mod programs;
mod run;
mod setup;
mod test;
mod tier;
mod toolchain;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs and tests xdp-knock", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the build lacks, after saying what and why
    Setup(setup::Options),
    /// Build xdp-knock in release
    Build,
    /// Build as the caller, then run xdp-knock as root: `cargo xtask run -- --iface eth0`
    Run {
        /// Given to xdp-knock; its verb `run` is understood when the first one is an option
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the tiers named, or all of them, in order of what they need
    Test {
        /// Which tiers to run
        tiers: Vec<tier::Tier>,
    },
    /// Formatting and lints of the host crates
    Check,
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    let root = workspace()?;
    match verb {
        Verb::Setup(options) => setup::setup(&root, &options)?,
        Verb::Build => {
            setup::ensure(&root, &[])?;
            println!("built {}", run::build(&root)?.display());
        }
        Verb::Run { args } => run::run(&root, args)?,
        Verb::Test { tiers } => return test::test(&root, &tiers),
        Verb::Check => test::check(&root)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn workspace() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask is not inside a workspace")?.to_owned())
}
