//! A disk that is full: the state file that is there stays as it is, and the message says which one and why.

use std::{fs, path::Path};

use knock_user::state_file::Saved;
use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;

/// A file system with room for so many bytes.
struct Disk(TempDir);

impl Disk {
    fn new(size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={size}");
        mount(Some("disk"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .expect("this tier needs root");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount(self.path()).expect("nobody uses it");
    }
}

fn saved(grants: usize) -> Saved {
    let grant = r#"{"source":"203.0.113.9","door":"ssh","via":"sequence","since":"2026-01-02T03:00:00Z","expires":null}"#;
    let grants = vec![grant; grants].join(",");
    let text = format!(r#"{{"v":1,"saved":"2026-01-02T03:04:05Z","grants":[{grants}],"bans":[]}}"#);
    serde_json::from_str(&text).expect("a state")
}

#[test]
fn a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it() {
    let disk = Disk::new(64 << 10);
    let path = disk.path().join("grants.json");
    let (few, many) = (saved(3), saved(1000));
    few.write(&path).expect("there is room for it");

    let error = format!("{:#}", many.write(&path).expect_err("there is no room for it"));

    assert!(error.contains(&path.display().to_string()) && error.contains("No space left"), "{error}");
    let now = "2026-01-02T03:05:00Z".parse().expect("a time");
    assert_eq!(Saved::read(&path, now).expect("it is whole"), Some(few));
    assert_eq!(fs::read_dir(disk.path()).expect("our own disk").count(), 1);

    // Its twin: with room, it is replaced.
    let disk = Disk::new(1 << 20);
    let path = disk.path().join("grants.json");
    saved(3).write(&path).expect("there is room for it");
    many.write(&path).expect("there is room for it");
    assert_eq!(Saved::read(&path, now).expect("it is whole"), Some(many));
}
