//! The daemon's own standard output: a reader of events like any other, on a thread of its own, so that a terminal that
//! stands still holds up nobody.

use std::{
    io::Write as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc::Receiver, oneshot};

use crate::{events::Line, journal::Journal};

/// How long the last lines may take to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread that writes.
#[derive(Debug)]
pub struct Terminal {
    thread: JoinHandle<()>,
    gone: oneshot::Receiver<()>,
}

impl Terminal {
    /// Starts writing lines, as JSON or as text, until the sender is gone or nobody reads them any more.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(lines: Receiver<Arc<Line>>, json: bool) -> Result<Self> {
        let (tell_gone, gone) = oneshot::channel();
        let journal = Journal::of_stream(&std::io::stdout()).context("connecting to the journal")?;
        let write = move || {
            // Dropped at the end of the thread: that is what tells.
            let _tell_gone = tell_gone;
            match journal {
                Some(journal) => write_to_journal(lines, &journal),
                None => write_all(lines, json),
            }
        };
        let thread = thread::Builder::new().name("terminal".to_owned()).spawn(write);
        Ok(Self { thread: thread.context("starting the thread that prints events")?, gone })
    }

    /// Waits until standard output has no reader any more.
    pub async fn gone(&mut self) {
        let _ = (&mut self.gone).await;
    }

    /// Waits for the last lines, but not for ever. The sender must be gone.
    pub fn finish(self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn write_all(mut lines: Receiver<Arc<Line>>, json: bool) {
    while let Some(line) = lines.blocking_recv() {
        let mut out = anstream::stdout().lock();
        let text = if json { line.json() } else { line.text() };
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Under systemd: events with fields to search by, and no time of our own.
fn write_to_journal(mut lines: Receiver<Arc<Line>>, journal: &Journal) {
    let mut is_told = false;
    while let Some(line) = lines.blocking_recv() {
        // A journal that is restarted takes the next one.
        if let (Err(error), false) = (journal.write(&line), is_told) {
            is_told = true;
            say!("xdp-knock: WARNING: the journal does not take events: {error}");
        }
    }
}
