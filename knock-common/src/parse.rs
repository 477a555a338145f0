//! From a frame to the few facts a gate decides on, or to the verdict on a frame that has none.
//!
//! Lengths are believed where the Linux stack believes them (`ip_rcv_core`, `ip6_rcv_core`, `tcp_v4_rcv`,
//! `__udp4_lib_rcv`): what the stack would refuse is refused, so no reading of ours can differ from its reading.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
    vlan::VlanHdr,
};

use crate::{
    abi::{Address, is_mapped, mapped},
    frame::Frame,
    verdict::Verdict,
};

/// Most VLAN tags that are looked behind (802.1ad puts one in front of another).
pub const MAX_VLAN_TAGS: usize = 2;
/// Most IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 6;

use wire::*;

/// RFC 792 and RFC 4443: the fixed part of an echo message.
const ECHO_LEN: usize = 8;
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;

/// What a packet is, apart from its addresses, which are read only when they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// IPv6 rather than IPv4.
    pub is_v6: bool,
    /// Offset of the IP header.
    pub ip_at: usize,
    /// A fragment: a first one is judged, but none ever knocks.
    pub is_fragment: bool,
    /// What tells the datagram of a fragment from others of its source: 16 bits of IPv4, 32 of IPv6.
    pub fragment_id: u32,
    /// Protocol number behind the IP headers.
    pub proto: u8,
    /// Sent to a group of hosts by its link-layer address: it never knocks.
    pub is_group: bool,
    /// The layer above.
    pub transport: Transport,
}

/// The layer above IP, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with a whole header.
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
        /// Sequence number.
        sequence: u32,
        /// The flag byte (RFC 9293, section 3.1).
        flags: u8,
    },
    /// UDP with a whole header.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
    },
    /// An ICMP or ICMPv6 echo request.
    Echo {
        /// Identifier.
        id: u16,
        /// Sequence number.
        sequence: u16,
        /// Bytes of payload after the echo header.
        size: u16,
    },
    /// Any other ICMP or ICMPv6 message.
    Icmp {
        /// Its type.
        kind: u8,
        /// Offset of its header.
        at: usize,
    },
    /// A fragment that is not the first.
    LaterFragment,
    /// Anything else.
    Other,
}

/// What lies between the link and the layer above, as plain numbers, so that it can go through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// Offset of the IP header.
    pub ip_at: usize,
    /// Offset of the layer above.
    pub at: usize,
    /// Bytes of it that the IP header tells of.
    pub len: usize,
    /// What tells the datagram of a fragment from others of its source.
    pub fragment_id: u32,
    /// Protocol number of the layer above.
    pub proto: u8,
    /// [`Header::V6`], [`Header::FRAGMENT`], [`Header::LATER`], [`Header::GROUP`].
    pub flags: u8,
}

impl Header {
    /// IPv6 rather than IPv4.
    pub const V6: u8 = 1;
    /// A fragment.
    pub const FRAGMENT: u8 = 2;
    /// A fragment that is not the first.
    pub const LATER: u8 = 4;
    /// Sent to a group of hosts by its link-layer address.
    pub const GROUP: u8 = 8;

    /// Returns whether a flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns the source, IPv4 in mapped form.
    #[inline(always)]
    pub fn source<F: Frame + ?Sized>(&self, frame: &F) -> Option<Address> {
        source(frame, self.ip_at, self.has(Self::V6))
    }

    /// Returns what the packet is.
    ///
    /// # Errors
    ///
    /// The verdict: malformed above IP.
    #[inline(always)]
    pub fn segment<F: Frame + ?Sized>(&self, frame: &F) -> Result<Segment, Verdict> {
        Ok(Segment {
            is_v6: self.has(Self::V6),
            ip_at: self.ip_at,
            is_fragment: self.has(Self::FRAGMENT),
            fragment_id: self.fragment_id,
            is_group: self.has(Self::GROUP),
            proto: self.proto,
            transport: transport(frame, self)?,
        })
    }
}

/// Returns what the frame is, or the verdict on a frame that cannot be, or need not be, looked into further.
///
/// # Errors
///
/// The verdict: not IP, or malformed.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Segment, Verdict> {
    header(frame)?.segment(frame)
}

/// Returns what lies between the link and the layer above.
///
/// # Errors
///
/// The verdict: not IP, or malformed up to there.
#[inline(always)]
pub fn header<F: Frame + ?Sized>(frame: &F) -> Result<Header, Verdict> {
    let [first_octet] = frame.read(0).ok_or(Verdict::LinkCut)?;
    let is_group = first_octet & 1 != 0;
    let (ethertype, ip_at) = link(frame)?;
    header_at(frame, ethertype, ip_at, is_group)
}

/// Returns the same of a packet behind a link header, given by its type and place.
///
/// # Errors
///
/// As [`header`].
#[inline(always)]
pub fn header_at<F: Frame + ?Sized>(
    frame: &F,
    ethertype: u16,
    ip_at: usize,
    is_group: bool,
) -> Result<Header, Verdict> {
    let group = if is_group { Header::GROUP } else { 0 };
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, ip_at, group),
        ETHERTYPE_IPV6 => ipv6(frame, ip_at, group),
        _ => Err(Verdict::NotIp),
    }
}

/// Returns the type of what the link layer carries, and where that begins.
#[inline(always)]
pub(crate) fn link<F: Frame + ?Sized>(frame: &F) -> Result<(u16, usize), Verdict> {
    let type_at = EthHdr::LEN.saturating_sub(2);
    let mut ethertype = u16::from_be_bytes(frame.read(type_at).ok_or(Verdict::LinkCut)?);
    let mut at = EthHdr::LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            return Ok((ethertype, at));
        }
        let [_, _, high, low] = frame.read(at).ok_or(Verdict::LinkCut)?;
        ethertype = u16::from_be_bytes([high, low]);
        at = at.wrapping_add(VlanHdr::LEN);
    }
    if is_vlan(ethertype) {
        return Err(Verdict::VlanDepth);
    }
    Ok((ethertype, at))
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, ip_at: usize, group: u8) -> Result<Header, Verdict> {
    let head: [u8; Ipv4Hdr::LEN] = frame.read(ip_at).ok_or(Verdict::BadIp)?;
    let [version_ihl, _, total_high, total_low, id_high, id_low, fragment_high, fragment_low, _, proto, ..] =
        head;
    let header_len = usize::from(version_ihl & 0x0f).wrapping_mul(4);
    let total_len = usize::from(u16::from_be_bytes([total_high, total_low]));
    if version_ihl >> 4 != 4 || header_len < Ipv4Hdr::LEN || total_len < header_len {
        return Err(Verdict::BadIp);
    }
    let end = ip_at.wrapping_add(total_len);
    if !frame.is_at_least(end) {
        return Err(Verdict::BadIp);
    }
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    let later = later_fragment(proto, fragment & 0x1fff)?;
    let first = if fragment & 0x2000 != 0 { Header::FRAGMENT } else { 0 };
    Ok(Header {
        ip_at,
        at: ip_at.wrapping_add(header_len),
        len: total_len.wrapping_sub(header_len),
        fragment_id: u32::from(u16::from_be_bytes([id_high, id_low])),
        proto,
        flags: group | first | later,
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, ip_at: usize, group: u8) -> Result<Header, Verdict> {
    let [version, _, _, _, len_high, len_low, next, _] = frame.read(ip_at).ok_or(Verdict::BadIp)?;
    let payload_len = usize::from(u16::from_be_bytes([len_high, len_low]));
    // A hop-by-hop header in an empty payload is a jumbogram (RFC 2675), which no XDP driver carries.
    if version >> 4 != 6 || (payload_len == 0 && next == PROTO_HOP_BY_HOP) {
        return Err(Verdict::BadIp);
    }
    let at = ip_at.wrapping_add(Ipv6Hdr::LEN);
    if !frame.is_at_least(at.wrapping_add(payload_len)) {
        return Err(Verdict::BadIp);
    }
    let source: Address = frame.read(ip_at.wrapping_add(8)).ok_or(Verdict::BadIp)?;
    if is_mapped(&source) {
        return Err(Verdict::MappedSource);
    }
    let start =
        Header { ip_at, at, len: payload_len, fragment_id: 0, proto: next, flags: group | Header::V6 };
    extensions(frame, start)
}

/// Walks the extension headers; returns what is behind them.
#[inline(always)]
fn extensions<F: Frame + ?Sized>(frame: &F, start: Header) -> Result<Header, Verdict> {
    let mut body = start;
    for walked in 0..MAX_EXTENSIONS {
        let next = body.proto;
        if !is_extension(next) {
            return Ok(body);
        }
        // RFC 8200, section 4.1: hop-by-hop only directly behind the IPv6 header.
        if next == PROTO_HOP_BY_HOP && walked != 0 {
            return Err(Verdict::BadExtension);
        }
        let [following, len_byte, offset_high, offset_low] =
            frame.read(body.at).ok_or(Verdict::BadExtension)?;
        let len = match next {
            PROTO_FRAGMENT => 8,
            // RFC 4302, section 2.2: in 32-bit words less two; the others in 64-bit words less one.
            PROTO_AUTHENTICATION => usize::from(len_byte).wrapping_add(2).wrapping_mul(4),
            _ => usize::from(len_byte).wrapping_add(1).wrapping_mul(8),
        };
        if body.len < len {
            return Err(Verdict::BadExtension);
        }
        body.proto = following;
        if next == PROTO_FRAGMENT {
            let offset = u16::from_be_bytes([offset_high, offset_low]) >> 3;
            let id = frame.read(body.at.wrapping_add(4)).ok_or(Verdict::BadExtension)?;
            let later = later_fragment(following, offset)?;
            body.fragment_id = u32::from_be_bytes(id);
            body.flags |= Header::FRAGMENT | later;
            if later != 0 {
                // What follows is not the beginning of anything.
                return Ok(body);
            }
        }
        body.at = frame.blur(body.at.wrapping_add(len));
        body.len = body.len.wrapping_sub(len);
    }
    if is_extension(body.proto) {
        return Err(Verdict::BadExtension);
    }
    Ok(body)
}

#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_FRAGMENT | PROTO_AUTHENTICATION | PROTO_DESTINATION
    )
}

/// Returns the flags of a fragment at `offset`, in units of 8 bytes: none for the first.
#[inline(always)]
fn later_fragment(proto: u8, offset: u16) -> Result<u8, Verdict> {
    // Units 1 and 2 begin at bytes 8 and 16, inside a TCP header (RFC 1858, section 4).
    if proto == PROTO_TCP && offset != 0 && offset < 3 {
        return Err(Verdict::FragmentOverlap);
    }
    Ok(if offset != 0 { Header::FRAGMENT | Header::LATER } else { 0 })
}

#[inline(always)]
fn transport<F: Frame + ?Sized>(frame: &F, header: &Header) -> Result<Transport, Verdict> {
    if header.has(Header::LATER) {
        return Ok(Transport::LaterFragment);
    }
    match (header.proto, header.has(Header::V6)) {
        (PROTO_TCP, _) => tcp(frame, header),
        (PROTO_UDP, _) => udp(frame, header),
        (PROTO_ICMP, false) => icmp(frame, header, ICMP_ECHO_REQUEST),
        (PROTO_ICMPV6, true) => icmp(frame, header, ICMPV6_ECHO_REQUEST),
        _ => Ok(Transport::Other),
    }
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, body: &Header) -> Result<Transport, Verdict> {
    if body.len < TcpHdr::LEN {
        return Err(Verdict::BadTransport);
    }
    let head: [u8; 14] = frame.read(body.at).ok_or(Verdict::BadTransport)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, flags] = head;
    let header_len = usize::from(offset >> 4).wrapping_mul(4);
    if header_len < TcpHdr::LEN || header_len > body.len {
        return Err(Verdict::BadTransport);
    }
    Ok(Transport::Tcp {
        source_port: u16::from_be_bytes([s0, s1]),
        port: u16::from_be_bytes([d0, d1]),
        sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        flags,
    })
}

#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, body: &Header) -> Result<Transport, Verdict> {
    if body.len < UdpHdr::LEN {
        return Err(Verdict::BadTransport);
    }
    let [s0, s1, d0, d1, len_high, len_low] = frame.read(body.at).ok_or(Verdict::BadTransport)?;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    // The length field speaks of the whole datagram, so a first fragment holds less than it says.
    if len < UdpHdr::LEN || (len > body.len && !body.has(Header::FRAGMENT)) {
        return Err(Verdict::BadTransport);
    }
    Ok(Transport::Udp { source_port: u16::from_be_bytes([s0, s1]), port: u16::from_be_bytes([d0, d1]) })
}

#[inline(always)]
fn icmp<F: Frame + ?Sized>(frame: &F, body: &Header, echo_request: u8) -> Result<Transport, Verdict> {
    if body.len < ECHO_LEN {
        return Err(Verdict::BadTransport);
    }
    let [kind, code, _, _, i0, i1, s0, s1] = frame.read(body.at).ok_or(Verdict::BadTransport)?;
    if kind != echo_request || code != 0 {
        return Ok(Transport::Icmp { kind, at: body.at });
    }
    Ok(Transport::Echo {
        id: u16::from_be_bytes([i0, i1]),
        sequence: u16::from_be_bytes([s0, s1]),
        size: u16::try_from(body.len.wrapping_sub(ECHO_LEN)).unwrap_or(u16::MAX),
    })
}

#[inline(always)]
fn source<F: Frame + ?Sized>(frame: &F, ip_at: usize, is_v6: bool) -> Option<Address> {
    if is_v6 {
        return frame.read(ip_at.wrapping_add(8));
    }
    frame.read(ip_at.wrapping_add(12)).map(mapped)
}

impl Segment {
    /// Returns the source, IPv4 in mapped form.
    #[inline(always)]
    pub fn source<F: Frame + ?Sized>(&self, frame: &F) -> Option<Address> {
        source(frame, self.ip_at, self.is_v6)
    }

    /// Returns the destination, IPv4 in mapped form.
    #[inline(always)]
    pub fn destination<F: Frame + ?Sized>(&self, frame: &F) -> Option<Address> {
        if self.is_v6 {
            return frame.read(self.ip_at.wrapping_add(24));
        }
        frame.read(self.ip_at.wrapping_add(16)).map(mapped)
    }

    /// Returns whether the IPv4 header checksum is right; IPv6 has none.
    ///
    /// Only packets that concern a door pay for it: the stack drops the others all the same.
    #[inline(always)]
    pub fn is_checksum_right<F: Frame + ?Sized>(&self, frame: &F) -> bool {
        if self.is_v6 {
            return true;
        }
        let Some(head) = frame.read::<{ Ipv4Hdr::LEN }>(self.ip_at) else { return false };
        let mut sum = 0_u32;
        let (pairs, _) = head.as_chunks::<2>();
        for pair in pairs {
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes(*pair)));
        }
        let [version_ihl, ..] = head;
        let words = usize::from(version_ihl & 0x0f);
        // RFC 791, section 3.1: at most 15 words of 32 bits, of which 5 are not options.
        for word in 5..15_usize {
            if word >= words {
                break;
            }
            let at = self.ip_at.wrapping_add(word.wrapping_mul(4));
            let Some([a, b, c, d]) = frame.read(at) else { return false };
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes([a, b])));
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes([c, d])));
        }
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum == 0xffff
    }
}

#[expect(clippy::as_conversions, reason = "an enum's number has no other form in a constant")]
pub(crate) mod wire {
    use network_types::{eth::EtherType, ip::IpProto};

    pub(crate) const ETHERTYPE_IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
    pub(crate) const ETHERTYPE_IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
    pub(crate) const ETHERTYPE_VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    /// The service tag of 802.1ad.
    pub(crate) const ETHERTYPE_SERVICE_VLAN: u16 = u16::from_be(EtherType::Ieee8021ad as u16);

    pub(crate) const PROTO_HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    pub(crate) const PROTO_ICMP: u8 = IpProto::Icmp as u8;
    pub(crate) const PROTO_TCP: u8 = IpProto::Tcp as u8;
    pub(crate) const PROTO_UDP: u8 = IpProto::Udp as u8;
    pub(crate) const PROTO_ROUTING: u8 = IpProto::Ipv6Route as u8;
    pub(crate) const PROTO_FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    pub(crate) const PROTO_IGMP: u8 = IpProto::Igmp as u8;
    pub(crate) const PROTO_AUTHENTICATION: u8 = IpProto::Ah as u8;
    pub(crate) const PROTO_ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
    pub(crate) const PROTO_DESTINATION: u8 = IpProto::Ipv6Opts as u8;

    /// The control bits of TCP (RFC 9293, section 3.1).
    pub(crate) const TCP_FIN: u8 = 0x01;
    pub(crate) const TCP_SYN: u8 = 0x02;
    pub(crate) const TCP_RST: u8 = 0x04;
    pub(crate) const TCP_ACK: u8 = 0x10;
}
