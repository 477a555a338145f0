//! Detection on machines made of empty files, and decisions on given facts.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const ARCH: &str = env::consts::ARCH;

/// A machine in a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, file: &str) -> Self {
        self.with_text(file, "")
    }

    fn with_text(self, file: &str, text: &str) -> Self {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn with_rustup(self, channel: &str) -> Self {
        let root = format!("rustup/toolchains/{channel}-{ARCH}-unknown-linux-gnu");
        self.with("bin/rustup")
            .with(&format!("{root}/bin/rustc"))
            .with(&format!("{root}/lib/libLLVM.so.22.1-rust-1.95.0"))
            .with(&format!("{root}/lib/rustlib/src/rust/library/core/Cargo.toml"))
    }

    fn with_debian_packages(self) -> Self {
        self.with("usr/bin/rustc")
            .with("usr/lib/rustlib/bpfel-unknown-none/lib/libcore-1.rlib")
            .with(&format!("usr/lib/{ARCH}-linux-gnu/libLLVM.so.22.1"))
    }

    fn without(self, file: &str) -> Self {
        fs::remove_file(self.0.path().join(file)).unwrap();
        self
    }

    fn facts(&self) -> Facts {
        let root = self.0.path();
        let places = Places {
            tools: root.join("tools"),
            system: root.to_owned(),
            rustup: root.join("rustup"),
            path: root.join("bin").into(),
        };
        Facts { toolchain: None, object: None, ..places.facts() }
    }

    fn ways(&self) -> Vec<Way> {
        self.facts().compilers.iter().map(|compiler| compiler.way).collect()
    }
}

fn facts(ways: &[Way]) -> Facts {
    let compiler = |way| Compiler { way, rustc: "rustc".into(), llvm: LLVM.into() };
    Facts {
        compilers: ways.iter().copied().map(compiler).collect(),
        linker: Some("bpf-linker".into()),
        debian: true,
        rustup: true,
        ..Facts::default()
    }
}

fn chosen(facts: &Facts) -> Way {
    let Decision::Build(compiler, _) = decide(facts).unwrap() else { panic!("nothing to build with") };
    compiler.way
}

fn commands(facts: &Facts) -> Vec<String> {
    let Decision::Install(steps) = decide(facts).unwrap() else { panic!("nothing to install") };
    steps.iter().map(Step::to_string).collect()
}

#[test]
fn compilers_are_found_best_first() {
    let machine = Machine::new().with_rustup("stable").with_rustup(NIGHTLY).with_debian_packages();
    assert_eq!(machine.ways(), [Way::Nightly, Way::Distro, Way::Stable]);
}

#[test]
fn a_toolchain_without_rust_src_is_no_compiler() {
    let core = "lib/rustlib/src/rust/library/core/Cargo.toml";
    let machine = Machine::new()
        .with_rustup(NIGHTLY)
        .without(&format!("rustup/toolchains/{NIGHTLY}-{ARCH}-unknown-linux-gnu/{core}"));
    assert_eq!(machine.ways(), []);
}

#[test]
fn a_toolchain_of_another_llvm_is_no_compiler() {
    let library =
        format!("rustup/toolchains/stable-{ARCH}-unknown-linux-gnu/lib/libLLVM.so.22.1-rust-1.95.0");
    let newer = library.replace("22.1", "23.0");
    assert_eq!(Machine::new().with_rustup("stable").without(&library).with(&newer).ways(), []);
}

#[test]
fn another_nightly_than_the_pinned_one_is_no_compiler() {
    assert_eq!(Machine::new().with_rustup("nightly").with_rustup("nightly-2026-08-01").ways(), []);
}

#[test]
fn a_distribution_compiler_without_core_for_bpf_is_no_compiler() {
    let core = "usr/lib/rustlib/bpfel-unknown-none/lib/libcore-1.rlib";
    assert_eq!(Machine::new().with_debian_packages().without(core).ways(), []);
}

// One test, not two: a program just written cannot be started while another thread forks with it open.
#[test]
fn the_pinned_linker_is_found_in_the_project_before_path_and_no_other_version_will_do() {
    let script = |version| format!("#!/bin/sh\necho bpf-linker {version}\n");
    let old = Machine::new().with_text("bin/bpf-linker", &script("0.9.14"));
    assert_eq!(old.facts().linker, None);

    let installed = Machine::new().with_text("bin/bpf-linker", &script(LINKER_VERSION));
    assert!(installed.facts().linker.unwrap().ends_with("bin/bpf-linker"));

    let both = installed.with_text("tools/bin/bpf-linker", &script(LINKER_VERSION));
    assert!(both.facts().linker.unwrap().ends_with("tools/bin/bpf-linker"));
}

#[test]
fn debian_is_told_from_what_merely_has_apt() {
    let ubuntu =
        Machine::new().with("bin/apt-get").with_text("etc/os-release", "ID=ubuntu\nID_LIKE=debian\n");
    let debian = Machine::new().with("bin/apt-get").with_text("etc/os-release", "NAME=x\nID=debian\n");
    assert!(!ubuntu.facts().debian);
    assert!(debian.facts().debian);
}

#[test]
fn the_best_compiler_builds_unless_another_is_asked_for() {
    let all = facts(&Way::ORDER);
    assert_eq!(chosen(&all), Way::Nightly);
    assert_eq!(chosen(&Facts { toolchain: Some("stable".into()), ..all }), Way::Stable);
    assert_eq!(chosen(&facts(&[Way::Distro, Way::Stable])), Way::Distro);
}

#[test]
fn a_compiler_asked_for_but_incomplete_is_installed_rather_than_replaced() {
    let asked = Facts { toolchain: Some("nightly".into()), ..facts(&[Way::Distro]) };
    let nightly = format!("rustup toolchain install {NIGHTLY} --profile minimal --component rust-src");
    assert_eq!(commands(&asked), [nightly]);
}

#[test]
fn a_bare_debian_gets_packages_and_a_linker() {
    let bare = Facts { linker: None, ..facts(&[]) };
    let commands = commands(&bare);
    assert_eq!(commands[0], "apt-get update  # as root");
    assert!(commands[1].contains("install -y --no-install-recommends rustc-web libstd-rust-web-dev-bpf"));
    assert!(commands[2].starts_with("cargo install bpf-linker --version 0.10.4 --locked --root"));
}

#[test]
fn elsewhere_rustup_brings_the_pinned_nightly() {
    let elsewhere = Facts { debian: false, ..facts(&[]) };
    assert!(commands(&elsewhere)[0].contains(NIGHTLY));
}

#[test]
fn with_neither_debian_nor_rustup_the_error_says_what_to_install() {
    let error = decide(&Facts { debian: false, rustup: false, ..facts(&[]) }).unwrap_err();
    assert!(error.to_string().contains("install rustup"));
}

#[test]
fn an_object_given_is_embedded_whatever_is_installed() {
    let given = |object: &str| Facts { object: Some(object.into()), ..Facts::default() };
    assert_eq!(decide(&given("/a/b")).unwrap(), Decision::Prebuilt("/a/b".into()));
    assert_eq!(decide(&given("none")).unwrap(), Decision::Stub);
}

#[test]
fn prebuilt_without_an_object_and_unknown_names_are_errors() {
    for (name, hint) in [("prebuilt", OBJECT_VAR), ("gcc", "use distro, nightly, stable or prebuilt")] {
        let error = decide(&Facts { toolchain: Some(name.into()), ..facts(&Way::ORDER) }).unwrap_err();
        assert!(error.to_string().contains(hint), "{error}");
    }
}
