//! The verb `xdp-knock knock HOST STEP...`: sends a sequence with plain sockets and, when asked, tells
//! whether the door opened. It never stays silent about a knock that did not leave the machine.
//!
//! Plain blocking calls on purpose: one packet at a time, in order, is the whole job.

#![deny(unsafe_code)]

mod address;
mod args;
mod echo;
mod packet;
mod report;
mod send;
mod sequence;
mod source;
mod verify;

use std::{net::SocketAddr, process::ExitCode, thread, time::Duration};

pub use args::{Args, StepArg, VerifyPort};
pub use packet::PacketArgs;
use packet::Packets;
use report::{Console, Outcome};

use crate::{secret::hex, step::Step};

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
}

impl Exit {
    /// Returns the exit status: 0, 1, 2 or 4.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::StillShut => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Pause before a sequence is sent again. A gate takes a like UDP or ICMP step within 1 s for a duplicate, and
/// a SYN is retransmitted after 1 s (RFC 6298, section 2.1): both are over by then.
const RETRY_PAUSE: Duration = Duration::from_millis(1500);

/// Knocks as the command line says, prints results and errors, and returns how it ended.
pub fn run(args: &Args) -> Exit {
    let console = Console::new(args);
    if args.steps.is_empty() && !args.packet.spa {
        console.error(&format!(
            "no step to knock on {host}: give the sequence, as in `xdp-knock knock {host} tcp/33817 udp/9032 \
             'icmp/echo?size=172'`",
            host = args.host
        ));
        return Exit::Usage;
    }
    let prepared = Packets::new(&args.packet).map_err(|error| error.to_string()).and_then(|packets| {
        Ok((packets, address::resolve(&args.host, args.family()).map_err(|error| error.to_string())?))
    });
    let (packets, targets) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            console.error(&error);
            return Exit::Failed;
        }
    };
    if let (true, Some(packets)) = (args.packet.dry_run, &packets) {
        return show(packets, &targets, &console);
    }

    let mut tries = 1;
    let mut outcomes = knock_all(args, packets.as_ref(), &targets, &console);
    while tries <= args.retry && exit_of(&outcomes) == Exit::StillShut {
        console.retrying(tries, args.retry, RETRY_PAUSE);
        thread::sleep(RETRY_PAUSE);
        outcomes = knock_all(args, packets.as_ref(), &targets, &console);
        tries += 1;
    }
    let exit = exit_of(&outcomes);
    console.finish(args, &outcomes, tries, exit);
    exit
}

/// Prints the packet for each address, and sends none.
fn show(packets: &Packets, targets: &[SocketAddr], console: &Console) -> Exit {
    for &to in targets {
        match packets.make(to) {
            Ok((packet, _)) => console.packet(&hex(packet.bytes())),
            Err(error) => {
                console.error(&format!("no packet for {}: {error}", address::shown(&to)));
                return Exit::Failed;
            }
        }
    }
    Exit::Done
}

/// One round: every address in turn gets the sequence and is then tried, before the next one is knocked.
fn knock_all(
    args: &Args,
    packets: Option<&Packets>,
    targets: &[SocketAddr],
    console: &Console,
) -> Vec<Outcome> {
    let steps = packets.map_or_else(|| args.sequence(), |packets| vec![Step::Udp(packets.port)]);
    let knock_one = |&to: &SocketAddr| {
        let mut seen = |step, answer: &_| console.knocked(to, step, answer);
        let sent = match packets {
            Some(packets) => sequence::send_packet(to, packets, args.delay, &mut seen).map(Some),
            None => sequence::send(to, &steps, args.delay, &mut seen).map(|()| None),
        };
        let (lets_in, broken) = sent.map_or_else(|broken| (None, Some(broken)), |lets_in| (lets_in, None));
        let mut outcome = Outcome { to, steps: steps.clone(), lets_in, broken, door: None };
        console.sent(&outcome);
        if let (Some(VerifyPort(port)), None) = (args.verify, &outcome.broken) {
            let probe = verify::probe(to, port, args.timeout);
            console.tried(to, port, &probe);
            outcome.door = Some((port, probe));
        }
        outcome
    };
    targets.iter().map(knock_one).collect()
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
