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

/// Returns the port that the datagram behind these headers is for, if it has the length of a packet, by what IP says and by
/// what UDP says, and comes whole and to this host alone.
#[must_use]
#[inline(always)]
pub fn port<F: Frame + ?Sized>(frame: &F, header: &Header) -> Option<u16> {
    let is_whole = !header.has(Header::FRAGMENT) && !header.has(Header::GROUP);
    if header.proto != PROTO_UDP || header.len != usize::from(DATAGRAM) || !is_whole {
        return None;
    }
    // RFC 768: ports, then the length.
    let [_, _, port_high, port_low, len_high, len_low] = frame.read(header.at)?;
    (u16::from_be_bytes([len_high, len_low]) == DATAGRAM).then_some(u16::from_be_bytes([port_high, port_low]))
}

/// Returns the offset of the packet in such a frame.
#[must_use]
#[inline(always)]
pub const fn packet_at(header: &Header) -> usize {
    header.at.wrapping_add(UdpHdr::LEN)
}
