//! One packet instead of a sequence.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::{NonZeroU16, NonZeroU32},
    time::SystemTime,
};

use knock_common::{
    abi::Address,
    door::door_id,
    spa::{
        key::SpaKey,
        packet::{Datagram, Request},
    },
};

use super::{send::with_port, source::LetsIn};
use crate::{
    config::hosts::{Spa, Whom},
    secret::{self, SecretError},
};

/// Where doors listen unless they are told otherwise.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(62_201).unwrap();

/// What makes packets for one door of one server.
pub(super) struct Packets {
    key: SpaKey,
    seconds: u32,
    door: u64,
    server: u64,
    /// Where they are to be sent to.
    pub(super) port: NonZeroU16,
    /// Whom they let in, if that is not to be found out.
    whom: Option<Whom>,
}

impl Packets {
    /// Reads the secret.
    pub(super) fn new(spa: &Spa) -> Result<Self, SecretError> {
        let key = secret::read(&spa.key)?;
        let (door, server) = (door_id(spa.door.as_bytes()), door_id(spa.server.as_bytes()));
        let seconds = spa.open_for.map_or(0, NonZeroU32::get);
        Ok(Self { key, seconds, door, server, port: spa.port.unwrap_or(DEFAULT_PORT), whom: spa.whom })
    }

    /// Makes a packet for an address of the server, and says whom it lets in; each has a higher counter than the one before.
    pub(super) fn make(&self, to: SocketAddr) -> io::Result<(Datagram, LetsIn)> {
        let since = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
        let lets_in = match self.whom {
            Some(Whom::Named(address)) => LetsIn::Told(address),
            Some(Whom::Sender) => LetsIn::SenderAsTold,
            None => LetsIn::found(own_address(with_port(to, self.port))?),
        };
        let request = Request {
            seconds: self.seconds,
            door: self.door,
            counter: u64::try_from(since.as_nanos()).map_err(io::Error::other)?,
            server: self.server,
            source: lets_in.address().map(octets),
        };
        Ok((Datagram::seal(&request, &self.key), lets_in))
    }
}

/// Sends a packet to a port of an address.
pub(super) fn send(packet: &Datagram, to: SocketAddr, port: NonZeroU16) -> io::Result<()> {
    socket_for(&to)?.send_to(packet.bytes(), with_port(to, port)).map(drop)
}

fn socket_for(to: &SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    })
}

/// Returns the address that this machine would send from; nothing is sent.
fn own_address(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = socket_for(&to)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

fn octets(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn packets(whom: Option<Whom>) -> Packets {
        let port = NonZeroU16::new(62201).unwrap();
        Packets { key: SpaKey::new(&[3; 32]), seconds: 9, door: 1, server: 2, port, whom }
    }

    fn request_of(whom: Option<Whom>) -> Request {
        packets(whom).make(to()).unwrap().0.request()
    }

    fn to() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_packet_says_what_it_was_asked_to() {
        let named: IpAddr = "2001:db8::7".parse().unwrap();
        let request = request_of(Some(Whom::Named(named)));

        assert_eq!((request.seconds, request.door, request.server), (9, 1, 2));
        assert_eq!(request.source, Some(octets(named)));
        assert_eq!(request_of(Some(Whom::Sender)).source, None);
    }

    #[test]
    fn an_address_that_others_do_not_see_is_not_named() {
        assert_eq!(request_of(None).source, None);
    }

    #[test]
    fn each_packet_has_a_higher_counter() {
        let packets = packets(Some(Whom::Sender));
        let counters: Vec<u64> = (0..3).map(|_| packets.make(to()).unwrap().0.request().counter).collect();

        assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
    }

    #[test]
    fn what_is_sent_is_one_datagram_of_that_length() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = NonZeroU16::new(server.local_addr().unwrap().port()).unwrap();

        send(&packets(Some(Whom::Sender)).make(to()).unwrap().0, to(), port).unwrap();

        assert_eq!(server.recv(&mut [0; 200]).unwrap(), knock_common::spa::packet::LENGTH);
    }
}
