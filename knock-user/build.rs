//! Builds the BPF program, checks it, and leaves it in `OUT_DIR/xdp-knock` to be embedded.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain, build_ebpf};

#[path = "build/inspect.rs"]
mod inspect;
#[path = "build/stage.rs"]
mod stage;
#[path = "../xtask/src/toolchain/mod.rs"]
mod toolchain;

use toolchain::{Compiler, Decision, OBJECT_VAR, Places, Step, TOOLCHAIN_VAR, decide};

/// The binary of knock-ebpf, and the name aya-build gives the object.
const OBJECT: &str = "xdp-knock";

fn main() {
    let Err(error) = embed() else { return };
    // These lines alone fail the build. Exiting with a status as well would make cargo repeat them under a
    // page of this script's other output.
    for line in format!("{error:#}").lines() {
        println!("cargo::error={line}");
    }
}

fn embed() -> Result<()> {
    for name in [TOOLCHAIN_VAR, OBJECT_VAR] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let root = manifest.parent().context("knock-user has no parent folder")?;
    let object = out_dir.join(OBJECT);

    match decide(&Places::of_workspace(root).facts())? {
        Decision::Stub => {
            // Cargo must be told of some file, or it watches every file of the package.
            rerun_if_changed(&manifest.join("build.rs"));
            write(&object, &[])
        }
        Decision::Prebuilt(path) => copy(&path, &object),
        Decision::Build(compiler, linker) => {
            build(root, &out_dir, &compiler, &linker)?;
            inspect::check(&object)
        }
        Decision::Install(steps) => bail!(missing(&steps)),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    rerun_if_changed(from);
    // Not fs::copy, which would carry over a read-only mode and make the next copy fail.
    let bytes = fs::read(from).with_context(|| {
        format!("cannot read {OBJECT_VAR}={}: give a finished object, or `none`", from.display())
    })?;
    inspect::check(from)?;
    write(to, &bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn build(root: &Path, out_dir: &Path, compiler: &Compiler, linker: &Path) -> Result<()> {
    rerun_if_changed(linker);
    rerun_if_changed(&compiler.rustc);
    for input in ["knock-common", "Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&root.join(input));
    }
    stage::set(&out_dir.join("stage"), compiler, linker)?;

    let crate_dir = root.join("knock-ebpf");
    let root_dir = crate_dir.to_str().with_context(|| format!("{} is not UTF-8", crate_dir.display()))?;
    let package = Package { name: "knock-ebpf", root_dir, ..Package::default() };
    let way = compiler.way.name();
    build_ebpf([package], Toolchain::Custom(way)).with_context(|| {
        format!("knock-ebpf does not build by {TOOLCHAIN_VAR}={way} (the warnings above say why)")
    })
}

fn missing(steps: &[Step]) -> String {
    let mut text =
        String::from("this machine lacks what builds the BPF program: run `cargo xtask setup`, or\n");
    for step in steps {
        text += &format!("    {step}\n");
    }
    text + &format!("or embed a finished object with {OBJECT_VAR}=/path (`none` if you only lint)")
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
