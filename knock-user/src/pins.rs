//! The BPF file system and what is pinned there: links and maps that outlive the process that made them.

use std::{
    fs::{self, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use knock_common::abi::ABI_VERSION;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::attach;

/// Where a BPF file system is mounted by custom, and by systemd.
const BPFFS: &str = "/sys/fs/bpf";

/// Where pins are unless `--pin-dir` names another place.
pub const DEFAULT: &str = "/sys/fs/bpf/xdp-knock";

/// The places of one instance's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// Names a folder of pins; nothing is looked at yet.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the links are.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    /// Returns where the link of an interface is pinned.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(file_name(interface))
    }

    /// Returns where the link of an interface's program for outgoing packets is pinned, where it has one.
    #[must_use]
    pub fn egress(&self, interface: &str) -> PathBuf {
        self.egresses().join(file_name(interface))
    }

    fn egresses(&self) -> PathBuf {
        self.path.join("egress")
    }

    /// Returns where the state maps of this program's layout are pinned.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path.join(format!("state-{ABI_VERSION}"))
    }

    /// Returns where the program to go back to is pinned while a confirmation is awaited.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        self.path.join("previous")
    }

    /// Returns where the programs of traffic control to go back to are pinned, where there are any.
    #[must_use]
    pub fn previous_tc(&self) -> PathBuf {
        self.path.join("previous-tc")
    }

    /// Removes the way back.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget_previous(&self) -> Result<()> {
        remove(&self.previous())?;
        remove(&self.previous_tc())
    }

    /// Returns the folders of state that other versions of this program left.
    ///
    /// # Errors
    /// When the folder of pins cannot be read.
    pub fn other_states(&self) -> Result<Vec<PathBuf>> {
        let ours = self.state();
        let is_other = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            *path != ours && (name.starts_with("state-") || name == "maps")
        };
        Ok(entries(&self.path)?.into_iter().filter(is_other).collect())
    }

    /// Returns the interfaces that have a link pinned, by name.
    ///
    /// # Errors
    /// When the folder of links cannot be read.
    pub fn linked(&self) -> Result<Vec<String>> {
        interfaces_in(&self.links())
    }

    /// Returns the interfaces that have a program for outgoing packets pinned, by name.
    ///
    /// # Errors
    /// When its folder is there and cannot be read.
    pub fn egressed(&self) -> Result<Vec<String>> {
        interfaces_in(&self.egresses())
    }

    /// Takes the folder for this process alone, and makes it, and a BPF file system under it, if need be.
    ///
    /// # Errors
    /// When there is no BPF file system and none can be mounted, or another process holds the folder.
    pub fn hold(&self) -> Result<Held> {
        ensure_bpffs(&self.path)?;
        for folder in [self.path.clone(), self.links(), self.state()] {
            fs::create_dir_all(&folder)
                .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
                .with_context(|| format!("making the folder of pins {}", folder.display()))?;
        }
        let folder =
            fs::File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Busy(self.path.clone()).into()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", self.path.display()));
            }
        }
        // Its last holder may have removed the folder between our opening and our locking it.
        let identity = |facts: fs::Metadata| (facts.dev(), facts.ino());
        if folder.metadata().map(identity).ok() != fs::metadata(&self.path).map(identity).ok() {
            return Err(Busy(self.path.clone()).into());
        }
        Ok(Held { pins: self.clone(), _lock: folder })
    }

    /// Returns whether another process holds the folder.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let Ok(folder) = fs::File::open(&self.path) else { return false };
        matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

/// Another process holds the folder of pins.
#[derive(Debug, thiserror::Error)]
#[error(
    "another xdp-knock runs with the pins in {}: stop it, or name another folder with --pin-dir",
    .0.display()
)]
pub struct Busy(PathBuf);

/// A folder of pins that this process alone may change.
#[derive(Debug)]
pub struct Held {
    /// Its places.
    pub pins: Pins,
    _lock: fs::File,
}

impl Held {
    /// Removes the folders that are empty.
    pub fn leave(&self) {
        let pins = &self.pins;
        for folder in [pins.links(), pins.egresses(), pins.state(), pins.path.clone()] {
            // What is not empty stays, and what holds it with it.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes every pin but those of links that judge, and the folders that are then empty.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn clear(&self) -> Result<()> {
        Self::clear_of(&self.pins)
    }

    /// Removes them although another process holds the folder: the last resort where that one hangs.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn clear_of(pins: &Pins) -> Result<()> {
        pins.forget_previous()?;
        // Of interfaces that carry nothing else: a process was killed before it came to that.
        for interface in pins.egressed()? {
            attach::take_egress_off(&interface, pins)?;
        }
        remove_folder(&pins.egresses())?;
        let states = pins.other_states()?.into_iter().chain([pins.state()]);
        for folder in states {
            remove_folder(&folder)?;
        }
        for folder in [pins.links(), pins.path.clone()] {
            match fs::remove_dir(&folder) {
                // In a service, the folder is a mount point, or the one above it is read-only: it stays, empty.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty
                            | io::ErrorKind::ReadOnlyFilesystem
                            | io::ErrorKind::ResourceBusy
                    ) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.with_context(|| format!("removing {}", folder.display()))?,
            }
        }
        Ok(())
    }
}

/// Returns the name of an interface as the BPF file system takes it, which refuses a dot.
fn file_name(interface: &str) -> String {
    interface.replace('.', "@")
}

fn interfaces_in(folder: &Path) -> Result<Vec<String>> {
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.replace('@', "."));
    let mut names: Vec<String> = entries(folder)?.into_iter().filter_map(name).collect();
    names.sort();
    Ok(names)
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

/// Removes a folder and the pins in it; one that is not there is as good.
///
/// # Errors
/// When the file system refuses.
pub fn remove_folder(path: &Path) -> Result<()> {
    for pin in entries(path)? {
        remove(&pin)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns whether there is such a pin. A question that fails is no answer: what cannot be seen may still be in force.
///
/// # Errors
/// When the file system does not say.
pub fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("looking for the pin {}", path.display()))
}

/// Returns what is in a folder; nothing where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("reading the folder of pins {}", folder.display());
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(read)?,
    };
    listing.map(|entry| Ok(entry.with_context(read)?.path())).collect()
}

fn ensure_bpffs(path: &Path) -> Result<()> {
    // A question that fails is no answer: a mount over a BPF file system that is there hides the pins of everybody.
    let asking = |folder: &Path| format!("finding out what file system {} is on", folder.display());
    let mut existing = path;
    while !existing.try_exists().with_context(|| asking(existing))? {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    if statfs(existing).with_context(|| asking(existing))?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    if !path.starts_with(BPFFS) {
        bail!("{} is on no BPF file system: mount one there, or use a folder under {BPFFS}", path.display());
    }
    say!("xdp-knock: no BPF file system at {BPFFS}: mounting one, for the pins");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("mounting a BPF file system at {BPFFS}: run `mount -t bpf bpf {BPFFS}`"))
}
