//! The program for outgoing packets on kernels without TCX (before Linux 6.6): a filter of the `clsact` qdisc.
//!
//! There is no link to pin. The filter itself stays until it is taken off, at a place that is ours by its priority and its
//! handle; an empty folder among the pins says that it is this gate's.

use std::{fs, io, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use aya::programs::{
    Link as _, SchedClassifier, TcAttachType, TcHandle, loaded_programs,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHeader, TcMessage, TcOption};

use crate::{hook::Hook, pins};

/// First of all: a filter that ends the walk before ours would hide what the host sends.
const PRIORITY: u16 = 1;
const HANDLE: u32 = 0x6b6b_0001;

/// A filter of ours on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Index of the interface.
    pub index: u32,
    /// Id of the program.
    pub program_id: u32,
}

/// Returns whether what is noted for an interface is such a filter, rather than a pinned link.
///
/// # Errors
/// When the file system does not say.
pub fn is_marked(mark: &Path) -> Result<bool> {
    match fs::symlink_metadata(mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        facts => Ok(facts.with_context(|| format!("looking for the pin {}", mark.display()))?.is_dir()),
    }
}

/// Puts the program on an interface, in one atomic step in the place of the one of ours that is there.
///
/// # Errors
/// When the interface refuses, or another's filter has our place.
pub(super) fn put(program: &mut SchedClassifier, interface: &str, mark: &Path) -> Result<()> {
    let refused = || format!("cannot attach to {interface} by clsact, this kernel having no TCX");
    match fs::create_dir(mark) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making {}", mark.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let id = if on(interface)?.is_some() {
        program.attach_to_link(place(interface)?).with_context(refused)?
    } else {
        // Fails where it is there already; if that is not why, so does what follows.
        let added = tc::qdisc_add_clsact(interface);
        let options =
            NlOptions { priority: PRIORITY, handle: TcHandle::from(HANDLE), ..NlOptions::default() };
        program
            .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
            .with_context(|| match added {
                Ok(()) => refused(),
                Err(error) => format!("{} ({error})", refused()),
            })?
    };
    // Dropped, it would be taken off.
    std::mem::forget(program.take_link(id).context("letting go of the filter")?);
    Ok(())
}

/// Takes the filter of ours off an interface, and the note of it; none is as good. The qdisc stays: it does nothing by
/// itself, and others may have filters there.
///
/// # Errors
/// When it cannot be told whether there is one, or it cannot be removed.
pub(super) fn take_off(interface: &str, mark: &Path) -> Result<()> {
    if on(interface)?.is_some() {
        place(interface)?.detach().with_context(|| format!("taking the filter off {interface}"))?;
    }
    pins::remove_folder(mark)
}

/// Returns the filter of ours on an interface; `None` if there is none, or no such interface.
///
/// # Errors
/// When netlink does not answer, or another's filter has our place.
pub fn on(interface: &str) -> Result<Option<Filter>> {
    let Ok(index) = if_nametoindex(interface) else { return Ok(None) };
    // A thread of its own, as in `present`.
    let answer = std::thread::scope(|scope| scope.spawn(|| ask(index)).join());
    let messages =
        answer.map_err(|_| anyhow!("asking netlink about the filters of {interface} failed"))??;
    let Some(program_id) = messages.iter().find_map(program_of) else { return Ok(None) };
    let is_ours = loaded_programs().flatten().find(|info| info.id() == program_id).is_none_or(|info| {
        info.name_as_str().is_some_and(|name| Hook::of_program(name) == Some(Hook::Egress))
    });
    ensure!(
        is_ours,
        "the filter of program {program_id} on {interface} has the place of ours (egress, priority {PRIORITY}, handle {HANDLE:#x}): give it another"
    );
    Ok(Some(Filter { index, program_id }))
}

fn ask(index: u32) -> Result<Vec<TcMessage>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let filters = handle.traffic_filter(i32::try_from(index)?).get().egress().execute();
        let filters: Result<Vec<TcMessage>, _> = filters.try_collect().await;
        connection.abort();
        // An interface without the qdisc has no filters.
        Ok(filters.unwrap_or_default())
    })
}

fn program_of(message: &TcMessage) -> Option<u32> {
    let TcHeader { handle, info, .. } = message.header;
    if u32::from(handle) != HANDLE || info >> 16 != u32::from(PRIORITY) {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Options(options) = attribute { Some(options) } else { None }
    })?;
    options.iter().find_map(|option| {
        let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option else { return None };
        Some(*id)
    })
}

fn place(interface: &str) -> Result<SchedClassifierLink> {
    let handle = TcHandle::from(HANDLE);
    SchedClassifierLink::attached(interface, TcAttachType::Egress, PRIORITY, handle, None)
        .with_context(|| format!("looking for {interface}"))
}
