//! The verbs `run` and `attach`: read the configuration, guard against a lock-out, bring the gate into force; `run` then
//! serves it until told to stop, and takes it off again unless it is to stay.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

use crate::{
    about::Overrides,
    attach::{self, Wish},
    before::Before,
    config::{Config, Mode, ReadError, Warning},
    control::{Address, Request, Server},
    daemon::{self, Service, Stage, Stop, View, WayBack},
    greeting,
    install::{self, Installed, Plan},
    lockout,
    pins::{Held, Pins},
    report::{sight::Sight, status},
    rollback::Standing,
    state_file::{self, Restored},
};

/// What `run` and `attach` bring into force.
#[derive(Clone, Debug, clap::Args)]
pub struct GateArgs {
    /// An interface to guard; may be given more than once, and replaces those of the configuration
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
    /// The configuration; without one a built-in example runs in observe mode
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What becomes of packets, whatever the configuration says
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// How to attach
    #[arg(long, value_enum, default_value_t)]
    pub attach: Wish,
    /// An interface that is not there yet is no error: it is guarded when it comes
    #[arg(long)]
    pub wait: bool,
    /// Go back to what was before unless `xdp-knock confirm` comes within this time, as in 60s
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Take over links of another version of this program; the grants it knew are lost
    #[arg(long)]
    pub discard_state: bool,
    /// What is to keep you from locking yourself out.
    #[command(flatten)]
    pub lockout: lockout::LockoutArgs,
}

/// Loads the gate, attaches it and tails its events; Ctrl-C takes it off again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gate: GateArgs,
    /// Leave the gate in force at the end
    #[arg(long)]
    pub persist: bool,
    /// Print events as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// Show the kernel program's debug traces on stderr
    #[arg(long)]
    pub trace: bool,
}

/// Loads the gate, attaches it and leaves it in force.
#[derive(Clone, Debug, clap::Args)]
pub struct AttachArgs {
    #[command(flatten)]
    gate: GateArgs,
}

/// Reads the time of `--confirm`.
///
/// # Errors
/// When it is no duration, or not between a second and a day.
pub fn confirm_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 60s or 5m"))?;
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&time) {
        return Err("a time to confirm in is between 1s and 1d".to_owned());
    }
    Ok(time)
}

/// Not root.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this takes root: run it with sudo")]
pub struct NoPermission;

/// The command line makes no sense.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUsage(pub String);

/// Refuses anybody but root.
///
/// # Errors
/// [`NoPermission`].
pub fn require_root() -> Result<(), NoPermission> {
    if geteuid().is_root() { Ok(()) } else { Err(NoPermission) }
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the gate cannot be set up, and then what was in force before still is.
pub fn run(args: &Args, pins: &Pins) -> Result<Stop> {
    let (mut plan, warnings) = plan(&args.gate, args.trace)?;
    let mut stage = Stage::open()?;
    let held = pins.hold()?;
    let seat = seat(pins)?;
    let (installed, way_back) = bring_in(&args.gate, &mut plan, &held)?;
    greeting::print(&plan.config, &installed, plan.file.is_none());
    warn(pins, &installed, &warnings);
    let is_restored = restore(pins, &installed);
    let service = Service { held, installed, plan, way_back, persist: args.persist, is_restored };
    daemon::serve(&mut stage, service, seat, View { json: args.json, trace: args.trace })
}

/// Attaches and leaves.
///
/// # Errors
/// As [`run`].
pub fn attach(args: &AttachArgs, pins: &Pins) -> Result<()> {
    let (mut plan, warnings) = plan(&args.gate, false)?;
    let held = pins.hold()?;
    let (installed, _) = bring_in(&args.gate, &mut plan, &held)?;
    greeting::print(&plan.config, &installed, plan.file.is_none());
    warn(pins, &installed, &warnings);
    restore(pins, &installed);
    for interface in &installed.awaited {
        say!(
            "xdp-knock: WARNING: {interface} is not there, and without a daemon nobody waits for it: run `xdp-knock run --persist --wait` instead"
        );
    }
    Ok(())
}

/// The right to serve the folder's control socket. A reader of events that serves for want of a daemon makes way.
fn seat(pins: &Pins) -> Result<crate::control::Seat> {
    let address = Address::of(pins);
    for _ in 0..40 {
        if let Some(seat) = address.take()? {
            return Ok(seat);
        }
        // One that is just ending hangs up instead of answering: the next look tells.
        let _ = address.ask(&Request::Yield);
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("another process serves {} and does not make way", address.socket().display())
}

fn plan(args: &GateArgs, trace: bool) -> Result<(Plan, Vec<Warning>)> {
    let (mut config, warnings, file) = read_config(args)?;
    let overrides = Overrides {
        interfaces: args.iface.clone(),
        mode: args.mode,
        attach: args.attach,
        wait: args.wait,
        allow: Vec::new(),
    };
    overrides.apply(&mut config);
    if config.interfaces.is_empty() {
        return Err(BadUsage(
            "no interface to guard: name one with --iface, or `interfaces` under [xdp] in the configuration"
                .to_owned(),
        )
        .into());
    }
    require_root()?;
    if !args.wait {
        attach::check_interfaces(&config.interfaces)?;
    }
    Ok((Plan { config, file, overrides, confirm: args.confirm, trace }, warnings))
}

fn read_config(args: &GateArgs) -> Result<(Config, Vec<Warning>, Option<PathBuf>)> {
    let Some(path) = &args.config else {
        let text = crate::config::init::example(&args.iface)?;
        let (config, _) = Config::parse("the built-in example", &text).map_err(ReadError::Bad)?;
        return Ok((config, Vec::new(), None));
    };
    let (config, warnings) = Config::read(path)?;
    let file = path.canonicalize().with_context(|| format!("finding the full path of {}", path.display()))?;
    Ok((config, warnings, Some(file)))
}

fn bring_in(args: &GateArgs, plan: &mut Plan, held: &Held) -> Result<(Installed, Option<WayBack>)> {
    // Whatever refuses below leaves no empty folder behind.
    let outcome = bring_in_held(args, plan, held);
    if outcome.is_err() {
        held.leave();
    }
    outcome
}

fn bring_in_held(args: &GateArgs, plan: &mut Plan, held: &Held) -> Result<(Installed, Option<WayBack>)> {
    lockout::guard(&args.lockout, plan)?;
    let mut before =
        if args.discard_state { Before::survey_any_layout(held)? } else { Before::survey(held)? };
    let way_back = match plan.confirm {
        Some(_) => Some(daemon::way_back(&before)?),
        None => None,
    };
    Ok((install::install(held, plan, &mut before)?, way_back))
}

/// Returns whether the grants and bans of the state file have been dealt with. A file that was not is left alone: it may
/// still be good.
fn restore(pins: &Pins, installed: &Installed) -> bool {
    match state_file::restore_fresh(pins, &installed.about) {
        Ok(Restored { grants: 0, bans: 0 }) => true,
        Ok(Restored { grants, bans }) => {
            say!("xdp-knock: restored grants: {grants}, bans: {bans}");
            true
        }
        Err(error) => {
            say!("xdp-knock: WARNING: no grant was restored: {error:#}");
            false
        }
    }
}

/// What is true of this machine beside the gate, and of the file.
fn warn(pins: &Pins, installed: &Installed, warnings: &[Warning]) {
    let uncovered = Sight::of_own(pins, &installed.about, Standing::Settled)
        .and_then(|sight| Ok(status::collect(pins, &sight, Server::Nobody)?.uncovered));
    for one in uncovered.unwrap_or_default() {
        let addresses: Vec<String> = one.addresses.iter().map(ToString::to_string).collect();
        say!("xdp-knock: WARNING: {} ({}) carries no gate", one.name, addresses.join(", "));
    }
    for warning in warnings {
        say!("{}", warning.plain());
    }
}
