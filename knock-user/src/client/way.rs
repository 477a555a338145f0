//! The ways to open a door, and what each sends to one address in one try.

use std::{net::SocketAddr, num::NonZeroU16, thread, time::Duration};

use jiff::Timestamp;
use knock_common::spa::{key::SECRET, packet::Datagram};

use super::{
    list::{List, ListError, Taken},
    packet::Packets,
    report::Console,
    rotating::Rotating,
    send::SendError,
    source::LetsIn,
};
use crate::{
    config::hosts,
    secret::{Place, SecretError},
    step::Step,
};

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
    #[error(
        "a secret stands where the name of its file belongs, so others may have seen it: make a new one with `xdp-knock keygen`, \
         and name the file"
    )]
    SecretItself,
    #[error(transparent)]
    List(#[from] ListError),
}

impl Way {
    /// Reads the secrets that it takes.
    pub(super) fn new(way: hosts::Way) -> Result<Self, WayError> {
        Ok(match way {
            hosts::Way::Knock(steps) => Self::Steps(steps),
            hosts::Way::Spa(spa) => {
                names_a_file(&spa.key)?;
                Self::Packet(Packets::new(&spa)?)
            }
            hosts::Way::Rotate(rotate) => {
                names_a_file(&rotate.key)?;
                Self::Rotating(Rotating::new(&rotate)?)
            }
            hosts::Way::List(path) => {
                let list = List::new(&path)?;
                // What is wrong with it is said before anything is looked up.
                let _ = list.first()?;
                Self::List(list)
            }
        })
    }

    /// Returns what to send to an address at `now`, Unix time; waits for the next time step where this one's sequence is used.
    /// `is_first` while nothing was sent in this try.
    pub(super) fn next(
        &self,
        now: Duration,
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
                let turn = rotating.turn(now, delay, u64::from(!is_first));
                if !turn.wait.is_zero() {
                    console.waiting(turn.wait);
                    thread::sleep(turn.wait);
                }
                let steps = rotating.sequence(turn.time_step).ok_or(SendError::TooFewPorts)?;
                Ok(Shot::OfTime { steps, time_step: turn.time_step })
            }
            Self::List(list) => Ok(Shot::OneTime(list.take(time_of_day(now))?)),
        }
    }

    /// Returns what would be sent to an address at `now`, and uses up nothing.
    pub(super) fn preview(
        &self,
        now: Duration,
        to: SocketAddr,
        delay: Duration,
    ) -> Result<Preview, SendError> {
        let steps = match self {
            Self::Steps(steps) => steps.clone(),
            Self::Packet(packets) => return Ok(Preview::Packet(made(packets, to)?.0)),
            Self::Rotating(rotating) => {
                let turn = rotating.turn(now, delay, 0);
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

/// Refuses what is a secret by its looks before an error can repeat it.
fn names_a_file(place: &Place) -> Result<(), WayError> {
    let Place::File(path) = place else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_secret = name.len() == 2 * SECRET && name.iter().all(u8::is_ascii_hexdigit) && !path.exists();
    if is_secret { Err(WayError::SecretItself) } else { Ok(()) }
}

fn made(packets: &Packets, to: SocketAddr) -> Result<(Datagram, LetsIn), SendError> {
    packets.make(to).map_err(|cause| SendError::new(Step::Udp(packets.port), &to, cause))
}

/// Returns the time that a mark on a list shows.
fn time_of_day(now: Duration) -> Timestamp {
    Timestamp::UNIX_EPOCH.saturating_add(now).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{client::tests::parse, rotating::Shape};

    const EVERY: Duration = Duration::from_secs(3600);

    fn rotating() -> (tempfile::TempDir, Way) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpn.key");
        fs::write(&path, "ab".repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let shape = Shape { steps: 4, every: EVERY, ports: "10000-32767".parse().unwrap() };
        let rotate = hosts::Rotate { key: Place::File(path), door: "vpn".to_owned(), shape };
        (folder, Way::new(hosts::Way::Rotate(rotate)).unwrap())
    }

    fn next(way: &Way, hours: u32, is_first: bool) -> Shot {
        let (to, console) = ("192.0.2.7:0".parse().unwrap(), Console::new(&parse("-q h").unwrap()));
        way.next(EVERY * hours, to, is_first, Duration::ZERO, &console).unwrap()
    }

    fn time_step(shot: &Shot) -> u64 {
        let Shot::OfTime { steps, time_step } = shot else { panic!("no rotating sequence") };
        assert_eq!(steps.len(), 4);
        *time_step
    }

    #[test]
    fn a_second_address_and_a_later_try_never_get_a_used_time_step() {
        let (_folder, mut way) = rotating();
        let mut sent = Vec::new();
        // At once: the first address, the second one, and both when an hour and more has passed.
        for (hours, is_first) in [(100, true), (100, false), (102, true), (102, false)] {
            let shot = next(&way, hours, is_first);
            sent.push(time_step(&shot));
            way.settle(&shot, true).unwrap();
        }

        assert_eq!(sent, [100, 101, 102, 103]);
    }

    #[test]
    fn a_time_step_of_which_nothing_was_sent_is_there_again() {
        let (_folder, mut way) = rotating();
        let shot = next(&way, 100, true);
        way.settle(&shot, false).unwrap();

        assert_eq!(time_step(&next(&way, 100, true)), 100);
    }

    #[test]
    fn what_is_shown_is_what_would_be_sent() {
        let (_folder, way) = rotating();
        let to = "192.0.2.7:0".parse().unwrap();
        let Ok(Preview::Steps(shown)) = way.preview(EVERY * 100, to, Duration::ZERO) else {
            panic!("no steps")
        };

        assert_eq!(shown, next(&way, 100, true).steps());
    }

    #[test]
    fn a_mark_has_the_time_of_day() {
        assert_eq!(time_of_day(Duration::from_secs(1_764_144_000)).to_string(), "2025-11-26T08:00:00Z");
    }
}
