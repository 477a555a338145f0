//! What the [`Model`] remembers of conversations, as `conversations` of the kernel program does.

use bytemuck::Zeroable;
use knock_common::{
    abi::{Flow, FlowKey, Session, Settings},
    counter::Counter,
    decide::{Access, Found, Tables as _, Visit},
    flow::{self, Stage},
    outgoing::{self, Remember},
    parse,
    talk::{self, Part},
    verdict::{Action, Mode, Verdict},
};

use crate::model::Model;

/// How long the kernel program lets later fragments in.
const FRAGMENTS_NS: u64 = 60_000_000_000;

impl Model {
    /// Remembers what follows from a frame that leaves. A socket has sent it, as it has all that the kernel has leave in a
    /// test run.
    pub fn depart(&mut self, frame: &[u8]) {
        let Ok(segment) = parse::parse(frame) else { return };
        let mut flow = talk::NO_FLOW;
        let Some(part) = talk::outgoing(frame, &segment, &mut flow) else { return };
        match outgoing::remember(&flow, part, true, &self.tables) {
            Remember::Nothing => {}
            Remember::Reply(flow, stage) => self.ask(flow, part, stage),
            Remember::Known(flow) => {
                self.renew(&flow, part, false);
            }
            Remember::Session => self.go_on(&flow, part, false, None),
            Remember::Accepted => {
                let (mut visit, mut access) = (Visit::NONE, Access::default());
                let is_granted = outgoing::is_granted(&flow, &self.tables, &mut visit, &mut access);
                self.go_on(&flow, part, false, is_granted.then_some(Stage::Opening));
            }
        }
    }

    fn ask(&mut self, flow: FlowKey, part: Part, stage: Stage) {
        if self.renew(&flow, part, false) {
            return;
        }
        self.tables.replies.insert(flow, Flow::new(stage, self.tables.now_ns));
        self.count(Counter::ReplyNoted, 1);
    }

    fn renew(&mut self, flow: &FlowKey, part: Part, is_incoming: bool) -> bool {
        let now_ns = self.tables.now_ns;
        let Some(known) = self.tables.replies.get_mut(flow).filter(|known| known.is_live(now_ns)) else {
            return false;
        };
        renew(&mut known.stage, &mut known.seen_ns, now_ns, part, is_incoming);
        true
    }

    /// Remembers what follows from the verdict on a packet that comes in.
    pub(crate) fn remember(&mut self, visit: &Visit, access: &Access, verdict: Verdict) {
        let now_ns = self.tables.now_ns;
        let keeps = visit.part == Part::Datagram && visit.role.keeps();
        if verdict == Verdict::Granted && keeps && self.tables.has(Settings::SESSIONS) {
            self.go_on(&visit.flow, visit.part, true, Some(Stage::Granted));
        }
        match access.found {
            Found::Nowhere | Found::Socket => {}
            Found::Session(_) | Found::Reply(_) if visit.part == Part::Fails => {}
            Found::Session(_) => self.go_on(&visit.flow, visit.part, true, None),
            Found::Reply(_) => {
                // What lets a lease in is known by another name.
                self.renew(&visit.flow, visit.part, true);
            }
        }
        let is_first = visit.is_fragment && visit.part != Part::LaterFragment;
        if self.tables.is_deny() && is_first && verdict.action(Mode::Deny) == Action::Pass {
            self.tables.fragments.insert(visit.fragment, now_ns + FRAGMENTS_NS);
        }
    }

    fn go_on(&mut self, flow: &FlowKey, part: Part, is_incoming: bool, begins: Option<Stage>) {
        let now_ns = self.tables.now_ns;
        let idle_ns = self.tables.udp_idle_ns();
        if begins.is_none() && !self.tables.sessions.contains_key(&flow.remote) {
            return;
        }
        let sessions = self.tables.sessions.entry(flow.remote).or_insert_with(Zeroable::zeroed);
        let slot = sessions.find(flow, now_ns, idle_ns);
        if let Some(known) = sessions.slots.get_mut(slot) {
            return renew(&mut known.stage, &mut known.seen_ns, now_ns, part, is_incoming);
        }
        let Some(stage) = begins else { return };
        let free = sessions.find_free(now_ns, idle_ns);
        let Some(slot) = sessions.slots.get_mut(free) else {
            return self.count(Counter::SessionNotStored, 1);
        };
        *slot = Session { seen_ns: now_ns, flow: *flow, stage: stage.number(), _pad: [0; 7] };
        self.count(Counter::SessionNoted, 1);
    }
}

fn renew(stage: &mut u8, seen_ns: &mut u64, now_ns: u64, part: Part, is_incoming: bool) {
    if let Some(after) = flow::renewed(*stage, *seen_ns, now_ns, part, is_incoming) {
        (*stage, *seen_ns) = (after, now_ns);
    }
}
