//! Which ports something on this machine listens on, read from `/proc/net`, and which of them deny mode shuts.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use super::{Config, Mode};
use crate::{service::Service, step::Step};

/// Socket states of the kernel's tables that wait for packets from anybody (include/net/tcp_states.h):
/// TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket shows.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// UDP ports at which an interface's address is leased, which is let in in every mode: the clients of DHCP (RFC 2131, section
/// 4.1) and of DHCPv6 (RFC 8415, section 7.2).
const LEASES: [u16; 2] = [68, 546];

/// The local ports that are taken.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tcp: HashSet<u16>,
    udp: HashSet<u16>,
    /// Those of them that other machines can reach.
    outward_tcp: BTreeSet<u16>,
    outward_udp: BTreeSet<u16>,
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
        let mut listeners = Self::default();
        for (address, port) in tcp.lines().filter_map(|line| local(line, TCP_LISTEN)) {
            listeners.tcp.insert(port);
            if !address.is_loopback() {
                listeners.outward_tcp.insert(port);
            }
        }
        for (address, port) in udp.lines().filter_map(|line| local(line, UDP_UNCONNECTED)) {
            listeners.udp.insert(port);
            if !address.is_loopback() {
                listeners.outward_udp.insert(port);
            }
        }
        listeners
    }

    /// Whether a packet that is this step would reach something that listens.
    pub(super) fn take(&self, step: Step) -> bool {
        match step {
            Step::Tcp(port) => self.tcp.contains(&port.get()),
            Step::Udp(port) => self.udp.contains(&port.get()),
            Step::Icmp { .. } => false,
        }
    }

    /// The services that a configuration in deny mode leaves nobody a way to, in order. `ephemeral` is the host's range of ports
    /// for its own traffic: over UDP, what waits there has asked somebody something.
    pub(super) fn unreachable(&self, config: &Config, ephemeral: &RangeInclusive<u16>) -> Vec<Service> {
        if config.mode != Mode::Deny {
            return Vec::new();
        }
        let behind_doors = || config.doors.iter().flat_map(|door| &door.opens);
        let is_open = |service: &Service| {
            config
                .public
                .iter()
                .chain(behind_doors())
                .any(|one| *one == Service::Any || one.overlaps(service))
        };
        let is_asker = |port: &&u16| ephemeral.contains(port) || LEASES.contains(port);
        let tcp = self.outward_tcp.iter().map(|&port| Service::Tcp(port..=port));
        let udp = self.outward_udp.iter().filter(|port| !is_asker(port));
        let all = tcp.chain(udp.map(|&port| Service::Udp(port..=port)));
        all.filter(|service| !is_open(service)).collect()
    }
}

/// The local address and port of a line `SLOT: ADDRESS:PORT ADDRESS:PORT STATE ...`, in the given state.
fn local(line: &str, state: &str) -> Option<(IpAddr, u16)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote) = (fields.next()?, fields.next()?);
    if fields.next()? != state {
        return None;
    }
    let (address, port) = local.rsplit_once(':')?;
    Some((self::address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The address behind hexadecimal digits: words of 32 bits, each as the machine reads it (`tcp4_seq_show`).
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(digits.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    if digits.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
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

    /// What of this machine nobody can reach in deny mode.
    fn unreachable(mode: &str, opens: &str) -> Vec<String> {
        let text = format!(
            "[xdp]\nmode = \"{mode}\"\npublic = [\"udp/53\", \"tcp/443\"]\n[[door]]\nname = \"ssh\"\nopens = [\"{opens}\"]\n\
             knock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\", \"udp/7121\"]\n"
        );
        let (config, _) = Config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"));
        // Anybody: tcp/22, 25, 443, udp/53, 123, the DHCP client, a question of the host's own.
        let tcp = "0: 00000000:0016 00000000:0000 0A\n1: 0A000001:0019 00000000:0000 0A\n2: 00000000:01BB 00000000:0000 0A\n";
        // Loopback alone: tcp/631 over IPv4, tcp/8080 over IPv6, tcp/8081 in mapped form.
        let loopback = [[127, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0xff, 0xff]].map(hexadecimal);
        let [v4, one, mapped] = &loopback;
        let zeros = "00000000";
        let only_here = format!(
            "3: {v4}:0277 {zeros}:0000 0A\n4: {zeros}{zeros}{zeros}{one}:1F90 {zeros}:0000 0A\n5: {zeros}{zeros}{mapped}{v4}:1F91 {zeros}:0000 0A\n"
        );
        let udp = "0: 00000000:0035 00000000:0000 07\n1: 00000000:007B 00000000:0000 07\n\
                   2: 00000000:0044 00000000:0000 07\n3: 00000000:9C41 00000000:0000 07\n";
        let listeners = Listeners::from_tables(&format!("{tcp}{only_here}"), udp);
        listeners.unreachable(&config, &(32_768..=60_999)).iter().map(ToString::to_string).collect()
    }

    fn hexadecimal(bytes: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(bytes))
    }

    #[test]
    fn in_deny_mode_what_listens_to_others_and_is_neither_public_nor_behind_a_door_is_unreachable() {
        assert_eq!(unreachable("deny", "tcp/22"), ["tcp/25", "udp/123"]);
        assert_eq!(unreachable("deny", "tcp/20-25"), ["udp/123"]);
    }

    #[test]
    fn behind_a_door_to_anything_and_in_another_mode_nothing_is_unreachable() {
        assert_eq!(unreachable("deny", "any"), Vec::<String>::new());
        assert_eq!(unreachable("guard", "tcp/22"), Vec::<String>::new());
    }
}
