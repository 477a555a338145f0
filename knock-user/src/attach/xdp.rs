//! XDP on an interface: natively where the driver can, generically only when told so or loudly.

use anyhow::{Result, anyhow};
use aya::{
    programs::{
        ProgramError, Xdp, XdpMode,
        links::FdLink,
        xdp::{XdpError, XdpLink},
    },
    sys::SyscallError,
};
use nix::errno::Errno;

use super::{Way, Wish};
use crate::present;

/// Attaches the program to an interface that carries none; the link is not pinned yet.
///
/// # Errors
/// When the interface refuses, with the reason in words and the way out.
pub(super) fn link(program: &mut Xdp, interface: &str, wish: Wish) -> Result<(FdLink, Way)> {
    let (link, way) = match wish {
        Wish::Native => (native(program, interface)?, Way::Native),
        Wish::Generic => (generic(program, interface)?, Way::Generic),
        Wish::Auto | Wish::Tcx => match native(program, interface) {
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
    Ok((link, way))
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
                "it carries {present} already; take that off first (`ip link set dev {interface} xdp off`, or the tool that put it there), or go beside it with --attach tcx"
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
