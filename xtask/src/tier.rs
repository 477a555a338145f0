//! Test tiers: what each needs, and which files of `tests/tests` belong to it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// A set of tests that need the same privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Formatting, lints, unit and property tests: no privilege
    Unit,
    /// What the finished object holds: no privilege
    Object,
    /// The program on single packets, by BPF_PROG_TEST_RUN: root
    Progrun,
    /// The binary on virtual networks, against stock programs: root
    Netns,
}

impl Tier {
    /// All tiers, cheapest first.
    pub const ALL: [Self; 4] = [Self::Unit, Self::Object, Self::Progrun, Self::Netns];

    /// What it does and needs, in one line.
    pub const fn headline(self) -> &'static str {
        match self {
            Self::Unit => "unit: formatting, lints, unit and property tests",
            Self::Object => "object: what the finished BPF object holds",
            Self::Progrun => "progrun: the BPF program on single packets (root)",
            Self::Netns => "netns: the binary on virtual networks, against stock programs (root)",
        }
    }

    /// Whether its tests load BPF programs or make network namespaces.
    pub const fn needs_root(self) -> bool {
        matches!(self, Self::Progrun | Self::Netns)
    }

    /// How the names of its files in `tests/tests` begin; `None` for the tests beside the code.
    const fn prefix(self) -> Option<&'static str> {
        match self {
            Self::Unit => None,
            Self::Object => Some("object"),
            Self::Progrun => Some("progrun_"),
            Self::Netns => Some("netns_"),
        }
    }

    /// The tier of an integration test called `name`.
    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.prefix().is_some_and(|prefix| name.starts_with(prefix)))
    }

    /// Names of this tier's integration tests, in order. A tier without any is an error, not a success.
    pub fn tests(self, root: &Path) -> Result<Vec<String>> {
        let tests: Vec<_> = names(root)?.into_iter().filter(|name| Self::of(name) == Some(self)).collect();
        if tests.is_empty() {
            let prefix = self.prefix().unwrap_or_default();
            bail!("nothing to run: there is no file tests/tests/{prefix}*.rs");
        }
        Ok(tests)
    }
}

/// Refuses a file that no tier would ever run.
pub fn no_stray_tests(root: &Path) -> Result<()> {
    let Some(stray) = names(root)?.into_iter().find(|name| Tier::of(name).is_none()) else { return Ok(()) };
    bail!("tests/tests/{stray}.rs is in no tier: begin its name with object, progrun_ or netns_");
}

fn names(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("tests/tests");
    let mut names = Vec::new();
    if !folder.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("tests/tests")).unwrap();
        for file in files {
            fs::write(root.path().join("tests/tests").join(file), "").unwrap();
        }
        root
    }

    #[test]
    fn a_file_belongs_to_the_tier_its_name_begins_with() {
        let root = workspace(&["progrun_b.rs", "netns_a.rs", "object.rs", "progrun_a.rs", "notes.md"]);
        assert_eq!(Tier::Progrun.tests(root.path()).unwrap(), ["progrun_a", "progrun_b"]);
        assert_eq!(Tier::Object.tests(root.path()).unwrap(), ["object"]);
        no_stray_tests(root.path()).unwrap();
    }

    #[test]
    fn a_tier_without_tests_is_an_error() {
        let error = Tier::Netns.tests(workspace(&["object.rs"]).path()).unwrap_err();
        assert!(error.to_string().contains("tests/tests/netns_*.rs"));
    }

    #[test]
    fn a_file_of_no_tier_is_an_error() {
        let error = no_stray_tests(workspace(&["pins.rs"]).path()).unwrap_err();
        assert!(error.to_string().contains("tests/tests/pins.rs"));
    }
}
