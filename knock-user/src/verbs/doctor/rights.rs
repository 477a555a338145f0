//! What this process may do, and where it may pin.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    statvfs::{FsFlags, statvfs},
};

use super::Finding;
use crate::pins::Pins;

/// Numbers of capabilities (`uapi/linux/capability.h`), and what each is for.
const CAPABILITIES: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "attaching to interfaces"),
    (21, "CAP_SYS_ADMIN", "looking loaded programs up"),
    (39, "CAP_BPF", "loading programs and opening maps"),
];

/// Looks at capabilities and the BPF file system.
pub fn look(pins: &Pins, is_root: bool) -> Vec<Finding> {
    let mut findings = capabilities(is_root);
    findings.extend(file_system(pins, is_root));
    findings
}

fn capabilities(is_root: bool) -> Vec<Finding> {
    if !is_root {
        return vec![Finding::unseen(
            "rights",
            "not root: much of what follows cannot be seen",
            "run it with sudo",
        )];
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(bit, ..)| !has(&status, *bit)).collect();
    if missing.is_empty() {
        return vec![Finding::ok("rights", "root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")];
    }
    let fail = |(_, name, what): &&(u32, &str, &str)| {
        Finding::fail(
            "rights",
            format!("root without {name}, which {what} takes"),
            format!("give this container or service {name}"),
        )
    };
    missing.iter().map(fail).collect()
}

/// Returns whether a capability is in the effective set (`proc_pid_status(5)`).
fn has(status: &str, bit: u32) -> bool {
    let set =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    set.is_some_and(|set| set >> bit & 1 == 1)
}

fn file_system(pins: &Pins, is_root: bool) -> Vec<Finding> {
    let existing = pins.path().ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let shown = existing.display();
    if !statfs(existing).is_ok_and(|facts| facts.filesystem_type() == BPF_FS_MAGIC) {
        let what = format!("{} is on no BPF file system", pins.path().display());
        let remedy = "mount -t bpf bpf /sys/fs/bpf";
        // A gate under the usual place mounts it by itself.
        return vec![if pins.path().starts_with("/sys/fs/bpf") {
            Finding::warn("bpffs", what, remedy)
        } else {
            Finding::fail("bpffs", what, "name a folder under /sys/fs/bpf with --pin-dir")
        }];
    }
    if statvfs(existing).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_RDONLY)) {
        let remedy = "mount -o remount,rw /sys/fs/bpf, or ReadWritePaths=/sys/fs/bpf in the unit";
        return vec![Finding::fail("bpffs", format!("{shown} is read-only"), remedy)];
    }
    let mut findings = Vec::new();
    if is_root {
        findings.push(writable(existing));
    } else {
        findings.push(Finding::ok("bpffs", format!("{shown} is a BPF file system")));
    }
    findings.extend(open_to_others(pins.path()));
    findings
}

/// Tries, since a sandbox may refuse what the mode allows.
fn writable(folder: &Path) -> Finding {
    let probe = folder.join(format!("xdp-knock-doctor-{}", std::process::id()));
    match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
        Ok(()) => {
            Finding::ok("bpffs", format!("{} is a BPF file system and can be written", folder.display()))
        }
        Err(error) => Finding::fail(
            "bpffs",
            format!("{} cannot be written: {error}", folder.display()),
            "let this service write there: ReadWritePaths=/sys/fs/bpf in its unit",
        ),
    }
}

fn open_to_others(folder: &Path) -> Option<Finding> {
    let mode = fs::metadata(folder).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| {
        let what = format!("others can look into {} (mode {mode:04o})", folder.display());
        Finding::fail("bpffs", what, format!("chmod 0700 {}", folder.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set_alone() {
        let status = "CapPrm:\tffffffffffffffff\nCapEff:\t0000008000001000\nCapBnd:\tffffffffffffffff\n";

        assert_eq!([12, 21, 39].map(|bit| has(status, bit)), [true, false, true]);
        assert!(!has("", 12));
    }
}
