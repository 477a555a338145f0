//! Puts a generation into the kernel: patches the constants, fills the maps, reads them back.

use anyhow::{Context, Result, bail, ensure};
use aya::{Ebpf, EbpfLoader, maps::lpm_trie::Key, programs::Xdp};
use knock_common::{
    abi::{PrefixKey, Role, Settings},
    counter::{self, Counter},
    names,
};

use crate::{
    generation::Generation,
    pins::PinDir,
    wire::{self, Wire},
};

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-knock"));

/// What a load may be asked for beside the generation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Compile the program's debug traces in.
    pub trace: bool,
    /// Take the time from the test clock map: for tests that run packets through the program.
    pub test_clock: bool,
}

/// A loaded program with its maps filled, attached to nothing yet.
#[derive(Debug)]
pub struct Gate {
    /// The program and its maps.
    pub ebpf: Ebpf,
}

impl Gate {
    /// Loads the program for a generation.
    ///
    /// # Errors
    /// When the kernel refuses the program or a map, or gives back something else than was written.
    pub fn load(generation: &Generation, options: Options) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this binary was built without the BPF program: build it with `cargo xtask build`"
        );
        let settings = Wire(Settings { test_clock: u8::from(options.test_clock), ..generation.settings });
        let roles: Vec<Wire<Role>> = generation.port_roles.iter().copied().map(Wire).collect();
        // aya-log's levels: 0 is nothing, and the verifier then drops every trace from the program.
        let log_level = if options.trace { u8::MAX } else { 0 };
        let ebpf = EbpfLoader::new()
            .override_global(names::SETTINGS, &settings, true)
            .override_global(names::PORT_ROLES, roles.as_slice(), true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .load(OBJECT)
            .context("loading the BPF object")?;
        let mut gate = Self { ebpf };
        gate.fill(generation)?;
        gate.read_back(generation)?;
        gate.program()?.load().context("the kernel refused the XDP program")?;
        Ok(gate)
    }

    /// Returns the XDP program.
    ///
    /// # Errors
    /// When the embedded object has none of the name.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(names::PROGRAM).context("the embedded object has no program")?;
        program.try_into().context("the embedded program is not for XDP")
    }

    /// Pins every map, replacing pins that an earlier process left.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn pin_maps(&self, pins: &PinDir) -> Result<()> {
        for (name, map) in self.ebpf.maps() {
            // The kernel's own sections have names with a dot, which a BPF file system refuses, and no readers.
            if name.contains('.') {
                continue;
            }
            let path = pins.map(name);
            PinDir::remove(&path)?;
            map.pin(&path).with_context(|| format!("pinning the map {name} at {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the sum of a counter over all CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn count(&mut self, counter: Counter) -> Result<u64> {
        let counters = wire::counters(&mut self.ebpf)?;
        let values = counters.get(&(counter as u32), 0).context("reading a counter")?;
        Ok(values.iter().sum())
    }

    /// Returns all counters that are not zero, by name.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&mut self) -> Result<Vec<(&'static str, u64)>> {
        let mut counts = Vec::new();
        for (counter, name, _) in counter::ALL {
            let count = self.count(counter)?;
            if count != 0 {
                counts.push((name, count));
            }
        }
        Ok(counts)
    }

    fn fill(&mut self, generation: &Generation) -> Result<()> {
        let mut doors = wire::doors(&mut self.ebpf)?;
        for (number, rule) in (0..).zip(&generation.doors) {
            doors.set(number, Wire(*rule), 0).context("writing a door")?;
        }
        let mut port_doors = wire::port_doors(&mut self.ebpf)?;
        for (number, set) in (0..).zip(&generation.port_doors) {
            port_doors.set(number, Wire(*set), 0).context("writing a set of doors")?;
        }
        let mut prefixes = wire::prefixes(&mut self.ebpf)?;
        for (bits, key) in &generation.prefixes {
            prefixes.insert(&prefix_key(*bits, *key), 1, 0).context("writing a prefix")?;
        }
        Ok(())
    }

    fn read_back(&mut self, generation: &Generation) -> Result<()> {
        let doors = wire::doors(&mut self.ebpf)?;
        for (number, rule) in (0..).zip(&generation.doors) {
            if doors.get(&number, 0)? != Wire(*rule) {
                bail!("door {number} reads back other than it was written: nothing was attached");
            }
        }
        let port_doors = wire::port_doors(&mut self.ebpf)?;
        for (number, set) in (0..).zip(&generation.port_doors) {
            if port_doors.get(&number, 0)? != Wire(*set) {
                bail!("set of doors {number} reads back other than it was written: nothing was attached");
            }
        }
        let prefixes = wire::prefixes(&mut self.ebpf)?;
        for (bits, key) in &generation.prefixes {
            prefixes.get(&prefix_key(*bits, *key), 0).context("a prefix was written and is not there")?;
        }
        Ok(())
    }
}

fn prefix_key(bits: u32, key: PrefixKey) -> Key<Wire<PrefixKey>> {
    Key::new(bits, Wire(key))
}
