//! What `run` does while it runs: reads the event ring, sweeps expired grants, and waits for a signal.

use std::{io, os::fd::AsRawFd, time::Duration};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use jiff::Timestamp;
use knock_common::{
    abi::{Grant, GrantKey},
    counter::Counter,
    event::Event,
    names,
};
use tokio::{
    io::unix::AsyncFd,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock,
    events::{Line, Name},
    generation::{Generation, address},
    loader::Gate,
    run::print,
    wire::{self, Wire},
};

/// How often grants are looked through for events of expiry. The kernel's verdict never waits for it.
const SWEEP: Duration = Duration::from_millis(250);

/// Why tailing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT or SIGTERM.
    Signal,
    /// Standard output has no reader any more, as in `| head`.
    NoReader,
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Events as JSON.
    pub json: bool,
    /// The program's debug traces, too.
    pub trace: bool,
}

/// What must be there before anything is attached: from then on a signal no longer ends the process where it
/// stands, with its program left on the interfaces.
#[derive(Debug)]
pub struct Stage {
    runtime: Runtime,
    signals: Signals,
}

#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Stage {
    /// Catches SIGINT and SIGTERM; one that comes before [`Self::tail`] ends that at once.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub fn open() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
        let entered = runtime.enter();
        let caught = |kind| signal(kind).context("catching signals");
        let signals = Signals {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
        };
        drop(entered);
        Ok(Self { runtime, signals })
    }

    /// Prints events until a signal comes or standard output is closed.
    ///
    /// # Errors
    /// When the ring buffer or the grants cannot be read.
    pub fn tail(&mut self, gate: &mut Gate, generation: &Generation, view: View) -> Result<Stop> {
        self.runtime.block_on(run(&mut self.signals, gate, generation, view))
    }
}

/// Takes a standard output that was closed for an end, not for an error.
///
/// # Errors
/// When the outcome is any other error.
pub fn without_reader(outcome: Result<Stop>) -> Result<Stop> {
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(Stop::NoReader),
        other => other,
    }
}

async fn run(
    signals: &mut Signals,
    gate: &mut Gate,
    generation: &Generation,
    View { json, trace }: View,
) -> Result<Stop> {
    let ring = gate.ebpf.take_map(names::EVENTS).context("the embedded object has no event ring")?;
    let mut ring = register(RingBuf::try_from(ring).context("the event ring is no ring buffer")?)?;
    let mut traces = traces(gate, trace)?;
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = Losses::default();
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return Ok(Stop::Signal),
            _ = signals.terminate.recv() => return Ok(Stop::Signal),
            guard = ring.readable_mut() => {
                let mut guard = guard?;
                drain(guard.get_inner_mut(), generation, json)?;
                guard.clear_ready();
            }
            guard = readable(traces.as_mut()) => {
                let mut guard = guard?;
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
            _ = sweep.tick() => {
                expire(gate, generation, json)?;
                lost.tell(gate, json)?;
            }
        }
    }
}

type Traces = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

fn traces(gate: &mut Gate, wanted: bool) -> Result<Option<Traces>> {
    if !wanted {
        return Ok(None);
    }
    static STDERR: crate::trace::ToStderr = crate::trace::ToStderr;
    let logger = EbpfLogger::init_with_logger(&mut gate.ebpf, &STDERR as &'static dyn log::Log)
        .context("opening the program's trace buffer")?;
    Ok(Some(register(logger)?))
}

fn register<T: AsRawFd>(ring: T) -> Result<AsyncFd<T>> {
    // SAFETY: only the two rings of this file come here; each owns its descriptor and keeps it until it is dropped.
    let registered = unsafe { AsyncFd::register(ring) };
    registered.map_err(|error| io::Error::from(error).into())
}

/// Waits for traces; for ever where none are wanted.
async fn readable<T: AsRawFd>(
    of: Option<&mut AsyncFd<T>>,
) -> io::Result<tokio::io::unix::AsyncFdReadyMutGuard<'_, T>> {
    match of {
        Some(fd) => fd.readable_mut().await,
        None => std::future::pending().await,
    }
}

fn drain(ring: &mut RingBuf<MapData>, generation: &Generation, json: bool) -> Result<()> {
    while let Some(item) = ring.next() {
        // A record of another size is of another program: nothing to say about it.
        let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item) else { continue };
        let Some(line) =
            Line::of_kernel(&event, door_name(generation, event.door), interface(event.interface))
        else {
            continue;
        };
        print(&line, json)?;
    }
    Ok(())
}

fn door_name(generation: &Generation, id: u64) -> &str {
    generation.door_name(id).unwrap_or("?")
}

fn interface(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .map_or_else(|_| format!("if{index}"), |name| name.to_string_lossy().into_owned())
}

/// Tells of grants that have ended and forgets them.
fn expire(gate: &mut Gate, generation: &Generation, json: bool) -> Result<()> {
    let mut grants = wire::grants(&mut gate.ebpf)?;
    let now_ns = clock::now_ns();
    let ended: Vec<(GrantKey, Grant)> = grants
        .iter()
        .flatten()
        .map(|(Wire(key), Wire(grant))| (key, grant))
        .filter(|(_, grant)| grant.until_ns < now_ns)
        .collect();
    for (key, _) in ended {
        // It may have been refreshed since: then it stays.
        let Ok(Wire(grant)) = grants.get(&Wire(key), 0) else { continue };
        if grant.until_ns >= now_ns {
            continue;
        }
        grants.remove(&Wire(key)).context("forgetting an expired grant")?;
        let line = Line {
            source: Some(address(&key.source)),
            door: Some(door_name(generation, key.door).to_owned()),
            ..Line::new(clock::wall(grant.until_ns), Name::Expired)
        };
        print(&line, json)?;
    }
    Ok(())
}

/// Events that were not delivered, as told so far.
#[derive(Default)]
struct Losses {
    capped: u64,
    overrun: u64,
}

impl Losses {
    fn tell(&mut self, gate: &mut Gate, json: bool) -> Result<()> {
        let (capped, overrun) = (gate.count(Counter::EventCapped)?, gate.count(Counter::EventLost)?);
        if (capped, overrun) == (self.capped, self.overrun) {
            return Ok(());
        }
        let line = Line {
            capped: Some(capped - self.capped),
            overrun: Some(overrun - self.overrun),
            ..Line::new(Timestamp::now(), Name::Lost)
        };
        (self.capped, self.overrun) = (capped, overrun);
        print(&line, json)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
