//! ICMP and ICMPv6 echo requests: from a socket any user may open where the system allows it
//! (icmp(7), `ping_group_range`, which rules IPv6 too), else from a raw one.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Why there is no socket for an echo request.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Neither kind of socket is open to this user.
    Permission,
    /// The id cannot be had without a raw socket, and that is not open to this user.
    Id(io::Error),
    Other(io::Error),
}

/// Returns a socket from which an echo request with this id can be sent.
pub(super) fn open(to: &SocketAddr, id: Option<u16>) -> Result<Socket, OpenError> {
    let (domain, protocol) = match to {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let for_all = Socket::new(domain, Type::DGRAM, Some(protocol));
    let bound = for_all.and_then(|socket| claim_id(&socket, to, id).map(|()| socket));
    let Err(refused) = bound else { return bound.map_err(OpenError::Other) };
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok(socket),
        Err(raw) if raw.kind() != io::ErrorKind::PermissionDenied => Err(OpenError::Other(raw)),
        Err(_) if refused.kind() == io::ErrorKind::PermissionDenied => Err(OpenError::Permission),
        Err(_) => Err(OpenError::Id(refused)),
    }
}

/// An unprivileged echo socket sends its "port" as the id, whatever the packet says (net/ipv4/ping.c), and
/// port 0 asks for a free one: so id 0 needs a raw socket.
fn claim_id(socket: &Socket, to: &SocketAddr, id: Option<u16>) -> io::Result<()> {
    let Some(id) = id else { return Ok(()) };
    if id == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an unprivileged echo socket takes 0 for any",
        ));
    }
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, id).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, id).into(),
    };
    socket.bind(&any.into())
}

/// Payload when the step names no size: what ping sends.
const DEFAULT_SIZE: u16 = 56;

/// Sends one echo request, whole or not at all: a gate never takes a fragment as a knock.
pub(super) fn request(
    socket: &Socket,
    mut to: SocketAddr,
    size: Option<u16>,
    id: Option<u16>,
) -> io::Result<()> {
    to.set_port(0);
    let id = match id {
        Some(id) => id,
        None => random_id()?,
    };
    let packet = packet(&to, id, size.unwrap_or(DEFAULT_SIZE));
    socket.connect(&to.into())?;
    match to {
        SocketAddr::V4(_) => fits(socket, packet.len())?,
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6DontFrag, &true)?,
    }
    socket.send(&packet)?;
    Ok(())
}

/// IPv4 has no safe option to forbid fragments, but a connected socket knows the MTU of its path.
fn fits(socket: &Socket, length: usize) -> io::Result<()> {
    const IPV4_HEADER: usize = 20;
    let mtu = getsockopt(socket, sockopt::IpMtu)?;
    if usize::try_from(mtu).is_ok_and(|mtu| IPV4_HEADER + length > mtu) {
        return Err(Errno::EMSGSIZE.into());
    }
    Ok(())
}

fn random_id() -> io::Result<u16> {
    let [_, _, high, low] = getrandom::u32().map_err(io::Error::other)?.to_be_bytes();
    Ok(u16::from_be_bytes([high, low]))
}

/// Type, code, checksum, id, sequence number 1, then zeros (RFC 792, RFC 4443 section 4.1).
fn packet(to: &SocketAddr, id: u16, size: u16) -> Vec<u8> {
    let kind = match to {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 128,
    };
    let [id_high, id_low] = id.to_be_bytes();
    let mut packet = vec![kind, 0, 0, 0, id_high, id_low, 0, 1];
    packet.resize(packet.len() + usize::from(size), 0);
    if to.is_ipv4() {
        // The ICMPv6 checksum covers the addresses, and the kernel fills it in (RFC 3542, section 3.1).
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // Section 3: the sum of these bytes is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_ipv4_echo_request_adds_up_whatever_its_size() {
        for size in [0, 1, 56, 172, 1472] {
            let packet = packet(&"192.0.2.7:0".parse().unwrap(), 0x1234, size);

            assert_eq!(packet.len(), 8 + usize::from(size));
            assert_eq!((packet[0], packet[1], &packet[4..8]), (8, 0, &[0x12, 0x34, 0, 1][..]));
            assert_eq!(checksum(&packet), 0);
        }
    }

    #[test]
    fn an_ipv6_echo_request_leaves_its_checksum_to_the_kernel() {
        let packet = packet(&"[2001:db8::7]:0".parse().unwrap(), 7, 4);

        assert_eq!(packet, [128, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0]);
    }
}
