//! Whether the door opened: a TCP connection to the hidden service, closed as soon as it stands.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    num::NonZeroU16,
    time::Duration,
};

/// What the hidden service answered.
#[derive(Debug)]
pub(super) enum Probe {
    /// It took the connection.
    Open,
    /// A TCP reset.
    Refused,
    /// Nothing in time.
    Silent(Duration),
    /// Anything else, such as an ICMP error.
    Failed(io::Error),
}

impl Probe {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Refused | Self::Silent(_) | Self::Failed(_) => false,
        }
    }
}

/// Tries to connect to `port` of `to`, for at most `timeout`.
pub(super) fn probe(mut to: SocketAddr, port: NonZeroU16, timeout: Duration) -> Probe {
    to.set_port(port.get());
    let Err(error) = TcpStream::connect_timeout(&to, timeout) else { return Probe::Open };
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Probe::Refused;
    }
    if error.kind() == io::ErrorKind::TimedOut {
        return Probe::Silent(timeout);
    }
    Probe::Failed(error)
}
