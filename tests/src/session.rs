//! One conversation that is kept open: lines go out, and the same lines come back.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::program::describe;

/// A program whose other side sends back each line it reads; ended when dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
    line: String,
    input: ChildStdin,
    lines: Receiver<String>,
    sent: u32,
}

impl Session {
    /// Starts the program that keeps the conversation.
    pub fn spawn(mut command: Command) -> Self {
        let line = describe(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let input = child.stdin.take().expect("it was piped");
        let output = child.stdout.take().expect("it was piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self { child, line, input, lines, sent: 0 }
    }

    /// Sends one line, and returns whether the same line came back within a time.
    pub fn answers(&mut self, patience: Duration) -> bool {
        self.sent += 1;
        let word = format!("line {}", self.sent);
        if writeln!(self.input, "{word}").is_err() {
            return false;
        }
        let deadline = Instant::now() + patience;
        // An answer to an earlier line may come late; it is not the answer to this one.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line == word {
                return true;
            }
        }
        false
    }

    /// Panics unless a line comes back.
    pub fn assert_lives(&mut self, when: &str) {
        assert!(self.answers(crate::process::PATIENCE), "{when}: `{}` is cut", self.line);
    }

    /// Panics if a line comes back within two seconds, in which TCP sends it three times or more.
    pub fn assert_cut(&mut self, when: &str) {
        assert!(!self.answers(Duration::from_secs(2)), "{when}: `{}` goes on", self.line);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
