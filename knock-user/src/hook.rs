//! Where the gate's programs sit on an interface, and which program of the object fits there.

use knock_common::names;

/// A place in the kernel's path of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Incoming, in the driver or right behind it: judges.
    Xdp,
    /// Incoming, in the network stack: judges.
    Ingress,
    /// Outgoing: takes notes of what the host sends, and drops nothing.
    Egress,
}

/// What the packets of an interface begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Header {
    /// An Ethernet header.
    Ethernet,
    /// The IP header itself, as on tunnels.
    Ip,
}

impl Header {
    /// Returns what packets begin with, by the interface's type; `None` for one that no program here can read.
    ///
    /// The numbers are `ARPHRD_*` of `linux/if_arp.h`. The loopback's frames have an Ethernet header of zeros.
    #[must_use]
    pub const fn of_type(kind: u16) -> Option<Self> {
        match kind {
            // ETHER, LOOPBACK.
            1 | 772 => Some(Self::Ethernet),
            // PPP, RAWIP, TUNNEL, TUNNEL6, SIT, NONE (tun, WireGuard).
            512 | 519 | 768 | 769 | 776 | 65_534 => Some(Self::Ip),
            _ => None,
        }
    }
}

impl Hook {
    /// Returns the name of the program for this place on an interface; `None` where none fits.
    #[must_use]
    pub const fn program(self, header: Header) -> Option<&'static str> {
        match (self, header) {
            (Self::Xdp, Header::Ethernet) => Some(names::PROGRAM),
            (Self::Xdp, Header::Ip) => None,
            (Self::Ingress, Header::Ethernet) => Some(names::TC_PROGRAM),
            (Self::Ingress, Header::Ip) => Some(names::TC_PROGRAM_IP),
            (Self::Egress, Header::Ethernet) => Some(names::EGRESS),
            (Self::Egress, Header::Ip) => Some(names::EGRESS_IP),
        }
    }

    /// Returns the place that a program of this name is for; `None` for one that is not ours.
    #[must_use]
    pub fn of_program(name: &str) -> Option<Self> {
        match name {
            names::PROGRAM => Some(Self::Xdp),
            names::TC_PROGRAM | names::TC_PROGRAM_IP => Some(Self::Ingress),
            names::EGRESS | names::EGRESS_IP => Some(Self::Egress),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_every_program_s_whole_name_by_which_its_place_is_known() {
        for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
            for header in [Header::Ethernet, Header::Ip] {
                let Some(name) = hook.program(header) else { continue };
                // BPF_OBJ_NAME_LEN less its NUL.
                assert!(name.len() < 16, "{name}");
                assert_eq!(Hook::of_program(name), Some(hook), "{name}");
            }
        }
        assert_eq!(Hook::of_program("xdp_other"), None);
    }

    #[test]
    fn no_xdp_program_reads_packets_without_an_ethernet_header() {
        assert_eq!(Hook::Xdp.program(Header::Ip), None);
        assert_eq!(Hook::Xdp.program(Header::Ethernet), Some(names::PROGRAM));
    }

    #[test]
    fn what_packets_begin_with_follows_from_the_interface_s_type_and_an_unknown_one_is_not_guessed() {
        assert_eq!([1, 772].map(Header::of_type), [Some(Header::Ethernet); 2]);
        assert_eq!([65_534, 512, 768].map(Header::of_type), [Some(Header::Ip); 3]);
        // IEEE 802.11 with radiotap, InfiniBand.
        assert_eq!([803, 32].map(Header::of_type), [None; 2]);
    }
}
