//! A whole sequence to one address, in order, with a pause after each knock.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    thread,
    time::{Duration, Instant},
};

use knock_common::spa::packet::Datagram;

use super::{
    packet,
    send::{Answer, SendError, knock},
};
use crate::step::Step;

/// A sequence that stopped before its end.
#[derive(Debug)]
pub(super) struct Broken {
    /// How many steps had been sent.
    pub(super) sent: usize,
    /// What the next one met.
    pub(super) cause: SendError,
}

/// Sends `steps` to `to` and calls `seen` after each. The pause also follows the last one, so that what the
/// caller does next (try the door, start ssh) cannot overtake it.
pub(super) fn send(
    to: SocketAddr,
    steps: &[Step],
    delay: Duration,
    seen: &mut dyn FnMut(Step, &Answer),
) -> Result<(), Broken> {
    for (sent, &step) in steps.iter().enumerate() {
        let start = Instant::now();
        let answer = knock(step, to, delay).map_err(|cause| Broken { sent, cause })?;
        seen(step, &answer);
        thread::sleep(delay.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// Sends a packet to this port of `to`, with the same pause after it.
pub(super) fn send_packet(
    to: SocketAddr,
    port: NonZeroU16,
    packet: &Datagram,
    delay: Duration,
    seen: &mut dyn FnMut(Step, &Answer),
) -> Result<(), Broken> {
    let step = Step::Udp(port);
    let sent = packet::send(packet, to, port);
    sent.map_err(|cause| Broken { sent: 0, cause: SendError::new(step, &to, cause) })?;
    seen(step, &Answer::NotAwaited);
    thread::sleep(delay);
    Ok(())
}
