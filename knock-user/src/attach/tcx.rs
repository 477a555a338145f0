//! TCX on an interface: several programs share a place there, so that ours goes beside whatever else is attached.

use anyhow::{Context, Result, anyhow, bail};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{SchedClassifierLink, TcAttachOptions},
};

use crate::hook::Hook;

/// Attaches the program to an interface, in front of what is there; the link is not pinned yet.
///
/// In front, since a program that returns anything but `TCX_NEXT` ends the walk (`tcx_run` in linux/net/core/dev.c): behind
/// such a one ours would not judge, or not see what the host sends.
///
/// # Errors
/// When the kernel has no TCX (before Linux 6.6), or the interface refuses.
pub(super) fn link(program: &mut SchedClassifier, interface: &str, hook: Hook) -> Result<FdLink> {
    let place = place(hook)?;
    if !is_there() {
        bail!("cannot attach to {interface} by TCX: this kernel has none (Linux 6.6 brought it)");
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(interface, place, order)
        .with_context(|| format!("cannot attach to {interface} by TCX"))?;
    let link: SchedClassifierLink = program.take_link(id).context("taking the link")?;
    FdLink::try_from(link).map_err(|_| anyhow!("{interface} took the program without a link"))
}

const fn place_of(hook: Hook) -> Option<TcAttachType> {
    match hook {
        Hook::Xdp => None,
        Hook::Ingress => Some(TcAttachType::Ingress),
        Hook::Egress => Some(TcAttachType::Egress),
    }
}

fn place(hook: Hook) -> Result<TcAttachType> {
    place_of(hook).context("XDP is no place for TCX")
}

/// Returns whether the kernel has TCX. One without it does not know the place that is asked about.
#[must_use]
pub fn is_there() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}
