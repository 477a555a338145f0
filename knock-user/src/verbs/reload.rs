//! `reload`: the configuration as it is now, without a moment in which no gate judges.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    about::Diff,
    before::Before,
    config::{Config, ReadError},
    control::{Address, Reply, Request},
    install::{self, Plan},
    lockout,
    pins::{Busy, Held, Pins},
    run::confirm_time,
    survey,
};

/// Brings the configuration into force as it is now.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Another file than the one that is in force
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Go back to what was before unless `xdp-knock confirm` comes within this time, as in 60s
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,
    /// What is to keep you from locking yourself out.
    #[command(flatten)]
    pub lockout: lockout::LockoutArgs,
}

/// A daemon refused; the message is the daemon's own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    message: String,
    /// The exit status that goes with it.
    pub status: u8,
}

/// Reloads, by the daemon where there is one; returns what changed.
///
/// # Errors
/// When the file is bad or the kernel refuses; the gate is then as it was.
pub fn run(args: &Args, pins: &Pins) -> Result<Diff> {
    let links = survey::links(pins)?;
    let about = survey::current(&links).context(
        "nothing is in force that could be reloaded: `xdp-knock run` or `xdp-knock attach` brings a gate into force",
    )?;
    let overrides = about.overrides.clone();
    let file = args.config.clone().or_else(|| about.config.clone()).context(
        "this gate runs the built-in example, which has no file to read again: name one with --config",
    )?;
    let file =
        file.canonicalize().map_err(|source| ReadError::Io { path: file.display().to_string(), source })?;
    let (mut config, warnings) = Config::read(&file)?;
    overrides.apply(&mut config);
    let known = overrides.allow.len();
    let mut plan = Plan { config, file: Some(file), overrides, confirm: args.confirm, trace: false };
    lockout::guard(&args.lockout, &mut plan)?;
    for warning in warnings {
        say!("{}", warning.plain());
    }
    match pins.hold() {
        Ok(held) => directly(&held, &plan),
        Err(error) if error.is::<Busy>() => by_daemon(pins, plan, known),
        Err(error) => Err(error),
    }
}

fn directly(held: &Held, plan: &Plan) -> Result<Diff> {
    let mut before = Before::survey(held)?;
    let installed = install::install(held, plan, &mut before)?;
    Ok(installed.diff.unwrap_or_default())
}

fn by_daemon(pins: &Pins, plan: Plan, known: usize) -> Result<Diff> {
    let request = Request::Reload {
        config: plan.file,
        confirm_ms: plan.confirm.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        allow: plan.overrides.allow.into_iter().skip(known).collect(),
    };
    let reply = Address::of(pins)
        .ask(&request)?
        .context("another xdp-knock is at work on this gate: try again in a moment")?;
    match reply {
        Reply { ok: true, diff, .. } => Ok(diff.unwrap_or_default()),
        Reply { error, status, .. } => Err(Refused {
            message: error.unwrap_or_else(|| "the daemon refused and gave no reason".to_owned()),
            status: status.unwrap_or(crate::exit::FAILED),
        }
        .into()),
    }
}
