//! Where in a frame a packet lies.

use network_types::{ip::Ipv6Hdr, udp::UdpHdr};

use crate::{
    frame::Frame,
    parse::{Segment, Transport},
};

/// Bytes of a UDP datagram that is a packet, its header included.
const DATAGRAM: u16 = 86;
const _: () = assert!(UdpHdr::LEN + super::packet::LENGTH == 86);

/// Returns the offset of the bytes that may be a packet: all that a whole UDP datagram carries, if it has the length.
///
/// Looked for from the end of the IP packet, so that only datagrams of the length pay for it. What is found proves itself
/// by its code, wherever it lies.
#[must_use]
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, segment: &Segment) -> Option<usize> {
    let Transport::Udp { source_port, port } = segment.transport else { return None };
    if segment.is_fragment {
        return None;
    }
    let end = if segment.is_v6 {
        length(frame, segment.ip_at.wrapping_add(4))?.wrapping_add(Ipv6Hdr::LEN)
    } else {
        length(frame, segment.ip_at.wrapping_add(2))?
    };
    let at = frame.blur(segment.ip_at.wrapping_add(end).checked_sub(usize::from(DATAGRAM))?);
    // Offsets only grow from here: the verifier does not follow a packet pointer that is moved back.
    let [s0, s1, d0, d1, l0, l1] = frame.read(at)?;
    let is_header = u16::from_be_bytes([s0, s1]) == source_port
        && u16::from_be_bytes([d0, d1]) == port
        && u16::from_be_bytes([l0, l1]) == DATAGRAM;
    is_header.then_some(at.wrapping_add(UdpHdr::LEN))
}

/// Reads a length of an IP header.
#[inline(always)]
fn length<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<usize> {
    frame.read(at).map(u16::from_be_bytes).map(usize::from)
}
