//! What is in force before a generation is brought in, and the way back to it.

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;

use crate::{
    about::About,
    attach,
    hook::Hook,
    loader::Gate,
    pins::{self, Held, Pins},
    rollback, state,
    survey::{self, Link},
};

/// What is in force, and how to take hold of its program.
#[derive(Debug)]
pub struct Before<'a> {
    /// The pinned links.
    pub links: Vec<Link>,
    /// The generation that judges there, if any.
    pub about: Option<About>,
    /// The loaded program, where this process loaded it itself: one that gave up root cannot ask the kernel for it.
    own: Option<&'a mut Gate>,
}

impl<'a> Before<'a> {
    /// Finds out from the kernel. What went back because it was not confirmed is put in its place first.
    ///
    /// # Errors
    /// When pins are of another layout or foreign, or a confirmation is awaited; nothing is changed then.
    pub fn survey(held: &Held) -> Result<Self> {
        let pins = &held.pins;
        refuse_other_states(pins)?;
        state::check(pins)?;
        let links = survey::links(pins)?;
        rollback::refuse_while_awaited(&links)?;
        let links = if rollback::settle_overdue(pins, &links)? { survey::links(pins)? } else { links };
        let about = survey::current(&links).cloned();
        Ok(Self { links, about, own: None })
    }

    /// Finds out from the kernel, whatever the layout; state that this program cannot use is dropped.
    ///
    /// # Errors
    /// When a pin is no link of XDP or TCX.
    pub fn survey_any_layout(held: &Held) -> Result<Self> {
        let pins = &held.pins;
        let links = survey::links_of_any_layout(pins)?;
        if state::check(pins).is_err() {
            pins::remove_folder(&pins.state())?;
            std::fs::create_dir_all(pins.state()).context("making the folder of the state")?;
        }
        let about = survey::current(&links).cloned();
        Ok(Self { links, about, own: None })
    }

    /// Takes what this process has in force itself.
    ///
    /// # Errors
    /// When another process changed the links meanwhile, or a confirmation is awaited.
    pub fn own(held: &Held, gate: &'a mut Gate, about: &About) -> Result<Self> {
        let links = survey::bare_links(&held.pins)?;
        let other = links.iter().find(|link| gate.program_of(link.program_id).is_none());
        if let Some(link) = other {
            bail!(
                "the gate on {} is not the one this process put there: stop this process and start it again; the gate stays",
                link.interface
            );
        }
        ensure!(!rollback::is_own_awaited(gate)?, rollback::Awaited);
        Ok(Self { links, about: Some(about.clone()), own: Some(gate) })
    }

    /// Returns the link on an interface that judges there.
    #[must_use]
    pub fn on(&self, interface: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.interface == interface && !link.is_dead())
    }

    /// Runs `act` with the program that is in force on a link.
    ///
    /// # Errors
    /// When the kernel has it no more, or `act` fails.
    pub fn with_program<T>(&mut self, id: u32, act: impl FnOnce(&mut Program) -> Result<T>) -> Result<T> {
        if let Some(program) = self.own.as_mut().and_then(|gate| gate.program_of(id)) {
            return act(program);
        }
        act(&mut loaded(id)?)
    }

    /// Puts back what was on an interface: its programs, or none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restore(&mut self, interface: &str, pins: &Pins) -> Result<()> {
        let Some((judging, egress)) = self.on(interface).map(|link| (link.program_id, link.egress())) else {
            return attach::detach(interface, pins);
        };
        if let Some(id) = egress {
            self.with_program(id, |program| attach::swap_egress(program, interface, pins))?;
        }
        self.with_program(judging, |program| attach::swap(program, &pins.link(interface)))?;
        if egress.is_none() { attach::take_egress_off(interface, pins) } else { Ok(()) }
    }
}

/// The programs of a gate on one interface, held so that they can be put back.
#[derive(Debug)]
pub struct Programs {
    /// The one that judges.
    pub judging: Program,
    /// The one for outgoing packets, where there is one.
    pub egress: Option<Program>,
}

impl Programs {
    /// Takes hold of those behind a link. Takes root.
    ///
    /// # Errors
    /// When the kernel has one no more, or does not give it out.
    pub fn behind(link: &Link) -> Result<Self> {
        Self::of(link.program_id, link.egress())
    }

    /// Takes hold of programs by their ids. Takes root.
    ///
    /// # Errors
    /// As [`Self::behind`].
    pub fn of(judging: u32, egress: Option<u32>) -> Result<Self> {
        Ok(Self { judging: loaded(judging)?, egress: egress.map(loaded).transpose()? })
    }

    /// Puts them in the places of those that are on an interface now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_back(&mut self, interface: &str, pins: &Pins) -> Result<()> {
        if let Some(program) = &mut self.egress {
            attach::swap_egress(program, interface, pins)?;
        }
        attach::swap(&mut self.judging, &pins.link(interface))?;
        if self.egress.is_none() { attach::take_egress_off(interface, pins) } else { Ok(()) }
    }
}

/// Takes hold of a loaded program by its id. Takes root.
///
/// # Errors
/// When the kernel has it no more, or does not give it out.
pub fn loaded(id: u32) -> Result<Program> {
    let info = survey::program_info(id)?;
    let name = info.name_as_str().unwrap_or_default().to_owned();
    let taking = || format!("taking hold of program {id}");
    if Hook::of_program(&name) == Some(Hook::Xdp) {
        let program = Xdp::from_program_info(info, name.into(), XdpAttachType::Interface);
        return Ok(Program::Xdp(program.with_context(taking)?));
    }
    let program = SchedClassifier::from_program_info(info, name.into()).with_context(taking)?;
    Ok(Program::SchedClassifier(program))
}

fn refuse_other_states(pins: &Pins) -> Result<()> {
    let Some(other) = pins.other_states()?.into_iter().next() else { return Ok(()) };
    bail!(
        "{} was left by another version of xdp-knock, whose grants cannot be carried over: they do not name their doors as this version does. Nothing was changed. To go on without them: --discard-state",
        other.display()
    )
}
