//! Puts a generation into the kernel: patches the constants, fills the maps, reads them back.

mod pages;
mod spa;

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::lpm_trie::Key,
    programs::{Program, SchedClassifier, Xdp},
};
use knock_common::{
    abi::{ABOUT_CHUNK, LINK_PARTIAL, MAX_DOORS, PrefixKey, Role, Settings},
    names, verdict,
};
use nix::sys::signal::{SigSet, SigmaskHow};

use self::pages::Shelf;
use crate::{
    devices,
    generation::Generation,
    hook::{Header, Hook},
    state,
    state_file::packets::Start,
    wire::{self, Wire},
};

/// Insert only what is not there (`linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-knock"));

/// What a load may be asked for beside the generation.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Names of the programs to load now; another one is loaded when it is asked for.
    pub programs: BTreeSet<&'static str>,
    /// Compile the program's debug traces in.
    pub trace: bool,
    /// Take the time from the test clock map: for tests that run packets through the program.
    pub test_clock: bool,
    /// The folder of pinned state to share, made complete if it is not; `None` for a state of its own.
    pub state: Option<&'a Path>,
    /// The generation's description of itself, in the chunks of its map.
    pub about: Vec<[u8; ABOUT_CHUNK]>,
    /// Until when the gate must be confirmed, on the kernel's clock.
    pub confirm_by_ns: Option<u64>,
    /// What secrets begin with.
    pub start: Start,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            programs: BTreeSet::from([names::PROGRAM]),
            trace: false,
            test_clock: false,
            state: None,
            about: Vec::new(),
            confirm_by_ns: None,
            start: Start::default(),
        }
    }
}

/// Loaded programs with their maps filled, attached to nothing yet.
#[derive(Debug)]
pub struct Gate {
    /// The programs and their maps.
    pub ebpf: Ebpf,
    settings: Settings,
    shelf: Shelf,
}

impl Gate {
    /// Loads the programs for a generation.
    ///
    /// # Errors
    /// When the kernel refuses the program or a map, or gives back something else than was written.
    pub fn load(generation: &Generation, options: &Options<'_>) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this binary was built without the BPF program: build it with `cargo xtask build`"
        );
        let settings = Wire(Settings {
            test_clock: u8::from(options.test_clock),
            confirm: u8::from(options.confirm_by_ns.is_some()),
            ..generation.settings
        });
        let roles: Vec<Wire<Role>> = generation.port_roles.iter().copied().map(Wire).collect();
        // aya-log's levels: 0 is nothing, and the verifier then drops every trace from the program.
        let log_level = if options.trace { u8::MAX } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global(names::SETTINGS, &settings, true)
            .override_global(names::PORT_ROLES, roles.as_slice(), true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries(names::ABOUT, u32::try_from(options.about.len().max(1))?)
            .map_max_entries(names::DOORS, u32::try_from(MAX_DOORS)?.saturating_add(generation.pages.count()))
            .map_max_entries(names::PAGES, generation.pages.count().max(1));
        if let Some(folder) = options.state {
            for name in state::maps() {
                loader.map_pin_path(name, folder.join(name));
            }
        }
        let ebpf = loader.load(OBJECT).context("loading the BPF object")?;
        let mut gate = Self { ebpf, settings: generation.settings, shelf: Shelf::default() };
        gate.fill(generation, options)?;
        gate.read_back(generation, options)?;
        gate.know_links()?;
        for name in &options.programs {
            gate.loaded(name)?;
        }
        Ok(gate)
    }

    /// Loads the program with signals held back. The verifier gives up at a pending one (EAGAIN), and aya takes that for
    /// a refusal and verifies again, with a log: seconds in which Ctrl-C seems to do nothing, and a refusal where the next
    /// one comes. All signals, since the end of a hook is one, too (SIGCHLD).
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_undisturbed(generation: &Generation, options: &Options<'_>) -> Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).context("holding signals back")?;
        let loaded = Self::load(generation, options);
        before.thread_set_mask().context("letting signals through")?;
        loaded
    }

    /// Returns whether programs for outgoing packets are part of the gate.
    #[must_use]
    pub const fn needs_egress(&self) -> bool {
        needs_egress(&self.settings)
    }

    /// Returns whether what is not open is shut.
    #[must_use]
    pub const fn is_deny(&self) -> bool {
        self.settings.mode == verdict::Mode::Deny.number()
    }

    /// Returns whether a hidden port answers as a closed one would.
    #[must_use]
    pub const fn hides_as_closed(&self) -> bool {
        self.settings.flags & Settings::CLOSED != 0
    }

    /// Returns the XDP program.
    ///
    /// # Errors
    /// When the embedded object has none of the name, or the kernel refuses it.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        self.loaded(names::PROGRAM)?.try_into().context("the embedded program is not for XDP")
    }

    /// Tells the program the link-layer addresses that the interfaces here have now, if it answers for closed ports: a frame
    /// to any other is another host's, and gets no answer.
    ///
    /// # Errors
    /// When the interfaces cannot be listed or the map is full.
    pub fn know_links(&mut self) -> Result<()> {
        if !self.hides_as_closed() {
            return Ok(());
        }
        let mut links = wire::links(&mut self.ebpf)?;
        for device in devices::all()? {
            let Some([a, b, c, d, e, f]) = device.address else { continue };
            let partial = if device.kind.as_deref() == Some(devices::VETH) { LINK_PARTIAL } else { 0 };
            let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) | partial;
            links.insert(device.index, word, 0).context("writing an interface's link-layer address")?;
        }
        Ok(())
    }

    /// Returns the program for a place on an interface.
    ///
    /// # Errors
    /// When there is none for it, or the kernel refuses it.
    pub fn program_at(&mut self, hook: Hook, header: Header) -> Result<&mut Program> {
        let name = hook.program(header).context("XDP takes packets with an Ethernet header alone")?;
        self.loaded(name)
    }

    /// Returns a program by the kernel's id; `None` if it is none of this gate's.
    pub fn program_of(&mut self, id: u32) -> Option<&mut Program> {
        let is_it = |program: &Program| program.info().is_ok_and(|info| info.id() == id);
        self.ebpf.programs_mut().find_map(|(_, program)| is_it(program).then_some(program))
    }

    /// Returns a program of the object, loaded into the kernel.
    fn loaded(&mut self, name: &str) -> Result<&mut Program> {
        let program = self.ebpf.program_mut(name).with_context(|| {
            format!("the embedded object has no program {name}: build again with `cargo xtask build`")
        })?;
        if program.fd().is_err() {
            load(program).with_context(|| format!("the kernel refused the program {name}"))?;
        }
        Ok(program)
    }

    fn fill(&mut self, generation: &Generation, options: &Options<'_>) -> Result<()> {
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
        let mut about = wire::about(&mut self.ebpf)?;
        for (number, chunk) in (0..).zip(&options.about) {
            about.set(number, *chunk, 0).context("writing the generation's description of itself")?;
        }
        self.fill_spa(&generation.spa)?;
        self.shelf = Shelf::of(&generation.pages);
        if let Some(known) = &options.start.floors {
            self.begin_floors(known, options.start.is_whole)?;
        }
        self.tell_time(options.start.gap)?;
        self.fill_books()?;
        if let Some(by_ns) = options.confirm_by_ns {
            wire::confirm(&mut self.ebpf)?.set(0, by_ns, 0).context("writing the time to confirm by")?;
        }
        Ok(())
    }

    fn read_back(&mut self, generation: &Generation, options: &Options<'_>) -> Result<()> {
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
        self.read_back_spa(&generation.spa, options)?;
        let about = wire::about(&mut self.ebpf)?;
        for (number, chunk) in (0..).zip(&options.about) {
            if about.get(&number, 0)? != *chunk {
                bail!("the generation's description of itself reads back other than it was written");
            }
        }
        Ok(())
    }
}

fn load(program: &mut Program) -> Result<()> {
    if let Program::Xdp(program) = program {
        return Ok(program.load()?);
    }
    let program: &mut SchedClassifier = program.try_into()?;
    Ok(program.load()?)
}

/// Returns whether a generation takes notes of what the host sends: deny mode must know what is an answer, and a door that
/// keeps what it let in must know what a service behind the host accepted.
#[must_use]
pub const fn needs_egress(settings: &Settings) -> bool {
    settings.mode == verdict::Mode::Deny.number()
        || (settings.mode == verdict::Mode::Guard.number() && settings.flags & Settings::SESSIONS != 0)
}

fn prefix_key(bits: u32, key: PrefixKey) -> Key<Wire<PrefixKey>> {
    Key::new(bits, Wire(key))
}
