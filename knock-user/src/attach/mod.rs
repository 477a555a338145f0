//! Putting the gate on interfaces: the program that judges, and in front of it in time the one that takes notes of what the
//! host sends, where a generation needs those.

mod clsact;
mod tcx;
mod xdp;

use std::{fmt, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::programs::{
    Program, SchedClassifier, Xdp,
    links::{FdLink, PinnedLink},
    tc::SchedClassifierLink,
    xdp::XdpLink,
};
use nix::net::if_::if_nameindex;
use serde::{Deserialize, Serialize};

pub use self::{
    clsact::{Filter, is_marked, on as filter_on},
    tcx::is_there as has_tcx,
};
use crate::{
    devices,
    hook::{Header, Hook},
    loader::Gate,
    pins::{self, Pins},
    present,
    survey::Link,
};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Natively, or generically with a warning where the driver cannot; by TCX where packets have no Ethernet header.
    #[default]
    Auto,
    /// Natively or not at all.
    Native,
    /// In the network stack, behind the driver: works everywhere, costs more.
    Generic,
    /// In the network stack, beside an XDP program of others, or where packets have no Ethernet header.
    Tcx,
}

/// How an interface is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// In the network stack, behind XDP.
    Tcx,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
        })
    }
}

/// Returns the names of the interfaces that are here.
///
/// # Errors
/// When they cannot be listed.
pub fn interfaces() -> Result<Vec<String>> {
    let all = if_nameindex().context("listing the interfaces")?;
    Ok(all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect())
}

/// Checks that every name is an interface here.
///
/// # Errors
/// With the names that are.
pub fn check_interfaces(names: &[String]) -> Result<()> {
    let known = interfaces()?;
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => {
            bail!("no interface `{name}` here: there are {}; --wait attaches when it comes", known.join(", "))
        }
        None => Ok(()),
    }
}

/// Returns where a gate judges on an interface that carries none yet.
///
/// # Errors
/// When no program reads the interface's packets there.
pub fn judging_hook(interface: &str, header: Header, wish: Wish) -> Result<Hook> {
    match (wish, header) {
        (Wish::Tcx, _) | (Wish::Auto, Header::Ip) => Ok(Hook::Ingress),
        (Wish::Auto | Wish::Native | Wish::Generic, Header::Ethernet) => Ok(Hook::Xdp),
        (Wish::Native | Wish::Generic, Header::Ip) => bail!(
            "packets of {interface} have no Ethernet header, so XDP cannot judge them: use --attach tcx, or auto"
        ),
    }
}

/// Returns the names of the programs that a gate needs on an interface.
///
/// # Errors
/// When none fits the interface.
pub fn programs(hook: Hook, header: Header, needs_egress: bool) -> Result<Vec<&'static str>> {
    let hooks = if needs_egress { vec![hook, Hook::Egress] } else { vec![hook] };
    let name = |hook: Hook| hook.program(header).context("packets have no Ethernet header, which XDP takes");
    hooks.into_iter().map(name).collect()
}

/// Puts the gate on an interface that carries none, and pins its links.
///
/// # Errors
/// When the interface refuses, with the reason in words and the way out. What was put on before that is left to the caller,
/// who knows what was there before.
pub fn attach(gate: &mut Gate, interface: &str, wish: Wish, pins: &Pins) -> Result<Way> {
    let header = present::header(interface)?;
    let hook = judging_hook(interface, header, wish)?;
    refuse_answers(gate, interface, hook)?;
    if gate.needs_egress() {
        put_egress_on(gate, interface, header, pins)?;
    }
    let program = gate.program_at(hook, header)?;
    let (link, way) = if hook == Hook::Xdp {
        let program: &mut Xdp = program.try_into().context("the embedded program is not for XDP")?;
        xdp::link(program, interface, wish)?
    } else {
        (tcx::link(classifier(program)?, interface, hook)?, Way::Tcx)
    };
    pin(link, &pins.link(interface))?;
    if way == Way::Native && gate.hides_as_closed() && devices::is_veth(interface).unwrap_or(false) {
        say!(
            "xdp-knock: WARNING: natively, answers by {interface} wait until the other end of the veth has an XDP program: use --attach generic to have it look closed"
        );
    }
    Ok(way)
}

/// Puts the gate in the place of the one that a link leads to, in one atomic step. A program for outgoing packets that it
/// does not need stays: what was there before may come back.
///
/// # Errors
/// When a pin cannot be opened or the kernel refuses; then the other program judges on.
pub fn replace(gate: &mut Gate, link: &Link, pins: &Pins) -> Result<()> {
    let interface = &link.interface;
    let header = present::header(interface)?;
    refuse_answers(gate, interface, link.hook)?;
    if gate.needs_egress() {
        if link.egress().is_some() {
            swap_egress(gate.program_at(Hook::Egress, header)?, interface, pins)?;
        } else {
            put_egress_on(gate, interface, header, pins)?;
        }
    }
    swap(gate.program_at(link.hook, header)?, &pins.link(interface))
}

/// An answer is sent back by XDP alone.
fn refuse_answers(gate: &Gate, interface: &str, hook: Hook) -> Result<()> {
    ensure!(
        hook == Hook::Xdp || !gate.hides_as_closed(),
        "hide_as = \"closed\" cannot be had on {interface}: only XDP answers, and the gate judges there by TCX: use \"filtered\""
    );
    Ok(())
}

/// What the host sends is to be noted before anything is dropped that may be the answer.
fn put_egress_on(gate: &mut Gate, interface: &str, header: Header, pins: &Pins) -> Result<()> {
    // A link whose interface was deleted notes nothing.
    take_egress_off(interface, pins)?;
    let path = pins.egress(interface);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("making the folder of pins {}", folder.display()))?;
    }
    let program = classifier(gate.program_at(Hook::Egress, header)?)?;
    if !has_tcx() {
        return clsact::put(program, interface, &path);
    }
    let link = tcx::link(program, interface, Hook::Egress)?;
    pin(link, &path)
}

fn pin(link: FdLink, path: &Path) -> Result<()> {
    link.pin(path).with_context(|| format!("pinning the link at {}", path.display()))?;
    Ok(())
}

fn classifier(program: &mut Program) -> Result<&mut SchedClassifier> {
    program.try_into().context("the embedded program is not for traffic control")
}

/// Puts the program in the place of the one behind a pinned link, in one atomic step.
///
/// # Errors
/// When the pin cannot be opened or the kernel refuses; then the other program stays.
pub fn swap(program: &mut Program, path: &Path) -> Result<()> {
    let opened = || format!("opening the pin {}", path.display());
    let put = || format!("putting the program on the link {}", path.display());
    let other = |kind: &str| anyhow!("the pin {} is no link of {kind}", path.display());
    // The pin stays where it is: a process killed at any point here leaves the one program or the other.
    let link: FdLink = PinnedLink::from_pin(path).with_context(opened)?.into();
    // The links that the kernel gives back are let go of: the pins hold them, not this process.
    if let Program::Xdp(program) = program {
        let link = XdpLink::try_from(link).map_err(|_| other("XDP"))?;
        let id = program.attach_to_link(link).with_context(put)?;
        program.take_link(id).context("letting go of the link")?;
        return Ok(());
    }
    let program = classifier(program)?;
    let link = SchedClassifierLink::try_from(link).map_err(|_| other("TCX"))?;
    let id = program.attach_to_link(link).with_context(put)?;
    program.take_link(id).context("letting go of the link")?;
    Ok(())
}

/// Puts the program in the place of the one for outgoing packets on an interface, in one atomic step.
///
/// # Errors
/// As [`swap`].
pub fn swap_egress(program: &mut Program, interface: &str, pins: &Pins) -> Result<()> {
    let path = pins.egress(interface);
    if is_marked(&path)? { clsact::put(classifier(program)?, interface, &path) } else { swap(program, &path) }
}

/// Takes whatever is pinned for an interface off it, first what judges; no pin is as good.
///
/// # Errors
/// When a pin cannot be opened or removed.
pub fn detach(interface: &str, pins: &Pins) -> Result<()> {
    take_off(&pins.link(interface))?;
    take_egress_off(interface, pins)
}

/// Takes the program for outgoing packets off an interface; none is as good.
///
/// # Errors
/// When its pin cannot be opened or removed.
pub fn take_egress_off(interface: &str, pins: &Pins) -> Result<()> {
    let path = pins.egress(interface);
    if is_marked(&path)? { clsact::take_off(interface, &path) } else { take_off(&path) }
}

fn take_off(path: &Path) -> Result<()> {
    if !pins::is_there(path)? {
        return Ok(());
    }
    let link = PinnedLink::from_pin(path).with_context(|| format!("opening the pin {}", path.display()))?;
    // The pin goes first and the descriptor closes last: closing is what detaches, and it is synchronous.
    let link = link.unpin().with_context(|| format!("removing the pin {}", path.display()))?;
    drop(link);
    Ok(())
}

/// Returns how the link of an interface is attached.
#[must_use]
pub fn way(link: &Link) -> Option<Way> {
    match link.hook {
        Hook::Xdp => present::way(&link.interface),
        Hook::Ingress => Some(Way::Tcx),
        Hook::Egress => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_ethernet_header_the_gate_judges_by_tcx_or_not_at_all() {
        let hook = |wish, header| judging_hook("tun0", header, wish).ok();

        assert_eq!(hook(Wish::Auto, Header::Ip), Some(Hook::Ingress));
        assert_eq!(hook(Wish::Tcx, Header::Ip), Some(Hook::Ingress));
        assert_eq!([Wish::Native, Wish::Generic].map(|wish| hook(wish, Header::Ip)), [None, None]);
    }

    #[test]
    fn with_an_ethernet_header_it_judges_by_xdp_unless_told_otherwise() {
        let hook = |wish| judging_hook("eth0", Header::Ethernet, wish).ok();

        assert_eq!(
            [Wish::Auto, Wish::Native, Wish::Generic, Wish::Tcx].map(hook),
            [Some(Hook::Xdp), Some(Hook::Xdp), Some(Hook::Xdp), Some(Hook::Ingress)]
        );
    }

    #[test]
    fn the_program_for_outgoing_packets_is_among_those_that_deny_mode_needs_and_no_other() {
        let names = |hook, header, needs| programs(hook, header, needs).unwrap_or_default();

        assert_eq!(names(Hook::Xdp, Header::Ethernet, false), ["xdp_knock"]);
        assert_eq!(names(Hook::Xdp, Header::Ethernet, true), ["xdp_knock", "tc_egress"]);
        assert_eq!(names(Hook::Ingress, Header::Ip, true), ["tc_knock_ip", "tc_egress_ip"]);
    }
}
