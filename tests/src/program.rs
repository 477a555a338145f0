//! Programs run to their end, with all they said kept for the panic message.

use std::{
    env,
    fmt::{self, Display},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its command line.
    pub line: String,
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// What it printed as results.
    pub stdout: String,
    /// What it printed as diagnostics.
    pub stderr: String,
}

impl Finished {
    /// Returns whether the exit status is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == Some(0)
    }

    /// Panics with all the program said unless it succeeded; returns its standard output.
    #[must_use]
    pub fn succeeded(self) -> String {
        assert!(self.is_success(), "{self}");
        self.stdout
    }
}

impl Display for Finished {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, status, stdout, stderr } = self;
        write!(out, "`{line}` ended with {status:?}\n-- stdout --\n{stdout}\n-- stderr --\n{stderr}")
    }
}

/// Runs a program to its end, with nothing to read. A program that cannot be started is a failure of the tier.
pub fn run(command: &mut Command) -> Finished {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
    Finished {
        line,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The command line of a program, as a person would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Asks again and again until the answer is something; panics at the deadline, naming what was waited for.
pub fn poll<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The program under test: `KNOCK_BIN`, else the younger of the two that cargo builds.
pub fn xdp_knock() -> PathBuf {
    if let Some(path) = env::var_os("KNOCK_BIN") {
        return path.into();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("xdp-knock"));
    let age = |path: &PathBuf| path.metadata().and_then(|facts| facts.modified()).ok();
    let youngest = built.into_iter().filter(|path| path.exists()).max_by_key(age);
    youngest.expect("xdp-knock is built: `cargo xtask build`, or KNOCK_BIN names it")
}
