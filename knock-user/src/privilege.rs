//! What the daemon may still do once it serves: load programs, attach them, change maps, and nothing else of root's.

use std::{collections::HashSet, fs::File, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// Returns what a daemon needs: `CAP_BPF` and `CAP_NET_ADMIN` for programs of XDP and their maps, `CAP_PERFMON` because the
/// verifier otherwise forbids the arithmetic on packet pointers that the program does (`bpf_allow_ptr_leaks` in the kernel's
/// `include/linux/bpf.h`), and what it takes to run hooks as another user and to end them.
#[must_use]
pub fn needed(switches_user: bool) -> CapsHashSet {
    let mut needed = HashSet::from([Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]);
    if switches_user {
        needed.extend([Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL]);
    }
    needed
}

/// What lets root read what is not root's.
const READ_ALL: [Capability; 2] = [Capability::CAP_DAC_READ_SEARCH, Capability::CAP_DAC_OVERRIDE];

/// Returns whether a file that can be read now could not be without what lets root read every file: it belongs to another
/// user and is closed to the rest, or lies in such a folder. A daemon that is to read it again needs `CAP_DAC_READ_SEARCH`.
///
/// # Errors
/// When capabilities cannot be read or changed.
pub fn is_read_by_privilege(file: &Path) -> Result<bool> {
    let open = || File::open(file).map_err(|error| error.kind());
    if open().is_err() {
        return Ok(false);
    }
    let effective = caps::read(None, CapSet::Effective).context("reading capabilities")?;
    let lesser: CapsHashSet = effective.iter().filter(|one| !READ_ALL.contains(one)).copied().collect();
    caps::set(None, CapSet::Effective, &lesser).context("laying down capabilities")?;
    let without = open();
    caps::set(None, CapSet::Effective, &effective).context("taking up capabilities again")?;
    Ok(without.is_err_and(|kind| kind == ErrorKind::PermissionDenied))
}

/// Gives up every capability but these, for good, and `setuid` programs with them where `bar_new_ones` says so. It is of
/// this thread and of those that it starts: call it before there are others.
///
/// # Errors
/// When the kernel refuses; some may have been given up then.
pub fn keep_only(needed: &CapsHashSet, bar_new_ones: bool) -> Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("reading capabilities")?;
    let kept: CapsHashSet = permitted.intersection(needed).copied().collect();
    // The bounding set may be changed only with CAP_SETPCAP; a unit that did not give it has bounded us already.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).context("reading capabilities")?;
        for capability in bounding.difference(needed) {
            caps::drop(None, CapSet::Bounding, *capability)
                .with_context(|| format!("giving up {capability} for programs to come"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).context("giving up ambient capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("giving up inheritable capabilities")?;
    caps::set(None, CapSet::Effective, &kept).context("giving up effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("giving up permitted capabilities")?;
    if bar_new_ones {
        prctl::set_no_new_privs().context("barring new privileges")?;
    }
    Ok(())
}
