//! Looks at the finished object before it is embedded.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::{File, Object as _, ObjectSymbol as _};

/// Parts of names that only a reachable panic leaves in the object, in plain, legacy and v0 mangling.
const PANICS: [&str; 5] =
    ["core::panicking", "4core9panicking", "rust_begin_unwind", "panic_fmt", "panic_bounds_check"];

/// Refuses an object that could panic, or that the kernel would refuse for its licence.
pub fn check(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the object {}", path.display()))?;
    let elf = File::parse(&*bytes).with_context(|| format!("{} is no ELF object", path.display()))?;
    if elf.section_by_name("license").is_none() {
        bail!(
            "{} has no `license` section: the kernel refuses GPL helpers to such a program",
            path.display()
        );
    }
    // A panic handler for BPF can only loop, and the verifier's words for that point nowhere near the cause.
    let names = elf.symbols().filter_map(|symbol| symbol.name().ok());
    for name in names {
        if PANICS.iter().any(|panic| name.contains(panic)) {
            bail!(
                "the BPF program can panic (symbol `{name}`): replace indexing, slicing, division, unwrap and \
                 unchecked arithmetic by `get`, `checked_*` or `let .. else`"
            );
        }
    }
    Ok(())
}
