//! What takes notes of what a host sends, as its pins and as the kernel tell.

use aya::programs::{
    SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
};

use crate::{instance::Instance, netns::Namespace};

/// A link of a program for outgoing packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its id, for as long as it is attached.
    pub link: u32,
    /// Id of the program on it.
    pub program: u32,
}

/// Returns the link that a gate has pinned for an interface; panics unless the interface carries its program and no
/// other, or none where nothing is pinned.
pub fn outgoing(gate: &Instance<'_>, interface: &str) -> Option<Outgoing> {
    let pinned = pinned(gate, interface);
    let carried = carried(gate.namespace, interface);
    assert_eq!(
        carried,
        pinned.iter().map(|link| link.program).collect::<Vec<_>>(),
        "{interface} carries other programs than are pinned: {pinned:?}"
    );
    pinned
}

/// As [`outgoing`], whatever else the interface carries.
pub fn pinned(gate: &Instance<'_>, interface: &str) -> Option<Outgoing> {
    let path = gate.pins().egress(interface);
    if !path.exists() {
        return None;
    }
    let link: FdLink = PinnedLink::from_pin(path).expect("a link of TCX").into();
    let info = link.info().expect("the kernel tells of its links");
    Some(Outgoing { link: info.id(), program: info.program_id() })
}

/// Returns the ids of the programs that an interface carries for outgoing packets, as the kernel says.
pub fn carried(namespace: &Namespace, interface: &str) -> Vec<u32> {
    carried_at(namespace, interface, TcAttachType::Egress)
}

/// Returns the ids of the programs that an interface carries at a place of TCX, the first first.
pub fn carried_at(namespace: &Namespace, interface: &str, place: TcAttachType) -> Vec<u32> {
    let asked = namespace.within(|| SchedClassifier::query_tcx(interface, place));
    let (_, programs) = asked.unwrap_or_else(|error| panic!("{interface}: {error}"));
    programs.iter().map(aya::programs::ProgramInfo::id).collect()
}
