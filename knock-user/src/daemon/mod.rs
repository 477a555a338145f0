//! The process that serves a gate: it tells of events, sweeps what has ended, follows interfaces, reloads. The gate itself is
//! in the kernel and does not need it.

mod confine;
mod hub;
mod interfaces;
mod page;
mod relay;
mod reload;
mod ring;
mod saving;
mod server;
mod stage;
mod sweep;
mod terminal;
mod watch;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::sync::oneshot;

use self::{
    confine::Fixed,
    hub::Hub,
    interfaces::Place,
    page::Sheet,
    ring::Ring,
    saving::Saving,
    server::Server,
    stage::{Call, Signals},
    terminal::Terminal,
    watch::Watch,
};
pub use self::{
    relay::{End, relay},
    reload::way_back,
    stage::Stage,
};
use crate::{
    attach,
    before::Programs,
    clock,
    control::{Reply, Seat},
    events::{Line, Name},
    hooks::Runner,
    install::{Installed, Plan},
    notify,
    pins::Held,
    state::State,
};

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT or SIGTERM.
    Signal,
    /// Standard output has no reader any more, as in `| head`.
    NoReader,
    /// `xdp-knock detach`.
    Detach,
    /// The gate was not confirmed in time, and there was none before that this process could serve.
    NotConfirmed,
    /// Somebody else removed every link: there is nothing left to serve.
    Taken,
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Events as JSON.
    pub json: bool,
    /// The program's debug traces, too.
    pub trace: bool,
}

/// The way back to what was before, while a confirmation is awaited.
#[derive(Debug)]
pub enum WayBack {
    /// A generation of this process.
    Generation(Box<(Installed, Plan)>),
    /// Programs of an earlier process, by interface; empty where there was no gate.
    Programs(BTreeMap<String, Programs>),
}

/// A gate in force, to be served.
#[derive(Debug)]
pub struct Service {
    /// The folder of pins.
    pub held: Held,
    /// The generation.
    pub installed: Installed,
    /// Where it came from.
    pub plan: Plan,
    /// The way back, while a confirmation is awaited.
    pub way_back: Option<WayBack>,
    /// Leave the gate in force at the end.
    pub persist: bool,
    /// Grants and bans of the state file have been read, or there is none; else it is tried again, and not written over until
    /// then, nor until floors are known.
    pub is_restored: bool,
}

/// The daemon at work.
struct Daemon {
    service: Service,
    state: State,
    hub: Hub,
    hooks: Runner,
    fixed: Fixed,
    /// Names of doors by their ids, those of earlier generations too: their events may still come.
    door_names: BTreeMap<u64, String>,
    places: BTreeMap<String, Place>,
    next_scan: Instant,
    told_time: Option<Instant>,
    saving: Saving,
    sheet: Sheet,
    farewell: Option<oneshot::Sender<Reply>>,
    watchdog: Option<Duration>,
    alive_at: Instant,
}

/// What the daemon waits for.
struct Inputs {
    signals: Signals,
    ring: Ring,
    traces: Option<ring::Traces>,
    server: Server,
    watch: Watch,
    terminal: Terminal,
    tick: tokio::time::Interval,
}

/// How often the kernel is told the wall time, by which it judges single packets.
const TIME_EVERY: Duration = Duration::from_secs(1);

/// How long hooks that run at the end may go on; then they are killed.
const HOOKS_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until something ends it; then takes the gate off, unless it is to stay.
///
/// # Errors
/// When the kernel's maps cannot be read, or the gate not be taken off.
pub fn serve(stage: &mut Stage, service: Service, seat: Seat, view: View) -> Result<Stop> {
    let (runtime, signals) = stage.parts()?;
    // First of all: threads that are started later have no more than this one.
    let in_force = "the gate is in force all the same, without a daemon; `xdp-knock detach` takes it off";
    let hooks = confine::confine(&service).context(in_force)?;
    let entered = runtime.enter();
    let (mut daemon, mut inputs) = set_up(service, hooks, seat, view, signals).context(in_force)?;
    drop(entered);
    daemon.announce();
    notify::ready(&daemon.summary());
    let stop = runtime.block_on(daemon.run(&mut inputs));
    notify::stopping();
    let outcome = daemon.finish(stop.as_ref().ok().copied());
    daemon.say_farewell(&outcome);
    runtime.block_on(daemon.hooks.finish(HOOKS_PATIENCE));
    drop(daemon.hub);
    runtime.block_on(inputs.server.finish());
    inputs.terminal.finish();
    let stop = stop?;
    outcome?;
    Ok(stop)
}

fn set_up(
    mut service: Service,
    hooks: Runner,
    seat: Seat,
    view: View,
    signals: Signals,
) -> Result<(Daemon, Inputs)> {
    let pins = service.held.pins.clone();
    let traces = ring::traces(&mut service.installed.gate, view.trace)?;
    let ring = Ring::open(&pins)?;
    let state = State::open(&pins)?;
    let mut hub = Hub::default();
    let terminal = Terminal::start(hub.subscribe(), view.json)?;
    let server = Server::start(seat)?;
    let sheet = Sheet::new(&service.installed.about);
    if let Some(address) = service.plan.config.metrics {
        sheet.serve(address, &pins)?;
    }
    let watch = Watch::open()?;
    let mut tick = tokio::time::interval(sweep::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let door_names = BTreeMap::new();
    let fixed = Fixed::of(&service.plan.config);
    let mut daemon = Daemon {
        service,
        state,
        hub,
        hooks,
        fixed,
        door_names,
        places: BTreeMap::new(),
        next_scan: Instant::now(),
        told_time: None,
        saving: Saving::default(),
        sheet,
        farewell: None,
        watchdog: notify::watchdog_interval(),
        alive_at: Instant::now(),
    };
    daemon.learn_names();
    daemon.find_places();
    Ok((daemon, Inputs { signals, ring, traces, server, watch, terminal, tick }))
}

impl Daemon {
    async fn run(&mut self, inputs: &mut Inputs) -> Result<Stop> {
        loop {
            let stop = tokio::select! {
                call = inputs.signals.next() => match call {
                    Call::Stop => Some(Stop::Signal),
                    Call::Reload => { self.reload_on_signal(); None }
                },
                () = inputs.terminal.gone() => Some(Stop::NoReader),
                read = inputs.ring.read() => { self.drain(read?); None }
                read = ring::flush(inputs.traces.as_mut()) => { read?; None }
                Some(command) = inputs.server.next() => self.obey(command),
                () = inputs.watch.changed() => { self.follow_interfaces(); None }
                _ = inputs.tick.tick() => self.tick()?,
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    fn tick(&mut self) -> Result<Option<Stop>> {
        self.sweep()?;
        self.tell_time()?;
        self.hub.catch_up();
        self.save()?;
        self.tell_skipped_hooks();
        self.show_life();
        if self.has_moved() {
            self.follow_interfaces();
        }
        if self.is_bereft() {
            return Ok(Some(Stop::Taken));
        }
        self.mind_confirmation()
    }

    /// Tells the kernel the wall time, often enough that a step of the clock matters for a moment only, and lays in the
    /// sequences of time steps to come.
    fn tell_time(&mut self) -> Result<()> {
        if self.told_time.is_some_and(|at| at.elapsed() < TIME_EVERY) {
            return Ok(());
        }
        self.told_time = Some(Instant::now());
        self.state.tell_time()?;
        self.service.installed.gate.lay_pages(clock::unix_ns())
    }

    fn drain(&mut self, events: Vec<knock_common::event::Event>) {
        // An event is told without it, should it not be readable.
        let since = self.state.kept_since().unwrap_or_default();
        for event in events {
            if let Some(line) = Line::of_event(&event, &self.door_names, since) {
                self.publish(line);
            }
        }
    }

    fn publish(&mut self, line: Line) {
        self.saving.note(line.event);
        self.hooks.tell(&line);
        self.hub.publish(line);
    }

    /// Tells the service manager, if it asks, that the loop goes round.
    fn show_life(&mut self) {
        let Some(interval) = self.watchdog else { return };
        if self.alive_at.elapsed() >= interval {
            self.alive_at = Instant::now();
            notify::alive();
        }
    }

    /// Says in a line what is in force.
    fn summary(&self) -> String {
        let about = &self.service.installed.about;
        format!("generation {}, mode {}, on {}", about.generation, about.mode, about.interfaces.join(", "))
    }

    fn tell_skipped_hooks(&self) {
        let skipped = self.hooks.take_skipped();
        if skipped > 0 {
            self.note_skipped(skipped);
            say!(
                "xdp-knock: WARNING: {skipped} hooks were not run: too many wait already (see at_once under [hooks])"
            );
        }
    }

    fn learn_names(&mut self) {
        let doors = self.service.installed.about.doors.iter();
        self.door_names.extend(doors.map(|(name, door)| (door.id, name.clone())));
    }

    fn announce(&mut self) {
        let mode = self.service.installed.about.mode.to_string();
        for one in self.service.installed.attached.clone() {
            self.publish(Line {
                iface: Some(one.interface),
                attach: Some(one.way),
                mode: Some(mode.clone()),
                ..Line::new(Timestamp::now(), Name::Attached)
            });
        }
    }

    /// Takes the gate off, or leaves it in force.
    fn finish(&mut self, stop: Option<Stop>) -> Result<()> {
        let pins = self.service.held.pins.clone();
        let is_left = match stop {
            Some(Stop::Signal | Stop::NoReader) => self.service.persist,
            Some(Stop::Detach) => false,
            // Where there was nothing before, nothing is left.
            Some(Stop::NotConfirmed) => !pins.linked()?.is_empty(),
            // What went wrong in here is no reason to open the doors.
            None | Some(Stop::Taken) => true,
        };
        if is_left {
            if matches!(stop, Some(Stop::Signal | Stop::NoReader)) {
                self.save_now();
            }
            return Ok(());
        }
        for interface in pins.linked()? {
            attach::detach(&interface, &pins).with_context(|| format!("taking the gate off {interface}"))?;
            self.publish(Line { iface: Some(interface), ..Line::new(Timestamp::now(), Name::Detached) });
        }
        // Nothing judges any more, and what did is still there to be asked.
        match stop {
            Some(Stop::Detach) => self.forget_saved(),
            Some(Stop::Signal | Stop::NoReader | Stop::NotConfirmed | Stop::Taken) | None => {
                self.save_ended()
            }
        }
        self.service.held.clear()
    }
}
