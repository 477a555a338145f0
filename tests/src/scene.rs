//! What most tests begin with: a network, a real sshd on the server, and a gate in front of it.

use std::net::IpAddr;

use crate::{
    daemon::{Daemon, Gate},
    netns::{Family, Network, address},
    sshd::Sshd,
};

/// The sequence of [`guarded`].
pub const STEPS: [&str; 4] = ["tcp/20011", "udp/5017", "tcp/1490", "udp/7121"];

/// A configuration in guard mode whose door `ssh` hides tcp/22 behind [`STEPS`], with more lines for `[xdp]` and
/// for the door.
pub fn guarded(xdp: &str, door: &str) -> String {
    format!(
        "[xdp]\nmode = \"guard\"\n{xdp}\n[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nknock = {STEPS:?}\n{door}\n"
    )
}

/// A configuration in deny mode, whose door `ssh` opens some services to [`STEPS`] for a minute, with more lines for
/// `[xdp]`.
pub fn denying(xdp: &str, opens: &[&str]) -> String {
    format!(
        "[xdp]\nmode = \"deny\"\n{xdp}\n[[door]]\nname = \"ssh\"\nopens = {opens:?}\nknock = {STEPS:?}\nopen_for = \"1m\"\n"
    )
}

/// A network, an sshd and a gate; the gate goes first and the network last.
#[derive(Debug)]
pub struct Scene {
    /// The gate, on `srv0`.
    pub daemon: Daemon,
    /// The hidden sshd.
    pub sshd: Sshd,
    /// The server and the client, joined by link 0.
    pub network: Network,
}

impl Scene {
    /// Sets it up with one link, whose client is host 2.
    pub fn new(config: &str) -> Self {
        Self::on(Network::new(), config, &[])
    }

    /// Sets it up on a network, with arguments for the gate.
    pub fn on(network: Network, config: &str, args: &[&str]) -> Self {
        let sshd = Sshd::start(&network.server);
        let daemon = Gate::new(&network.server, &["srv0"]).config(config).args(args).start();
        Self { daemon, sshd, network }
    }

    /// The server's IPv4 address.
    pub fn server(&self) -> IpAddr {
        address(Family::V4, 0, 1)
    }

    /// One of the client's IPv4 addresses.
    pub fn host(&self, host: u8) -> IpAddr {
        address(Family::V4, 0, host)
    }

    /// Lets the client come from another of its addresses.
    pub fn be_host(&self, host: u8) {
        self.network.be_host("cli0", 0, host);
    }

    /// Panics unless the client can log in.
    pub fn assert_open(&self) {
        assert!(self.sshd.opens(&self.network.client, self.server()), "the door is shut");
    }

    /// Panics if the client can log in.
    pub fn assert_shut(&self) {
        assert!(!self.sshd.opens_soon(&self.network.client, self.server(), None), "the door is open");
    }
}
