//! Starting other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The cargo that started us, in the root of the workspace.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// A command that runs `program` as root, through sudo if that is not what we are.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg(program);
    command
}

/// Runs to the end, with our input and output; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// The command as one would type it, for messages.
pub fn line(command: &Command) -> String {
    let words: Vec<OsString> =
        [command.get_program()].into_iter().chain(command.get_args()).map(Into::into).collect();
    words.join(OsStr::new(" ")).to_string_lossy().into_owned()
}
