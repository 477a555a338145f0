//! What is pinned and attached at this moment, found out from the kernel alone: whoever put it there may be dead.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{
        ProgramFd, ProgramInfo,
        links::{FdLink, LinkType, PinnedLink},
        loaded_programs,
    },
};
use knock_common::{abi::ABOUT_CHUNK, names};

use crate::{
    about::About,
    attach::{self, Filter},
    hook::Hook,
    pins::{self, Pins},
};

/// A pinned link and what it leads to.
#[derive(Debug)]
pub struct Link {
    /// The interface it was made for.
    pub interface: String,
    /// Index of the interface that it is on; 0 when that was deleted.
    pub index: u32,
    /// Id of the program behind it.
    pub program_id: u32,
    /// That program, where it was looked into and is of this layout.
    pub program: Option<Program>,
    /// Where it judges.
    pub hook: Hook,
    /// The link of the program for outgoing packets that was pinned beside it, if one is.
    beside: Option<Beside>,
    /// Keeps that program, though it be swapped out meanwhile.
    _egress: Option<ProgramFd>,
}

/// A pinned link of a program for outgoing packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beside {
    index: u32,
    program_id: u32,
}

impl Link {
    /// Returns whether the interface it was on has been deleted: it judges nothing then.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        self.index == 0
    }

    /// Returns the id of the program that takes notes of what goes out by the same interface; `None` where none does.
    #[must_use]
    pub fn egress(&self) -> Option<u32> {
        let beside = self.beside.filter(|beside| beside.index != 0 && beside.index == self.index)?;
        Some(beside.program_id)
    }

    /// Looks into its program, and keeps the one for outgoing packets.
    fn look(&mut self) -> Result<Program> {
        let program = program(self.program_id)?;
        self._egress = self.egress().map(|id| Ok::<_, anyhow::Error>(program_info(id)?.fd()?)).transpose()?;
        Ok(program)
    }

    /// Returns what its generation says of itself.
    #[must_use]
    pub fn about(&self) -> Option<&About> {
        self.program.as_ref().map(|program| &program.about)
    }
}

/// A loaded program of ours.
#[derive(Debug)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// What it says of itself.
    pub about: About,
    maps: Vec<(String, u32)>,
    /// Keeps it, and so its maps, though it be swapped out meanwhile.
    _handle: ProgramFd,
}

/// Returns every pinned link with its program. Takes root, since programs are looked up by their ids.
///
/// # Errors
/// When a pin is not a link of ours, or of a version with another layout; the message names the way out.
pub fn links(pins: &Pins) -> Result<Vec<Link>> {
    pins.linked()?.into_iter().map(|interface| link(pins, interface)).collect()
}

/// Returns one pinned link with its program, as [`links`] does.
///
/// # Errors
/// As [`links`].
pub fn link(pins: &Pins, interface: String) -> Result<Link> {
    let (mut link, looked) = looked_into(pins, interface)?;
    link.program = Some(looked.map_err(|error| foreign(&pins.link(&link.interface), format!("{error:#}")))?);
    Ok(link)
}

/// Returns one pinned link, and what came of looking into its program.
fn looked_into(pins: &Pins, interface: String) -> Result<(Link, Result<Program>)> {
    let mut link = bare_link(pins, interface)?;
    loop {
        let looked = link.look();
        if looked.is_ok() {
            return Ok((link, looked));
        }
        // A reload may have swapped the program meanwhile, and the kernel forgets the one before at once.
        let now = bare_link(pins, link.interface.clone())?;
        if (now.program_id, now.egress()) == (link.program_id, link.egress()) {
            return Ok((link, looked));
        }
        link = now;
    }
}

/// Returns every pinned link, of whatever layout, with its program where that is ours.
///
/// # Errors
/// When a pin is no link of XDP or TCX.
pub fn links_of_any_layout(pins: &Pins) -> Result<Vec<Link>> {
    let look = |interface| {
        let (link, looked) = looked_into(pins, interface)?;
        Ok(Link { program: looked.ok(), ..link })
    };
    pins.linked()?.into_iter().map(look).collect()
}

/// Returns every pinned link without looking into its program, which a process that gave up root can still do.
///
/// # Errors
/// When a pin is no link of XDP or TCX.
pub fn bare_links(pins: &Pins) -> Result<Vec<Link>> {
    pins.linked()?.into_iter().map(|interface| bare_link(pins, interface)).collect()
}

/// Returns the generation that the links agree on: the highest number, should an update have been cut short.
#[must_use]
pub fn current(links: &[Link]) -> Option<&About> {
    links.iter().filter_map(Link::about).max_by_key(|about| about.generation)
}

/// Returns one pinned link without looking into its program, as [`bare_links`] does.
///
/// # Errors
/// As [`bare_links`].
pub fn bare_link(pins: &Pins, interface: String) -> Result<Link> {
    let (hook, Beside { index, program_id }) = pinned(&pins.link(&interface))?;
    let beside = beside(pins, &interface)?;
    Ok(Link { index, program_id, program: None, hook, beside, _egress: None, interface })
}

/// Opens the pin of a link; what is attached by TCX is taken for a program that judges.
fn pinned(path: &Path) -> Result<(Hook, Beside)> {
    let wrong = |error: &dyn std::fmt::Display| foreign(path, error.to_string());
    let link: FdLink = PinnedLink::from_pin(path).map_err(|error| wrong(&error))?.into();
    let info = link.info().map_err(|error| wrong(&error))?;
    let hook = if matches!(info.link_type(), Ok(LinkType::Xdp)) {
        Hook::Xdp
    } else if matches!(info.link_type(), Ok(LinkType::Tcx)) {
        Hook::Ingress
    } else {
        return Err(wrong(&"it is not a link of XDP or TCX").into());
    };
    Ok((hook, Beside { index: index_of(info.id())?, program_id: info.program_id() }))
}

/// Returns what is pinned for outgoing packets. A process that detaches may remove it between two looks.
fn beside(pins: &Pins, interface: &str) -> Result<Option<Beside>> {
    let path = pins.egress(interface);
    if !pins::is_there(&path)? {
        return Ok(None);
    }
    if attach::is_marked(&path)? {
        let filter = attach::filter_on(interface)?;
        // Without one the interface was deleted, and its filter with it.
        return Ok(filter.map(|Filter { index, program_id }| Beside { index, program_id }));
    }
    match pinned(&path) {
        Ok((Hook::Ingress, beside)) => Ok(Some(beside)),
        Ok((Hook::Xdp | Hook::Egress, _)) => Err(foreign(&path, "it is not a link of TCX".to_owned()).into()),
        Err(_) if !pins::is_there(&path)? => Ok(None),
        Err(error) => Err(error),
    }
}

fn foreign(path: &Path, reason: String) -> Foreign {
    Foreign { path: path.to_owned(), reason }
}

/// A pin that this program did not make, or made in a version with another layout.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pin {} is not of this xdp-knock: {reason}. Nothing was changed. Take it over without its grants (--discard-state), or take it off: `xdp-knock detach --force`",
    .path.display()
)]
pub struct Foreign {
    path: PathBuf,
    reason: String,
}

/// The index of the interface that a link is on. The link's own information names it; the library does not pass that on,
/// and this process's view of its descriptors (`proc_pid_fdinfo(5)`) does.
fn index_of(link: u32) -> Result<u32> {
    for entry in fs::read_dir("/proc/self/fdinfo").context("reading /proc/self/fdinfo")? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        if field("link_id") == Some(link) {
            return field("ifindex").context("the kernel does not tell which interface a link is on");
        }
    }
    bail!("link {link} is not among this process's descriptors")
}

/// Returns the kernel's handle of a program.
///
/// # Errors
/// When the kernel has it no more, or does not give it out.
pub fn program_info(id: u32) -> Result<ProgramInfo> {
    let of_id = |info: &ProgramInfo| info.id() == id;
    loaded_programs()
        .flatten()
        .find(of_id)
        .ok_or_else(|| anyhow!("the kernel shows no program {id}: run as root"))
}

/// Looks into a loaded program of ours. Takes root.
///
/// # Errors
/// When the kernel does not give it out, or it is no program of ours or of another layout.
pub fn program(id: u32) -> Result<Program> {
    let info = program_info(id)?;
    let handle = info.fd()?;
    let name = info.name_as_str().unwrap_or_default();
    match Hook::of_program(name) {
        Some(Hook::Xdp | Hook::Ingress) => {}
        Some(Hook::Egress) | None => bail!("its program is `{name}`"),
    }
    let mut maps = Vec::new();
    for map in info.map_ids()?.context("the kernel does not tell a program's maps")? {
        let facts = MapInfo::from_id(map)?;
        maps.push((facts.name_as_str().unwrap_or_default().to_owned(), map));
    }
    let Some(about) = maps.iter().find(|(name, _)| name == names::ABOUT).map(|(_, id)| *id) else {
        bail!("its program says nothing of itself: it is of an xdp-knock before layout 2");
    };
    let about = about_in(Map::from_map_data(MapData::from_id(about)?)?)?;
    Ok(Program { id, about, maps, _handle: handle })
}

fn about_in(map: Map) -> Result<About> {
    let chunks: Array<MapData, [u8; ABOUT_CHUNK]> = map.try_into()?;
    let mut bytes = Vec::new();
    for chunk in 0..chunks.len() {
        bytes.extend(chunks.get(&chunk, 0)?);
    }
    About::from_bytes(&bytes)
}

impl Program {
    fn map(&self, name: &str) -> Result<Map> {
        let id = self.maps.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
        let id = id.with_context(|| format!("program {} has no map {name}", self.id))?;
        Ok(Map::from_map_data(MapData::from_id(id)?)?)
    }

    /// Opens the word that a confirmation clears: 0, or the deadline on the kernel's clock.
    ///
    /// # Errors
    /// When the program has none.
    pub fn confirm(&self) -> Result<Array<MapData, u64>> {
        Ok(self.map(names::CONFIRM)?.try_into()?)
    }
}
