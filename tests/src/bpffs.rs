//! A BPF file system of a test's own, gone with it.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A mounted BPF file system.
#[derive(Debug)]
pub struct BpfFs {
    folder: TempDir,
}

impl BpfFs {
    /// Mounts one in a new folder.
    #[expect(clippy::new_without_default, reason = "it mounts")]
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("root may mount a BPF file system");
        Self { folder }
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).expect("what was mounted can be unmounted");
    }
}
