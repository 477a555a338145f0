//! A real sshd, and real logins to it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    netns::Namespace,
    process::PATIENCE,
    program::{self, Finished},
    session::Session,
};

const GREETING: &str = "logged-in";

/// An sshd on port 22 of a namespace, with keys of its own.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    folder: TempDir,
}

impl Sshd {
    /// Starts it and waits until it listens.
    pub fn start(namespace: &Namespace) -> Self {
        let folder = tempfile::tempdir().expect("a folder for keys");
        for key in ["host", "user"] {
            let path = folder.path().join(key);
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).output();
            assert!(made.as_ref().is_ok_and(|made| made.status.success()), "ssh-keygen: {made:?}");
        }
        // Where sshd locks its unprivileged half in; Debian's package makes it at boot.
        fs::create_dir_all("/run/sshd").expect("root may write to /run");
        fs::write(folder.path().join("config"), config(folder.path())).expect("a writable folder");
        let log = fs::File::create(folder.path().join("log")).expect("a writable folder");
        let child = namespace
            .command("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.path().join("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nsenter and sshd are installed");
        let sshd = Self { child, folder };
        program::poll("sshd to listen", Duration::from_secs(10), || {
            (sshd.log().matches("Server listening").count() >= 2).then_some(())
        });
        sshd
    }

    /// Logs in from a namespace. True when a command ran on the other side, false when nothing answered at all;
    /// anything else, such as a refused connection or key, is a failure of the test.
    pub fn opens(&self, from: &Namespace, address: IpAddr) -> bool {
        self.judge(self.login(from, address, &["-oConnectTimeout=5"]))
    }

    /// Like [`Self::opens`], from one of the client's addresses, and for a second only: for doors that should be shut.
    pub fn opens_soon(&self, from: &Namespace, address: IpAddr, source: Option<IpAddr>) -> bool {
        let source = source.map(|source| format!("-oBindAddress={source}"));
        let mut options = vec!["-oConnectTimeout=1"];
        options.extend(source.as_deref());
        self.judge(self.login(from, address, &options))
    }

    /// Opens a session whose shell sends back what it reads, and keeps it.
    pub fn session(&self, from: &Namespace, address: IpAddr) -> Session {
        let mut ssh = from.command("ssh");
        self.tell(ssh.args(["-F", "none"]), &["-oConnectTimeout=5"]);
        ssh.arg(format!("root@{address}")).arg("while read line; do echo \"$line\"; done");
        let mut session = Session::spawn(ssh);
        assert!(session.answers(PATIENCE), "no session with {address}\n-- sshd --\n{}", self.log());
        session
    }

    /// Runs a prepared ssh that reads this configuration; true when a command ran on the other side.
    pub fn opens_by(&self, ssh: &mut Command, configuration: &str, host: &str) -> bool {
        let path = self.folder.path().join("client");
        fs::write(&path, configuration).expect("a writable folder");
        self.tell(ssh.arg("-F").arg(path), &["-oUser=root", "-oConnectTimeout=10"]);
        self.judge(program::run(ssh.args([host, "echo", GREETING])))
    }

    fn login(&self, from: &Namespace, address: IpAddr, options: &[&str]) -> Finished {
        let mut ssh = from.bounded("ssh");
        self.tell(ssh.args(["-F", "none"]), options);
        program::run(ssh.arg(format!("root@{address}")).args(["echo", GREETING]))
    }

    fn tell(&self, ssh: &mut Command, options: &[&str]) {
        ssh.args(["-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]);
        ssh.arg("-i").arg(self.folder.path().join("user")).args(options);
    }

    fn judge(&self, login: Finished) -> bool {
        if login.is_success() && login.stdout.trim() == GREETING {
            return true;
        }
        let is_silence = login.stderr.contains("timed out");
        assert!(is_silence, "neither a login nor silence: {login}\n-- sshd --\n{}", self.log());
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("sshd has a log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended by itself, which its log tells.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path) -> String {
    let host: PathBuf = folder.join("host");
    let user = folder.join("user.pub");
    format!(
        "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nUsePAM no\nStrictModes no\nPidFile none\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nMaxStartups 100\n",
        host.display(),
        user.display()
    )
}
