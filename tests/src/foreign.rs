//! Programs of somebody else on an interface: they pass everything, and no gate has pinned them. They are the gate's own
//! code in observe mode, which is what a machine has to hand.

use std::collections::BTreeSet;

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
    tc::{SchedClassifierLinkId, TcAttachOptions},
};
use knock_common::names;
use knock_user::loader::{Gate, Options};

use crate::{kernel::compile, netns::Namespace, scene::guarded};

/// A program of somebody else, for as long as this lives.
#[derive(Debug)]
pub struct Foreign {
    /// Its id.
    pub program: u32,
    _gate: Gate,
}

impl Foreign {
    /// Puts one on an interface by XDP.
    pub fn xdp(namespace: &Namespace, interface: &str) -> Self {
        let mut gate = load(names::PROGRAM);
        let program: &mut Xdp = gate.program().expect("a loaded program");
        namespace.within(|| program.attach(interface, XdpMode::Driver)).expect("no other program is there");
        let program = program.info().expect("the kernel tells of programs").id();
        Self { program, _gate: gate }
    }

    /// Puts one on an interface by TCX, behind those that are there, or in front of them.
    pub fn tcx(namespace: &Namespace, interface: &str, place: TcAttachType, order: LinkOrder) -> Self {
        let name = if place == TcAttachType::Egress { names::EGRESS } else { names::TC_PROGRAM };
        let mut gate = load(name);
        let program = gate.ebpf.program_mut(name).expect("a program of the object");
        let program: &mut SchedClassifier = program.try_into().expect("it is for traffic control");
        let options = TcAttachOptions::TcxOrder(order);
        let attached = namespace.within(|| program.attach_with_options(interface, place, options));
        let _: SchedClassifierLinkId = attached.expect("TCX takes several programs");
        let program = program.info().expect("the kernel tells of programs").id();
        Self { program, _gate: gate }
    }
}

fn load(name: &'static str) -> Gate {
    let generation = compile(&guarded("", "").replace("\"guard\"", "\"observe\""));
    let options = Options { programs: BTreeSet::from([name]), ..Options::default() };
    Gate::load_undisturbed(&generation, &options).unwrap_or_else(|error| panic!("{error:?}"))
}
