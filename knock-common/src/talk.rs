//! Which conversation a packet belongs to, and what part it plays in it.

use crate::{
    abi::{Address, FlowKey, FragmentKey, mapped},
    frame::Frame,
    parse::{
        Segment, Transport,
        wire::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    },
};

const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// RFC 792, section "Message Formats": bytes before the quoted packet, for every error message; likewise RFC 4443.
const ICMP_HEADER_LEN: usize = 8;

/// The ports of the client and the server of DHCP (RFC 2131, section 4.1), then of DHCPv6 (RFC 8415, section 7.2).
const LEASES: [(u16, u16); 2] = [(68, 67), (546, 547)];

/// What part a packet plays in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// None that is known here.
    None,
    /// TCP: a SYN without ACK. It begins a conversation, so it never belongs to one.
    Begins,
    /// TCP: a SYN with ACK.
    Accepts,
    /// TCP: anything else but an end.
    Goes,
    /// TCP: a FIN or a RST.
    Ends,
    /// A UDP datagram.
    Datagram,
    /// An echo request.
    Asks,
    /// An echo reply.
    Answers,
    /// An ICMP error about a packet that this side sent: the conversation is that of the quoted packet.
    Fails,
    /// A fragment that is not the first.
    LaterFragment,
}

impl Part {
    /// Returns the part that a TCP segment with these flags plays (RFC 9293, section 3.1).
    #[must_use]
    #[inline(always)]
    pub const fn of_tcp(flags: u8) -> Self {
        if flags & (TCP_FIN | TCP_RST) != 0 && flags & TCP_SYN == 0 {
            return Self::Ends;
        }
        match (flags & TCP_SYN != 0, flags & TCP_ACK != 0) {
            (true, false) => Self::Begins,
            (true, true) => Self::Accepts,
            (false, _) => Self::Goes,
        }
    }
}

impl FlowKey {
    /// Returns whether both are the same conversation, in one comparison: each would double what the verifier has to follow.
    #[must_use]
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let ports = (self.remote_port ^ other.remote_port) | (self.local_port ^ other.local_port);
        let small = ports | u16::from(self.proto ^ other.proto);
        let addresses = (bits(&self.remote) ^ bits(&other.remote)) | (bits(&self.local) ^ bits(&other.local));
        addresses | u128::from(small) == 0
    }
}

#[inline(always)]
const fn bits(address: &Address) -> u128 {
    u128::from_ne_bytes(*address)
}

/// No conversation.
pub const NO_FLOW: FlowKey =
    FlowKey { remote: [0; 16], local: [0; 16], remote_port: 0, local_port: 0, proto: 0, _pad: [0; 3] };

/// Fills in the conversation of an incoming packet; returns its part in it.
#[inline(always)]
pub fn incoming<F: Frame + ?Sized>(
    frame: &F,
    segment: &Segment,
    source: &Address,
    destination: &Address,
    flow: &mut FlowKey,
) -> Part {
    flow.remote = *source;
    flow.local = *destination;
    match segment.transport {
        Transport::Tcp { source_port, port, flags, .. } => {
            set(flow, PROTO_TCP, source_port, port);
            Part::of_tcp(flags)
        }
        Transport::Udp { source_port, port } => {
            set(flow, PROTO_UDP, source_port, port);
            Part::Datagram
        }
        Transport::Echo { id, .. } => {
            set(flow, PROTO_ICMP, id, id);
            Part::Asks
        }
        Transport::Icmp { kind, at } => incoming_icmp(frame, segment, kind, at, flow),
        Transport::LaterFragment => Part::LaterFragment,
        Transport::Other => Part::None,
    }
}

#[inline(always)]
fn set(flow: &mut FlowKey, proto: u8, remote_port: u16, local_port: u16) {
    flow.proto = proto;
    flow.remote_port = remote_port;
    flow.local_port = local_port;
}

#[inline(always)]
fn incoming_icmp<F: Frame + ?Sized>(
    frame: &F,
    segment: &Segment,
    kind: u8,
    at: usize,
    flow: &mut FlowKey,
) -> Part {
    let is_reply = if segment.is_v6 { kind == ICMPV6_ECHO_REPLY } else { kind == ICMP_ECHO_REPLY };
    if is_reply {
        let Some([high, low]) = frame.read(at.wrapping_add(4)) else { return Part::None };
        let id = u16::from_be_bytes([high, low]);
        set(flow, PROTO_ICMP, id, id);
        return Part::Answers;
    }
    if !is_error(segment.is_v6, kind) {
        return Part::None;
    }
    let quoted_at = frame.blur(at.wrapping_add(ICMP_HEADER_LEN));
    let is_quoted =
        if segment.is_v6 { quoted_v6(frame, quoted_at, flow) } else { quoted_v4(frame, quoted_at, flow) };
    if is_quoted.is_some() { Part::Fails } else { Part::None }
}

/// Returns whether it is an error message: destination unreachable, time exceeded, parameter problem (RFC 792), or one of
/// the four of RFC 4443, section 2.1.
#[inline(always)]
const fn is_error(is_v6: bool, kind: u8) -> bool {
    if is_v6 { kind >= 1 && kind <= 4 } else { matches!(kind, 3 | 11 | 12) }
}

/// Fills in the conversation of a quoted IPv4 packet, which this side sent: its destination is the other side.
#[inline(always)]
fn quoted_v4<F: Frame + ?Sized>(frame: &F, at: usize, flow: &mut FlowKey) -> Option<()> {
    let head: [u8; 20] = frame.read(at)?;
    let [version_ihl, _, _, _, _, _, fragment_high, fragment_low, _, proto, ..] = head;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = head;
    let header_len = usize::from(version_ihl & 0x0f).wrapping_mul(4);
    let offset = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff;
    if version_ihl >> 4 != 4 || header_len < 20 || offset != 0 {
        return None;
    }
    flow.local = mapped([s0, s1, s2, s3]);
    flow.remote = mapped([d0, d1, d2, d3]);
    quoted_ports(frame, at.wrapping_add(header_len), proto, flow)
}

/// The same of a quoted IPv6 packet. One with extension headers is no conversation that is known here.
#[inline(always)]
fn quoted_v6<F: Frame + ?Sized>(frame: &F, at: usize, flow: &mut FlowKey) -> Option<()> {
    let [version, _, _, _, _, _, proto, _] = frame.read(at)?;
    if version >> 4 != 6 {
        return None;
    }
    flow.local = frame.read(at.wrapping_add(8))?;
    flow.remote = frame.read(at.wrapping_add(24))?;
    quoted_ports(frame, at.wrapping_add(40), proto, flow)
}

#[inline(always)]
fn quoted_ports<F: Frame + ?Sized>(frame: &F, at: usize, proto: u8, flow: &mut FlowKey) -> Option<()> {
    let [a, b, c, d, e, f, ..]: [u8; 8] = frame.read(at)?;
    match proto {
        PROTO_TCP | PROTO_UDP => {
            set(flow, proto, u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b]));
        }
        PROTO_ICMP | PROTO_ICMPV6 => {
            let id = u16::from_be_bytes([e, f]);
            set(flow, PROTO_ICMP, id, id);
        }
        _ => return None,
    }
    Some(())
}

/// Fills in the conversation of an outgoing packet, as the other side's packets will be looked up; returns its part in it.
#[inline(always)]
pub fn outgoing<F: Frame + ?Sized>(frame: &F, segment: &Segment, flow: &mut FlowKey) -> Option<Part> {
    flow.local = segment.source(frame)?;
    flow.remote = segment.destination(frame)?;
    Some(match segment.transport {
        Transport::Tcp { source_port, port, flags, .. } => {
            set(flow, PROTO_TCP, port, source_port);
            Part::of_tcp(flags)
        }
        Transport::Udp { source_port, port } => {
            set(flow, PROTO_UDP, port, source_port);
            Part::Datagram
        }
        Transport::Echo { id, .. } => {
            set(flow, PROTO_ICMP, id, id);
            Part::Asks
        }
        Transport::Icmp { .. } | Transport::LaterFragment | Transport::Other => Part::None,
    })
}

/// Returns whether the ports are those of a client that asks for its address, and of the server that answers it.
#[must_use]
#[inline(always)]
pub const fn is_lease(flow: &FlowKey) -> bool {
    let [(client, server), (client6, server6)] = LEASES;
    flow.proto == PROTO_UDP
        && ((flow.local_port == client && flow.remote_port == server)
            || (flow.local_port == client6 && flow.remote_port == server6))
}

/// Returns the conversation by which such an answer is looked up. It is asked for from no address, or at a group's, and the
/// answer comes from and to another.
#[must_use]
#[inline(always)]
pub const fn lease(flow: &FlowKey) -> FlowKey {
    FlowKey { remote: [0; 16], local: [0; 16], ..*flow }
}

/// Returns whether an address is of a group: multicast, or all of a network (RFC 919, section 7; RFC 5771; RFC 4291).
#[must_use]
#[inline(always)]
pub const fn is_group(address: &Address) -> bool {
    let [first, .., a, b, c, d] = *address;
    if !crate::abi::is_mapped(address) {
        return first == 0xff;
    }
    // 0.0.0.0 is taken for a broadcast by Linux (`ip_route_input_slow`).
    a >> 4 == 0xe || (a & b & c & d) == 0xff || (a | b | c | d) == 0
}

/// Returns what tells the datagram of a fragment from others.
#[inline(always)]
pub fn fragment_key(segment: &Segment, source: &Address, destination: &Address) -> FragmentKey {
    FragmentKey {
        source: *source,
        destination: *destination,
        id: segment.fragment_id,
        proto: if segment.is_v6 { 0 } else { segment.proto },
        _pad: [0; 3],
    }
}
