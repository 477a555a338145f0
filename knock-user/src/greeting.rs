//! The first lines of `run`: is this machine protected, and what to try next.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::{
    config::{Config, Mode},
    install::{Attached, Installed},
    step::Step,
};

/// Says on standard error whether the machine is protected, and for the built-in example how to knock.
pub fn print(config: &Config, installed: &Installed, is_example: bool) {
    let attached = &installed.attached;
    let where_ =
        attached.iter().map(|one| format!("{} ({})", one.interface, one.way)).collect::<Vec<_>>().join(", ");
    let doors = match config.doors.len() {
        1 => "1 door".to_owned(),
        many => format!("{many} doors"),
    };
    match config.mode {
        Mode::Guard | Mode::Deny if attached.is_empty() => {
            anstream::eprintln!("NOT protected: no interface is there yet")
        }
        Mode::Guard => {
            let hidden: Vec<String> =
                config.doors.iter().flat_map(|door| &door.opens).map(ToString::to_string).collect();
            say!("protected: {where_}, mode guard, {doors}; hidden: {}", hidden.join(" "));
        }
        Mode::Deny => {
            let public: Vec<String> = config.public.iter().map(ToString::to_string).collect();
            let open = if public.is_empty() { "nothing".to_owned() } else { public.join(" ") };
            say!("protected: {where_}, mode deny, {doors}; open to everybody: {open}");
            let unreachable: Vec<String> = config.unreachable().iter().map(ToString::to_string).collect();
            if !unreachable.is_empty() {
                say!(
                    "listening, and nobody reaches it, neither public nor behind a door: {}",
                    unreachable.join(" ")
                );
            }
        }
        Mode::Observe => say!(
            "NOT protected: {where_}, mode observe, {doors}: everything is judged and nothing is dropped"
        ),
    }
    for interface in &installed.awaited {
        anstream::eprintln!("waiting for {interface}: it is guarded as soon as it is there");
    }
    if is_example {
        example(config, attached);
    }
}

fn example(config: &Config, attached: &[Attached]) {
    let Some(door) = config.doors.first() else { return };
    let host = attached
        .iter()
        .find_map(|one| address(&one.interface))
        .map_or("HOST".to_owned(), |ip| ip.to_string());
    let ours = door.knock.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let stock = door.knock.iter().map(stock_form).collect::<Option<Vec<_>>>();
    say!("This is the built-in example, with a sequence made for this run. From another machine:");
    say!("    xdp-knock knock {host} {ours}");
    if let Some(stock) = stock {
        say!("    knock -d 100 {host} {}        # the stock client", stock.join(" "));
    }
    say!("For a configuration of your own: xdp-knock init");
}

/// The step as Debian's `knock` takes it; it has no echo.
fn stock_form(step: &Step) -> Option<String> {
    match step {
        Step::Tcp(port) => Some(format!("{port}:tcp")),
        Step::Udp(port) => Some(format!("{port}:udp")),
        Step::Icmp { .. } => None,
    }
}

/// Returns an address of the interface that another machine can reach, IPv4 first.
fn address(interface: &str) -> Option<IpAddr> {
    let addresses: Vec<IpAddr> = getifaddrs()
        .ok()?
        .filter(|one| one.interface_name == interface)
        .filter_map(|one| {
            let storage = one.address?;
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.iter().find(|ip| ip.is_ipv4()).or(addresses.first()).copied()
}
