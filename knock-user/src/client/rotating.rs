//! Which time step's sequence is sent, and when: a gate takes each once, from one time step before to one after its own.

use std::time::Duration;

use knock_common::{door::door_id, rotate};

use crate::{
    config::hosts::Rotate,
    rotating::Shape,
    secret::{self, SecretError},
    step::Step,
};

/// Makes the sequences of one door, none twice.
pub(super) struct Rotating {
    rotation: rotate::Rotation,
    shape: Shape,
    /// The last time step whose sequence was sent.
    used: Option<u64>,
}

/// The time step to use, and how long to wait before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) time_step: u64,
    pub(super) wait: Duration,
}

impl Rotating {
    /// Reads the secret.
    pub(super) fn new(rotate: &Rotate) -> Result<Self, SecretError> {
        let key = secret::read(&rotate.key)?;
        let rotation = rotate::Rotation::new(&key, door_id(rotate.door.as_bytes()));
        Ok(Self { rotation, shape: rotate.shape, used: None })
    }

    /// Chooses for a sequence that begins at `now`, Unix time, with this pause after each step, and may be `ahead` time steps
    /// early.
    pub(super) fn turn(&self, now: Duration, delay: Duration, ahead: u64) -> Turn {
        let pauses = u32::from(self.shape.steps.saturating_sub(1));
        turn(now, self.shape.every, delay.saturating_mul(pauses), self.used, ahead)
    }

    /// Returns the sequence of a time step; `None` where the range has too few ports.
    pub(super) fn sequence(&self, time_step: u64) -> Option<Vec<Step>> {
        self.shape.sequence(&self.rotation, time_step)
    }

    /// Takes note that a sequence is sent.
    pub(super) const fn mark(&mut self, time_step: u64) {
        self.used = Some(time_step);
    }
}

/// The time step in which the middle of the sequence falls, since that leaves most of the gate's tolerance on either side; or
/// the first one that is not used, as soon as it is at most `ahead` of that.
fn turn(now: Duration, every: Duration, takes: Duration, used: Option<u64>, ahead: u64) -> Turn {
    let middle = now.saturating_add(takes / 2);
    let current = rotate::time_step(middle.as_secs(), every.as_secs()).unwrap_or_default();
    let time_step = used.map_or(current, |used| current.max(used.saturating_add(1)));
    let begins = Duration::from_secs(time_step.saturating_sub(ahead).saturating_mul(every.as_secs()));
    Turn { time_step, wait: begins.saturating_sub(middle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    fn at(now_ms: u64, takes_ms: u64, used: Option<u64>, ahead: u64) -> (u64, u128) {
        let millis = Duration::from_millis;
        let turn = turn(millis(now_ms), EVERY, millis(takes_ms), used, ahead);
        (turn.time_step, turn.wait.as_millis())
    }

    #[test]
    fn the_current_time_step_is_used_at_once() {
        for now_ms in [300_000, 315_000, 329_000] {
            assert_eq!(at(now_ms, 300, None, 0), (10, 0), "{now_ms}");
        }
        assert_eq!(at(330_000, 300, None, 0), (11, 0));
    }

    #[test]
    fn where_a_boundary_falls_into_the_sequence_the_larger_part_decides() {
        assert_eq!(at(329_800, 300, None, 0), (10, 0));
        assert_eq!(at(329_900, 300, None, 0), (11, 0));
        assert_eq!(at(329_900, 0, None, 0), (10, 0));
        assert_eq!(at(320_000, 40_000, None, 0), (11, 0));
    }

    #[test]
    fn a_used_time_step_is_never_used_again() {
        assert_eq!(at(315_000, 0, Some(10), 0), (11, 15_000));
        assert_eq!(at(315_000, 300, Some(10), 0), (11, 14_850));
        assert_eq!(at(331_000, 0, Some(10), 0), (11, 0));
        assert_eq!(at(315_000, 0, Some(11), 0), (12, 45_000));
        // Whose clock was set back.
        assert_eq!(at(15_000, 0, Some(10), 0), (11, 315_000));
    }

    #[test]
    fn another_address_may_have_the_next_time_step_early() {
        assert_eq!(at(315_000, 0, Some(10), 1), (11, 0));
        assert_eq!(at(315_000, 0, Some(11), 1), (12, 15_000));
        assert_eq!(at(315_000, 0, None, 1), (10, 0));
    }
}
