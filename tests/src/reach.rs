//! Whether a datagram gets through the gate, told by real sockets behind it, one datagram at a time.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    netns::{Namespace, Network},
    program::poll,
};

/// A port that no door hides and no sequence has.
pub const OPEN: u16 = 7999;
/// How long a datagram may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Real sockets behind the gate, and senders before it.
#[derive(Debug)]
pub struct Reach<'a> {
    client: &'a Namespace,
    server: IpAddr,
    open: UdpSocket,
    services: Vec<(u16, UdpSocket)>,
}

impl<'a> Reach<'a> {
    /// Opens UDP services on ports of the server.
    pub fn new(network: &'a Network, server: IpAddr, ports: &[u16]) -> Self {
        let listen = |port: u16| {
            let socket = network.server.within(|| UdpSocket::bind(("0.0.0.0", port)));
            socket.unwrap_or_else(|error| panic!("udp/{port}: {error}"))
        };
        let services = ports.iter().map(|&port| (port, listen(port))).collect();
        let open = listen(OPEN);
        open.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        Self { client: &network.client, server, open, services }
    }

    /// Returns whether a datagram from an address of the client reaches a service. It is known to be lost when one sent
    /// after it, to a port that is open to all, has come.
    pub fn is_open(&self, source: IpAddr, port: u16) -> bool {
        let (_, service) = self.services.iter().find(|(known, _)| *known == port).expect("a known service");
        let socket = self.sender(source);
        let token = token();
        let deadline = Instant::now() + PATIENCE;
        // The first datagram on a way may wait for its neighbour's address and be passed by the second.
        service.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
        while Instant::now() < deadline {
            // The way may still be coming up: neither of the two need be there.
            let _ = socket.send_to(&token, (self.server, port));
            let _ = socket.send_to(&token, (self.server, OPEN));
            if holds(&self.open, token) {
                return holds(service, token);
            }
        }
        panic!("nothing from {source} reaches {} at all", self.server);
    }

    /// Waits until a service can be reached from an address.
    pub fn until_open(&self, source: IpAddr, port: u16) {
        poll(&format!("udp/{port} to open for {source}"), PATIENCE, || {
            self.is_open(source, port).then_some(())
        });
    }

    /// Waits until a service cannot be reached any more.
    pub fn until_shut(&self, source: IpAddr, port: u16) {
        poll(&format!("udp/{port} to shut for {source}"), PATIENCE, || {
            (!self.is_open(source, port)).then_some(())
        });
    }

    /// Sends a sequence of UDP knocks.
    pub fn knock(&self, source: IpAddr, steps: &[u16]) {
        let socket = self.sender(source);
        for step in steps {
            socket.send_to(b"k", (self.server, *step)).expect("a way to the server");
            // Two CPUs that have knocks of one source at once void the attempt.
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the server's address of a port.
    pub const fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server, port)
    }

    fn sender(&self, source: IpAddr) -> UdpSocket {
        let socket = self.client.within(|| UdpSocket::bind((source, 0)));
        socket.unwrap_or_else(|error| panic!("{source} is no address of the client: {error}"))
    }
}

/// Returns whether a socket has a datagram, among those that wait; takes all of them out.
fn holds(socket: &UdpSocket, token: [u8; 8]) -> bool {
    let mut buffer = [0; 64];
    while let Ok(length) = socket.recv(&mut buffer) {
        if buffer[..length] == token {
            return true;
        }
    }
    false
}

fn token() -> [u8; 8] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}
