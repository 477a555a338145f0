//! Which files the daemon may still touch once it serves, by Landlock: it reads what it likes, writes to three folders, and
//! runs nothing.

use std::{fmt, path::Path};

use anyhow::{Context, Result};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};

/// The newest set of rights that is asked for; an older kernel restricts what it knows.
const NEWEST: ABI = ABI::V6;

/// How far the daemon is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// As far as was asked for.
    Full,
    /// As far as this kernel can.
    Partial,
    /// The kernel has no Landlock, or it is not switched on.
    None,
    /// Hooks are configured, and a program that the daemon runs would be held back with it.
    OffForHooks,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "files held back by Landlock",
            Self::Partial => "files held back by Landlock as far as this kernel can",
            Self::None => "files not held back: this kernel has no Landlock",
            Self::OffForHooks => "files not held back: hooks would be, too",
        })
    }
}

/// Holds this thread, and those that it starts: it may read files, write below some folders and remove folders from others, and
/// nothing else: run no program, make no device or symbolic link, open no TCP connection, signal nobody outside.
///
/// # Errors
/// When the rules cannot be made; the thread is not held back then.
pub fn hold(writable: &[&Path], cleared: &[&Path]) -> Result<Hold> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let change = AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let rule = |path: &Path, access| {
        let folder = PathFd::new(path).with_context(|| format!("opening {}", path.display()))?;
        anyhow::Ok(PathBeneath::new(folder, access))
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .context("asking for Landlock")?
        // Answering is not connecting: metrics are served as before.
        .handle_access(AccessNet::ConnectTcp)
        .context("asking for Landlock over TCP")?
        .scope(Scope::from_all(NEWEST))
        .context("asking for Landlock over signals")?
        .create()
        .context("making a set of Landlock rules")?
        .add_rule(rule(Path::new("/"), read)?)
        .context("adding a Landlock rule")?;
    for (folders, access) in [(writable, read | change), (cleared, AccessFs::RemoveDir.into())] {
        for folder in folders {
            rules = rules.add_rule(rule(folder, access)?).context("adding a Landlock rule")?;
        }
    }
    let status = rules.restrict_self().context("putting Landlock rules into force")?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Hold::Full,
        RulesetStatus::PartiallyEnforced => Hold::Partial,
        RulesetStatus::NotEnforced => Hold::None,
    })
}
