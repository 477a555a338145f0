//! One knock: one packet from a fresh socket, so that each has its own source port and nothing that comes
//! back for one can be taken for an answer to another.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{address::shown, echo, list::ListError};
use crate::step::Step;

/// What came back for a knock while its socket was open. All of these are a knock that was sent.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing is waited for: UDP and echo requests.
    NotAwaited,
    /// Nothing, as a filtered port or a gate in deny mode.
    Silence,
    /// A TCP reset, as every closed port.
    Refused,
    /// A listener took the connection, which is closed again at once.
    Accepted,
    /// An ICMP error: a firewall that rejects, or a router that knows no way.
    Rejected(io::Error),
}

/// Why a knock did not leave this machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{step} to {to}: this machine has no route there ({cause}); check the address, or use -4 or -6")]
    NoRoute { step: Step, to: String, cause: io::Error },
    #[error(
        "{step} to {to}: {cause}; a firewall rule of this machine forbids it, or this is a broadcast address"
    )]
    Forbidden { step: Step, to: String, cause: io::Error },
    #[error("{step} to {to}: too long for one packet, and a fragment is never a knock: use a smaller size")]
    TooLong { step: Step, to: String },
    #[error(
        "{step}: this user may not send echo requests; allow everyone to, with `sysctl -w \
         net.ipv4.ping_group_range=\"0 2147483647\"`, or run as root (CAP_NET_RAW)"
    )]
    EchoPermission { step: Step },
    #[error(
        "{step}: this id cannot be sent without root ({cause}); use another id, or run as root (CAP_NET_RAW)"
    )]
    EchoId { step: Step, cause: io::Error },
    #[error("{step} to {to}: {cause}")]
    Other { step: Step, to: String, cause: io::Error },
    #[error("the range of ports is too narrow for a sequence: give a wider one, here and on the server")]
    TooFewPorts,
    #[error(transparent)]
    List(#[from] ListError),
}

impl SendError {
    pub(super) fn new(step: Step, to: &SocketAddr, cause: io::Error) -> Self {
        let to = shown(to);
        let kind = cause.kind();
        if matches!(kind, io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) {
            return Self::NoRoute { step, to, cause };
        }
        if kind == io::ErrorKind::PermissionDenied {
            return Self::Forbidden { step, to, cause };
        }
        if cause.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
            return Self::TooLong { step, to };
        }
        Self::Other { step, to, cause }
    }
}

/// Sends `step` to `to`. A TCP step then waits for an answer, at most `wait`, before its socket is closed.
pub(super) fn knock(step: Step, to: SocketAddr, wait: Duration) -> Result<Answer, SendError> {
    let sent = match step {
        Step::Tcp(port) => syn(with_port(to, port), wait),
        Step::Udp(port) => datagram(with_port(to, port)),
        Step::Icmp { size, id } => {
            let socket = echo::open(&to, id).map_err(|error| match error {
                echo::OpenError::Permission => SendError::EchoPermission { step },
                echo::OpenError::Id(cause) => SendError::EchoId { step, cause },
                echo::OpenError::Other(cause) => SendError::new(step, &to, cause),
            })?;
            echo::request(&socket, to, size, id).map(|()| Answer::NotAwaited)
        }
    };
    sent.map_err(|cause| SendError::new(step, &to, cause))
}

/// Longest that an unanswered TCP socket is kept. The kernel retransmits a SYN after 1 s (RFC 6298, section
/// 2.1) unless the socket is gone by then; a gate ignores the copy, but it is not needed either.
const SYN_HOLD: Duration = Duration::from_millis(900);

fn syn(to: SocketAddr, wait: Duration) -> io::Result<Answer> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // An error here is ours and nothing was sent; one that poll finds later came from the network.
    match socket.connect(&to.into()) {
        Ok(()) => return Ok(Answer::Accepted),
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(Answer::Refused),
        Err(error) => return Err(error),
    }
    if !answered(&socket, wait.min(SYN_HOLD))? {
        return Ok(Answer::Silence);
    }
    Ok(match socket.take_error()? {
        None => Answer::Accepted,
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => Answer::Refused,
        Some(error) => Answer::Rejected(error),
    })
}

fn answered(socket: &Socket, wait: Duration) -> io::Result<bool> {
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    let events = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], wait)?;
    Ok(events > 0)
}

/// One byte, as the stock client sends: a gate takes any length, but some middleboxes drop an empty datagram.
/// The socket stays unconnected, so an ICMP error for it is never reported.
fn datagram(to: SocketAddr) -> io::Result<Answer> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)?.send_to(&[0], to)?;
    Ok(Answer::NotAwaited)
}

/// Returns an address with this port.
pub(super) fn with_port(mut to: SocketAddr, port: NonZeroU16) -> SocketAddr {
    to.set_port(port.get());
    to
}
