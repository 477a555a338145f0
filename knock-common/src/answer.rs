//! What a closed port answers: from a packet to the bytes that this kernel's own stack would send back.
//!
//! TCP: a RST as `tcp_v4_send_reset` and `tcp_v6_send_response` build it. UDP: a port unreachable as `__icmp_send` and
//! `icmp6_send` do. What the stack does not answer is not answered here either, and what cannot be told for certain is not.

use network_types::{
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    abi::{Address, is_mapped, mapped},
    frame::Frame,
    parse::{self, MAX_EXTENSIONS, wire::*},
};

/// Most bytes that are summed: the linear part of a frame on a page of 4096 bytes.
pub const MAX_SUMMED: usize = CHUNKS * CHUNK;
const CHUNK: usize = 32;
const CHUNKS: usize = 112;

/// Bytes in front of the quoted packet: an IPv4 and an ICMP header.
pub const UNREACHABLE_V4_LEN: usize = Ipv4Hdr::LEN + Icmpv4Hdr::LEN;
/// Bytes in front of the quoted packet: an IPv6 and an ICMPv6 header.
pub const UNREACHABLE_V6_LEN: usize = Ipv6Hdr::LEN + Icmpv4Hdr::LEN;
/// Bytes of a RST behind the link header.
pub const RESET_V4_LEN: usize = Ipv4Hdr::LEN + TcpHdr::LEN;
/// Bytes of a RST behind the link header.
pub const RESET_V6_LEN: usize = Ipv6Hdr::LEN + TcpHdr::LEN;
/// RFC 1812, section 4.3.2.3: an ICMP error is 576 bytes long at most.
const LONGEST_V4: usize = 576;
/// RFC 4443, section 2.4 (c): an ICMPv6 error fits the smallest MTU.
const LONGEST_V6: usize = 1280;

const SECOND_NS: u64 = 1_000_000_000;
/// ICMP errors that a source has at once before the rate counts (`XRLIM_BURST_FACTOR` of `inet_peer_xrlim_allow`).
pub const BURST: u64 = 6;
/// One ICMP error a source in this time: `net.ipv4.icmp_ratelimit`.
pub const INTERVAL_V4_NS: u64 = SECOND_NS;
/// ICMP errors that all sources together have at once: `net.ipv4.icmp_msgs_burst`.
pub const BURST_OF_ALL: u64 = 50;
/// One ICMP error in this time for all sources together: `net.ipv4.icmp_msgs_per_sec`.
pub const INTERVAL_OF_ALL_NS: u64 = SECOND_NS / 1000;

/// Takes one use out of a token bucket; returns its word after that, or `None` if it is empty.
///
/// The word is the time at which the bucket will be full: 0 is a full one.
#[must_use]
#[inline(always)]
pub fn admit(word: u64, now_ns: u64, interval_ns: u64, burst: u64) -> Option<u64> {
    let full_at_ns = if word > now_ns { word } else { now_ns };
    let missing_ns = full_at_ns.wrapping_sub(now_ns);
    let room_ns = interval_ns.wrapping_mul(burst.wrapping_sub(1));
    if missing_ns > room_ns {
        return None;
    }
    Some(full_at_ns.wrapping_add(interval_ns))
}

/// A packet to a port, of the kind that a closed port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// IPv6 rather than IPv4.
    pub is_v6: bool,
    /// Offset of the IP header.
    pub ip_at: usize,
    /// Bytes of the IPv4 header, options included; 0 for IPv6, which has no checksum to be wrong.
    pub header_len: usize,
    /// Offset of the TCP or UDP header.
    pub at: usize,
    /// Bytes of the TCP segment or UDP datagram.
    pub len: usize,
    /// The byte of type of service, or of the traffic class.
    pub tos: u8,
    /// Source, IPv4 in mapped form.
    pub source: Address,
    /// Destination, likewise.
    pub destination: Address,
    /// A TCP segment rather than a UDP datagram, for which all but the last of what follows is 0.
    pub is_tcp: bool,
    /// Source port, then destination port.
    pub ports: [u8; 4],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: [u8; 4],
    /// The flag byte.
    pub flags: u8,
    /// Bytes of TCP payload.
    pub payload: u32,
    /// Checksum of the segment or datagram.
    pub checksum: u16,
}

/// Room for the headers of any answer, from its IP header on.
pub type Head = [u8; RESET_V6_LEN];

/// What an answer has of the host that sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Time to live, IPv4.
    pub ttl: u8,
    /// Hop limit, IPv6.
    pub hop_limit: u8,
    /// Identification of an ICMP error over IPv4.
    pub id: u16,
    /// Flow label, of which 20 bits count.
    pub label: u32,
}

impl Question {
    /// A question of nobody, to be filled in.
    pub const EMPTY: Self = Self {
        is_v6: false,
        ip_at: 0,
        header_len: 0,
        at: 0,
        len: 0,
        tos: 0,
        source: [0; 16],
        destination: [0; 16],
        is_tcp: false,
        ports: [0; 4],
        sequence: 0,
        acknowledgment: [0; 4],
        flags: 0,
        payload: 0,
        checksum: 0,
    };

    /// Fills in what a frame asks; `None` if it is not of the kind that a closed port answers.
    ///
    /// Its lengths are those that [`parse::parse`] believed; its checksums are for [`Self::is_intact`].
    // In place: the kernel's stack has no room for another one.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(&mut self, frame: &F) -> Option<()> {
        let [to, _, _, _, _, _, from, ..] = frame.read::<12>(0)?;
        if (to | from) & 1 != 0 {
            return None;
        }
        let (ethertype, ip_at) = parse::link(frame).ok()?;
        self.ip_at = ip_at;
        match ethertype {
            ETHERTYPE_IPV4 => self.read_v4(frame, ip_at),
            ETHERTYPE_IPV6 => self.read_v6(frame, ip_at),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_v4<F: Frame + ?Sized>(&mut self, frame: &F, ip_at: usize) -> Option<()> {
        let [ihl, tos, t0, t1, _, _, f0, f1, _, proto] = frame.read(ip_at)?;
        let source: [u8; 4] = frame.read(ip_at.wrapping_add(12))?;
        let destination: [u8; 4] = frame.read(ip_at.wrapping_add(16))?;
        let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
        if is_fragment || source == destination || !is_single_v4(source) || !is_single_v4(destination) {
            return None;
        }
        let header_len = usize::from(ihl & 0x0f).wrapping_mul(4);
        if !is_padding(frame, ip_at, header_len) {
            return None;
        }
        self.is_v6 = false;
        self.header_len = header_len;
        self.tos = tos;
        self.source = mapped(source);
        self.destination = mapped(destination);
        let len = usize::from(u16::from_be_bytes([t0, t1])).wrapping_sub(header_len);
        let at = frame.blur(ip_at.wrapping_add(header_len));
        self.read_transport(frame, proto, at, len)
    }

    #[inline(always)]
    fn read_v6<F: Frame + ?Sized>(&mut self, frame: &F, ip_at: usize) -> Option<()> {
        let [first, second, _, _, p0, p1, next, _] = frame.read(ip_at)?;
        self.is_v6 = true;
        self.header_len = 0;
        self.tos = first << 4 | second >> 4;
        self.source = frame.read(ip_at.wrapping_add(8))?;
        self.destination = frame.read(ip_at.wrapping_add(24))?;
        let is_single = is_single_v6(&self.source) && is_single_v6(&self.destination);
        if self.source == self.destination || !is_single {
            return None;
        }
        let (mut next, mut at) = (next, ip_at.wrapping_add(Ipv6Hdr::LEN));
        let end = at.wrapping_add(usize::from(u16::from_be_bytes([p0, p1])));
        for _ in 0..MAX_EXTENSIONS {
            // Behind a routing header the destination may be another; a fragment is never answered.
            if next != PROTO_HOP_BY_HOP && next != PROTO_DESTINATION {
                break;
            }
            let [following, words] = frame.read(at)?;
            at = frame.blur(at.wrapping_add(usize::from(words).wrapping_add(1).wrapping_mul(8)));
            next = following;
        }
        self.read_transport(frame, next, at, end.checked_sub(at)?)
    }

    #[inline(always)]
    fn read_transport<F: Frame + ?Sized>(
        &mut self,
        frame: &F,
        proto: u8,
        at: usize,
        len: usize,
    ) -> Option<()> {
        self.at = at;
        self.len = len;
        match proto {
            PROTO_TCP => self.read_tcp(frame),
            PROTO_UDP => self.read_udp(frame),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_tcp<F: Frame + ?Sized>(&mut self, frame: &F) -> Option<()> {
        let head: [u8; TcpHdr::LEN] = frame.read(self.at)?;
        let [p0, p1, p2, p3, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, _, _, c0, c1, ..] = head;
        let header_len = usize::from(offset >> 4).wrapping_mul(4);
        if flags & TCP_RST != 0 {
            return None;
        }
        self.is_tcp = true;
        self.ports = [p0, p1, p2, p3];
        self.sequence = u32::from_be_bytes([q0, q1, q2, q3]);
        self.acknowledgment = [a0, a1, a2, a3];
        self.flags = flags;
        self.payload = u32::try_from(self.len.checked_sub(header_len)?).ok()?;
        self.checksum = u16::from_be_bytes([c0, c1]);
        Some(())
    }

    #[inline(always)]
    fn read_udp<F: Frame + ?Sized>(&mut self, frame: &F) -> Option<()> {
        let [p0, p1, p2, p3, l0, l1, c0, c1] = frame.read::<{ UdpHdr::LEN }>(self.at)?;
        // What lies behind the datagram is not part of it, nor of what is quoted (`pskb_trim_rcsum`).
        let own = usize::from(u16::from_be_bytes([l0, l1]));
        if own > self.len {
            return None;
        }
        self.len = own;
        self.is_tcp = false;
        self.ports = [p0, p1, p2, p3];
        self.checksum = u16::from_be_bytes([c0, c1]);
        Some(())
    }

    /// Returns whether the checksums are right, given [`sum`] of the IPv4 header and of the segment or datagram.
    ///
    /// `allows_partial`: what comes from another network namespace of the same machine has no checksum yet but the sum
    /// of its pseudo header, which a network card would complete (`CHECKSUM_PARTIAL`); the stack knows, a frame at XDP
    /// does not say.
    #[must_use]
    #[inline(always)]
    pub fn is_intact(&self, header_sum: u32, sum: u32, allows_partial: bool) -> bool {
        if !self.is_v6 && fold(header_sum) != 0xffff {
            return false;
        }
        // RFC 768: none was computed. RFC 8200, section 8.1: over IPv6 it has to be.
        if !self.is_tcp && self.checksum == 0 {
            return !self.is_v6;
        }
        let proto = if self.is_tcp { PROTO_TCP } else { PROTO_UDP };
        let pseudo = self.pseudo(proto, self.len);
        if fold(pseudo.wrapping_add(sum)) == 0xffff {
            return true;
        }
        allows_partial && self.checksum == fold(pseudo)
    }

    /// Returns the sum of the pseudo header for a protocol and a length. The mapped form of an IPv4 address has the sum of
    /// the address: `ffff` is nothing in this arithmetic (RFC 1071).
    #[inline(always)]
    fn pseudo(&self, proto: u8, len: usize) -> u32 {
        let len = u32::try_from(len).unwrap_or(0);
        words(&self.source)
            .wrapping_add(words(&self.destination))
            .wrapping_add(u32::from(proto))
            .wrapping_add(len)
    }

    /// Returns how many bytes of the packet, from its IP header on, an ICMP error quotes.
    #[must_use]
    #[inline(always)]
    pub fn quoted(&self) -> usize {
        let whole = self.at.wrapping_sub(self.ip_at).wrapping_add(self.len);
        let room = if self.is_v6 {
            LONGEST_V6.wrapping_sub(UNREACHABLE_V6_LEN)
        } else {
            LONGEST_V4.wrapping_sub(UNREACHABLE_V4_LEN)
        };
        if whole < room { whole } else { room }
    }

    /// Returns one ICMP error in what time its source may have.
    ///
    /// Over IPv6 the stack gives more to wider prefixes of the route to the source (`icmpv6_xrlim_allow`): a neighbour is in
    /// a /64, everybody else behind the default route.
    #[must_use]
    #[inline(always)]
    pub fn interval_ns(&self) -> u64 {
        if !self.is_v6 {
            return INTERVAL_V4_NS;
        }
        let ([near, _], [own, _]) = (halves(&self.source), halves(&self.destination));
        if near == own { SECOND_NS >> 2 } else { SECOND_NS >> 4 }
    }

    /// Writes the headers of a RST to a TCP segment: [`RESET_V4_LEN`] or [`RESET_V6_LEN`] bytes.
    #[inline(always)]
    pub fn write_reset(&self, sender: &Sender, head: &mut Head) {
        // The stack leaves congestion notification out of what it answers (`ip_send_unicast_reply`).
        let tos = self.tos & !ECN;
        if self.is_v6 {
            self.write_ipv6(head, sender, tos, TcpHdr::LEN, PROTO_TCP);
            self.write_tcp(head, Ipv6Hdr::LEN);
        } else {
            // `tcp_sk_init`: RSTs may not be fragmented, and what may not has no identification.
            self.write_ipv4(head, sender, &V4 { tos, len: RESET_V4_LEN, id: None, proto: PROTO_TCP });
            self.write_tcp(head, Ipv4Hdr::LEN);
        }
    }

    /// Writes the headers of a port unreachable, given [`sum`] of what it quotes: [`UNREACHABLE_V4_LEN`] or
    /// [`UNREACHABLE_V6_LEN`] bytes.
    #[inline(always)]
    pub fn write_unreachable(&self, sender: &Sender, quote_sum: u32, head: &mut Head) {
        let quoted = self.quoted();
        if self.is_v6 {
            let len = Icmpv4Hdr::LEN.wrapping_add(quoted);
            self.write_ipv6(head, sender, 0, len, PROTO_ICMPV6);
            let sum = quote_sum.wrapping_add(self.pseudo(PROTO_ICMPV6, len));
            put(head, Ipv6Hdr::LEN, unreachable([1, 4], sum));
        } else {
            // RFC 1812, section 4.3.2.5: errors go with the precedence of internetwork control.
            let tos = self.tos & 0x1e | 0xc0;
            let len = UNREACHABLE_V4_LEN.wrapping_add(quoted);
            self.write_ipv4(head, sender, &V4 { tos, len, id: Some(sender.id), proto: PROTO_ICMP });
            put(head, Ipv4Hdr::LEN, unreachable([3, 3], quote_sum));
        }
    }

    #[inline(always)]
    fn write_ipv4(&self, head: &mut Head, sender: &Sender, about: &V4) {
        let [t0, t1] = two(about.len);
        let (df, [i0, i1]) = about.id.map_or((0x40, [0, 0]), |id| (0, id.to_be_bytes()));
        let front = [0x45, about.tos, t0, t1, i0, i1, df, 0, sender.ttl, about.proto];
        let sum = words(&front).wrapping_add(words(&self.source)).wrapping_add(words(&self.destination));
        put(head, 0, front);
        put(head, 10, (!fold(sum)).to_be_bytes());
        put(head, 12, v4_of(&self.destination));
        put(head, 16, v4_of(&self.source));
    }

    #[inline(always)]
    fn write_ipv6(&self, head: &mut Head, sender: &Sender, class: u8, len: usize, proto: u8) {
        let [_, l1, l2, l3] = sender.label.to_be_bytes();
        let [p0, p1] = two(len);
        put(head, 0, [0x60 | class >> 4, class << 4 | l1 & 0x0f, l2, l3, p0, p1, proto, sender.hop_limit]);
        put(head, 8, self.destination);
        put(head, 24, self.source);
    }

    /// Writes the TCP header of a RST (RFC 9293, section 3.10.7.1).
    #[inline(always)]
    fn write_tcp(&self, head: &mut Head, at: usize) {
        let taken = u32::from(self.flags & TCP_SYN != 0)
            .wrapping_add(u32::from(self.flags & TCP_FIN != 0))
            .wrapping_add(self.payload);
        let (from, to, control) = if self.flags & TCP_ACK != 0 {
            (self.acknowledgment, [0; 4], TCP_RST)
        } else {
            ([0; 4], self.sequence.wrapping_add(taken).to_be_bytes(), TCP_RST | TCP_ACK)
        };
        let [s0, s1, d0, d1] = self.ports;
        let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (from, to);
        let front = [d0, d1, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, 0x50, control, 0, 0];
        let [c0, c1] = (!fold(self.pseudo(PROTO_TCP, TcpHdr::LEN).wrapping_add(words(&front)))).to_be_bytes();
        put(head, at, front);
        put(head, at.wrapping_add(16), [c0, c1, 0, 0]);
    }

    /// Returns a flow label that is the same for each packet of a conversation and tells nothing (RFC 6437, section 3).
    #[must_use]
    #[inline(always)]
    pub fn label(&self, secret: u64) -> u32 {
        // The stack's label of an ICMPv6 error depends on its type and code, not on the ports that it quotes.
        let ports = if self.is_tcp { u64::from(u32::from_be_bytes(self.ports)) } else { u64::MAX };
        let ([a, b], [c, d]) = (halves(&self.source), halves(&self.destination));
        let mut mixed = secret;
        for word in [a, b, c, d, ports] {
            // The finaliser of splitmix64 between the words.
            mixed = (mixed ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^= mixed >> 31;
            mixed = mixed.wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 30;
        }
        let [a, b, c, ..] = mixed.to_be_bytes();
        u32::from_be_bytes([0, a & 0x0f, b, c])
    }
}

/// What is particular to one IPv4 header.
struct V4 {
    tos: u8,
    len: usize,
    /// Identification, of a packet that may be fragmented.
    id: Option<u16>,
    proto: u8,
}

/// The two bits of explicit congestion notification (RFC 3168).
const ECN: u8 = 0x03;

/// Returns an ICMP header of this type and code, given the sum of all else that its checksum is over.
#[inline(always)]
fn unreachable([kind, code]: [u8; 2], sum: u32) -> [u8; Icmpv4Hdr::LEN] {
    let [c0, c1] = (!fold(sum.wrapping_add(words(&[kind, code])))).to_be_bytes();
    [kind, code, c0, c1, 0, 0, 0, 0]
}

/// Returns whether an IPv4 address is one host's, and one that the stack lets come in from outside (`ip_route_input_slow`).
#[inline(always)]
fn is_single_v4(address: [u8; 4]) -> bool {
    let [net, ..] = address;
    let is_group = net & 0xf0 == 0xe0 || address == [255; 4];
    !is_group && net != 0 && net != 127
}

/// Returns whether an IPv6 address is one host's: neither a group, nor `::`, nor `::1`, nor IPv4 in disguise.
#[inline(always)]
fn is_single_v6(address: &Address) -> bool {
    let [net, ..] = *address;
    let [high, low] = halves(address);
    net != 0xff && !(high == 0 && low <= 1) && !is_mapped(address)
}

/// Returns whether the options of an IPv4 header are padding. Others the stack echoes, fills in or takes offence at.
#[inline(always)]
fn is_padding<F: Frame + ?Sized>(frame: &F, ip_at: usize, header_len: usize) -> bool {
    for at in (Ipv4Hdr::LEN..60).step_by(4) {
        if at >= header_len {
            break;
        }
        let Some([a, b, c, d]) = frame.read(ip_at.wrapping_add(at)) else { return false };
        if (a | b | c | d) > 1 {
            return false;
        }
    }
    true
}

/// Returns the sum of so many bytes of a frame, as words of 16 bits (RFC 1071); `None` if they are not all there, or more
/// than [`MAX_SUMMED`].
#[inline(always)]
pub fn sum<F: Frame + ?Sized>(frame: &F, at: usize, len: usize) -> Option<u32> {
    let (mut sum, mut at, mut rest) = (0_u32, at, len);
    for _ in 0..CHUNKS {
        if rest < CHUNK {
            break;
        }
        sum = sum.wrapping_add(words(&frame.read::<CHUNK>(at)?));
        at = at.wrapping_add(CHUNK);
        rest = rest.wrapping_sub(CHUNK);
    }
    if rest >= CHUNK {
        return None;
    }
    let mut at = frame.blur(at);
    for _ in 0..CHUNK / 4 {
        if rest < 4 {
            break;
        }
        sum = sum.wrapping_add(words(&frame.read::<4>(at)?));
        at = at.wrapping_add(4);
        rest = rest.wrapping_sub(4);
    }
    let [a, b, c] = match rest {
        0 => [0, 0, 0],
        1 => {
            // With the byte before it: the verifier does not see that one byte lies before the end.
            let [_, a] = frame.read(frame.blur(at.wrapping_sub(1)))?;
            [a, 0, 0]
        }
        2 => {
            let [a, b] = frame.read(at)?;
            [a, b, 0]
        }
        _ => frame.read(at)?,
    };
    Some(sum.wrapping_add(words(&[a, b, c, 0])))
}

/// Returns the sum of an even number of bytes, as words of 16 bits.
#[inline(always)]
fn words(bytes: &[u8]) -> u32 {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().fold(0_u32, |sum, pair| sum.wrapping_add(u32::from(u16::from_be_bytes(*pair))))
}

/// Puts bytes into the headers of an answer.
#[inline(always)]
fn put<const N: usize>(head: &mut Head, at: usize, bytes: [u8; N]) {
    let place = head.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>());
    if let Some(place) = place {
        *place = bytes;
    }
}

/// Folds a sum into 16 bits.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    let [_, _, high, low] = (once & 0xffff).wrapping_add(once >> 16).to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[inline(always)]
fn two(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

#[inline(always)]
fn v4_of(address: &Address) -> [u8; 4] {
    let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d] = *address;
    [a, b, c, d]
}

/// Returns the prefix and the interface identifier of an address.
#[inline(always)]
fn halves(address: &Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let mut word = 0;
        for _ in 0..BURST {
            word = admit(word, SECOND_NS, INTERVAL_V4_NS, BURST).expect("within the burst");
        }
        assert_eq!(admit(word, SECOND_NS, INTERVAL_V4_NS, BURST), None);
        assert_eq!(admit(word, 2 * SECOND_NS - 1, INTERVAL_V4_NS, BURST), None);
        let word = admit(word, 2 * SECOND_NS, INTERVAL_V4_NS, BURST).expect("one more a second");
        assert_eq!(admit(word, 2 * SECOND_NS, INTERVAL_V4_NS, BURST), None);
    }

    #[test]
    fn a_sum_is_that_of_rfc_1071_whatever_its_length() {
        let frame: Vec<u8> = (0..=u8::MAX).cycle().skip(3).take(MAX_SUMMED + 60).collect();
        for len in (0..=300).chain([MAX_SUMMED - 1, MAX_SUMMED, MAX_SUMMED + 31]) {
            let bytes = &frame[14..14 + len];
            let expected = bytes
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
            assert_eq!(sum(frame.as_slice(), 14, len), Some(expected.sum()), "{len} bytes");
        }
    }

    #[test]
    fn what_is_not_there_or_too_long_has_no_sum() {
        let frame = vec![1; MAX_SUMMED + 100];
        assert_eq!(sum(&frame[..60], 14, 47), None);
        assert!(sum(&frame[..60], 14, 46).is_some());
        assert_eq!(sum(frame.as_slice(), 14, MAX_SUMMED + 32), None);
    }

    #[test]
    fn a_label_is_the_same_for_a_conversation_and_for_no_other() {
        let question = Question { is_tcp: true, ports: [1, 2, 3, 4], ..Question::EMPTY };
        let other = Question { ports: [1, 2, 3, 5], ..question };
        assert_eq!(question.label(7), question.label(7));
        assert_ne!(question.label(7), other.label(7));
        assert_ne!(question.label(7), question.label(8));
        assert!(question.label(7) < 1 << 20);
    }
}
