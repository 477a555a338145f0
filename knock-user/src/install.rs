//! Brings a configuration into force: loads it aside, then swaps it in on every interface, or leaves all as it was.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use knock_common::{abi::Ledger, names};

use crate::{
    about::{About, Diff, Overrides},
    attach,
    before::Before,
    clock,
    config::Config,
    generation::{Generation, host_ephemeral},
    hook::Header,
    loader::{Gate, Options},
    pins::{self, Held, Pins},
    present, rollback,
    state::{self, State},
    state_file::packets::{self, Start},
    sweep,
};

/// What is to be in force.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The configuration, with what the command line said already in it.
    pub config: Config,
    /// The file it came from, as an absolute path.
    pub file: Option<PathBuf>,
    /// What the command line said.
    pub overrides: Overrides,
    /// Go back to what was before unless confirmed within this time.
    pub confirm: Option<Duration>,
    /// Compile the program's debug traces in.
    pub trace: bool,
}

/// What is in force.
#[derive(Debug)]
pub struct Installed {
    /// The program and its maps.
    pub gate: Gate,
    /// Its description of itself.
    pub about: About,
    /// Interfaces that carry it, and how.
    pub attached: Vec<Attached>,
    /// Interfaces that are not there yet.
    pub awaited: Vec<String>,
    /// What it changed; `None` where nothing was in force.
    pub diff: Option<Diff>,
    /// Every secret of single packets has its floor. The state file that should tell them is else left alone.
    pub knows_floors: bool,
}

/// An interface with the program on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// `native`, `generic` or `tcx`.
    pub way: String,
}

/// Puts a plan into force. State that was there stays: grants, bans and counters follow their door by its name.
///
/// # Errors
/// With the reason; what was in force before is then still in force, and what was attached by this call is off again.
pub fn install(held: &Held, plan: &Plan, before: &mut Before<'_>) -> Result<Installed> {
    let is_fresh = before.links.is_empty() && pins::entries(&held.pins.state())?.is_empty();
    let result = replace(held, plan, before);
    if result.is_err() && is_fresh {
        // Nothing was there before: pins made on the way are of no use to anybody.
        warn_of(held.clear());
    }
    let installed = result?;
    tidy(held, plan, &installed);
    Ok(installed)
}

/// What failed besides, when the gate itself is as it should be.
pub fn warn_of(outcome: Result<()>) {
    if let Err(error) = outcome {
        say!("xdp-knock: {error:#}");
    }
}

fn replace(held: &Held, plan: &Plan, before: &mut Before<'_>) -> Result<Installed> {
    let pins = &held.pins;
    let number = next_number(pins)?;
    let generation = Generation::compile(&plan.config, number, &host_ephemeral())?;
    let mut about =
        About::of(&plan.config, &generation, plan.file.clone(), &plan.overrides, Timestamp::now());
    if plan.confirm.is_some() {
        let alive = || before.links.iter().filter(|link| !link.is_dead());
        about.previous = Some(alive().map(|link| (link.interface.clone(), link.program_id)).collect());
        about.previous_egress =
            alive().filter_map(|link| Some((link.interface.clone(), link.egress()?))).collect();
    }
    let state = pins.state();
    let options = Options {
        programs: programs(plan, before, about.egress)?,
        trace: plan.trace,
        state: Some(&state),
        about: about.chunks()?,
        confirm_by_ns: plan.confirm.map(clock::after_ns),
        start: Start::of(pins, &generation, about.state.as_deref())?,
        ..Options::default()
    };
    // Grants of doors that are long gone must not come to life with a new door of their name.
    if let Some(about) = &before.about {
        sweep::forget_strangers(pins, about)?;
    }
    let mut gate = Gate::load_undisturbed(&generation, &options)?;
    State::open(pins)?.note(Ledger::Generation, number.into())?;
    if let Some(time) = plan.confirm {
        rollback::prepare(&mut gate, before, &plan.config.interfaces, pins)?;
        // Anew: the verifier may have taken seconds.
        rollback::start_time(&mut gate, time)?;
    }
    if let Some(file) = &about.state {
        packets::begin(file, &generation);
    }
    let (attached, awaited) = put_on_all(&mut gate, plan, before, held)?;
    let diff = before.about.as_ref().map(|old| Diff::between(old, &about));
    Ok(Installed { gate, about, attached, awaited, diff, knows_floors: options.start.floors.is_some() })
}

/// Returns a number that no generation of this state has had.
fn next_number(pins: &Pins) -> Result<u32> {
    // A process killed while it pinned the first maps leaves only some of them; the load makes the rest.
    if !pins::is_there(&pins.state().join(names::LEDGER))? {
        return Ok(1);
    }
    let used = state::ledger(pins)?.get(&(Ledger::Generation as u32), 0).context("reading the ledger")?;
    u32::try_from(used.saturating_add(1))
        .context("numbers for generations are used up: detach, and begin anew")
}

/// What follows once the new generation judges everywhere. Whatever fails here, the gate is in force.
fn tidy(held: &Held, plan: &Plan, installed: &Installed) {
    if plan.confirm.is_none() {
        warn_of(held.pins.forget_previous());
        warn_of(settle(&held.pins, &installed.about));
    }
    let others = held.pins.other_states().unwrap_or_default();
    others.iter().for_each(|folder| warn_of(pins::remove_folder(folder)));
}

/// Takes the gate off interfaces that the generation does not name, and forgets grants of doors that it does not have.
///
/// # Errors
/// When a pin cannot be removed or the grants cannot be read.
pub fn settle(pins: &Pins, about: &About) -> Result<()> {
    for interface in pins.linked()?.iter().filter(|name| !about.interfaces.contains(name)) {
        attach::detach(interface, pins)?;
        say!("xdp-knock: {interface} is no longer guarded: the configuration does not name it");
    }
    // After what judges, which may have needed them until now.
    for interface in pins.egressed()?.iter().filter(|name| !about.egress || !about.interfaces.contains(name))
    {
        attach::take_egress_off(interface, pins)?;
    }
    sweep::forget_strangers(pins, about).map(|_| ())
}

fn put_on_all(
    gate: &mut Gate,
    plan: &Plan,
    before: &mut Before<'_>,
    held: &Held,
) -> Result<(Vec<Attached>, Vec<String>)> {
    let here = attach::interfaces()?;
    let (mut attached, mut awaited) = (Vec::new(), Vec::new());
    for interface in &plan.config.interfaces {
        if !here.contains(interface) && plan.overrides.wait {
            awaited.push(interface.clone());
            continue;
        }
        match put_on(gate, interface, plan, before, held) {
            Ok(way) => attached.push(Attached { interface: interface.clone(), way }),
            Err(error) => {
                // All or nothing: a half-guarded machine would pass for a guarded one.
                for one in attached.iter().map(|one| &one.interface).chain([interface]) {
                    warn_of(before.restore(one, &held.pins));
                }
                return Err(error);
            }
        }
    }
    Ok((attached, awaited))
}

/// Returns the way the interface is attached, in a word.
fn put_on(gate: &mut Gate, interface: &str, plan: &Plan, before: &Before<'_>, held: &Held) -> Result<String> {
    if let Some(link) = before.on(interface) {
        attach::replace(gate, link, &held.pins)?;
        return Ok(attach::way(link).map_or("attached".to_owned(), |way| way.to_string()));
    }
    // A link whose interface was deleted judges nothing.
    attach::detach(interface, &held.pins)?;
    Ok(attach::attach(gate, interface, plan.overrides.attach, &held.pins)?.to_string())
}

/// Returns the names of the programs that the interfaces of a plan need: all of them are loaded before one is put anywhere.
fn programs(plan: &Plan, before: &Before<'_>, needs_egress: bool) -> Result<BTreeSet<&'static str>> {
    let here = attach::interfaces()?;
    let mut names = BTreeSet::new();
    for interface in &plan.config.interfaces {
        // What one will be that is not there yet is not known; most are like this.
        let header = if here.contains(interface) { present::header(interface)? } else { Header::Ethernet };
        let hook = match before.on(interface) {
            Some(link) => link.hook,
            None => attach::judging_hook(interface, header, plan.overrides.attach)?,
        };
        names.extend(attach::programs(hook, header, needs_egress)?);
    }
    Ok(names)
}
