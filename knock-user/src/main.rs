//! `xdp-knock`: parses the command line, runs the verb, prints an error once, and exits as documented.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser as _;
use knock_user::{
    about::Diff,
    cli::{Cli, Verb},
    client,
    config::{self, ConfigError, ReadError},
    daemon::Stop,
    exit, keygen,
    pins::Pins,
    run::{self, BadUsage, NoPermission, require_root},
    say,
    verbs::{self, in_force::NotInForce},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let pins = Pins::at(&cli.pin_dir);
    obey(cli.verb, &pins).unwrap_or_else(|error| failed(&error))
}

fn obey(verb: Verb, pins: &Pins) -> Result<ExitCode> {
    Ok(match verb {
        Verb::Run(args) => ended(run::run(&args, pins)?),
        Verb::Attach(args) => done(run::attach(&args, pins)?),
        Verb::Status(args) => as_root(|| verbs::status::run(&args, pins)).map(protected)?,
        Verb::List(args) => as_root(|| verbs::list::run(&args, pins)).map(listed)?,
        Verb::Grant(args) => as_root(|| verbs::grant::run(&args, pins)).map(done)?,
        Verb::Revoke(args) => as_root(|| verbs::revoke::run(&args, pins)).map(done)?,
        Verb::Ban(args) => as_root(|| verbs::ban::run(&args, pins)).map(done)?,
        Verb::Unban(args) => as_root(|| verbs::ban::run_unban(&args, pins)).map(done)?,
        Verb::Detach(args) => as_root(|| verbs::detach::run(&args, pins)).map(detached)?,
        Verb::Reload(args) => {
            as_root(|| verbs::reload::run(&args, pins)).map(|diff| changed(&diff, args.json))?
        }
        Verb::Confirm => as_root(|| verbs::confirm::run(pins)).map(done)?,
        Verb::Events(args) => as_root(|| verbs::events::run(&args, pins)).map(done)?,
        Verb::Doctor(args) => healthy(verbs::doctor::run(&args, pins)?),
        Verb::Init(args) => done(config::init::run(&args)?),
        Verb::Check(args) => config::check::run(&args).map(|outcome| outcome.status().into())?,
        Verb::Keygen(args) => done(keygen::run(&args)?),
        Verb::Knock(args) => client::run(&args).into(),
    })
}

fn as_root<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    require_root()?;
    act()
}

const fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn protected(is_protected: bool) -> ExitCode {
    if is_protected { ExitCode::SUCCESS } else { exit::NOT_PROTECTED.into() }
}

fn healthy(is_healthy: bool) -> ExitCode {
    if is_healthy { ExitCode::SUCCESS } else { exit::FAILED.into() }
}

fn listed(answer: verbs::list::Answer) -> ExitCode {
    match answer {
        verbs::list::Answer::Listed => ExitCode::SUCCESS,
        verbs::list::Answer::Shut => exit::SHUT.into(),
    }
}

fn detached(is_any: bool) -> ExitCode {
    if is_any {
        return ExitCode::SUCCESS;
    }
    say!("xdp-knock: there was no gate in force");
    exit::NOT_PROTECTED.into()
}

fn changed(diff: &Diff, json: bool) -> ExitCode {
    let text = if json {
        serde_json::json!({ "v": 1, "changes": diff.changes }).to_string()
    } else {
        diff.to_string()
    };
    // The new gate is in force, whether or not anybody can be told what changed.
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        say!("xdp-knock: reloaded, but what changed cannot be printed: {error}");
    }
    ExitCode::SUCCESS
}

fn ended(stop: Stop) -> ExitCode {
    match stop {
        Stop::Signal | Stop::NoReader | Stop::Detach => ExitCode::SUCCESS,
        Stop::NotConfirmed => {
            say!("xdp-knock: not confirmed in time: all is as it was before");
            exit::FAILED.into()
        }
        Stop::Taken => {
            say!("xdp-knock: another process took the gate off every interface: nothing is left to serve");
            exit::NOT_PROTECTED.into()
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let bad_config = error
        .downcast_ref::<ConfigError>()
        .or_else(|| error.downcast_ref::<ReadError>().and_then(ReadError::as_bad));
    if let Some(bad) = bad_config {
        say!("{}", bad.for_stderr().trim_end());
        return exit::BAD_CONFIG.into();
    }
    say!("xdp-knock: {error:#}");
    if error.is::<NoPermission>() {
        return exit::NO_PERMISSION.into();
    }
    if error.is::<BadUsage>() {
        return exit::USAGE.into();
    }
    if error.is::<NotInForce>() {
        return exit::NOT_PROTECTED.into();
    }
    let refused = error.downcast_ref::<verbs::reload::Refused>();
    refused.map_or(exit::FAILED, |refused| refused.status).into()
}
