//! Sources beyond counting that complete a sequence of two SYNs, as raw frames: events in any number, at any rate.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType},
};

use crate::{
    netns::Namespace,
    packet::{SYN, TCP, V4, tcp},
};

/// Where the source address, the TCP port and the sequence number are in a frame without options and tags.
const SOURCE: usize = 14 + 12;
const TCP_HEADER: usize = 14 + 20;
const SEQUENCE: usize = TCP_HEADER + 4;

/// A sender of sequences, on a device of a namespace.
#[derive(Debug)]
pub struct Flood {
    packets: OwnedFd,
    steps: [Vec<u8>; 2],
    sources: u32,
    number: u32,
}

impl Flood {
    /// Opens a device. Sequences are those of `steps`, from so many sources one after the other, then from the first again.
    pub fn new(namespace: &Namespace, device: &str, to: [u8; 4], steps: [u16; 2], sources: u32) -> Self {
        let frame = |port| V4 { destination: to, ..V4::new(TCP) }.frame(&tcp(port, SYN));
        let packets = namespace.within(|| packets_of(device));
        Self { packets, steps: steps.map(frame), sources, number: 0 }
    }

    /// Lets the next sources complete the sequence; returns how many did, by the sender's account.
    pub fn send(&mut self, count: u32) -> u32 {
        (0..count).map(|_| u32::from(self.one())).sum()
    }

    /// Returns the source of a sequence by its number.
    pub fn source(&self, number: u32) -> [u8; 4] {
        (0x0a80_0000 | (number % self.sources)).to_be_bytes()
    }

    fn one(&mut self) -> bool {
        let source = self.source(self.number);
        let sequence = self.number.to_be_bytes();
        self.number += 1;
        self.steps.iter_mut().all(|frame| {
            frame[SOURCE..SOURCE + 4].copy_from_slice(&source);
            // Another knock than the last one of this source, and not a copy of it.
            frame[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence);
            checksum(frame);
            send(&self.packets, frame)
        })
    }
}

/// The IPv4 header's checksum (RFC 1071).
fn checksum(frame: &mut [u8]) {
    let header = &mut frame[14..TCP_HEADER];
    header[10..12].fill(0);
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Opens a packet socket on a device of this thread's namespace, which receives nothing.
pub(crate) fn packets_of(device: &str) -> OwnedFd {
    let packets =
        socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>);
    let packets = packets.expect("root may open packet sockets");
    let mut addresses = getifaddrs().expect("a namespace lists its devices");
    let link: LinkAddr = addresses
        .find_map(|entry| entry.address.filter(|_| entry.interface_name == device)?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("{device} has no link address"));
    socket::bind(packets.as_raw_fd(), &link)
        .unwrap_or_else(|error| panic!("cannot bind to {device}: {error}"));
    packets
}

/// Returns whether the device took the frame.
pub(crate) fn send(packets: &OwnedFd, frame: &[u8]) -> bool {
    match socket::send(packets.as_raw_fd(), frame, MsgFlags::empty()) {
        Ok(_) => true,
        Err(Errno::ENOBUFS | Errno::EAGAIN) => false,
        Err(error) => panic!("cannot send a frame: {error}"),
    }
}
