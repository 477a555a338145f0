//! Confirm, or go back to what was before. The kernel keeps the time: past the deadline the new program hands every packet
//! to the one before it, so that a rollback needs no process to live. What is done here is to start it, end it, and put the
//! programs in their places afterwards.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use aya::{
    maps::{Array, MapData, ProgramArray},
    programs::Program,
};
use knock_common::abi::PREVIOUS_SLOTS;
use nix::net::if_::if_nametoindex;

use crate::{
    attach,
    before::{Before, Programs},
    clock,
    hook::Hook,
    loader::Gate,
    pins::Pins,
    survey::Link,
    wire,
};

/// A confirmation that comes closer than this to its deadline is refused: the kernel may be past it before the word is
/// written.
const MARGIN_NS: u64 = 100_000_000;

/// A confirmation is awaited, so nothing else may be changed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the gate awaits its confirmation: `xdp-knock confirm` keeps it; or wait until it has gone back to what was before"
)]
pub struct Awaited;

/// How a gate stands with its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None was asked for, or it came.
    Settled,
    /// It is awaited until this time on the kernel's clock.
    Awaited(u64),
    /// It did not come until this time: the kernel went back to what was before.
    WentBack(u64),
}

/// Reads how a gate stands.
///
/// # Errors
/// When its map cannot be read.
pub fn standing(link: &Link) -> Result<Standing> {
    let Some(program) = &link.program else { return Ok(Standing::Settled) };
    if program.about.previous.is_none() {
        return Ok(Standing::Settled);
    }
    of_word(&program.confirm()?)
}

fn of_word<M: std::borrow::Borrow<MapData>>(word: &Array<M, u64>) -> Result<Standing> {
    let by_ns = word.get(&0, 0).context("reading the time to confirm by")?;
    Ok(match by_ns {
        0 => Standing::Settled,
        by_ns if clock::now_ns() <= by_ns => Standing::Awaited(by_ns),
        by_ns => Standing::WentBack(by_ns),
    })
}

/// Reads how this process's own gate stands.
///
/// # Errors
/// When its map cannot be read.
pub fn own_standing(gate: &mut Gate) -> Result<Standing> {
    of_word(&wire::confirm(&mut gate.ebpf)?)
}

/// Returns whether this process's own gate awaits its confirmation.
///
/// # Errors
/// When its map cannot be read.
pub fn is_own_awaited(gate: &mut Gate) -> Result<bool> {
    Ok(matches!(own_standing(gate)?, Standing::Awaited(_)))
}

/// Refuses while a confirmation is awaited.
///
/// # Errors
/// [`Awaited`], or when a map cannot be read.
pub fn refuse_while_awaited(links: &[Link]) -> Result<()> {
    for link in links {
        if matches!(standing(link)?, Standing::Awaited(_)) {
            return Err(Awaited.into());
        }
    }
    Ok(())
}

/// Tells the new program what was on each interface before, and pins the table so that it outlives this process.
///
/// # Errors
/// When the kernel refuses, or two interfaces have the same place in the table.
pub fn prepare(gate: &mut Gate, before: &mut Before<'_>, interfaces: &[String], pins: &Pins) -> Result<()> {
    refuse_shared_slots(before, interfaces)?;
    let ways = ways_back(&before.links);
    pins.forget_previous()?;
    let of_xdp = |way: &&Way| way.hook == Hook::Xdp;
    let mut table = wire::previous(&mut gate.ebpf)?;
    note(&mut table, ways.iter().filter(of_xdp), before)?;
    pin(table, &pins.previous())?;
    if ways.iter().all(|way| of_xdp(&way)) {
        return Ok(());
    }
    let mut table = wire::previous_tc(&mut gate.ebpf)?;
    note(&mut table, ways.iter().filter(|way| !of_xdp(way)), before)?;
    pin(table, &pins.previous_tc())
}

/// A program to go back to, and its place in the table of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    hook: Hook,
    slot: u32,
    program_id: u32,
}

fn ways_back(links: &[Link]) -> Vec<Way> {
    let mut ways = Vec::new();
    for link in links.iter().filter(|link| !link.is_dead()) {
        let slot = link.index % PREVIOUS_SLOTS;
        ways.push(Way { hook: link.hook, slot, program_id: link.program_id });
        let egress = link.egress().map(|program_id| Way {
            hook: Hook::Egress,
            slot: slot + PREVIOUS_SLOTS,
            program_id,
        });
        ways.extend(egress);
    }
    ways
}

fn note<'a>(
    table: &mut ProgramArray<&mut MapData>,
    ways: impl Iterator<Item = &'a Way>,
    before: &mut Before<'_>,
) -> Result<()> {
    for way in ways {
        before.with_program(way.program_id, |program: &mut Program| {
            let program = program.fd().context("taking hold of the program before")?;
            table.set(way.slot, program, 0).context("noting the program to go back to")
        })?;
    }
    Ok(())
}

fn pin(table: ProgramArray<&mut MapData>, path: &Path) -> Result<()> {
    table.pin(path).with_context(|| format!("pinning the program to go back to at {}", path.display()))
}

/// Gives whoever is to confirm this much time from now.
///
/// # Errors
/// When the kernel refuses.
pub fn start_time(gate: &mut Gate, time: Duration) -> Result<()> {
    let by_ns = clock::after_ns(time);
    wire::confirm(&mut gate.ebpf)?.set(0, by_ns, 0).context("writing the time to confirm by")
}

/// An interface goes back to what its place in the table holds, so no two may have the same place: neither those that carry
/// a gate now nor those that get one.
fn refuse_shared_slots(before: &Before<'_>, interfaces: &[String]) -> Result<()> {
    let fresh =
        interfaces.iter().filter_map(|name| Some((name.clone(), if_nametoindex(name.as_str()).ok()?)));
    let alive = before.links.iter().filter(|link| !link.is_dead());
    let all: BTreeMap<u32, String> = alive
        .map(|link| (link.index, link.interface.clone()))
        .chain(fresh.map(|(name, index)| (index, name)))
        .collect();
    let mut taken = BTreeMap::new();
    for (index, interface) in all {
        if let Some(other) = taken.insert(index % PREVIOUS_SLOTS, interface.clone()) {
            bail!(
                "{interface} and {other} have interface indexes that --confirm cannot tell apart: go on without it"
            );
        }
    }
    Ok(())
}

/// Keeps the gate that awaits its confirmation; returns whether one did.
///
/// # Errors
/// When it is too late.
pub fn confirm(links: &[Link], pins: &Pins) -> Result<bool> {
    let mut is_any = false;
    for link in links {
        let by_ns = match standing(link)? {
            Standing::Settled => continue,
            Standing::Awaited(by_ns) if clock::now_ns().saturating_add(MARGIN_NS) < by_ns => by_ns,
            Standing::Awaited(_) | Standing::WentBack(_) => bail!(
                "too late: {} has gone back to what was before. Try again with `xdp-knock reload --confirm`, and more time",
                link.interface
            ),
        };
        let program = link.program.as_ref().context("a program of another layout")?;
        program.confirm()?.set(0, 0, 0).context("confirming the gate")?;
        if clock::now_ns() >= by_ns {
            bail!(
                "too late: the time ran out while it was confirmed; `xdp-knock status` says what is in force"
            );
        }
        is_any = true;
    }
    if is_any {
        pins.forget_previous()?;
    }
    Ok(is_any)
}

/// Puts the programs before in their places, where the kernel went back to them; returns whether it did. Takes root.
///
/// # Errors
/// When a program cannot be had any more; then its gate stays as it is.
pub fn settle_overdue(pins: &Pins, links: &[Link]) -> Result<bool> {
    let mut is_any = false;
    for link in links {
        if !matches!(standing(link)?, Standing::WentBack(_)) {
            continue;
        }
        is_any = true;
        let (interface, about) = (&link.interface, link.about());
        let egress = about.and_then(|about| about.previous_egress.get(interface).copied());
        match about.and_then(|about| about.previous.as_ref()?.get(interface)) {
            Some(id) => Programs::of(*id, egress)?.put_back(interface, pins)?,
            None => attach::detach(interface, pins)?,
        }
    }
    if is_any {
        pins.forget_previous()?;
    }
    Ok(is_any)
}
