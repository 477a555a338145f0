//! Frames sent as they are on a device.

use std::os::fd::OwnedFd;

use crate::{flood, netns::Namespace};

/// A packet socket that only sends.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Opens one on a device of a namespace.
    pub fn new(namespace: &Namespace, device: &str) -> Self {
        Self(namespace.within(|| flood::packets_of(device)))
    }

    /// Sends a frame; returns whether the device took it.
    pub fn send(&self, frame: &[u8]) -> bool {
        flood::send(&self.0, frame)
    }
}
