//! A machine of its own: systemd as the first process of fresh namespaces, over a copy of this file system that is thrown
//! away. What a unit may do is decided by a live systemd, and nothing else tells.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    netns::{Namespace, unique},
    program::{self, Finished, poll},
};

/// How long systemd may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is started at boot: a journal and nothing else.
const TARGET: &str =
    "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n";

/// Makes the file system and becomes systemd. `$1`: a folder with the files to add, and room for a mount point.
const BOOT: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs machine "$1/scratch"
mkdir "$1/scratch/upper" "$1/scratch/work" "$1/scratch/root"
mount -t overlay machine "$1/scratch/root" \
    -o "lowerdir=/,upperdir=$1/scratch/upper,workdir=$1/scratch/work"
cd "$1/scratch/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf -o mode=0700
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# The units of this machine are not those of that one.
rm -rf etc/systemd/system
mkdir -p etc/systemd/system oldroot
cp -a "$1/files/." .
pivot_root . oldroot
exec chroot . sh -c 'umount -l /oldroot
    exec env -i container=knock-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=no'
"#;

/// A booted machine; gone when dropped.
#[derive(Debug)]
pub struct Machine {
    outer: Child,
    init: u32,
    cgroup: PathBuf,
    /// Holds what was added to its file system.
    _folder: TempDir,
}

impl Machine {
    /// Boots in a network namespace, with the program under test in `/usr/bin` and these files, by path, beside it.
    pub fn boot(namespace: &Namespace, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("scratch")).expect("our own folder");
        let put = |path: &str, contents: &[u8]| {
            let path = folder.path().join("files").join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("our own folder");
            fs::write(path, contents).expect("our own folder");
        };
        put("/etc/systemd/system/machine.target", TARGET.as_bytes());
        for (path, contents) in files {
            put(path, contents.as_bytes());
        }
        let binary = folder.path().join("files/usr/bin/xdp-knock");
        fs::create_dir_all(binary.parent().expect("a folder")).expect("our own folder");
        fs::copy(program::xdp_knock(), &binary).expect("the program is built");

        let cgroup = cgroup_root().join(unique("machine"));
        fs::create_dir(&cgroup).expect("a cgroup: this tier needs root");
        // The namespace of cgroups is rooted where its first process is.
        let enter = r#"echo $$ > "$1/cgroup.procs"; shift
            exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts sh -c "$@""#;
        let mut command = namespace.command("sh");
        command.args(["-c", enter, "machine"]).arg(&cgroup).args([BOOT, "boot"]).arg(folder.path());
        let outer = command.stdin(Stdio::null()).spawn().expect("nsenter, of util-linux");
        let mut machine = Self { outer, init: 0, cgroup, _folder: folder };
        machine.init = poll("the first process", PATIENCE, || child_of(machine.outer.id()));
        poll("systemd", PATIENCE, || {
            machine.run("systemctl is-active machine.target").is_success().then_some(())
        });
        machine
    }

    /// A program to be run on it, for a minute at most.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.init.to_string();
        command.args([
            "--target", &target, "--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts", "--root", "--wd",
        ]);
        command.args(["--", "timeout", "--kill-after=1", "60", program]);
        command
    }

    /// Runs a command line on it, split at blanks.
    pub fn run(&self, line: &str) -> Finished {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        program::run(self.command(program).args(words))
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let shown = self.run(&format!("systemctl show --value --property={name} {unit}"));
        shown.succeeded().trim().to_owned()
    }

    /// Waits until a property of a unit has a value.
    pub fn until(&self, unit: &str, name: &str, value: &str) {
        poll(&format!("{name} of {unit} to be {value}"), PATIENCE, || {
            (self.property(unit, name) == value).then_some(())
        });
    }

    /// What its journal holds.
    pub fn journal(&self, filter: &str) -> String {
        self.run(&format!("journalctl --no-pager --quiet {filter}")).succeeded()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("{}", program::run(self.command("journalctl").args(["--no-pager", "--lines=60"])));
        }
        // Its first process goes with it, and everything else with that.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// Where cgroups of the second version are.
fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("a list of mounts");
    let place = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    place.and_then(|line| line.split(' ').nth(1)).expect("cgroups of version 2 are mounted").into()
}

fn child_of(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Removes a tree of cgroups, the innermost first; they are empty soon after the last process is killed.
fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while fs::remove_dir(cgroup).is_err() && cgroup.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}
