//! Whose rights a hook has.

use std::{ffi::CString, io};

use anyhow::{Context, Result, bail};
use nix::{
    libc,
    unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, setgid, setgroups, setsid, setuid},
};
use tokio::process::Command;

/// Whose rights a hook has.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// Those of this process.
    Own,
    /// Those of another user.
    Other(Rights),
}

/// A user and the groups that the user is in.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    /// Looks a user up.
    ///
    /// # Errors
    /// When there is none of that name, or this process may not act as that user.
    pub(super) fn of(name: &str) -> Result<Self> {
        let user = User::from_name(name).with_context(|| format!("looking up the user {name} of [hooks]"))?;
        let Some(user) = user else {
            bail!(
                "[hooks]: there is no user {name}: make one with `useradd --system {name}`, or name another"
            );
        };
        if (user.uid, user.gid) == (geteuid(), getegid()) {
            return Ok(Self::Own);
        }
        if !geteuid().is_root() {
            bail!("[hooks]: only root can run hooks as the user {name}");
        }
        let c_name = CString::new(name).context("a name with a zero byte")?;
        let groups =
            getgrouplist(&c_name, user.gid).with_context(|| format!("looking up the groups of {name}"))?;
        Ok(Self::Other(Rights { user: user.uid, group: user.gid, groups }))
    }

    /// Gives a command these rights, and a session of its own: it has no terminal, and a process group that can
    /// be killed as one.
    pub(super) fn apply(&self, command: &mut Command) {
        let rights = match self {
            Self::Own => None,
            Self::Other(rights) => Some(rights.clone()),
        };
        let become_it = move || -> io::Result<()> {
            close_others_at_exec()?;
            setsid()?;
            if let Some(rights) = &rights {
                // In this order: whoever has given up being root may change no group.
                setgroups(&rights.groups)?;
                setgid(rights.group)?;
                setuid(rights.user)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only: no lock, no allocation.
        unsafe { command.pre_exec(become_it) };
    }
}

/// Marks every descriptor but the standard ones. Ours are marked already, but not those that whoever started the
/// daemon left open, and they are not for a hook's user.
fn close_others_at_exec() -> io::Result<()> {
    // SAFETY: the call takes three numbers and no pointer; its flag only marks, so nothing in use is closed.
    let outcome = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
