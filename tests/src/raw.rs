//! Frames as a client of its own making sends them, and the frames that come back.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType},
};

use crate::{
    netns::Namespace,
    packet::{DESTINATION, HOP_BY_HOP, TCP, UDP, checksum},
};

/// How long an answer that is certain to come is awaited.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_FRAME: usize = 9_100;

/// A packet socket on a device.
#[derive(Debug)]
pub struct Raw(OwnedFd);

impl Raw {
    /// Opens one on a device of a namespace.
    pub fn new(namespace: &Namespace, device: &str) -> Self {
        namespace.within(|| {
            let kind = (SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC);
            let packets = socket::socket(AddressFamily::Packet, kind.0, kind.1, SockProtocol::EthAll);
            let packets = packets.expect("root may open packet sockets");
            socket::bind(packets.as_raw_fd(), &link(device)).expect("a device to bind to");
            Self(packets)
        })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty()).expect("room for a frame");
        assert_eq!(sent, frame.len());
    }

    /// Takes what has come in until a frame that is wanted is there, and returns all of it; panics if it never is.
    pub fn frames_until(&self, is_last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = self.take() {
                let is_wanted = is_last(&frame);
                frames.push(frame);
                if is_wanted {
                    return frames;
                }
            }
            assert!(Instant::now() < end, "the awaited frame never came: {frames:x?}");
            let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::from(50_u8)).expect("polling a socket");
        }
    }

    /// Takes a frame that came in, if there is one; what this side sent is not among them.
    fn take(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; LONGEST_FRAME];
        loop {
            match socket::recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut frame) {
                Ok((_, Some(from))) if is_outgoing(&from) => {}
                Ok((len, _)) => {
                    frame.truncate(len);
                    return Some(frame);
                }
                Err(Errno::EAGAIN) => return None,
                Err(error) => panic!("cannot receive a frame: {error}"),
            }
        }
    }
}

/// `PACKET_OUTGOING` of `if_packet.h`.
fn is_outgoing(from: &LinkAddr) -> bool {
    from.pkttype() == 4
}

/// Returns the link-layer address of a device of a namespace.
pub fn link_address(namespace: &Namespace, device: &str) -> [u8; 6] {
    namespace.within(|| link(device).addr().expect("an Ethernet device"))
}

fn link(device: &str) -> LinkAddr {
    let mut addresses = getifaddrs().expect("a namespace lists its devices");
    addresses
        .find_map(|entry| entry.address.filter(|_| entry.interface_name == device)?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("{device} has no link address"))
}

/// Returns a frame with the right TCP or UDP checksum, if it has such a header and no IPv6 extension headers but options.
pub fn seal(mut frame: Vec<u8>) -> Vec<u8> {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let ip = at + 2;
    let is_v6 = frame[at] == 0x86;
    let (mut proto, mut l4, addresses) = if is_v6 {
        (frame[ip + 6], ip + 40, ip + 8..ip + 40)
    } else {
        (frame[ip + 9], ip + usize::from(frame[ip] & 15) * 4, ip + 12..ip + 20)
    };
    while is_v6 && [HOP_BY_HOP, DESTINATION].contains(&proto) {
        (proto, l4) = (frame[l4], l4 + 8 * (usize::from(frame[l4 + 1]) + 1));
    }
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = if is_v6 { ip + 40 + word(ip + 4) } else { ip + word(ip + 2) };
    let (sum_at, end) = match proto {
        TCP => (l4 + 16, end),
        UDP => (l4 + 6, l4 + word(l4 + 4)),
        _ => return frame,
    };
    frame[sum_at..sum_at + 2].fill(0);
    let mut summed = frame[addresses].to_vec();
    summed.extend([0, proto]);
    summed.extend(u16::try_from(end - l4).expect("a short packet").to_be_bytes());
    summed.extend(&frame[l4..end]);
    let sum = checksum(&summed);
    frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}
