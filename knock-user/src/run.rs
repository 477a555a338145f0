//! The verb `run`: load, attach, and show events until told to stop; a clean stop takes everything off again.

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::{
    sys::signal::{SigSet, Signal},
    unistd::geteuid,
};

use crate::{
    attach::{self, Attached, Wish},
    config::{Config, Mode, ReadError, Warning},
    events::{Line, Name},
    generation::{Generation, host_ephemeral},
    greeting,
    loader::{Gate, Options},
    pins::PinDir,
    stage::{self, Stage, Stop, View},
};

/// Loads the gate, attaches it and tails its events; Ctrl-C takes it off again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// An interface to guard; may be given more than once, and replaces those of the configuration
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
    /// The configuration; without one a built-in example runs in observe mode
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What becomes of packets, whatever the configuration says
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// How to attach
    #[arg(long, value_enum, default_value_t)]
    pub attach: Wish,
    /// Print events as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// Show the kernel program's debug traces on stderr
    #[arg(long)]
    pub trace: bool,
    /// Where to pin links and maps
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/xdp-knock")]
    pub pin_dir: PathBuf,
}

/// A mode on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeArg {
    /// Judge and report, drop nothing.
    Observe,
    /// Drop what goes to hidden services without a grant.
    Guard,
}

/// Why `run` did not.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not root.
    #[error("loading a BPF program takes root: run it with sudo")]
    Permission,
    /// No interface was named.
    #[error("no interface to guard: name one with --iface, or `interfaces` under [xdp] in the configuration")]
    NoInterface,
    /// The configuration is bad or cannot be read.
    #[error(transparent)]
    Config(#[from] ReadError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the gate cannot be set up, and then nothing is left attached.
pub fn run(args: &Args) -> Result<(), RunError> {
    let (mut config, warnings) = read_config(args)?;
    if !args.iface.is_empty() {
        config.interfaces.clone_from(&args.iface);
    }
    if let Some(mode) = args.mode {
        config.mode = match mode {
            ModeArg::Observe => Mode::Observe,
            ModeArg::Guard => Mode::Guard,
        };
    }
    if config.interfaces.is_empty() {
        return Err(RunError::NoInterface);
    }
    if !geteuid().is_root() {
        return Err(RunError::Permission);
    }
    attach::check_interfaces(&config.interfaces)?;
    serve(args, &config, &warnings)?;
    Ok(())
}

fn read_config(args: &Args) -> Result<(Config, Vec<Warning>), RunError> {
    let Some(path) = &args.config else {
        let text = crate::config::init::example(&args.iface)?;
        let (config, _) = Config::parse("the built-in example", &text).map_err(ReadError::Bad)?;
        return Ok((config, Vec::new()));
    };
    Ok(Config::read(path)?)
}

fn serve(args: &Args, config: &Config, warnings: &[Warning]) -> Result<()> {
    let generation = Generation::compile(config, 1, &host_ephemeral())?;
    let mut stage = Stage::open()?;
    let pins = PinDir::open(&args.pin_dir)?;
    let options = Options { trace: args.trace, test_clock: false };
    let mut gate = load_undisturbed(&generation, options).inspect_err(|_| pins.leave())?;
    let attached = gate.pin_maps(&pins).and_then(|()| attach_all(&mut gate, config, args.attach, &pins));
    let attached = attached.inspect_err(|_| {
        if let Err(error) = pins.clear() {
            eprintln!("xdp-knock: {error:#}");
        }
    })?;
    greeting::print(config, &attached, args.config.is_none());
    for warning in warnings {
        eprintln!("{}", warning.plain());
    }
    let stop = announce(&attached, config.mode, args.json)
        .and_then(|()| stage.tail(&mut gate, &generation, View { json: args.json, trace: args.trace }));
    let stop = stage::without_reader(stop);
    let outcome = detach_all(attached, &pins, args.json, &stop);
    stop.map(|_| ()).and(outcome)
}

/// Loads the program with signals held back. The verifier gives up at a pending one (EAGAIN), and aya takes that for
/// a refusal and verifies again, with a log: seconds in which Ctrl-C seems to do nothing.
fn load_undisturbed(generation: &Generation, options: Options) -> Result<Gate> {
    let held = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    held.thread_block().context("holding signals back")?;
    let loaded = Gate::load(generation, options);
    held.thread_unblock().context("letting signals through")?;
    loaded
}

fn announce(attached: &[Attached], mode: Mode, json: bool) -> Result<()> {
    let mode = match mode {
        Mode::Observe => "observe",
        Mode::Guard => "guard",
    };
    for one in attached {
        let line = Line {
            iface: Some(one.interface.clone()),
            attach: Some(one.way.to_string()),
            mode: Some(mode),
            ..Line::new(Timestamp::now(), Name::Attached)
        };
        print(&line, json)?;
    }
    Ok(())
}

fn attach_all(gate: &mut Gate, config: &Config, wish: Wish, pins: &PinDir) -> Result<Vec<Attached>> {
    let mut attached = Vec::new();
    for interface in &config.interfaces {
        match attach::attach(gate.program()?, interface, wish, pins) {
            Ok(one) => attached.push(one),
            Err(error) => {
                // All or nothing: a half-guarded machine would pass for a guarded one.
                for one in attached {
                    one.detach()?;
                }
                return Err(error);
            }
        }
    }
    Ok(attached)
}

fn detach_all(attached: Vec<Attached>, pins: &PinDir, json: bool, stop: &Result<Stop>) -> Result<()> {
    let is_stdout_gone = matches!(stop, Ok(Stop::NoReader));
    for one in attached {
        let interface = one.interface.clone();
        one.detach()?;
        let line = Line { iface: Some(interface), ..Line::new(Timestamp::now(), Name::Detached) };
        if !is_stdout_gone {
            // The reader may go at any time, and what matters is done.
            let _ = print(&line, json);
        }
    }
    pins.clear()
}

/// Prints a line of the event stream at once.
///
/// # Errors
/// When standard output is gone.
pub fn print(line: &Line, json: bool) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let text = if json { line.json() } else { line.text() };
    writeln!(out, "{text}").and_then(|()| out.flush()).context("writing to standard output")
}
