//! The program under test while it runs: what it prints as it prints it, signals, and its end.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::program::{self, describe};

/// How long an event may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running process that prints one event a line; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
    lines: Receiver<(Instant, String)>,
    events: Vec<Value>,
    times: Vec<Instant>,
    read: usize,
    errors: Arc<Mutex<String>>,
    /// Ends when it can say nothing more.
    listener: JoinHandle<()>,
}

impl Process {
    /// Starts a command, with nothing to read.
    pub fn spawn(mut command: Command) -> Self {
        let line = describe(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let stdout = child.stdout.take().expect("it was piped");
        let mut stderr = child.stderr.take().expect("it was piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send((Instant::now(), line)))
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&errors);
        let listener = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                kept.lock().expect("no holder panics").push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Self { child, line, lines, events: Vec::new(), times: Vec::new(), read: 0, errors, listener }
    }

    /// Waits for the next event of a kind that is as wanted, and returns it. Events before it are passed over.
    pub fn event(&mut self, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.timed_event(kind, is_wanted).1
    }

    /// As [`Self::event`], with the time at which its line was read.
    pub fn timed_event(&mut self, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> (Instant, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.events.get(self.read) {
                self.read += 1;
                if event["event"] == kind && is_wanted(event) {
                    return (self.times[self.read - 1], event.clone());
                }
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.note(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no event `{kind}` came in {PATIENCE:?}\n{}", self.said())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.end();
                    panic!("ended before an event `{kind}`\n{}", self.said())
                }
            }
        }
    }

    /// Takes the next line, whatever it is; `None` when there is none within a time, or no more.
    pub fn next_line(&mut self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok().map(|(_, line)| line)
    }

    /// Waits until its diagnostics have a word in them, and returns them.
    pub fn diagnostics(&self, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = self.errors();
            if all.contains(word) {
                return all;
            }
            assert!(Instant::now() < deadline, "nothing about `{word}`\n{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns its diagnostics so far.
    pub fn errors(&self) -> String {
        self.errors.lock().expect("no holder panics").clone()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal. It may have ended by itself; then there is nothing to signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are positive");
        let _ = kill(Pid::from_raw(id), signal);
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits for an end that is expected to come by itself; reads what it printed to the last line.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = program::poll(&format!("`{}` to end", self.line), PATIENCE, || {
            self.child.try_wait().expect("our own child")
        });
        while let Ok(line) = self.lines.recv() {
            self.note(line);
        }
        self.end();
        ended
    }

    /// Returns the events it has printed, as far as they were waited for.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.times.clear();
        self.read = 0;
        std::mem::take(&mut self.events)
    }

    /// All it said, for the message of a panic.
    pub fn said(&self) -> String {
        let events: Vec<_> = self.events.iter().map(Value::to_string).collect();
        format!("-- `{}` --\n{}\n-- stderr --\n{}", self.line, events.join("\n"), self.errors())
    }

    fn note(&mut self, (time, line): (Instant, String)) {
        let event = serde_json::from_str(&line);
        self.events
            .push(event.unwrap_or_else(|error| panic!("not an event: {error}: {line}\n{}", self.said())));
        self.times.push(time);
    }

    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // All it said on standard error is there then, unless a child of its own may still say something.
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.listener.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}
