//! VLAN sub-interfaces without the kernel's 802.1Q module, which small kernels lack.
//!
//! The sub-interface `DEV.5` is one end of a veth pair. A thread carries frames between the other end and `DEV`: on the
//! way out it puts the tag in, on the way in the kernel has already taken it off for packet sockets. So on the wire,
//! and for XDP on `DEV`, every frame is tagged.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType},
};

use crate::netns::{Namespace, up};

const MAC_ADDRESSES: usize = 12;
const TPID: [u8; 2] = [0x81, 0x00];
const LONGEST_FRAME: usize = 9_100;

/// One end of a VLAN trunk.
#[derive(Debug)]
pub struct Trunk {
    is_ended: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Trunk {
    /// Makes the sub-interface of a device and carries its frames until dropped.
    pub fn new(namespace: &Namespace, device: &str, vlan: u16) -> Self {
        let (inner, outer) = (format!("{device}.{vlan}"), device.to_owned());
        let middle = format!("{device}x{vlan}");
        namespace.run(&format!("ip link add {inner} type veth peer name {middle}"));
        for quiet in [&middle, &outer] {
            namespace.run(&format!("sysctl -qw net.ipv6.conf.{quiet}.disable_ipv6=1"));
        }
        up(namespace, &middle);
        up(namespace, &inner);
        let is_ended = Arc::new(AtomicBool::new(false));
        let (path, ended) = (namespace.path(), Arc::clone(&is_ended));
        let carrier = thread::spawn(move || {
            setns(File::open(&path).expect("the namespace is there"), CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("cannot enter {path}: {error}"));
            carry(&packets_of(&middle), &packets_of(&outer), vlan, &ended);
        });
        Self { is_ended, carrier: Some(carrier) }
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if self.carrier.take().is_some_and(|carrier| carrier.join().is_err()) {
            eprintln!("the thread that carried a VLAN's frames had panicked");
        }
    }
}

/// Opens a packet socket on a device of the thread's namespace.
fn packets_of(device: &str) -> OwnedFd {
    let kind = (SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC);
    let packets = socket::socket(AddressFamily::Packet, kind.0, kind.1, SockProtocol::EthAll);
    let packets = packets.expect("root may open packet sockets");
    let mut addresses = getifaddrs().expect("a namespace lists its devices");
    let link: LinkAddr = addresses
        .find_map(|entry| entry.address.filter(|_| entry.interface_name == device)?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("{device} has no link address"));
    socket::bind(packets.as_raw_fd(), &link)
        .unwrap_or_else(|error| panic!("cannot bind to {device}: {error}"));
    packets
}

fn carry(middle: &OwnedFd, outer: &OwnedFd, vlan: u16, is_ended: &AtomicBool) {
    let mut frame = vec![0; LONGEST_FRAME];
    while !is_ended.load(Ordering::Relaxed) {
        let mut waiting =
            [PollFd::new(middle.as_fd(), PollFlags::POLLIN), PollFd::new(outer.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::from(50_u8)).expect("polling two sockets");
        while let Some(length) = receive(middle, &mut frame) {
            let (addresses, rest) = frame[..length].split_at(MAC_ADDRESSES);
            send(outer, &[addresses, &TPID, &vlan.to_be_bytes(), rest].concat());
        }
        while let Some(length) = receive(outer, &mut frame) {
            send(middle, &frame[..length]);
        }
    }
}

fn receive(packets: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    match socket::recv(packets.as_raw_fd(), frame, MsgFlags::empty()) {
        Ok(length) => (length > MAC_ADDRESSES).then_some(length),
        Err(Errno::EAGAIN | Errno::ENETDOWN) => None,
        Err(error) => panic!("cannot receive a frame: {error}"),
    }
}

/// Sends a frame; one that finds no room is lost, as on any network.
fn send(packets: &OwnedFd, frame: &[u8]) {
    match socket::send(packets.as_raw_fd(), frame, MsgFlags::empty()) {
        Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENETDOWN) => {}
        Err(error) => panic!("cannot send a frame: {error}"),
    }
}
