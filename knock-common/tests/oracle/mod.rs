//! What should open, read off the whole history of a source's packets; it keeps no state of an attempt.
//!
//! A *run* is a stretch of the history that reads as one unbroken attempt: its first packet is the first step, and
//! every other is in time and either the next step or a copy of a packet that was a step of this run. A packet
//! *begins* a run if it is the first step and no run that began earlier is still unbroken with it. A packet
//! promotes if it is the last step of the run that began last.

use knock_common::{abi::StepRule, machine::Knock};

/// A UDP or ICMP packet like an earlier one is its copy up to so much later; a TCP segment always is. The clock of
/// copies ticks every 2^20 ns.
const COPY_TICKS: u64 = 953;

/// A knock and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The knock.
    pub knock: Knock,
    /// The time.
    pub at_ns: u64,
}

/// The secret and its times.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The sequence.
    pub steps: Vec<StepRule>,
    /// Between two steps at most.
    pub step_timeout_ns: u64,
    /// From the first step to the last at most.
    pub total_timeout_ns: u64,
}

/// All packets of a source so far, and which of them begin a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    packets: Vec<Packet>,
    begins: Vec<bool>,
}

impl History {
    /// Adds a packet.
    pub fn push(&mut self, secret: &Secret, packet: Packet) {
        self.packets.push(packet);
        let is_first = is_step(&packet.knock, &secret.steps[0]);
        let is_in_a_run = self.starts().any(|start| read(secret, &self.packets[start..]).is_some());
        self.begins.push(is_first && !is_in_a_run);
    }

    /// Forgets the latest packet.
    pub fn pop(&mut self) {
        self.packets.pop();
        self.begins.pop();
    }

    /// Returns the latest packet.
    pub fn last(&self) -> Option<Packet> {
        self.packets.last().copied()
    }

    /// Returns how many steps the run that is unbroken now has, or 0.
    pub fn progress(&self, secret: &Secret) -> usize {
        self.starts().last().and_then(|start| read(secret, &self.packets[start..])).map_or(0, |run| run.steps)
    }

    /// Returns whether the latest packet completes the sequence.
    pub fn is_promotion(&self, secret: &Secret) -> bool {
        self.starts().last().is_some_and(|start| completes(secret, &self.packets[start..]))
    }

    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.begins.len()).filter(|at| self.begins[*at])
    }
}

/// Returns whether a stretch that begins with the first step is one run, and its last packet the last step.
pub fn completes(secret: &Secret, stretch: &[Packet]) -> bool {
    read(secret, stretch).is_some_and(|run| run.steps == secret.steps.len() && !run.ends_in_copy)
}

/// A stretch of history that is one unbroken attempt.
struct Run {
    steps: usize,
    ends_in_copy: bool,
}

/// Reads a stretch that begins with the first step as one attempt; `None` if it is broken.
fn read(secret: &Secret, stretch: &[Packet]) -> Option<Run> {
    let mut accepted = [0_usize; 16];
    let mut run = Run { steps: 1, ends_in_copy: false };
    for (at, packet) in stretch.iter().enumerate().skip(1) {
        let since = |earlier: usize| packet.at_ns - stretch[earlier].at_ns;
        if since(accepted[run.steps - 1]) > secret.step_timeout_ns || since(0) > secret.total_timeout_ns {
            return None;
        }
        run.ends_in_copy = accepted[..run.steps].iter().any(|step| is_copy(packet, &stretch[*step]));
        if run.ends_in_copy {
            continue;
        }
        if !is_step(&packet.knock, secret.steps.get(run.steps)?) {
            return None;
        }
        accepted[run.steps] = at;
        run.steps += 1;
    }
    Some(run)
}

fn is_copy(later: &Packet, earlier: &Packet) -> bool {
    let ticks = (later.at_ns >> 20) - (earlier.at_ns >> 20);
    later.knock == earlier.knock && (later.knock.proto.bit() == 1 || ticks <= COPY_TICKS)
}

fn is_step(knock: &Knock, step: &StepRule) -> bool {
    let is_size = step.conditions & StepRule::SIZE == 0 || knock.size == step.size;
    let is_id = step.conditions & StepRule::ID == 0 || knock.source_port == step.id;
    knock.proto.bit() == step.proto && knock.port == step.port && is_size && is_id
}
