//! The interfaces: what each can do natively, what stands in the way, and what no gate covers.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use anyhow::Result;

use super::Finding;
use crate::{
    attach::Way,
    devices::{self, Device},
    nic::{self, Native},
    present,
    report::{InterfaceState, problems::interfaces, sight::Sight, status::uncovered, text::count},
};

/// Longest packet that a driver without fragments hands to XDP: a page less what the kernel keeps around it.
const PAGE_MTU: u32 = 3498;

/// Looks at interfaces by name, or at those of the gate, or at all that have addresses.
///
/// # Errors
/// When the addresses cannot be listed.
pub fn look(names: &[String], sight: &Sight, devices: &[Device], is_root: bool) -> Result<Vec<Finding>> {
    let known = interfaces(sight, devices);
    let names =
        if names.is_empty() { chosen(sight, devices, &devices::addresses()?) } else { names.to_vec() };
    let mut findings = Vec::new();
    for name in names {
        let Some(device) = devices.iter().find(|device| device.name == name) else {
            let here: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            findings.push(Finding::fail(
                name,
                "there is no such interface here",
                format!("one of {}", here.join(", ")),
            ));
            continue;
        };
        let is_ours = known.iter().any(|one| one.name == name && one.state == InterfaceState::Attached);
        findings.extend(one(device, is_ours, is_root));
    }
    if !sight.links.is_empty() {
        findings.extend(uncovered(devices, &known)?.iter().map(|bare| {
            let addresses: Vec<String> = bare.addresses.iter().map(IpAddr::to_string).collect();
            let what = format!("has addresses ({}) and no gate", addresses.join(", "));
            Finding::warn(&bare.name, what, "add it to `interfaces`, unless it is to be open")
        }));
    }
    Ok(findings)
}

fn chosen(sight: &Sight, devices: &[Device], addresses: &BTreeMap<String, Vec<IpAddr>>) -> Vec<String> {
    match sight.newest() {
        Some(about) => about.interfaces.clone(),
        None => {
            let has_addresses = |device: &&Device| {
                device.is_up && !device.is_loopback && addresses.contains_key(&device.name)
            };
            devices.iter().filter(has_addresses).map(|device| device.name.clone()).collect()
        }
    }
}

fn one(device: &Device, is_ours: bool, is_root: bool) -> Vec<Finding> {
    let name = &device.name;
    let mut findings = vec![Finding::ok(name, facts(device))];
    if !device.is_up {
        findings.push(Finding::warn(name, "it is down", format!("ip link set {name} up")));
    }
    if is_ours && device.carried.is_some_and(|carried| carried.way == Some(Way::Native)) {
        findings.push(Finding::ok(name, "it carries the gate natively"));
        return findings;
    }
    findings.push(modes(device, nic::native(device.index).ok()));
    match nic::turned_on(name) {
        Ok(features) => findings.extend(in_the_way(name, &features)),
        Err(_) => findings.push(Finding::unseen(
            name,
            "the kernel does not tell whether the card merges packets (LRO)",
            format!("ethtool -k {name}"),
        )),
    }
    findings.extend(device.carried.filter(|_| !is_ours).map(|_| other_program(name, is_root)));
    findings
}

fn other_program(name: &str, is_root: bool) -> Finding {
    if !is_root {
        let what = "it carries an XDP program: only root can tell whether it is the gate";
        return Finding::unseen(name, what, "run it with sudo");
    }
    let what = format!("it carries {} already", present::on(name));
    Finding::fail(name, what, format!("ip link set dev {name} xdp off, or stop the tool that put it there"))
}

fn facts(device: &Device) -> String {
    let driver =
        device.kind.clone().or_else(|| driver(device)).unwrap_or_else(|| "driver unknown".to_owned());
    let queues = count(device.rx_queues as usize, "queue");
    format!("{driver}, MTU {}, {queues} in and {} out", device.mtu, device.tx_queues)
}

/// Returns the driver's name, where this process's /sys is of this network namespace.
fn driver(device: &Device) -> Option<String> {
    let folder = Path::new("/sys/class/net").join(&device.name);
    let index: u32 = fs::read_to_string(folder.join("ifindex")).ok()?.trim().parse().ok()?;
    let driver = fs::read_link(folder.join("device/driver")).ok().filter(|_| index == device.index)?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

fn modes(device: &Device, native: Option<Native>) -> Finding {
    let (name, mtu) = (&device.name, device.mtu);
    let too_long = || format!("ip link set {name} mtu {PAGE_MTU}, or --attach generic");
    match native {
        Some(Native { is_supported: false, .. }) => Finding::warn(
            name,
            "its driver has no native XDP: the gate works generically, at three times the cost",
            "none but another card; --attach generic says that it is meant",
        ),
        Some(Native { takes_fragments: true, .. }) => Finding::ok(name, "native XDP, at any MTU"),
        Some(Native { takes_fragments: false, .. }) if mtu > PAGE_MTU => Finding::warn(
            name,
            format!("native XDP, but of MTUs up to about {PAGE_MTU}, and it has {mtu}"),
            too_long(),
        ),
        Some(Native { takes_fragments: false, .. }) => Finding::ok(name, "native XDP, at this MTU"),
        None if mtu > PAGE_MTU => {
            let what =
                format!("before Linux 6.3 the kernel does not tell whether native XDP takes an MTU of {mtu}");
            Finding::unseen(name, what, too_long())
        }
        None => Finding::unseen(
            name,
            "before Linux 6.3 the kernel does not tell whether the driver has native XDP",
            "--attach native tries it",
        ),
    }
}

/// Returns what the card does to packets before the gate sees them, and drivers refuse native XDP for.
fn in_the_way(name: &str, features: &[String]) -> Vec<Finding> {
    let warn = |(feature, option, what): &(&str, &str, &str)| {
        features.iter().any(|one| one == feature).then(|| {
            Finding::warn(
                name,
                format!("{what} is on: many drivers refuse native XDP with it"),
                format!("ethtool -K {name} {option} off"),
            )
        })
    };
    [
        ("rx-lro", "lro", "merging of packets (LRO)"),
        ("rx-gro-hw", "rx-gro-hw", "merging by the card (GRO-HW)"),
    ]
    .iter()
    .filter_map(warn)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::Level;

    fn device(mtu: u32) -> Device {
        Device { name: "eth0".to_owned(), mtu, ..Device::default() }
    }

    #[test]
    fn an_mtu_is_too_long_only_for_drivers_without_fragments() {
        let native = |takes_fragments| Some(Native { is_supported: true, takes_fragments });
        for (mtu, native, level) in [
            (1500, native(false), Level::Ok),
            (9000, native(true), Level::Ok),
            (9000, native(false), Level::Warn),
            (1500, Some(Native { is_supported: false, takes_fragments: false }), Level::Warn),
            (1500, None, Level::Unseen),
        ] {
            assert_eq!(modes(&device(mtu), native).level, level, "{mtu} {native:?}");
        }
    }

    #[test]
    fn merging_of_packets_is_named_with_the_command_that_ends_it() {
        let features = ["rx-checksum", "rx-lro"].map(str::to_owned);

        let found = in_the_way("eth0", &features);

        let remedies: Vec<_> = found.iter().filter_map(|finding| finding.remedy.as_deref()).collect();
        assert_eq!(remedies, ["ethtool -K eth0 lro off"]);
    }
}
