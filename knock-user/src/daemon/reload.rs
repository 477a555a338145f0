//! Another generation while the daemon serves, and the way back from one that is not confirmed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{Daemon, Service, Stop, WayBack};
use crate::{
    attach,
    before::{Before, Programs},
    config::{Config, ReadError},
    control::Reply,
    events::{Line, Name},
    install::{self, Plan, warn_of},
    notify,
    pins::Pins,
    rollback::{self, Standing},
    survey::{self, Link},
};

/// What a reload is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Another file than before.
    pub config: Option<PathBuf>,
    /// Go back unless confirmed within this time.
    pub confirm: Option<Duration>,
    /// Sources to allow beside those of the file.
    pub allow: Vec<IpNet>,
}

impl Daemon {
    /// Reloads because of SIGHUP, and says on standard error what came of it.
    pub(super) fn reload_on_signal(&mut self) {
        let reply = self.reload(Wanted::default());
        match (reply.error, reply.diff) {
            (Some(error), _) => {
                say!("{error}\nxdp-knock: not reloaded: the gate is as it was");
            }
            (None, diff) => say!("xdp-knock: reloaded: {}", diff.unwrap_or_default()),
        }
    }

    /// Brings the configuration into force as it is now, and answers with what changed.
    pub(super) fn reload(&mut self, wanted: Wanted) -> Reply {
        notify::reloading();
        let outcome = self.read_plan(wanted).and_then(|plan| self.replace(plan));
        notify::ready(&self.summary());
        self.note_reload(outcome.is_ok());
        match outcome {
            Ok(()) => Reply {
                ok: true,
                generation: Some(self.service.installed.about.generation),
                diff: self.service.installed.diff.clone(),
                ..Reply::default()
            },
            Err(error) => refusal(&error),
        }
    }

    fn read_plan(&self, wanted: Wanted) -> Result<Plan> {
        let file = wanted.config.or_else(|| self.service.plan.file.clone()).context(
            "this gate runs the built-in example, which has no file to read again: name one with --config",
        )?;
        let (mut config, warnings) = Config::read(&file)?;
        for warning in warnings {
            say!("{}", warning.plain());
        }
        let mut overrides = self.service.plan.overrides.clone();
        overrides.allow.extend(wanted.allow);
        overrides.apply(&mut config);
        Ok(Plan {
            config,
            file: Some(file),
            overrides,
            confirm: wanted.confirm,
            trace: self.service.plan.trace,
        })
    }

    fn replace(&mut self, plan: Plan) -> Result<()> {
        let Service { held, installed, .. } = &mut self.service;
        let about = installed.about.clone();
        let mut before = Before::own(held, &mut installed.gate, &about)?;
        let mut fresh = install::install(held, &plan, &mut before)?;
        drop(before);
        if let Some(words) = self.fixed.waiting(&plan.config) {
            fresh.diff.get_or_insert_default().changes.push(words);
        }
        let is_awaited = plan.confirm.is_some();
        let old = (std::mem::replace(installed, fresh), std::mem::replace(&mut self.service.plan, plan));
        self.service.way_back = is_awaited.then(|| WayBack::Generation(Box::new(old)));
        self.take_up();
        let changes = self.service.installed.diff.clone().unwrap_or_default().to_string().replace('\n', "; ");
        self.tell_reloaded(&changes);
        Ok(())
    }

    /// Follows the generation that is in force now.
    fn take_up(&mut self) {
        self.learn_names();
        self.find_places();
    }

    fn tell_reloaded(&mut self, words: &str) {
        let about = &self.service.installed.about;
        let (mode, number) = (about.mode.to_string(), about.generation);
        self.publish(Line {
            mode: Some(mode),
            detail: Some(format!("generation {number}: {words}")),
            ..Line::new(Timestamp::now(), Name::Reloaded)
        });
    }

    /// Looks whether the gate was confirmed, or its time is over.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub(super) fn mind_confirmation(&mut self) -> Result<Option<Stop>> {
        if self.service.way_back.is_none() {
            return Ok(None);
        }
        let standing = rollback::own_standing(&mut self.service.installed.gate)?;
        self.note_standing(standing);
        match standing {
            Standing::Awaited(_) => Ok(None),
            Standing::Settled => {
                self.settle();
                Ok(None)
            }
            Standing::WentBack(_) => Ok(self.go_back()),
        }
    }

    fn settle(&mut self) {
        self.service.way_back = None;
        let pins = &self.service.held.pins;
        warn_of(pins.forget_previous());
        warn_of(install::settle(pins, &self.service.installed.about));
        self.tell_reloaded("confirmed");
    }

    /// Puts in its place what the kernel went back to.
    fn go_back(&mut self) -> Option<Stop> {
        let way_back = self.service.way_back.take()?;
        let outcome = match way_back {
            WayBack::Generation(old) => {
                let (mut installed, plan) = *old;
                let result = self.put_back(|link, pins| {
                    if !installed.about.interfaces.contains(&link.interface) {
                        return attach::detach(&link.interface, pins);
                    }
                    attach::replace(&mut installed.gate, link, pins)?;
                    if installed.gate.needs_egress() {
                        return Ok(());
                    }
                    attach::take_egress_off(&link.interface, pins)
                });
                self.service.installed = installed;
                self.service.plan = plan;
                self.take_up();
                self.note_reload(false);
                self.note_standing(Standing::Settled);
                self.tell_reloaded("is in force again: the one after it was not confirmed in time");
                result.map(|()| None)
            }
            WayBack::Programs(mut programs) => {
                let result = self.put_back(|link, pins| match programs.get_mut(&link.interface) {
                    Some(programs) => programs.put_back(&link.interface, pins),
                    None => attach::detach(&link.interface, pins),
                });
                result.map(|()| Some(Stop::NotConfirmed))
            }
        };
        outcome.unwrap_or_else(|error| {
            warn_of(Err(error.context("going back to what was before (the kernel has done so already)")));
            None
        })
    }

    fn put_back(&self, mut give: impl FnMut(&Link, &Pins) -> Result<()>) -> Result<()> {
        let pins = &self.service.held.pins;
        for link in survey::bare_links(pins)? {
            give(&link, pins)?;
        }
        pins.forget_previous()
    }
}

/// Returns the answer that tells why something was not done.
pub(super) fn refusal(error: &anyhow::Error) -> Reply {
    let is_bad_config = matches!(error.downcast_ref::<ReadError>(), Some(ReadError::Bad(_)));
    Reply {
        ok: false,
        error: Some(format!("{error:#}")),
        status: Some(if is_bad_config { crate::exit::BAD_CONFIG } else { crate::exit::FAILED }),
        ..Reply::default()
    }
}

/// Returns the generation's way back, before it is brought in: the programs that are on the interfaces now.
///
/// # Errors
/// When the kernel does not give them out.
pub fn way_back(before: &Before<'_>) -> Result<WayBack> {
    let alive = before.links.iter().filter(|link| !link.is_dead());
    let programs = alive.map(|link| {
        let programs = Programs::behind(link).map_err(|error| anyhow!("{}: {error:#}", link.interface))?;
        Ok((link.interface.clone(), programs))
    });
    Ok(WayBack::Programs(programs.collect::<Result<_>>()?))
}
