//! Which compiler can build the BPF object on this machine, and what to install when none can.
//!
//! `xtask` and knock-user's build script both include this file, so what `setup` installs is
//! exactly what the build looks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

use anyhow::{Result, bail};

/// Says which [`Way`] to build the object, whatever else is installed.
pub const TOOLCHAIN_VAR: &str = "KNOCK_EBPF_TOOLCHAIN";
/// Names a finished object to embed, or `none` for an empty one; nothing is compiled then.
pub const OBJECT_VAR: &str = "KNOCK_EBPF_OBJECT";

/// The last bpf-linker that uses the compiler's own LLVM and so needs no other.
const LINKER_VERSION: &str = "0.10.4";
/// A nightly of the LLVM that [`LINKER_VERSION`] can read; later ones write newer bitcode.
const NIGHTLY: &str = "nightly-2026-05-20";
/// How the name of that LLVM's shared library begins, in rustup's toolchains and in Debian.
const LLVM: &str = "libLLVM.so.22";

/// A way to compile the object: whose compiler, and where `core` for BPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// rustup's pinned nightly, which builds `core` from rust-src.
    Nightly,
    /// Debian's compiler with its ready-made `core`.
    Distro,
    /// rustup's stable, which builds `core` from rust-src once told that it may.
    Stable,
}

impl Way {
    /// Best first: a pinned compiler gives everybody the same object, a distribution's moves slowly.
    const ORDER: [Self; 3] = [Self::Nightly, Self::Distro, Self::Stable];

    /// The value of [`TOOLCHAIN_VAR`] that asks for this way.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Distro => "distro",
            Self::Stable => "stable",
        }
    }
}

/// A compiler that has all it needs to build the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Which of the ways it serves.
    pub way: Way,
    /// Its `rustc`.
    pub rustc: PathBuf,
    /// The LLVM library it uses, which bpf-linker must load too.
    pub llvm: PathBuf,
}

/// One command that mends what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is needed for.
    pub why: String,
    /// The command, to be run in the root of the workspace.
    pub argv: Vec<String>,
    /// Whether it changes the system, and so needs root.
    pub as_root: bool,
}

impl Step {
    /// A step from a command line whose arguments hold no spaces.
    pub fn new(why: impl Into<String>, command: &str, as_root: bool) -> Self {
        Self { why: why.into(), argv: command.split_whitespace().map(str::to_owned).collect(), as_root }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.argv.join(" "), if self.as_root { "  # as root" } else { "" })
    }
}

/// What is to be done about the object.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Embed nothing: the caller only lints.
    Stub,
    /// Embed this file.
    Prebuilt(PathBuf),
    /// Compile with this compiler and this bpf-linker.
    Build(Compiler, PathBuf),
    /// Impossible until these steps are done.
    Install(Vec<Step>),
}

/// What this machine has, and what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The value of [`TOOLCHAIN_VAR`].
    pub toolchain: Option<String>,
    /// The value of [`OBJECT_VAR`].
    pub object: Option<String>,
    /// Every complete compiler.
    pub compilers: Vec<Compiler>,
    /// A bpf-linker of the right version.
    pub linker: Option<PathBuf>,
    /// Whether Debian's packages can be installed.
    pub debian: bool,
    /// Whether rustup can be asked for another toolchain.
    pub rustup: bool,
}

/// Where to look. Fields, so that a test can build a machine in a folder.
#[derive(Clone, Debug)]
pub struct Places {
    /// The project's own tools, looked at before [`Places::path`].
    pub tools: PathBuf,
    /// The root of the file system.
    pub system: PathBuf,
    /// rustup's folder.
    pub rustup: PathBuf,
    /// The search path for programs.
    pub path: OsString,
}

impl Places {
    /// The places of this machine, for the workspace in `root`.
    pub fn of_workspace(root: &Path) -> Self {
        let home = || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".rustup");
        Self {
            tools: root.join(".tools"),
            system: PathBuf::from("/"),
            rustup: env::var_os("RUSTUP_HOME").map_or_else(home, PathBuf::from),
            path: env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// Looks around. Starts at most two short-lived processes, since `setup` must stay under a second.
    pub fn facts(&self) -> Facts {
        let not_empty = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let release = fs::read_to_string(self.system.join("etc/os-release")).unwrap_or_default();
        Facts {
            toolchain: not_empty(TOOLCHAIN_VAR),
            object: not_empty(OBJECT_VAR),
            compilers: Way::ORDER.into_iter().filter_map(|way| self.compiler(way)).collect(),
            linker: self.linker(),
            debian: release.lines().any(|line| line == "ID=debian") && self.program("apt-get").is_some(),
            rustup: self.program("rustup").is_some(),
        }
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        which::which_in(name, Some(&self.path), &self.system).ok()
    }

    fn linker(&self) -> Option<PathBuf> {
        let candidates = [Some(self.tools.join("bin/bpf-linker")), self.program("bpf-linker")];
        candidates.into_iter().flatten().find(|linker| {
            let Ok(output) = Command::new(linker).arg("--version").output() else { return false };
            String::from_utf8_lossy(&output.stdout).trim() == format!("bpf-linker {LINKER_VERSION}")
        })
    }

    fn compiler(&self, way: Way) -> Option<Compiler> {
        let (root, core, llvm) = match way {
            Way::Nightly | Way::Stable => {
                let root = self.rustup_toolchain(if way == Way::Stable { "stable" } else { NIGHTLY })?;
                // The name of a toolchain promises nothing: rust-src is a component that may be absent.
                let core = root.join("lib/rustlib/src/rust/library/core/Cargo.toml");
                let llvm = root.join("lib");
                (root, core, llvm)
            }
            Way::Distro => {
                let root = self.system.join("usr");
                let core = first_named(&root.join("lib/rustlib/bpfel-unknown-none/lib"), "libcore-")?;
                let llvm = root.join(format!("lib/{}-linux-gnu", env::consts::ARCH));
                (root, core, llvm)
            }
        };
        let rustc = root.join("bin/rustc");
        let complete = rustc.exists() && core.exists();
        complete.then_some(Compiler { way, rustc, llvm: first_named(&llvm, LLVM)? })
    }

    fn rustup_toolchain(&self, channel: &str) -> Option<PathBuf> {
        first_named(&self.rustup.join("toolchains"), &format!("{channel}-{}", env::consts::ARCH))
    }
}

/// The first entry of `folder`, by name, that begins with `prefix`.
fn first_named(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(prefix)).min().map(|name| folder.join(name))
}

/// Chooses between what is there, or lists what would mend it.
pub fn decide(facts: &Facts) -> Result<Decision> {
    match facts.object.as_deref() {
        Some("none") => return Ok(Decision::Stub),
        Some(path) => return Ok(Decision::Prebuilt(path.into())),
        None => {}
    }
    let asked = asked_way(facts.toolchain.as_deref())?;
    let compiler = facts.compilers.iter().find(|compiler| asked.is_none_or(|way| compiler.way == way));
    if let (Some(compiler), Some(linker)) = (compiler, &facts.linker) {
        return Ok(Decision::Build(compiler.clone(), linker.clone()));
    }
    let mut steps = Vec::new();
    if compiler.is_none() {
        steps.extend(compiler_steps(facts, asked)?);
    }
    if facts.linker.is_none() {
        let command = format!("cargo install bpf-linker --version {LINKER_VERSION} --locked --root .tools");
        steps.push(Step::new("bpf-linker turns the compiler's output into a BPF object", &command, false));
    }
    Ok(Decision::Install(steps))
}

fn asked_way(toolchain: Option<&str>) -> Result<Option<Way>> {
    let Some(name) = toolchain else { return Ok(None) };
    if name == "prebuilt" {
        bail!("{TOOLCHAIN_VAR}=prebuilt embeds a finished object: name it with {OBJECT_VAR}=/path/to/object");
    }
    let Some(way) = Way::ORDER.into_iter().find(|way| way.name() == name) else {
        bail!("{TOOLCHAIN_VAR}={name} is no toolchain: use distro, nightly, stable or prebuilt");
    };
    Ok(Some(way))
}

fn compiler_steps(facts: &Facts, asked: Option<Way>) -> Result<Vec<Step>> {
    let way = asked.unwrap_or(if facts.debian { Way::Distro } else { Way::Nightly });
    if way == Way::Distro && !facts.debian {
        bail!("{TOOLCHAIN_VAR}=distro needs Debian's packages: on this system use {TOOLCHAIN_VAR}=nightly");
    }
    if way != Way::Distro && !facts.rustup {
        bail!("no compiler for BPF and no rustup to install one: install rustup, or set {OBJECT_VAR}");
    }
    Ok(match way {
        Way::Distro => vec![
            apt_update(),
            Step::new(
                "Debian's Rust compiler and its ready-made `core` for BPF",
                &apt_install(&["rustc-web", "libstd-rust-web-dev-bpf"]),
                true,
            ),
        ],
        Way::Nightly => vec![Step::new(
            "the pinned nightly and the source of `core`, to build it for BPF",
            &format!("rustup toolchain install {NIGHTLY} --profile minimal --component rust-src"),
            false,
        )],
        Way::Stable => vec![Step::new(
            "the source of `core`, to build it for BPF",
            "rustup component add rust-src --toolchain stable",
            false,
        )],
    })
}

/// Fetches the package lists, without which a fresh Debian finds no package at all.
pub fn apt_update() -> Step {
    Step::new("the current package lists", "apt-get update", true)
}

/// The command for Debian packages; what they merely recommend is a second toolchain of 200 MB.
pub fn apt_install(packages: &[&str]) -> String {
    let install = "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends";
    format!("{install} {}", packages.join(" "))
}

#[cfg(test)]
mod tests;
