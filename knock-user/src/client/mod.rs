//! The verb `xdp-knock knock HOST STEP...`: sends a sequence with plain sockets and, when asked, tells
//! whether the door opened. It never stays silent about a knock that did not leave the machine.
//!
//! Plain blocking calls on purpose: one packet at a time, in order, is the whole job.

#![deny(unsafe_code)]

mod address;
mod args;
mod echo;
mod hint;
mod list;
mod packet;
mod plan;
mod profile;
mod report;
mod rotating;
mod send;
mod sequence;
mod source;
mod verify;
mod way;
mod way_args;

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime},
};

pub use args::{Args, StepArg, VerifyPort, Word};
use list::Taken;
use plan::Plan;
use report::{Console, Outcome};
use sequence::Broken;
use way::{Preview, Shot};
pub use way_args::WayArgs;

use crate::{exit, secret::hex, step::Step};

/// How `knock` ended, as the exit status that scripts test for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The sequence went out, and with `--verify` the door is open on at least one address.
    Done,
    /// No address got the whole sequence.
    Failed,
    /// Nothing was sent, since the command line does not say what.
    Usage,
    /// The sequence went out and the door is still shut.
    StillShut,
    /// Nothing was sent, since something is wrong in the profile, or in a list of one-time sequences.
    BadProfile,
}

impl Exit {
    /// Returns the exit status: 0, 1, 2, 4 or 78.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => exit::FAILED,
            Self::Usage => exit::USAGE,
            Self::StillShut => exit::SHUT,
            Self::BadProfile => exit::BAD_CONFIG,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Pause before the first retry. A gate takes a like UDP or ICMP step within 1 s for a duplicate, and a SYN is
/// retransmitted after 1 s (RFC 6298, section 2.1): both are over by then.
const FIRST_PAUSE: Duration = Duration::from_millis(1500);
/// Longest pause before one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Knocks as the command line says, prints results and errors, and returns how it ended.
pub fn run(args: &Args) -> Exit {
    let console = Console::new(args);
    let mut plan = match Plan::new(args, &mut |warning| console.warn(warning)) {
        Ok(plan) => plan,
        Err(error) => {
            console.error(&error.text);
            return error.exit;
        }
    };
    if args.dry_run {
        return show(&plan, &console);
    }
    let mut tries = 1;
    let mut outcomes = knock_all(&mut plan, &console);
    while tries <= plan.retry && exit_of(&outcomes) == Exit::StillShut {
        let pause = pause_before(tries);
        console.retrying(tries, plan.retry, pause);
        thread::sleep(pause);
        outcomes = knock_all(&mut plan, &console);
        tries += 1;
    }
    let exit = exit_of(&outcomes);
    console.finish(args, &plan.way, &outcomes, tries, exit);
    exit
}

/// Each pause is twice the one before: what is only slow is met early, what is down is not hammered.
fn pause_before(retry: u32) -> Duration {
    let doublings = retry.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Prints what would be sent to each address, and sends nothing.
fn show(plan: &Plan, console: &Console) -> Exit {
    for &to in &plan.targets {
        match plan.way.preview(unix_time(), to, plan.delay) {
            Ok(Preview::Packet(packet)) => console.dry(&hex(packet.bytes())),
            Ok(Preview::Steps(steps)) => console.dry(&format!("{}: {}", address::shown(&to), words(&steps))),
            Err(error) => {
                console.error(&format!("nothing to send to {}: {error}", address::shown(&to)));
                return Exit::Failed;
            }
        }
    }
    Exit::Done
}

fn words(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
}

/// One try: every address in turn is knocked on and then tried, before the next one is knocked.
fn knock_all(plan: &mut Plan, console: &Console) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for to in plan.targets.clone() {
        let is_first = !outcomes.iter().any(Outcome::is_sent);
        let mut outcome = knock(plan, to, is_first, console);
        console.sent(&outcome);
        if let (Some(port), None) = (plan.verify, &outcome.broken) {
            outcome.door = Some(try_door(to, port, plan.timeout, console));
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn try_door(
    to: SocketAddr,
    port: NonZeroU16,
    timeout: Duration,
    console: &Console,
) -> (NonZeroU16, verify::Probe) {
    let probe = verify::probe(to, port, timeout);
    console.tried(to, port, &probe);
    (port, probe)
}

fn knock(plan: &mut Plan, to: SocketAddr, is_first: bool, console: &Console) -> Outcome {
    let shot = match plan.way.next(unix_time(), to, is_first, plan.delay, console) {
        Ok(shot) => shot,
        Err(cause) => return Outcome::new(to, Vec::new(), Some(Broken { sent: 0, cause })),
    };
    let mut seen = |step, answer: &_| console.knocked(to, step, answer);
    let sent = match &shot {
        Shot::Packet { packet, port, .. } => sequence::send_packet(to, *port, packet, plan.delay, &mut seen),
        Shot::Steps(steps) | Shot::OfTime { steps, .. } | Shot::OneTime(Taken { steps, .. }) => {
            sequence::send(to, steps, plan.delay, &mut seen)
        }
    };
    let mut outcome = Outcome::new(to, shot.steps(), sent.err());
    outcome.lets_in = shot.lets_in().filter(|_| outcome.is_sent());
    if let Err(error) = plan.way.settle(&shot, outcome.is_sent()) {
        console.error(&error.to_string());
    }
    outcome
}

fn unix_time() -> Duration {
    // Before 1970 no gate can be in step, and the first time step is as good as any.
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// One address that works is enough: a name often has an address that this machine cannot reach.
fn exit_of(outcomes: &[Outcome]) -> Exit {
    if outcomes.iter().all(|outcome| outcome.broken.is_some()) {
        return Exit::Failed;
    }
    let mut doors = outcomes.iter().filter_map(|outcome| outcome.door.as_ref()).peekable();
    if doors.peek().is_none() || doors.any(|(_, probe)| probe.is_open()) {
        return Exit::Done;
    }
    Exit::StillShut
}

#[cfg(test)]
mod tests;
