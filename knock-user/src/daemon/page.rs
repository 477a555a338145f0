//! What metrics are scraped from: the same facts as `status`, and what only the daemon knows.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::Daemon;
use crate::{
    about::About,
    control::Server,
    metrics::{self, Page, Process},
    pins::Pins,
    report::{sight::Sight, status},
    rollback::Standing,
};

/// What the daemon's loop leaves for whoever scrapes.
#[derive(Clone, Debug)]
pub struct Facts {
    about: About,
    standing: Standing,
    process: Process,
}

/// The facts, and the loop's end of them.
#[derive(Clone, Debug)]
pub struct Sheet(Arc<Mutex<Facts>>);

impl Sheet {
    /// Returns the facts of a generation that was just brought in.
    #[must_use]
    pub fn new(about: &About) -> Self {
        let process = Process { is_reload_good: true, reloaded: Timestamp::now(), hooks_skipped: 0 };
        Self(Arc::new(Mutex::new(Facts { about: about.clone(), standing: Standing::Settled, process })))
    }

    /// Changes the facts.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn page(&self, pins: &Pins) -> Result<Page> {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sight = Sight::of_own(pins, &facts.about, facts.standing)?;
        let status = status::collect(pins, &sight, Server::Daemon(std::process::id()))?;
        Ok(Page { text: metrics::encode(&status, &facts.process), is_enforcing: status.protected })
    }

    /// Serves the facts at an address of this machine. Must be called inside the runtime.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn serve(&self, address: SocketAddr, pins: &Pins) -> Result<()> {
        let context = || format!("listening for metrics at {address} (`listen` under [metrics])");
        let listener = TcpListener::bind(address).with_context(context)?;
        listener.set_nonblocking(true).with_context(context)?;
        let listener = tokio::net::TcpListener::from_std(listener).with_context(context)?;
        let (sheet, pins) = (self.clone(), pins.clone());
        tokio::spawn(async move { metrics::serve(listener, move || sheet.page(&pins)).await });
        Ok(())
    }
}

impl Daemon {
    /// Notes what came of a reload.
    pub(super) fn note_reload(&self, is_good: bool) {
        let about = self.service.installed.about.clone();
        self.sheet.update(|facts| {
            facts.process.is_reload_good = is_good;
            if is_good {
                facts.process.reloaded = Timestamp::now();
            }
            facts.about = about;
        });
    }

    /// Notes how the gate stands with its confirmation.
    pub(super) fn note_standing(&self, standing: Standing) {
        self.sheet.update(|facts| facts.standing = standing);
    }

    /// Notes hooks that were not run.
    pub(super) fn note_skipped(&self, count: u64) {
        self.sheet.update(|facts| facts.process.hooks_skipped += count);
    }
}
