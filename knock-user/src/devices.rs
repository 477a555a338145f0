//! The machine's network interfaces as netlink tells of them: what is there, what it carries, and what lies under it.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt as _;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use crate::present::{Carried, carried_by};

/// Kinds of interface whose packets all come through the one that they are made on.
const MADE_ON_ANOTHER: [&str; 3] = ["vlan", "macvlan", "ipvlan"];

/// The kind of a virtual cable's end.
pub const VETH: &str = "veth";

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its link-layer address, where it has one of Ethernet.
    pub address: Option<[u8; 6]>,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Bytes of the longest packet.
    pub mtu: u32,
    /// What it is where it is no network card: `veth`, `bridge`, `vlan`.
    pub kind: Option<String>,
    /// Queues it receives by.
    pub rx_queues: u32,
    /// Queues it sends by.
    pub tx_queues: u32,
    /// Index of the bond or bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the interface that it is made on, as a VLAN is.
    pub made_on: Option<u32>,
    /// Its XDP program.
    pub carried: Option<Carried>,
}

/// Returns all interfaces of this network namespace.
///
/// # Errors
/// When netlink does not answer.
pub fn all() -> Result<Vec<Device>> {
    // A thread of its own, since a caller may be inside a runtime already, which would not have another one.
    let answer = std::thread::scope(|scope| scope.spawn(ask).join());
    answer.map_err(|_| anyhow!("asking netlink for the interfaces failed"))?
}

/// Returns whether an interface is one end of a virtual cable.
///
/// # Errors
/// When netlink does not answer.
pub fn is_veth(name: &str) -> Result<bool> {
    Ok(all()?.iter().any(|device| device.name == name && device.kind.as_deref() == Some(VETH)))
}

fn ask() -> Result<Vec<Device>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let messages: Vec<LinkMessage> =
            handle.link().get().execute().try_collect().await.context("asking netlink for the interfaces")?;
        connection.abort();
        Ok(messages.into_iter().map(device).collect())
    })
}

fn device(message: LinkMessage) -> Device {
    let flags = message.header.flags;
    let mut device = Device {
        index: message.header.index,
        is_up: flags.contains(LinkFlags::Up),
        is_loopback: flags.contains(LinkFlags::Loopback),
        ..Device::default()
    };
    let mut link = None;
    for attribute in message.attributes {
        // The library knows a hundred attributes, and may learn more.
        if let LinkAttribute::IfName(name) = attribute {
            device.name = name;
        } else if let LinkAttribute::Address(address) = attribute {
            device.address = address.try_into().ok();
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            device.mtu = mtu;
        } else if let LinkAttribute::NumRxQueues(queues) = attribute {
            device.rx_queues = queues;
        } else if let LinkAttribute::NumTxQueues(queues) = attribute {
            device.tx_queues = queues;
        } else if let LinkAttribute::Controller(master) = attribute {
            device.master = Some(master);
        } else if let LinkAttribute::Link(index) = attribute {
            link = Some(index);
        } else if let LinkAttribute::Xdp(facts) = attribute {
            device.carried = carried_by(&facts);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            device.kind = infos.iter().find_map(kind);
        }
    }
    let is_made_on = device.kind.as_deref().is_some_and(|kind| MADE_ON_ANOTHER.contains(&kind));
    device.made_on = link.filter(|_| is_made_on);
    device
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None }
}

/// Returns the addresses of every interface that has any.
///
/// # Errors
/// When they cannot be listed.
pub fn addresses() -> Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for one in getifaddrs().context("listing the addresses of this machine")? {
        let Some(storage) = one.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let Some(address) = v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))) else {
            continue;
        };
        addresses.entry(one.interface_name).or_default().push(address);
    }
    Ok(addresses)
}

/// Returns the interfaces that are up, have addresses, and whose packets come by none of the guarded ones.
#[must_use]
pub fn uncovered<'a>(
    devices: &[Device],
    addresses: &'a BTreeMap<String, Vec<IpAddr>>,
    guarded: &[u32],
) -> Vec<(String, &'a [IpAddr])> {
    let is_bare = |device: &&Device| {
        device.is_up && !device.is_loopback && !is_covered(devices, device, guarded, devices.len())
    };
    let with_addresses =
        |device: &Device| Some((device.name.clone(), addresses.get(&device.name)?.as_slice()));
    devices.iter().filter(is_bare).filter_map(with_addresses).collect()
}

/// Returns whether all packets of an interface come by guarded ones: it is one, or is made of nothing but such. `depth`
/// bounds how far down is looked.
fn is_covered(devices: &[Device], device: &Device, guarded: &[u32], depth: usize) -> bool {
    if guarded.contains(&device.index) {
        return true;
    }
    let is_under =
        |other: &&Device| other.master == Some(device.index) || device.made_on == Some(other.index);
    let mut under = devices.iter().filter(is_under).peekable();
    depth > 0 && under.peek().is_some() && under.all(|one| is_covered(devices, one, guarded, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, index: u32) -> Device {
        Device { name: name.to_owned(), index, is_up: true, ..Device::default() }
    }

    fn names(devices: &[Device], guarded: &[u32]) -> Vec<String> {
        let one: IpAddr = "192.0.2.1".parse().expect("an address");
        let addresses = devices.iter().map(|device| (device.name.clone(), vec![one])).collect();
        uncovered(devices, &addresses, guarded).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn an_interface_with_addresses_and_no_gate_is_uncovered() {
        let lo = Device { is_loopback: true, ..device("lo", 1) };
        let down = Device { is_up: false, ..device("eth2", 4) };

        assert_eq!(names(&[lo, device("eth0", 2), device("eth1", 3), down], &[2]), ["eth1"]);
    }

    #[test]
    fn an_interface_without_addresses_is_nothing_to_warn_of() {
        assert!(uncovered(&[device("eth1", 3)], &BTreeMap::new(), &[]).is_empty());
    }

    #[test]
    fn what_is_made_on_a_guarded_interface_is_covered_and_on_another_is_not() {
        let vlan = Device { made_on: Some(2), ..device("eth0.5", 5) };
        let on_vlan = Device { made_on: Some(5), ..device("eth0.5.6", 6) };
        let devices = [device("eth0", 2), device("eth1", 3), vlan, on_vlan];

        assert_eq!(names(&devices, &[2]), ["eth1"]);
        assert_eq!(names(&devices, &[3]), ["eth0", "eth0.5", "eth0.5.6"]);
    }

    #[test]
    fn a_bridge_is_covered_when_every_port_of_it_is() {
        let port = |name, index| Device { master: Some(9), ..device(name, index) };
        let devices = [port("eth0", 2), port("eth1", 3), device("br0", 9)];

        assert_eq!(names(&devices, &[2, 3]), Vec::<String>::new());
        assert_eq!(names(&devices, &[2]), ["eth1", "br0"]);
    }

    #[test]
    fn interfaces_that_lie_on_one_another_in_a_circle_end_the_search() {
        let devices =
            [Device { made_on: Some(3), ..device("a", 2) }, Device { made_on: Some(2), ..device("b", 3) }];

        assert_eq!(names(&devices, &[]), ["a", "b"]);
    }
}
