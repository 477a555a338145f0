//! The ways to open a door, and what each sends to one address in one try.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    thread,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use knock_common::spa::packet::Datagram;

use super::{
    list::{List, ListError, Taken},
    packet::Packets,
    report::Console,
    rotating::Rotating,
    send::SendError,
    source::LetsIn,
};
use crate::{config::hosts, secret::SecretError, step::Step};

/// How a door is opened, with all that it takes.
pub(super) enum Way {
    Steps(Vec<Step>),
    Packet(Packets),
    Rotating(Rotating),
    List(List),
}

/// What one address is sent in one try.
pub(super) enum Shot {
    Steps(Vec<Step>),
    Packet { packet: Datagram, port: NonZeroU16, lets_in: LetsIn },
    OfTime { steps: Vec<Step>, time_step: u64 },
    OneTime(Taken),
}

impl Shot {
    /// Returns the steps, one for a packet.
    pub(super) fn steps(&self) -> Vec<Step> {
        match self {
            Self::Steps(steps) | Self::OfTime { steps, .. } | Self::OneTime(Taken { steps, .. }) => {
                steps.clone()
            }
            Self::Packet { port, .. } => vec![Step::Udp(*port)],
        }
    }

    /// Returns whom a packet lets in.
    pub(super) const fn lets_in(&self) -> Option<LetsIn> {
        match self {
            Self::Packet { lets_in, .. } => Some(*lets_in),
            Self::Steps(_) | Self::OfTime { .. } | Self::OneTime(_) => None,
        }
    }
}

/// What would be sent.
pub(super) enum Preview {
    Steps(Vec<Step>),
    Packet(Datagram),
}

/// Why a way cannot be gone.
#[derive(Debug, thiserror::Error)]
pub(super) enum WayError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    List(#[from] ListError),
}

impl Way {
    /// Reads the secrets that it takes.
    pub(super) fn new(way: hosts::Way) -> Result<Self, WayError> {
        Ok(match way {
            hosts::Way::Knock(steps) => Self::Steps(steps),
            hosts::Way::Spa(spa) => Self::Packet(Packets::new(&spa)?),
            hosts::Way::Rotate(rotate) => Self::Rotating(Rotating::new(&rotate)?),
            hosts::Way::List(path) => {
                let list = List::new(&path)?;
                // What is wrong with it is said before anything is looked up.
                let _ = list.first()?;
                Self::List(list)
            }
        })
    }

    /// Returns what to send to an address now; waits for the next time step where this one's sequence is used. `is_first` while
    /// nothing was sent in this try.
    pub(super) fn next(
        &self,
        to: SocketAddr,
        is_first: bool,
        delay: Duration,
        console: &Console,
    ) -> Result<Shot, SendError> {
        match self {
            Self::Steps(steps) => Ok(Shot::Steps(steps.clone())),
            Self::Packet(packets) => {
                let (packet, lets_in) = made(packets, to)?;
                Ok(Shot::Packet { packet, port: packets.port, lets_in })
            }
            Self::Rotating(rotating) => {
                let turn = rotating.turn(unix_time(), delay, u64::from(!is_first));
                if !turn.wait.is_zero() {
                    console.waiting(turn.wait);
                    thread::sleep(turn.wait);
                }
                let steps = rotating.sequence(turn.time_step).ok_or(SendError::TooFewPorts)?;
                Ok(Shot::OfTime { steps, time_step: turn.time_step })
            }
            Self::List(list) => Ok(Shot::OneTime(list.take(Timestamp::now())?)),
        }
    }

    /// Returns what would be sent to an address now, one line of it, and uses up nothing.
    pub(super) fn preview(&self, to: SocketAddr, delay: Duration) -> Result<Preview, SendError> {
        let steps = match self {
            Self::Steps(steps) => steps.clone(),
            Self::Packet(packets) => return Ok(Preview::Packet(made(packets, to)?.0)),
            Self::Rotating(rotating) => {
                let turn = rotating.turn(unix_time(), delay, 0);
                rotating.sequence(turn.time_step).ok_or(SendError::TooFewPorts)?
            }
            Self::List(list) => list.first()?,
        };
        Ok(Preview::Steps(steps))
    }

    /// Takes note of whether anything of a shot was sent: what it used up is used then, and there again if not.
    pub(super) fn settle(&mut self, shot: &Shot, is_sent: bool) -> Result<(), ListError> {
        match (self, shot) {
            (Self::Rotating(rotating), Shot::OfTime { time_step, .. }) if is_sent => {
                rotating.mark(*time_step)
            }
            (Self::List(list), Shot::OneTime(taken)) if !is_sent => list.give_back(taken)?,
            (Self::Steps(_) | Self::Packet(_) | Self::Rotating(_) | Self::List(_), _) => {}
        }
        Ok(())
    }
}

fn made(packets: &Packets, to: SocketAddr) -> Result<(Datagram, LetsIn), SendError> {
    packets.make(to).map_err(|cause| SendError::new(Step::Udp(packets.port), &to, cause))
}

fn unix_time() -> Duration {
    // Before 1970 no gate can be in step, and the first time step is as good as any.
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}
