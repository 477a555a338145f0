//! Sequences that change with time: the steps of a door in one time step, from a secret that both sides have.
//!
//! The time step is Unix time over the door's period. Each step is drawn from its own code of the secret, so that one that
//! was seen tells nothing of another. `docs/rotating.md` has the derivation and vectors.

use crate::{
    abi::Proto,
    spa::{abi::KeyId, hmac::HmacKey, key::SpaKey},
};

/// Label of the key of rotating sequences.
const LABEL: &[u8] = b"xdp-knock rotate 1";
/// Draws for one step before a sequence is given up: with half of the range in use, all fail once in 2^64 sequences.
const TRIES: u8 = 64;

/// Makes the sequences of one door.
#[derive(Clone)]
pub struct Rotation {
    key: HmacKey,
    door: u64,
}

/// One step of such a sequence: always a port of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotatingStep {
    /// TCP or UDP, never ICMP.
    pub proto: Proto,
    /// The port.
    pub port: u16,
}

/// Ports that steps are drawn from, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest, not below the lowest.
    pub last: u16,
}

impl Rotation {
    /// Takes in a secret and a door, by [`crate::door::door_id`] of its name.
    #[must_use]
    pub fn new(key: &SpaKey, door: u64) -> Self {
        Self { key: key.sub_key(LABEL), door }
    }

    /// Returns what the floor of the door's time steps is known by: one for each secret and door, and no id of a key.
    #[must_use]
    pub fn floor(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = self.key.code(&self.door.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// Fills in the sequence of a time step, each port once; returns whether the range has ports enough.
    ///
    /// Both sides must come to the same sequence, so nothing that only one of them knows goes into it: where the server
    /// cannot use a port of it (a listener, a hidden service), that time step has none.
    #[must_use]
    pub fn fill(&self, time_step: u64, ports: Ports, steps: &mut [RotatingStep]) -> bool {
        for number in 0..steps.len() {
            let (before, rest) = steps.split_at_mut(number);
            let Some(place) = rest.first_mut() else { return false };
            let Ok(number) = u8::try_from(number) else { return false };
            let mut draws = (0..TRIES).map(|again| self.draw(time_step, number, again, ports));
            let Some(step) = draws.find(|step| before.iter().all(|other| other.port != step.port)) else {
                return false;
            };
            *place = step;
        }
        true
    }

    /// Draws a step: the code of door, time step, number of the step and of the draw.
    fn draw(&self, time_step: u64, number: u8, again: u8, ports: Ports) -> RotatingStep {
        let mut message = [0; 18];
        let fields =
            self.door.to_be_bytes().into_iter().chain(time_step.to_be_bytes()).chain([number, again]);
        for (place, byte) in message.iter_mut().zip(fields) {
            *place = byte;
        }
        let [a, b, c, d, e, f, g, h, proto, ..] = self.key.code(&message);
        // 64 bits over at most 2^16 ports: no port is likelier than another by more than one part in 2^48.
        let count = u64::from(ports.last.saturating_sub(ports.first)).saturating_add(1);
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]).checked_rem(count).unwrap_or_default();
        let port = ports.first.saturating_add(u16::try_from(drawn).unwrap_or_default());
        RotatingStep { proto: if proto & 1 == 0 { Proto::Tcp } else { Proto::Udp }, port }
    }
}

/// Returns the time step of an instant of Unix time; both in the same unit.
#[must_use]
pub const fn time_step(unix: u64, period: u64) -> Option<u64> {
    unix.checked_div(period)
}
