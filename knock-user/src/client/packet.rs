//! One packet instead of a sequence: what `--spa` sends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
    time::{Duration, SystemTime},
};

use knock_common::{
    abi::Address,
    door::door_id,
    spa::{
        key::SpaKey,
        packet::{Datagram, Request},
    },
};

use super::source::LetsIn;
use crate::secret::{self, Place};

/// The options of a single packet.
#[derive(Clone, Debug, clap::Args)]
pub struct PacketArgs {
    /// Send one packet that proves who you are, instead of a sequence.
    #[arg(long, conflicts_with = "steps", requires_all = ["key", "server", "door"])]
    pub spa: bool,

    /// The secret: a file that you alone can read, `fd:N`, or `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "spa")]
    pub key: Option<Place>,

    /// The name that the server is configured with ([spa] identity).
    #[arg(long, value_name = "NAME", requires = "spa")]
    pub server: Option<String>,

    /// The door to open.
    #[arg(long, value_name = "NAME", requires = "spa")]
    pub door: Option<String>,

    /// The UDP port that the door listens on.
    #[arg(long, value_name = "PORT", default_value = "62201", requires = "spa")]
    pub port: NonZeroU16,

    /// How long to be let in, if not as long as the door gives; the server may have a limit.
    #[arg(long = "for", value_name = "DUR", value_parser = seconds, requires = "spa")]
    pub open_for: Option<Duration>,

    /// Your address as the server sees it; this machine's own if that is a public one.
    #[arg(long, value_name = "ADDRESS", requires = "spa", conflicts_with = "nat")]
    pub source: Option<IpAddr>,

    /// Let in whoever the packet comes from, as behind a NAT; the key must be allowed to ask for that.
    #[arg(long, requires = "spa")]
    pub nat: bool,

    /// Print the packet in hex instead of sending it.
    #[arg(long, requires = "spa")]
    pub dry_run: bool,
}

/// Whole seconds are what a packet has room for.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.as_secs() == 0 || duration.subsec_nanos() != 0 || u32::try_from(duration.as_secs()).is_err() {
        return Err("give whole seconds, from 1s on".to_owned());
    }
    Ok(duration)
}

/// Whom a packet asks to let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Named(IpAddr),
    Sender,
    /// This machine's own address if it is a public one, else whoever sends the packet.
    Found,
}

/// What makes packets for one door of one server.
pub(super) struct Packets {
    key: SpaKey,
    seconds: u32,
    door: u64,
    server: u64,
    /// Where they are sent to.
    pub(super) port: NonZeroU16,
    whom: Whom,
}

impl Packets {
    /// Reads the secret; `None` unless a packet is asked for.
    pub(super) fn new(args: &PacketArgs) -> Result<Option<Self>, secret::SecretError> {
        // The command line has all three or none.
        let (true, Some(key), Some(server), Some(door)) = (args.spa, &args.key, &args.server, &args.door)
        else {
            return Ok(None);
        };
        let whom = match args.source {
            Some(address) => Whom::Named(address),
            None if args.nat => Whom::Sender,
            None => Whom::Found,
        };
        let seconds = args.open_for.map_or(0, |wanted| u32::try_from(wanted.as_secs()).unwrap_or(u32::MAX));
        let (door, server) = (door_id(door.as_bytes()), door_id(server.as_bytes()));
        Ok(Some(Self { key: secret::read(key)?, seconds, door, server, port: args.port, whom }))
    }

    /// Makes a packet for an address of the server, and says whom it lets in; each has a higher counter than the one before.
    pub(super) fn make(&self, to: SocketAddr) -> io::Result<(Datagram, LetsIn)> {
        let since = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
        let lets_in = match self.whom {
            Whom::Named(address) => LetsIn::Told(address),
            Whom::Sender => LetsIn::SenderAsTold,
            Whom::Found => LetsIn::found(own_address(self.with_port(to))?),
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

    /// Sends a packet to an address of the server, and says whom it lets in.
    pub(super) fn send(&self, to: SocketAddr) -> io::Result<LetsIn> {
        let (packet, lets_in) = self.make(to)?;
        let _ = socket_for(&to)?.send_to(packet.bytes(), self.with_port(to))?;
        Ok(lets_in)
    }

    fn with_port(&self, mut to: SocketAddr) -> SocketAddr {
        to.set_port(self.port.get());
        to
    }
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
    use super::*;

    fn packets(whom: Whom) -> Packets {
        let port = NonZeroU16::new(62201).unwrap();
        Packets { key: SpaKey::new(&[3; 32]), seconds: 9, door: 1, server: 2, port, whom }
    }

    fn request_of(whom: Whom) -> Request {
        packets(whom).make(to()).unwrap().0.request()
    }

    fn to() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_packet_says_what_it_was_asked_to() {
        let named: IpAddr = "2001:db8::7".parse().unwrap();
        let request = request_of(Whom::Named(named));

        assert_eq!((request.seconds, request.door, request.server), (9, 1, 2));
        assert_eq!(request.source, Some(octets(named)));
        assert_eq!(request_of(Whom::Sender).source, None);
    }

    #[test]
    fn an_address_that_others_do_not_see_is_not_named() {
        assert_eq!(request_of(Whom::Found).source, None);
    }

    #[test]
    fn each_packet_has_a_higher_counter() {
        let packets = packets(Whom::Sender);
        let counters: Vec<u64> = (0..3).map(|_| packets.make(to()).unwrap().0.request().counter).collect();

        assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
    }

    #[test]
    fn what_is_sent_is_one_datagram_of_that_length() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = NonZeroU16::new(server.local_addr().unwrap().port()).unwrap();

        Packets { port, ..packets(Whom::Sender) }.send(to()).unwrap();

        assert_eq!(server.recv(&mut [0; 200]).unwrap(), knock_common::spa::packet::LENGTH);
    }
}
