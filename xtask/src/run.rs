//! `cargo xtask build` and `run`: compile as the caller, run as root.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{command, setup};

/// Builds xdp-knock in release and says where it is.
pub fn build(root: &Path) -> Result<PathBuf> {
    command::run(command::cargo(root).args(["build", "--release", "--package", "knock-user"]))?;
    // xtask is TARGET/debug/xtask, wherever the caller's settings put TARGET.
    let xtask = std::env::current_exe().context("cannot tell where xtask itself is")?;
    let target = xtask.ancestors().nth(2).context("xtask does not lie in a target folder")?;
    Ok(target.join("release/xdp-knock"))
}

/// Becomes `xdp-knock ARGS`, so that its exit status and every signal are its own. Returns only on failure.
pub fn run(root: &Path, args: Vec<String>) -> Result<()> {
    setup::ensure(root, &[])?;
    let binary = build(root)?;
    let mut command = command::as_root(binary);
    command.args(with_verb(args));
    Err(command.exec()).with_context(|| format!("cannot start `{}`", command::line(&command)))
}

/// `run` is what one means by `cargo xtask run -- --iface eth0`.
fn with_verb(mut args: Vec<String>) -> Vec<String> {
    if args.first().is_none_or(|first| first.starts_with('-')) {
        args.insert(0, "run".to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_alone_mean_the_verb_run() {
        assert_eq!(with_verb(words("--iface eth0")), words("run --iface eth0"));
        assert_eq!(with_verb(words("")), words("run"));
    }

    #[test]
    fn a_verb_of_ones_own_is_kept() {
        assert_eq!(with_verb(words("status --json")), words("status --json"));
    }
}
