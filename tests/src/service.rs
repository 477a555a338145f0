//! Small services that answer with what they are sent.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    netns::Namespace,
    program::{self, run},
    session::Session,
};

const WORD: &str = "anyone-in";
/// Longest wait of a thread that is to end soon.
const BEAT: Duration = Duration::from_millis(20);

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
    /// A thread with a socket, others with connections, and what tells them all to end.
    Threads(Arc<AtomicBool>, Option<JoinHandle<()>>),
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

    /// Starts one for conversations of any length, over IPv4 and IPv6. It is no socat: one that forks for each datagram now
    /// and then loses one of two that come at once, and its children for connections that a gate cut never end.
    pub fn start_dual(namespace: &Namespace, proto: Proto, port: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let thread = match proto {
            Proto::Tcp => accept(namespace.within(|| TcpListener::bind(any)).expect("a free port"), &is_over),
            Proto::Udp => receive(namespace.within(|| UdpSocket::bind(any)).expect("a free port"), &is_over),
        };
        Self { server: Server::Threads(is_over, Some(thread)), proto, port }
    }

    /// Has clients come to another port, which somebody hands on to its own.
    #[must_use]
    pub fn reached_at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Returns whether it answers a client within a second, or else within another: the first may pass on a busy machine.
    pub fn answers(&self, from: &Namespace, server: IpAddr) -> bool {
        let line = format!("printf {WORD} | socat -t1 -T1 - {}", self.at(server, ""));
        (0..2).any(|_| run(from.bounded("sh").args(["-c", &line])).stdout == WORD)
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

fn receive(socket: UdpSocket, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
    socket.set_read_timeout(Some(BEAT)).expect("a time limit");
    let over = Arc::clone(is_over);
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while !over.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
            // Whoever sent it may be gone.
            let _ = socket.send_to(&datagram[..length], from);
        }
    })
}

fn accept(listener: TcpListener, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
    listener.set_nonblocking(true).expect("a listener of our own");
    let over = Arc::clone(is_over);
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => answer(stream, &over),
                Err(_) => thread::sleep(BEAT),
            }
        }
    })
}

fn answer(mut stream: TcpStream, is_over: &Arc<AtomicBool>) {
    let over = Arc::clone(is_over);
    thread::spawn(move || {
        stream.set_nonblocking(false).expect("a socket of our own");
        stream.set_read_timeout(Some(BEAT)).expect("a time limit");
        let mut piece = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            match stream.read(&mut piece) {
                Ok(length @ 1..) if stream.write_all(&piece[..length]).is_ok() => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(_) | Err(_) => return,
            }
        }
    });
}

impl Drop for Echo {
    fn drop(&mut self) {
        match &mut self.server {
            // It may have ended by itself.
            Server::Socat(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Server::Threads(is_over, thread) => {
                is_over.store(true, Ordering::Relaxed);
                // Its panic shows in what it did not answer.
                let _ = thread.take().map(JoinHandle::join);
            }
        }
    }
}
