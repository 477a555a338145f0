//! What must be there before anything is attached: from then on a signal no longer ends the process where it stands.

use anyhow::{Context, Result};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// The runtime, and the signals that it catches.
#[derive(Debug)]
pub struct Stage {
    runtime: Runtime,
    signals: Option<Signals>,
}

/// Signals, each of them caught from the start.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stage {
    /// Catches SIGINT, SIGTERM and SIGHUP; one that comes early is acted upon when the daemon serves.
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
            hang_up: caught(SignalKind::hangup())?,
        };
        drop(entered);
        Ok(Self { runtime, signals: Some(signals) })
    }

    /// Returns the runtime, and the signals, once.
    ///
    /// # Errors
    /// When the signals were taken before.
    pub fn parts(&mut self) -> Result<(&Runtime, Signals)> {
        let signals = self.signals.take().context("the stage serves once")?;
        Ok((&self.runtime, signals))
    }
}

/// A signal that the daemon acts upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

impl Signals {
    /// Waits for a signal.
    pub async fn next(&mut self) -> Call {
        tokio::select! {
            _ = self.interrupt.recv() => Call::Stop,
            _ = self.terminate.recv() => Call::Stop,
            _ = self.hang_up.recv() => Call::Reload,
        }
    }
}
