//! Small services that answer with what they are sent.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    netns::Namespace,
    program::{self, run},
    session::Session,
};

const WORD: &str = "anyone-in";

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A service that answers with what it is sent, on one port; it ends when dropped.
#[derive(Debug)]
pub struct Echo {
    server: Server,
    proto: Proto,
    port: u16,
}

#[derive(Debug)]
enum Server {
    Socat(Child),
    /// A thread with a socket, and what tells it to end.
    Socket(Arc<AtomicBool>),
}

impl Echo {
    /// Starts a socat and waits until it listens, over IPv4.
    pub fn start(namespace: &Namespace, proto: Proto, port: u16) -> Self {
        let server = match proto {
            Proto::Tcp => socat(namespace, &format!("TCP4-LISTEN:{port},fork,reuseaddr"), "-Hltn", port),
            Proto::Udp => socat(namespace, &format!("UDP4-RECVFROM:{port},fork"), "-Hlun", port),
        };
        Self { server, proto, port }
    }

    /// Starts one for conversations of any length, over IPv4 and IPv6. A socat that forks for each datagram now and then
    /// loses one of two that come at once, so over UDP it is a socket.
    pub fn start_dual(namespace: &Namespace, proto: Proto, port: u16) -> Self {
        let server = match proto {
            Proto::Tcp => {
                let listen = format!("TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0");
                socat(namespace, &listen, "-Hltn", port)
            }
            Proto::Udp => socket(namespace, port),
        };
        Self { server, proto, port }
    }

    /// Returns whether it answers a client within a second.
    pub fn answers(&self, from: &Namespace, server: IpAddr) -> bool {
        let line = format!("printf {WORD} | socat -t1 -T1 - {}", self.at(server, ""));
        run(from.bounded("sh").args(["-c", &line])).stdout == WORD
    }

    /// Opens a conversation with it; from a port of the client's choice, or from any.
    pub fn session(&self, from: &Namespace, server: IpAddr, source_port: Option<u16>) -> Session {
        let port = source_port.map_or_else(String::new, |port| format!(",sourceport={port}"));
        let mut socat = from.command("socat");
        socat.arg("-").arg(self.at(server, &port));
        Session::spawn(socat)
    }

    fn at(&self, server: IpAddr, more: &str) -> String {
        let proto = match self.proto {
            Proto::Tcp => "TCP",
            Proto::Udp => "UDP",
        };
        let wait = if self.proto == Proto::Tcp { ",connect-timeout=1" } else { "" };
        let family = if server.is_ipv6() { "6" } else { "4" };
        format!("{proto}{family}:{}{wait}{more}", SocketAddr::new(server, self.port))
    }
}

fn socat(namespace: &Namespace, listen: &str, kind: &str, port: u16) -> Server {
    let mut socat = namespace.command("socat");
    let child = socat.args([listen, "PIPE"]).stdin(Stdio::null()).spawn().expect("socat is installed");
    program::poll(&format!("socat {listen}"), Duration::from_secs(10), || {
        namespace.run(&format!("ss {kind}")).contains(&format!(":{port} ")).then_some(())
    });
    Server::Socat(child)
}

fn socket(namespace: &Namespace, port: u16) -> Server {
    let socket = namespace.within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while !over.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
            // Whoever sent it may be gone.
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
    Server::Socket(is_over)
}

impl Drop for Echo {
    fn drop(&mut self) {
        match &mut self.server {
            // It may have ended by itself.
            Server::Socat(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Server::Socket(is_over) => is_over.store(true, Ordering::Relaxed),
        }
    }
}
