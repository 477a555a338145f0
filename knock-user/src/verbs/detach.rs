//! `detach`: the end of enforcement.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::{
    attach,
    control::{Address, Request},
    pins::{self, Busy, Held, Pins},
    state::State,
    state_file::Saved,
    survey,
};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the gate off.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Take off whatever is pinned there: of another version, damaged, or served by a process that hangs
    #[arg(long)]
    pub force: bool,
}

/// Takes the gate off every interface and removes every pin, grants and bans with them. Returns whether there was one.
///
/// # Errors
/// When a daemon does not answer, or the kernel refuses.
pub fn run(args: &Args, pins: &Pins) -> Result<bool> {
    if !pins.path().exists() {
        return Ok(false);
    }
    let is_any = !pins.linked()?.is_empty();
    let state = state_file_of(pins);
    let (held, by_daemon) = match pins.hold() {
        Ok(held) => (Some(held), false),
        Err(error) if error.is::<Busy>() => (after_daemon(pins, args.force)?, !args.force),
        Err(error) => return Err(error),
    };
    for interface in pins.linked()? {
        take_off(&interface, args.force, pins)?;
        say!("xdp-knock: {interface} is no longer guarded");
    }
    // Nothing judges any more, and what did is still there to be asked. Nothing is, where the daemon has done all this.
    let is_done = by_daemon && pins::entries(&pins.state())?.is_empty();
    let forgotten = state.filter(|_| !is_done).map_or(Ok(()), |path| {
        // What cannot be opened, of another version, is known by the file.
        Saved::forget(&path, State::open(pins).ok().as_ref(), Timestamp::now())
    });
    match held {
        Some(held) => held.clear()?,
        None => Held::clear_of(pins)?,
    }
    // Grants and bans go with the gate: they must not come back with the next one.
    forgotten.map(|()| is_any)
}

/// Where the gate in force keeps its grants and bans across a reboot.
fn state_file_of(pins: &Pins) -> Option<PathBuf> {
    let links = survey::links_of_any_layout(pins).ok()?;
    survey::current(&links)?.state.clone()
}

fn take_off(interface: &str, force: bool, pins: &Pins) -> Result<()> {
    match attach::detach(interface, pins) {
        Err(_) if force => {
            pins::remove(&pins.link(interface))?;
            if attach::is_marked(&pins.egress(interface))? {
                return pins::remove_folder(&pins.egress(interface));
            }
            pins::remove(&pins.egress(interface))
        }
        other => other,
    }
}

/// Has the daemon detach and end, and takes its place; `None` where a hanging one is passed over.
fn after_daemon(pins: &Pins, force: bool) -> Result<Option<Held>> {
    if force {
        say!(
            "xdp-knock: a process that holds these pins is passed over (--force); it will find its gate gone"
        );
        return Ok(None);
    }
    let answer = Address::of(pins).ask(&Request::Detach)?;
    let reply = answer.context(
        "another xdp-knock is at work on this gate: try again; if it hangs, `xdp-knock detach --force`",
    )?;
    if !reply.ok {
        bail!("{}", reply.error.unwrap_or_default());
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if !pins.path().exists() {
            return Ok(None);
        }
        match pins.hold() {
            Ok(held) => return Ok(Some(held)),
            Err(error) if error.is::<Busy>() => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error),
        }
    }
    bail!(
        "process {} was told to detach and does not end: `xdp-knock detach --force` takes the gate off",
        reply.pid
    )
}
