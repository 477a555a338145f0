//! Small services that answer with what they are sent.

use std::{
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    netns::Namespace,
    program::{self, run},
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

/// A socat that answers with what it is sent, on one port.
#[derive(Debug)]
pub struct Echo {
    child: Child,
    proto: Proto,
    port: u16,
}

impl Echo {
    /// Starts it and waits until it listens.
    pub fn start(namespace: &Namespace, proto: Proto, port: u16) -> Self {
        let (listen, list) = match proto {
            Proto::Tcp => (format!("TCP4-LISTEN:{port},fork,reuseaddr"), "ss -Hltn"),
            Proto::Udp => (format!("UDP4-RECVFROM:{port},fork"), "ss -Hlun"),
        };
        let mut socat = namespace.command("socat");
        let child = socat.args([&listen, "PIPE"]).stdin(Stdio::null()).spawn().expect("socat is installed");
        program::poll(&format!("socat {listen}"), Duration::from_secs(10), || {
            namespace.run(list).contains(&format!(":{port} ")).then_some(())
        });
        Self { child, proto, port }
    }

    /// Returns whether it answers a client within a second.
    pub fn answers(&self, from: &Namespace, server: IpAddr) -> bool {
        let proto = match self.proto {
            Proto::Tcp => "TCP4",
            Proto::Udp => "UDP4",
        };
        let wait = if self.proto == Proto::Tcp { ",connect-timeout=1" } else { "" };
        let line = format!("printf {WORD} | socat -t1 -T1 - {proto}:{server}:{}{wait}", self.port);
        run(from.bounded("sh").args(["-c", &line])).stdout == WORD
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
