//! `xdp-knock`: parses the command line, runs the verb, prints an error once, and exits as documented.

use std::process::ExitCode;

use clap::Parser as _;
use knock_user::{
    cli::{Cli, Verb},
    client,
    config::{self, ConfigError, ReadError},
    run::{self, RunError},
};

/// sysexits.h: `EX_NOPERM`.
const NO_PERMISSION: u8 = 77;
/// sysexits.h: `EX_CONFIG`.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Run(args) => run::run(&args).map_or_else(|error| run_failed(&error), |()| ExitCode::SUCCESS),
        Verb::Init(args) => {
            config::init::run(&args).map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }
        Verb::Check(args) => match config::check::run(&args) {
            Ok(outcome) => outcome.status().into(),
            Err(error) => failed(&error.into()),
        },
        Verb::Knock(args) => client::run(&args).into(),
    }
}

fn run_failed(error: &RunError) -> ExitCode {
    match error {
        RunError::Permission => say(error, NO_PERMISSION.into()),
        RunError::NoInterface => say(error, 2.into()),
        RunError::Config(ReadError::Io { .. }) => say(error, ExitCode::FAILURE),
        RunError::Config(ReadError::Bad(bad)) => bad_config(bad),
        RunError::Other(error) => failed(error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ConfigError>() {
        Some(bad) => bad_config(bad),
        None => say(&format_args!("{error:#}"), ExitCode::FAILURE),
    }
}

fn bad_config(bad: &ConfigError) -> ExitCode {
    anstream::eprintln!("{}", bad.for_stderr().trim_end());
    BAD_CONFIG.into()
}

fn say(error: &dyn std::fmt::Display, status: ExitCode) -> ExitCode {
    anstream::eprintln!("xdp-knock: {error}");
    status
}
