//! What tcpdump sees on a device.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Stdio},
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::netns::Namespace;

/// What no interface can do without, and no gate has a say in: ARP, neighbour discovery, and reports of group membership
/// (RFC 3810).
pub const UPKEEP: &str = "(arp or (icmp6 and (ip6[40] == 143 or (ip6[40] >= 133 and ip6[40] <= 137))) or \
                          (ip6[6] == 0 and ip6[40] == 58 and ip6[48] == 143) or igmp)";

/// A tcpdump that runs.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    stderr: BufReader<ChildStderr>,
    lines: Option<JoinHandle<Vec<String>>>,
}

impl Capture {
    /// Starts it on a device, with a filter in tcpdump's words, and waits until it listens.
    pub fn start(namespace: &Namespace, device: &str, filter: &str) -> Self {
        let mut tcpdump = namespace.command("tcpdump");
        tcpdump.args(["-nn", "-e", "-l", "--immediate-mode", "-B", "65536", "-i", device, filter]);
        tcpdump.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tcpdump.spawn().expect("nsenter is installed");
        let stdout = child.stdout.take().expect("it was piped");
        let lines = thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // On SIGINT it ends the line that it is on.
            lines.filter(|line| !line.is_empty()).collect()
        });
        let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        let mut said = String::new();
        while !said.contains("listening on") {
            let read = stderr.read_line(&mut said).expect("a pipe");
            assert!(read > 0, "tcpdump does not listen: {said}");
        }
        Self { child, stderr, lines: Some(lines) }
    }

    /// Starts one of what a device sends, [`UPKEEP`] left out.
    pub fn of_sent(namespace: &Namespace, device: &str, sender: [u8; 6]) -> Self {
        let sender = sender.map(|byte| format!("{byte:02x}")).join(":");
        Self::start(namespace, device, &format!("ether src {sender} and not {UPKEEP}"))
    }

    /// Ends it; returns what it saw, a line a packet. Panics if packets went past it.
    pub fn stop(mut self) -> Vec<String> {
        let id = i32::try_from(self.child.id()).expect("process ids are positive");
        kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs until it is told to end");
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("a pipe");
        let lines = self.lines.take().expect("it is stopped once").join().expect("lines are only read");
        assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
        lines
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
