//! A reader of the event stream that only counts, so that a flood of events does not have it fall behind.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::program::{describe, poll};

/// What a reader has read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines of events of the kernel's.
    pub kernel: u64,
    /// Those of them that tell of a promotion.
    pub promoted: u64,
    /// A hash over the sources of the promotions at other doors, in their order.
    pub order: u64,
    /// Promotions at the door `marker`.
    pub markers: u64,
    /// Events left out by the cap, as told.
    pub capped: u64,
    /// Events lost to a full ring, as told.
    pub overrun: u64,
    /// Events this reader was too slow for, as told.
    pub missed: u64,
}

impl Tally {
    /// Returns what has come since an earlier time; the order is that of all.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            kernel: self.kernel - before.kernel,
            promoted: self.promoted - before.promoted,
            order: self.order,
            markers: self.markers - before.markers,
            capped: self.capped - before.capped,
            overrun: self.overrun - before.overrun,
            missed: self.missed - before.missed,
        }
    }

    /// Returns the events of the kernel's that it accounts for: read, or told of as not delivered.
    #[must_use]
    pub const fn accounted(self) -> u64 {
        self.kernel + self.capped + self.overrun + self.missed
    }

    fn note(&mut self, line: &str) {
        let is = |event: &str| line.contains(&format!("\"event\":\"{event}\""));
        if is("lost") {
            let facts: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let count = |name: &str| facts[name].as_u64().unwrap_or(0);
            self.capped += count("capped");
            self.overrun += count("overrun");
            self.missed += count("missed");
        } else if is("promoted") {
            self.kernel += 1;
            self.promoted += 1;
            if line.contains("\"door\":\"marker\"") {
                self.markers += 1;
                return;
            }
            let source = line.split_once("\"source\":\"").map_or("", |(_, rest)| rest);
            let bytes = source.bytes().take_while(|byte| *byte != b'"');
            self.order =
                bytes.fold(self.order, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        } else if is("step") || is("reset") || is("table_full") {
            self.kernel += 1;
        }
    }
}

/// A process that prints events as JSON; killed when dropped.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    line: String,
    tally: Arc<Mutex<Tally>>,
}

impl Listener {
    /// Starts it.
    pub fn spawn(mut command: Command) -> Self {
        let line = describe(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let stdout = child.stdout.take().expect("it was piped");
        let tally = Arc::new(Mutex::new(Tally::default()));
        let kept = Arc::clone(&tally);
        thread::spawn(move || {
            for line in BufReader::with_capacity(1 << 18, stdout).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).note(&line);
            }
        });
        Self { child, line, tally }
    }

    /// Returns what it has read so far.
    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what it has read is as wanted, and returns it.
    pub fn until(&self, what: &str, patience: Duration, is_wanted: impl Fn(Tally) -> bool) -> Tally {
        let mut last = Tally::default();
        let deadline = std::time::Instant::now() + patience;
        while std::time::Instant::now() < deadline {
            last = self.tally();
            if is_wanted(last) {
                return last;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("`{}`: waited in vain for {what}: {last:?}", self.line);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are positive");
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(id), signal);
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        poll(&format!("`{}` to end", self.line), Duration::from_secs(20), || {
            self.child.try_wait().expect("our own child")
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
