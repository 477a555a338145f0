//! Putting the program on interfaces: natively where the driver can, generically only when told so or loudly.

use std::fmt;

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::{XdpError, XdpLink},
    },
    sys::SyscallError,
};
use nix::{errno::Errno, net::if_::if_nameindex};

use crate::{
    pins::{self, Pins},
    present,
};
use serde::{Deserialize, Serialize};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Natively, or generically with a warning where the driver cannot.
    #[default]
    Auto,
    /// Natively or not at all.
    Native,
    /// In the network stack, behind the driver: works everywhere, costs more.
    Generic,
}

/// How an interface is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
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

/// Attaches the program to an interface that carries none, and pins the link.
///
/// # Errors
/// When the interface refuses, with the reason in words and the way out; then nothing is attached.
pub fn attach(program: &mut Xdp, interface: &str, wish: Wish, pins: &Pins) -> Result<Way> {
    let (link, way) = match wish {
        Wish::Native => (native(program, interface)?, Way::Native),
        Wish::Generic => (generic(program, interface)?, Way::Generic),
        Wish::Auto => match native(program, interface) {
            Ok(link) => (link, Way::Native),
            Err(reason) if reason.is_busy => return Err(reason.into()),
            Err(reason) => {
                let link = generic(program, interface)?;
                say!("xdp-knock: WARNING: {reason}");
                say!(
                    "xdp-knock: WARNING: attached to {interface} in generic mode: protected, at three times the cost"
                );
                (link, Way::Generic)
            }
        },
    };
    let link = FdLink::try_from(link).map_err(|_| {
        anyhow!(
            "{interface} took the program without a link that can be pinned (a kernel before 5.9?): it was not left attached, since the gate would end with this process"
        )
    })?;
    let path = pins.link(interface);
    link.pin(&path).with_context(|| format!("pinning the link at {}", path.display()))?;
    Ok(way)
}

/// Puts the program in the place of the one behind an interface's pinned link, in one atomic step.
///
/// # Errors
/// When the pin cannot be opened or the kernel refuses; then the other program stays.
pub fn swap(program: &mut Xdp, interface: &str, pins: &Pins) -> Result<()> {
    let path = pins.link(interface);
    let opened = || format!("opening the pin {}", path.display());
    // The pin stays where it is: a process killed at any point here leaves the one program or the other.
    let link: FdLink = PinnedLink::from_pin(&path).with_context(opened)?.into();
    let link =
        XdpLink::try_from(link).map_err(|_| anyhow!("the pin {} is no link of XDP", path.display()))?;
    let id = program
        .attach_to_link(link)
        .with_context(|| format!("putting the program on the link of {interface}"))?;
    // Dropped: the pin holds the link, not this process.
    program.take_link(id).context("letting go of the link")?;
    Ok(())
}

/// Takes whatever program off an interface that its pinned link holds there; no pin is as good.
///
/// # Errors
/// When the pin cannot be opened or removed.
pub fn detach(interface: &str, pins: &Pins) -> Result<()> {
    let path = pins.link(interface);
    if !pins::is_there(&path)? {
        return Ok(());
    }
    let link = PinnedLink::from_pin(&path).with_context(|| format!("opening the pin {}", path.display()))?;
    // The pin goes first and the descriptor closes last: closing is what detaches, and it is synchronous.
    let link = link.unpin().with_context(|| format!("removing the link pin of {interface}"))?;
    drop(link);
    Ok(())
}

/// Why an interface would not take the program.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Refusal {
    reason: String,
    is_busy: bool,
}

fn native(program: &mut Xdp, interface: &str) -> Result<XdpLink, Refusal> {
    try_mode(program, interface, XdpMode::Driver)
}

fn generic(program: &mut Xdp, interface: &str) -> Result<XdpLink, Refusal> {
    try_mode(program, interface, XdpMode::Skb)
}

fn try_mode(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<XdpLink, Refusal> {
    let refusal = |error: &ProgramError| explain(error, interface, mode);
    let id = program.attach(interface, mode).map_err(|error| refusal(&error))?;
    program.take_link(id).map_err(|error| refusal(&error))
}

fn explain(error: &ProgramError, interface: &str, mode: XdpMode) -> Refusal {
    let errno = errno_of(error);
    let is_busy = matches!(errno, Some(Errno::EBUSY | Errno::EEXIST));
    let how = if mode == XdpMode::Driver { "natively" } else { "generically" };
    let why = match errno {
        Some(Errno::EBUSY | Errno::EEXIST) => {
            let present = present::on(interface);
            format!(
                "it carries {present} already; take that off first (`ip link set dev {interface} xdp off`, or the tool that put it there)"
            )
        }
        Some(Errno::EOPNOTSUPP) => {
            "its driver has no native XDP; use --attach generic, or auto to fall back".to_owned()
        }
        Some(Errno::ERANGE | Errno::EINVAL) => format!(
            "its driver refuses the present settings ({error}): lower the MTU, or turn LRO off (`ethtool -K {interface} lro off`)"
        ),
        Some(Errno::EPERM | Errno::EACCES) => "not permitted: run as root".to_owned(),
        _ => format!("{error}"),
    };
    Refusal { reason: format!("cannot attach to {interface} {how}: {why}"), is_busy }
}

fn errno_of(error: &ProgramError) -> Option<Errno> {
    let number = if let ProgramError::SyscallError(SyscallError { io_error, .. }) = error {
        io_error.raw_os_error()
    } else if let ProgramError::XdpError(XdpError::NetlinkError(error)) = error {
        error.raw_os_error()
    } else {
        None
    };
    number.map(Errno::from_raw)
}
