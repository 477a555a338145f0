//! Putting the program on interfaces: natively where the driver can, generically only when told so or loudly.

use std::{fmt, path::Path};

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

use crate::{pins::PinDir, present};

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
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
    /// By a link that an earlier process left, whose program was replaced.
    Adopted,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Adopted => "adopted",
        })
    }
}

/// An interface with our program on it.
#[derive(Debug)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// How.
    pub way: Way,
    link: PinnedLink,
}

impl Attached {
    /// Takes the program off.
    ///
    /// # Errors
    /// When the pin cannot be removed.
    pub fn detach(self) -> Result<()> {
        // The pin goes first and the descriptor closes last: closing is what detaches, and it is synchronous.
        let link =
            self.link.unpin().with_context(|| format!("removing the link pin of {}", self.interface))?;
        drop(link);
        Ok(())
    }
}

/// Checks that every name is an interface here.
///
/// # Errors
/// With the names that are.
pub fn check_interfaces(names: &[String]) -> Result<()> {
    let known: Vec<String> = if_nameindex()
        .context("listing the interfaces")?
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => bail!("no interface `{name}` here: there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// Attaches the program to one interface and pins the link.
///
/// # Errors
/// When the interface refuses, with the reason in words and the way out.
pub fn attach(program: &mut Xdp, interface: &str, wish: Wish, pins: &PinDir) -> Result<Attached> {
    if let Some(left) = pins.left_link(interface)? {
        if let Some(attached) = adopt(program, interface, left, pins)? {
            return Ok(attached);
        }
    }
    let (link, way) = match wish {
        Wish::Native => (native(program, interface)?, Way::Native),
        Wish::Generic => (generic(program, interface)?, Way::Generic),
        Wish::Auto => match native(program, interface) {
            Ok(link) => (link, Way::Native),
            Err(reason) if reason.is_busy => return Err(reason.into()),
            Err(reason) => {
                let link = generic(program, interface)?;
                eprintln!("xdp-knock: WARNING: {reason}");
                eprintln!(
                    "xdp-knock: WARNING: attached to {interface} in generic mode: protected, at three times the cost"
                );
                (link, Way::Generic)
            }
        },
    };
    let link = pin(link, &pins.link(interface))?;
    Ok(Attached { interface: interface.to_owned(), way, link })
}

/// Swaps the program into a link that an earlier process left; `None` if the link's interface is gone.
fn adopt(program: &mut Xdp, interface: &str, left: PinnedLink, pins: &PinDir) -> Result<Option<Attached>> {
    let link: FdLink = left.unpin().with_context(|| format!("taking over the link of {interface}"))?;
    let link =
        XdpLink::try_from(link).map_err(|_| anyhow!("the pinned link of {interface} is not of XDP"))?;
    // A link whose interface was deleted refuses its update; dropping it loses nothing.
    let Ok(id) = program.attach_to_link(link) else { return Ok(None) };
    let link = program.take_link(id).context("taking the link back")?;
    let link = pin(link, &pins.link(interface))?;
    Ok(Some(Attached { interface: interface.to_owned(), way: Way::Adopted, link }))
}

fn pin(link: XdpLink, path: &Path) -> Result<PinnedLink> {
    let link = FdLink::try_from(link).map_err(|_| {
        anyhow!("the kernel attached without a link that can be pinned (before 5.9?): not left attached")
    })?;
    link.pin(path).with_context(|| format!("pinning the link at {}", path.display()))
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
            format!("its driver has no native XDP; use --attach generic, or auto to fall back")
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
    let io = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    io.map(Errno::from_raw)
}
