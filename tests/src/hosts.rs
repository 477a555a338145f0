//! Who is who in tests of the daemon: a server, a friend who knows the secret, and a stranger behind the same link.

use std::net::IpAddr;

use crate::netns::{Family, Network, address};

/// Returns the server's address.
pub fn server() -> IpAddr {
    address(Family::V4, 0, 1)
}

/// Returns the address of the client who knocks.
pub fn friend() -> IpAddr {
    address(Family::V4, 0, 2)
}

/// Returns the address of a client who does not.
pub fn stranger() -> IpAddr {
    address(Family::V4, 0, 3)
}

/// Returns a network of these three.
pub fn network() -> Network {
    let network = Network::new();
    network.add_host("cli0", 0, 3);
    network
}
