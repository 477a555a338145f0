//! Rebuilds the program when bpf-linker changes: cargo knows nothing of what a linker puts into an object.

fn main() {
    // Without a linker this is a host `cargo check`, which links nothing.
    let linker = which::which("bpf-linker").unwrap_or_else(|_| "build.rs".into());
    println!("cargo::rerun-if-changed={}", linker.display());
}
