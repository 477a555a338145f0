//! What the daemon gives up once it serves, and what it can do all the same.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, chown},
    process::{Child, Command, Stdio},
    time::Duration,
};

use knock_tests::{
    asker::{Asker, ahead_by},
    instance::{Instance, door, guard},
    netns::Network,
    process::PATIENCE,
    program::poll,
};
use nix::sys::signal::Signal;

/// Runs `held`, and returns what it says, line by line.
fn held(process: u32) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (writable, cleared) = (folder.path().join("writable"), folder.path().join("cleared"));
    fs::create_dir_all(&writable).expect("our own folder");
    fs::create_dir_all(cleared.join("empty")).expect("our own folder");
    fs::write(cleared.join("file"), "text").expect("our own folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port().to_string();

    let mut command = Command::new(env!("CARGO_BIN_EXE_held"));
    command.args([&writable, &cleared]).args([port, process.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it is built with the tests");
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it was piped")).lines() {
        let line = line.expect("text");
        match line.strip_prefix("port ") {
            Some(port) => {
                let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
                stream.write_all(b"x").expect("it reads");
            }
            None => lines.push(line),
        }
    }
    assert!(child.wait().expect("our own child").success(), "{lines:?}");
    lines
}

/// A process of another kind, to be signalled.
struct Bystander(Child);

impl Bystander {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().expect("sleep is everywhere"))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_are_read_and_little_is_written_and_nothing_is_run() {
    let bystander = Bystander::start();

    let said = held(bystander.0.id());

    println!("{}", said.join("\n"));
    let denied = "permission denied";
    let expected = [
        ("hold", "Full"),
        ("read-elsewhere", "yes"),
        ("list-elsewhere", "yes"),
        ("make", "yes"),
        ("change", "yes"),
        ("rename", "yes"),
        ("make-folder", "yes"),
        ("rename-across", "yes"),
        ("remove", "yes"),
        ("remove-folder", "yes"),
        ("socket", "yes"),
        ("symlink", denied),
        ("fifo", denied),
        ("make-elsewhere", denied),
        ("change-elsewhere", denied),
        ("remove-elsewhere", denied),
        ("clear", "yes"),
        ("run", denied),
        ("connect", denied),
        ("listen", "yes"),
        ("accept", "yes"),
        ("signal", denied),
    ];
    let expected = expected.map(|(what, outcome)| format!("{what} {outcome}"));
    // An older kernel holds back what it knows of: first of all, files (5.13), then TCP (6.7), then signals (6.12).
    let is_newest = said.first().is_some_and(|hold| hold == "hold Full");
    let known =
        |line: &&String| is_newest || !["hold", "connect", "signal"].iter().any(|new| line.starts_with(new));
    assert_eq!(
        said.iter().filter(known).collect::<Vec<_>>(),
        expected.iter().filter(known).collect::<Vec<_>>()
    );
}

/// The effective capabilities of a process, as a mask.
fn capabilities(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line =
        status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("a line of capabilities");
    u64::from_str_radix(line, 16).expect("hexadecimal")
}

/// `CAP_DAC_READ_SEARCH` (capabilities(7)).
const READ_ALL: u64 = 1 << 2;

fn ssh(more: &str) -> String {
    guard(&[door("ssh", &["tcp/22"], &["tcp/20011", "udp/5017"], more)])
}

#[test]
fn a_configuration_of_another_user_can_be_read_again() {
    let network = Network::new();
    for (owner, keeps) in [(65_534, READ_ALL), (0, 0)] {
        let instance = Instance::new(&network.server, &["srv0"], &ssh(""));
        chown(instance.config_file(), Some(owner), Some(owner)).expect("root may");
        let mut process = instance.serve(&[]);
        assert_eq!(capabilities(process.id()) & READ_ALL, keeps, "owner {owner}");

        let reloaded = instance.run("reload", &[]);

        assert!(reloaded.is_success(), "owner {owner}: {reloaded}");
        process.event("reloaded", |_| true);
        let _ = instance.run("detach", &[]).succeeded();
        process.wait();
        // All it said is there only now.
        assert_eq!(process.errors().contains("is not root's"), keeps != 0, "{}", process.errors());
    }
}

#[test]
fn a_secret_in_a_folder_that_is_closed_to_root_can_be_read_again() {
    let network = Network::new();
    for (owner, keeps) in [(65_534, READ_ALL), (0, 0)] {
        let asker = Asker::new(&network.client);
        let instance = Instance::new(&network.server, &["srv0"], &asker.config("30s", ""));
        fs::set_permissions(asker.folder(), fs::Permissions::from_mode(0o700)).expect("root may");
        chown(asker.folder(), Some(owner), Some(owner)).expect("root may");
        let mut process = instance.serve(&[]);
        assert_eq!(capabilities(process.id()) & READ_ALL, keeps, "owner {owner}");

        let reloaded = instance.run("reload", &[]);

        assert!(reloaded.is_success(), "owner {owner}: {reloaded}");
        asker.send(&asker.packet(ahead_by(Duration::ZERO)));
        let _ = process.event("promoted", |_| true);
        assert_eq!(process.errors().contains("alice.key is not root's"), keeps != 0, "{}", process.errors());
    }
}

#[test]
fn a_hook_that_runs_at_the_end_has_a_moment_and_no_more() {
    let network = Network::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
    for (seconds, says) in [("0.3", None), ("1000", Some("ran while the daemon stopped: killed"))] {
        let told = folder.path().join(seconds);
        let script = format!("echo begun > {0}; sleep {seconds}; echo done >> {0}", told.display());
        let hook = format!("[hooks]\non_promote = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"10m\"\n");
        let instance = Instance::new(&network.server, &["srv0"], &(hook + &ssh("")));
        let mut process = instance.serve(&[]);
        let _ = instance.run("grant", &["203.0.113.9", "ssh"]).succeeded();
        poll("the hook to begin", PATIENCE, || {
            fs::read_to_string(&told).ok().filter(|text| text.contains("begun"))
        });

        process.signal(Signal::SIGTERM);

        assert!(process.wait().success(), "{}", process.errors());
        let text = fs::read_to_string(&told).expect("it began");
        match says {
            None => assert_eq!(text, "begun\ndone\n", "{}", process.errors()),
            Some(says) => assert!(process.errors().contains(says), "{}", process.errors()),
        }
    }
}

#[test]
fn what_a_reload_cannot_change_is_said() {
    let network = Network::new();
    let instance = Instance::new(&network.server, &["srv0"], &ssh(""));
    let mut process = instance.serve(&[]);
    let with = |tables: &str| format!("{tables}\n{}", ssh(""));

    instance.configure(with("[hooks]\non_promote = [\"/bin/true\"]\n[metrics]").as_bytes());
    for _ in 0..2 {
        let reloaded = instance.run("reload", &[]);
        assert!(reloaded.stdout.contains("[hooks] and [metrics]: as before until"), "{reloaded}");
        assert!(reloaded.is_success(), "{reloaded}");
    }
    instance.configure(ssh("").as_bytes());
    let reloaded = instance.run("reload", &[]);

    assert!(reloaded.is_success() && !reloaded.stdout.contains("as before"), "{reloaded}");
    let _ = instance.run("detach", &[]).succeeded();
    process.wait();
}
