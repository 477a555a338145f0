//! Which datagrams may be packets.

use network_types::udp::UdpHdr;

use super::packet::LENGTH;
use crate::{
    frame::Frame,
    parse::{Header, wire::PROTO_UDP},
};

/// Bytes of a UDP datagram that is a packet, its header included.
const DATAGRAM: u16 = 86;
const _: () = assert!(UdpHdr::LEN + LENGTH == 86);
/// Offset of the length in a UDP header (RFC 768).
const LENGTH_AT: usize = 4;

/// Returns whether the datagram behind these headers has the length of a packet, by what IP says and by what UDP says.
#[must_use]
#[inline(always)]
pub fn may_be_packet<F: Frame + ?Sized>(frame: &F, header: &Header) -> bool {
    header.proto == PROTO_UDP
        && header.len == usize::from(DATAGRAM)
        && !header.has(Header::FRAGMENT)
        && frame.read(header.at.wrapping_add(LENGTH_AT)).map(u16::from_be_bytes) == Some(DATAGRAM)
}

/// Returns the offset of the packet in such a frame.
#[must_use]
#[inline(always)]
pub const fn packet_at(header: &Header) -> usize {
    header.at.wrapping_add(UdpHdr::LEN)
}
