//! Which address a single packet asks to let in: one that the server sees as this machine does, or that of whoever sends it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

/// Whom a packet lets in, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetsIn {
    /// The address that the caller named.
    Told(IpAddr),
    /// This machine's own, which is a public one.
    Own(IpAddr),
    /// Whoever sends it, since the caller said so.
    SenderAsTold,
    /// Whoever sends it, since this machine's own address may be translated on the way.
    SenderFor(IpAddr),
}

impl LetsIn {
    /// Chooses for an address that this machine sends from.
    pub(super) fn found(own: IpAddr) -> Self {
        if is_public(&own) { Self::Own(own) } else { Self::SenderFor(own) }
    }

    /// Returns the address that the packet names, if it names one.
    pub(super) const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Told(address) | Self::Own(address) => Some(address),
            Self::SenderAsTold | Self::SenderFor(_) => None,
        }
    }
}

impl fmt::Display for LetsIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(address) => write!(f, "lets in {address}, as told"),
            Self::Own(address) => write!(f, "lets in {address}, this machine's public address"),
            Self::SenderAsTold => f.write_str("lets in whoever sends it, as told"),
            Self::SenderFor(own) => {
                write!(
                    f,
                    "lets in whoever sends it, since this machine's own address {own} is not a public one"
                )
            }
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// What nobody has on the internet (IANA's registry of special purposes, RFC 6890): this network, private, shared by
/// carriers, loopback, link-local, protocols, documentation, 6to4 relays, benchmarks, multicast and reserved.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];
/// All that is given out so far (RFC 4291, section 2.4): unique local, link-local and multicast addresses and the NAT64
/// prefixes are outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);
/// And within it: protocols (Teredo too), documentation (RFC 3849, RFC 9637) and 6to4.
const SPECIAL_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];

/// Returns whether the rest of the internet sees the address as it is. What is not known to be so is not.
fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|net| net.contains(v4)),
        IpAddr::V6(v6) => GLOBAL_V6.contains(v6) && !SPECIAL_V6.iter().any(|net| net.contains(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> LetsIn {
        LetsIn::found(text.parse().unwrap())
    }

    #[test]
    fn a_public_address_is_named() {
        for text in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.1",
            "2600::1",
            "2001:200::1",
            "2a00:1450::1",
        ] {
            assert_eq!(found(text).address(), Some(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn an_address_that_others_do_not_see_is_not_named_and_the_reason_is_said() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
        ] {
            let chosen = found(text);

            assert_eq!(chosen.address(), None, "{text}");
            assert!(chosen.to_string().contains(text), "{chosen}");
        }
    }
}
