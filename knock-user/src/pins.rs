//! The BPF file system and what is pinned there: links and maps that outlive the process that made them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use aya::programs::links::PinnedLink;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where a BPF file system is mounted by custom, and by systemd.
const BPFFS: &str = "/sys/fs/bpf";

/// A folder of pins that this process alone uses.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

impl PinDir {
    /// Opens the folder, makes it if need be, and mounts the BPF file system under it if there is none.
    ///
    /// # Errors
    /// When there is no BPF file system and none can be mounted, or another process holds the folder.
    pub fn open(path: &Path) -> Result<Self> {
        ensure_bpffs(path)?;
        fs::create_dir_all(path.join("links"))
            .and_then(|()| fs::create_dir_all(path.join("maps")))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("making the folder of pins {}", path.display()))?;
        let folder = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            anyhow::anyhow!(
                "another xdp-knock runs with the pins in {}: stop it, or name another folder with --pin-dir",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Returns where the link of an interface is pinned. A dot would be refused by the BPF file system.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.path.join("links").join(interface.replace('.', "@"))
    }

    /// Returns where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join("maps").join(name)
    }

    /// Returns the link that an earlier process left on an interface, if any.
    ///
    /// # Errors
    /// When there is a pin that cannot be opened.
    pub fn left_link(&self, interface: &str) -> Result<Option<PinnedLink>> {
        let path = self.link(interface);
        if !path.exists() {
            return Ok(None);
        }
        let link = PinnedLink::from_pin(&path)
            .with_context(|| format!("opening the pin {}: if it is not ours, remove it", path.display()))?;
        Ok(Some(link))
    }

    /// Removes a pin; one that is not there is as good.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing the pin {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the folder unless something is pinned in it.
    pub fn leave(&self) {
        for folder in ["links", "maps", ""] {
            // What is not empty stays, and what holds it with it.
            let _ = fs::remove_dir(self.path.join(folder));
        }
    }

    /// Removes the folder, pins of maps included.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(self.path.join("maps")).into_iter().flatten().flatten() {
            Self::remove(&entry.path())?;
        }
        for folder in ["links", "maps", ""] {
            let folder = self.path.join(folder);
            fs::remove_dir(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(())
    }
}

fn ensure_bpffs(path: &Path) -> Result<()> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let is_bpffs = |folder: &Path| statfs(folder).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs(existing) {
        return Ok(());
    }
    if !path.starts_with(BPFFS) {
        bail!("{} is on no BPF file system: mount one there, or use a folder under {BPFFS}", path.display());
    }
    eprintln!("xdp-knock: no BPF file system at {BPFFS}: mounting one, for the pins");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mounting a BPF file system at {BPFFS}: run `mount -t bpf bpf {BPFFS}`"))
}
