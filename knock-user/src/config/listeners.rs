//! Which ports something on this machine listens on, read from `/proc/net`.

use std::{collections::HashSet, fs};

use crate::step::Step;

/// Socket states of the kernel's tables that wait for packets from anybody (include/net/tcp_states.h):
/// TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket shows.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// The local ports that are taken.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tcp: HashSet<u16>,
    udp: HashSet<u16>,
}

impl Listeners {
    /// Those of this machine and network namespace. A table that cannot be read counts as empty: the answer
    /// is advice, and elsewhere than on Linux there is none to give.
    pub(super) fn of_this_machine() -> Self {
        let read = |names: [&str; 2]| -> String {
            names.iter().filter_map(|name| fs::read_to_string(format!("/proc/net/{name}")).ok()).collect()
        };
        Self::from_tables(&read(["tcp", "tcp6"]), &read(["udp", "udp6"]))
    }

    pub(super) fn from_tables(tcp: &str, udp: &str) -> Self {
        let ports = |table: &str, state: &str| table.lines().filter_map(|line| port(line, state)).collect();
        Self { tcp: ports(tcp, TCP_LISTEN), udp: ports(udp, UDP_UNCONNECTED) }
    }

    /// Whether a packet that is this step would reach something that listens.
    pub(super) fn take(&self, step: Step) -> bool {
        match step {
            Step::Tcp(port) => self.tcp.contains(&port.get()),
            Step::Udp(port) => self.udp.contains(&port.get()),
            Step::Icmp { .. } => false,
        }
    }
}

/// The local port of a line `SLOT: ADDRESS:PORT ADDRESS:PORT STATE ...`, in the given state.
fn port(line: &str, state: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote) = (fields.next()?, fields.next()?);
    if fields.next()? != state {
        return None;
    }
    let (_address, port) = local.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n   1: 0100007F:1F90 0200007F:9999 01 00000000:00000000\n";
    const TCP6: &str =
        "   0: 00000000000000000000000000000000:8419 00000000000000000000000000000000:0000 0A 0:0\n";
    const UDP: &str =
        "  sl  local_address rem_address   st\n  9: 3500007F:0035 00000000:0000 07 0:0\nbroken\n: : :\n";

    fn step(text: &str) -> Step {
        text.parse().expect("a step")
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let listeners = Listeners::from_tables(&format!("{TCP}{TCP6}"), UDP);

        for taken in ["tcp/22", "tcp/33817", "udp/53"] {
            assert!(listeners.take(step(taken)), "{taken}");
        }
        for free in ["tcp/8080", "udp/22", "tcp/53", "icmp/echo"] {
            assert!(!listeners.take(step(free)), "{free}");
        }
    }
}
