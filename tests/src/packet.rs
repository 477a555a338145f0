//! Frames built byte by byte, so that every field can lie. L4 checksums are zero: no gate at XDP can check them,
//! since legitimate frames from software offload carry partial ones.

use knock_common::abi::Address;

/// The host behind the gate.
pub const HOST: [u8; 4] = [203, 0, 113, 1];
/// A source without rights.
pub const STRANGER: [u8; 4] = [203, 0, 113, 9];
/// The host behind the gate.
pub const HOST6: Address = v6_address(1, 1);
/// A source without rights.
pub const STRANGER6: Address = v6_address(0, 9);

/// Type of IPv4 (IEEE 802 numbers).
pub const IPV4: u16 = 0x0800;
/// Type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Tag of 802.1Q.
pub const VLAN: u16 = 0x8100;
/// Tag of 802.1ad.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Protocol numbers (IANA).
pub const HOP_BY_HOP: u8 = 0;
/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// Authentication header.
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6 destination options.
pub const DESTINATION: u8 = 60;

/// More fragments follow, in IPv4's word of flags and offset.
pub const MORE: u16 = 0x2000;
/// TCP flags.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Refuses one.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// Acknowledges.
pub const ACK: u8 = 0x10;
/// Urgent.
pub const URG: u8 = 0x20;
/// Congestion echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// Returns 2001:db8:`net`::`host`.
pub const fn v6_address(net: u8, host: u8) -> Address {
    [0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// Returns an Ethernet frame to the host alone.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype, payload)
}

/// Returns an Ethernet frame with VLAN tags of these types, outermost first.
pub fn tagged(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet: right in every field that is not set otherwise.
#[derive(Clone, Debug)]
pub struct V4 {
    /// Source.
    pub source: [u8; 4],
    /// Destination.
    pub destination: [u8; 4],
    /// Protocol.
    pub proto: u8,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Options, whole words of 4 bytes.
    pub options: Vec<u8>,
    /// Version and header length, if they are to lie.
    pub version_ihl: Option<u8>,
    /// Total length, if it is to lie.
    pub total: Option<u16>,
    /// The header checksum is wrong by one.
    pub is_checksum_wrong: bool,
}

impl V4 {
    /// Returns a packet of a stranger to the host.
    pub fn new(proto: u8) -> Self {
        Self {
            source: STRANGER,
            destination: HOST,
            proto,
            fragment: 0,
            options: vec![],
            version_ihl: None,
            total: None,
            is_checksum_wrong: false,
        }
    }

    /// Returns the bytes of the packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let ihl = 0x40 | u8::try_from(header_len / 4).expect("at most 15 words");
        let total = u16::try_from(header_len + payload.len()).expect("a short packet");
        let mut packet = vec![self.version_ihl.unwrap_or(ihl), 0];
        packet.extend(self.total.unwrap_or(total).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.proto, 0, 0]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(&self.options);
        packet.extend(payload);
        let claimed = usize::from(packet[0] & 0x0f) * 4;
        let checksum = checksum(&packet[..claimed.min(packet.len())]) ^ u16::from(self.is_checksum_wrong);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// Returns the packet in an Ethernet frame.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(IPV4, &self.packet(payload))
    }
}

/// RFC 1071 over a header whose checksum field is zero.
pub(crate) fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// An IPv6 packet: right in every field that is not set otherwise.
#[derive(Clone, Debug)]
pub struct V6 {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Extension headers in order: kind, and all bytes with the first left for the kind of the next.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Protocol behind them.
    pub proto: u8,
    /// First byte, if the version is to lie.
    pub version: u8,
    /// Payload length, if it is to lie.
    pub len: Option<u16>,
}

impl V6 {
    /// Returns a packet of a stranger to the host.
    pub fn new(proto: u8) -> Self {
        Self { source: STRANGER6, destination: HOST6, extensions: vec![], proto, version: 0x60, len: None }
    }

    /// Returns a packet with these extension headers.
    pub fn behind(proto: u8, extensions: &[(u8, Vec<u8>)]) -> Self {
        Self { extensions: extensions.to_vec(), ..Self::new(proto) }
    }

    /// Returns the bytes of the packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.proto]).collect();
        let mut body = Vec::new();
        for ((_, bytes), next) in self.extensions.iter().zip(&kinds[1..]) {
            body.push(*next);
            body.extend(&bytes[1..]);
        }
        body.extend(payload);
        let len = u16::try_from(body.len()).expect("a short packet");
        let mut packet = vec![self.version, 0, 0, 0];
        packet.extend(self.len.unwrap_or(len).to_be_bytes());
        packet.extend([kinds[0], 64]);
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(body);
        packet
    }

    /// Returns the packet in an Ethernet frame.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(IPV6, &self.packet(payload))
    }
}

/// Returns an extension header with `more` words of 8 bytes beyond the first; of 4 bytes for authentication.
pub fn extension(kind: u8, more: u8) -> (u8, Vec<u8>) {
    let len = if kind == AUTHENTICATION { 4 * (usize::from(more) + 2) } else { 8 * (usize::from(more) + 1) };
    let mut bytes = vec![0; len];
    bytes[1] = more;
    (kind, bytes)
}

/// Returns a fragment header: offset in units of 8 bytes, and whether more fragments follow.
pub fn fragment_header(offset: u16, is_more: bool) -> (u8, Vec<u8>) {
    let [high, low] = (offset << 3 | u16::from(is_more)).to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 1])
}

/// Returns a TCP header from port 40000.
pub fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40];
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0x10, 0x01, 0, 0, 0, 0, 0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    bytes
}

/// Returns a UDP datagram from port 40000 with so many bytes of payload.
pub fn udp(port: u16, size: u16) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40];
    bytes.extend(port.to_be_bytes());
    bytes.extend((8 + size).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(8 + usize::from(size), b'x');
    bytes
}

/// Returns an ICMP or ICMPv6 message with so many bytes after the first 8.
pub fn icmp(kind: u8, code: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0, 0, 77, 0, 1];
    bytes.resize(8 + size, b'x');
    bytes
}
