//! Frames around a transport segment, from plain to hostile: tags, options, extensions, fragments, lies and cuts.

use knock_common::abi::{Address, is_mapped};

use crate::{
    packet::{
        AUTHENTICATION, DESTINATION, HOP_BY_HOP, IPV4, IPV6, MORE, ROUTING, SERVICE_VLAN, V4, V6, VLAN,
        extension, fragment_header, tagged,
    },
    random::Random,
};

/// Where a frame comes from and goes to; both of one family.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
}

impl Route {
    /// Returns whether it is IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        is_mapped(&self.source)
    }
}

/// Returns a frame that is right in every way.
pub fn plain(route: Route, proto: u8, segment: &[u8]) -> Vec<u8> {
    if route.is_v4() {
        return tagged(&[], IPV4, &v4(route, proto).packet(segment));
    }
    tagged(&[], IPV6, &v6(route, proto).packet(segment))
}

/// Returns a frame with anything that a network, or somebody in it, can do to one.
pub fn strange(random: &mut Random, route: Route, proto: u8, segment: &[u8]) -> Vec<u8> {
    let tags: Vec<u16> =
        (0..*random.pick(&[0, 0, 1, 2, 3])).map(|_| *random.pick(&[VLAN, SERVICE_VLAN])).collect();
    let packet = if route.is_v4() {
        strange_v4(random, route, proto, segment)
    } else {
        strange_v6(random, route, proto, segment)
    };
    let ethertype = if route.is_v4() != random.once_in(60) { IPV4 } else { IPV6 };
    let mut frame = tagged(&tags, if random.once_in(30) { random.word() } else { ethertype }, &packet);
    if random.once_in(25) {
        frame[0] |= 1;
    }
    frame
}

/// Returns the frame with a few bytes changed, cut off or added; 14 bytes are left.
pub fn damage(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    match random.below(5) {
        0 => frame.truncate(14 + random.below(frame.len() - 13)),
        1 => frame.resize(frame.len() + 1 + random.below(60), random.byte()),
        2 => frame.truncate(frame.len() - random.below(3.min(frame.len() - 13))),
        _ => {
            for _ in 0..=random.below(3) {
                let at = random.below(frame.len());
                frame[at] =
                    if random.once_in(2) { random.byte() } else { frame[at] ^ (1 << random.below(8)) };
            }
        }
    }
    frame
}

fn v4(route: Route, proto: u8) -> V4 {
    let tail = |address: Address| *address.last_chunk::<4>().expect("16 bytes");
    V4 { source: tail(route.source), destination: tail(route.destination), ..V4::new(proto) }
}

fn v6(route: Route, proto: u8) -> V6 {
    V6 { source: route.source, destination: route.destination, ..V6::new(proto) }
}

fn strange_v4(random: &mut Random, route: Route, proto: u8, segment: &[u8]) -> Vec<u8> {
    let mut packet = v4(route, proto);
    if random.once_in(2) {
        packet.options = (0..4 * random.below(11)).map(|_| random.byte()).collect();
    }
    if random.once_in(5) {
        packet.fragment = *random.pick(&[MORE, 0x4000, 1, 2, 3, MORE | 1, MORE | 185, 0x1fff]);
    }
    if random.once_in(8) {
        packet.version_ihl = Some(*random.pick(&[0x44, 0x45, 0x46, 0x4f, 0x40, 0x65, 0x05, 0xff]));
    }
    if random.once_in(8) {
        packet.total = Some(lie(random, 20 + packet.options.len() + segment.len()));
    }
    packet.is_checksum_wrong = random.once_in(8);
    packet.packet(segment)
}

fn strange_v6(random: &mut Random, route: Route, proto: u8, segment: &[u8]) -> Vec<u8> {
    let mut packet = v6(route, proto);
    for _ in 0..*random.pick(&[0, 1, 1, 2, 3, 6, 7]) {
        packet.extensions.push(strange_extension(random));
    }
    if random.once_in(12) {
        packet.version = *random.pick(&[0x40, 0x6f, 0x00, 0xf0]);
    }
    if random.once_in(8) {
        packet.len = Some(lie(random, segment.len()));
    }
    if random.once_in(12) {
        packet.source = knock_common::abi::mapped([198, 51, 100, 1]);
    }
    packet.packet(segment)
}

fn strange_extension(random: &mut Random) -> (u8, Vec<u8>) {
    match random.below(6) {
        0 => extension(HOP_BY_HOP, 0),
        1 => fragment_header(*random.pick(&[0, 0, 0, 1, 2, 3, 100]), random.once_in(2)),
        2 => extension(AUTHENTICATION, *random.pick(&[0, 1, 4, 5])),
        3 => extension(ROUTING, *random.pick(&[0, 1, 2])),
        4 => {
            // A length that may go past the end.
            let (kind, mut bytes) = extension(DESTINATION, 0);
            bytes[1] = *random.pick(&[1, 2, 30, 255]);
            (kind, bytes)
        }
        _ => extension(DESTINATION, *random.pick(&[0, 0, 1, 3])),
    }
}

/// Returns a length near the right one, or at an edge.
fn lie(random: &mut Random, right: usize) -> u16 {
    let right = u16::try_from(right).expect("a short packet");
    let wrong = right.wrapping_add(*random.pick(&[1, 4, 8, u16::MAX, 0xfffc, 0xfff8]));
    *random.pick(&[wrong, wrong, 0, 1, 19, 20, 40, u16::MAX])
}
