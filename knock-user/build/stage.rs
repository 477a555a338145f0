//! Sets the stage for aya-build, which finds its compiler by PATH alone and prefers `rustup run nightly`.
//!
//! Only this process and the cargo it starts see any of it: the user crates stay on plain stable.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::{env, fs, iter};

use anyhow::{Context as _, Result};

use crate::toolchain::{Compiler, Way};

/// aya-build calls `rustup run TOOLCHAIN PROGRAM ..` wherever there is a rustup. This one, first in PATH, drops
/// the first two words, so the programs beside it are what runs.
const RUSTUP: &str = "#!/bin/sh\nshift 2\nexec \"$@\"\n";

/// Fills `folder` with the chosen programs and points the environment at it.
pub fn set(folder: &Path, compiler: &Compiler, linker: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let (bin, llvm) = (folder.join("bin"), folder.join("llvm"));
    for folder in [&bin, &llvm] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    link(&bin.join("cargo"), &cargo_for(compiler)?)?;
    link(&bin.join("rustc"), &compiler.rustc)?;
    link(&bin.join("bpf-linker"), linker)?;
    let library = compiler.llvm.file_name().context("the LLVM library has no name")?;
    link(&llvm.join(library), &compiler.llvm)?;

    let rustup = bin.join("rustup");
    fs::write(&rustup, RUSTUP)
        .and_then(|()| fs::set_permissions(&rustup, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", rustup.display()))?;

    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(iter::once(bin).chain(env::split_paths(&path)))?;
    set_var("PATH", Some(&path));
    // bpf-linker takes the first libLLVM it meets here, so it must meet no other than the compiler's.
    set_var("LD_LIBRARY_PATH", Some(llvm.as_os_str()));
    set_var("RUSTC_BOOTSTRAP", bootstrap(compiler.way).map(OsStr::new));
    // The nested cargo's progress would come out as warnings, repeated at every later build.
    set_var("CARGO_TERM_QUIET", Some(OsStr::new("true")));
    Ok(())
}

/// Debian's own cargo is years old and reads no edition 2024; the caller's drives any compiler.
fn cargo_for(compiler: &Compiler) -> Result<PathBuf> {
    match compiler.way {
        Way::Nightly | Way::Stable => Ok(compiler.rustc.with_file_name("cargo")),
        Way::Distro => env::var_os("CARGO").map(PathBuf::from).context("CARGO is not set: build with cargo"),
    }
}

/// aya-ebpf and our program use inline BPF assembly, which is unstable. Naming the crates allows just that;
/// `1` also makes aya-build pass `-Z build-std`, which is wanted only where rust-src replaces a ready-made core.
const fn bootstrap(way: Way) -> Option<&'static str> {
    match way {
        Way::Nightly => None,
        Way::Distro => Some("aya_ebpf,xdp_knock"),
        Way::Stable => Some("1"),
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    symlink(to, from).with_context(|| format!("cannot link {} to {}", from.display(), to.display()))
}

fn set_var(name: &str, value: Option<&OsStr>) {
    match value {
        // SAFETY: a build script has one thread until aya-build starts its own, which comes later.
        Some(value) => unsafe { env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { env::remove_var(name) },
    }
}
