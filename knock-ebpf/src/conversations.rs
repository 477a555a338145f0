//! What is remembered of conversations: by incoming packets that a grant let in, and by outgoing ones.

use core::ptr;

use aya_ebpf::bindings::__sk_buff;
use knock_common::{
    abi::{Flow, FlowKey, MAX_SESSIONS, Session, Settings},
    counter::Counter,
    decide::Found,
    flow::{self, Stage},
    outgoing::{self, Remember},
    session::CLAIMED,
    talk::Part,
    verdict::{Mode, Verdict},
};

use crate::{
    atomic, clock,
    constants::settings,
    maps::{self, Maps, Scratch},
};

/// How long later fragments follow the first: what Linux waits for them, IPv6 (`ip6frag_time`) longer than IPv4.
const FRAGMENTS_NS: u64 = 60_000_000_000;

/// What is to be remembered of an incoming packet.
pub enum Arrival {
    /// Nothing.
    Forgotten,
    /// That its conversation goes on, or which datagram it is a fragment of.
    Remembered,
    /// Its conversation, which a grant let in.
    Kept,
}

/// Returns what is to be remembered of the visit in the working room.
#[inline(always)]
pub fn of_arrival(scratch: &Scratch, verdict: Verdict, is_passed: bool) -> Arrival {
    let is_deny = settings().mode() == Mode::Deny.number();
    // Constants once loaded: where nothing is remembered the verifier never sees the rest.
    if !is_deny && settings().flags() & Settings::SESSIONS == 0 {
        return Arrival::Forgotten;
    }
    let visit = &scratch.visit;
    if matches!(verdict, Verdict::Granted) && visit.part == Part::Datagram && visit.role.keeps() {
        return Arrival::Kept;
    }
    let is_known = matches!(scratch.access.found, Found::Session(_) | Found::Reply(_));
    if is_known || (is_deny && is_passed && visit.is_fragment) {
        return Arrival::Remembered;
    }
    Arrival::Forgotten
}

/// Remembers the conversation of the visit in the working room.
// Exported, which makes it a global function to the verifier: gone through once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn arrival(is_kept: u32) -> u32 {
    let Some(scratch) = maps::scratch() else { return 0 };
    // SAFETY: the working room is this CPU's own; the caller's reference rests while this one is in use.
    let Scratch { visit, access, .. } = unsafe { &*scratch };
    let now_ns = clock::now_ns();
    if is_kept != 0 {
        go_on(&visit.flow, visit.part, now_ns, true, Some(Stage::Granted));
    }
    match access.found {
        Found::Nowhere | Found::Socket => {}
        // An error about a conversation is no word of it.
        Found::Session(_) | Found::Reply(_) if visit.part == Part::Fails => {}
        Found::Session(_) => go_on(&visit.flow, visit.part, now_ns, true, None),
        Found::Reply(_) => {
            renew(&visit.flow, visit.part, now_ns, true);
        }
    }
    if visit.is_fragment && visit.part != Part::LaterFragment {
        maps::let_fragments_in(&visit.fragment, now_ns.saturating_add(FRAGMENTS_NS));
    }
    0
}

/// Remembers what is to be of the outgoing packet in its room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn departure(skb: *mut __sk_buff) -> u32 {
    let Some(room) = maps::departure() else { return 0 };
    // SAFETY: the room is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    let tables = Maps::<true>::of_run(skb.cast(), 0);
    match outgoing::remember(&room.flow, room.part, room.is_own, &tables) {
        Remember::Nothing => {}
        Remember::Known(flow) => {
            renew(&flow, room.part, clock::now_ns(), false);
        }
        Remember::Reply(flow, stage) => asked(&flow, room.part, stage, clock::now_ns()),
        Remember::Session => go_on(&room.flow, room.part, clock::now_ns(), false, None),
        Remember::Accepted => {
            let is_granted = outgoing::is_granted(&room.flow, &tables, &mut room.visit, &mut room.access);
            let begins = if is_granted { Some(Stage::Opening) } else { None };
            go_on(&room.flow, room.part, clock::now_ns(), false, begins);
        }
    }
    0
}

/// Notes that a conversation whose answers are awaited goes on, or begins.
#[inline(never)]
fn asked(flow: &FlowKey, part: Part, begins: Stage, now_ns: u64) {
    if renew(flow, part, now_ns, false) {
        return;
    }
    match maps::insert_reply(flow, &Flow::new(begins, now_ns)) {
        Ok(()) => maps::count(Counter::ReplyNoted),
        Err(_) => maps::count(Counter::ReplyNotStored),
    }
}

/// Notes that a conversation whose answers are awaited goes on; returns whether there is such a one.
#[inline(never)]
fn renew(flow: &FlowKey, part: Part, now_ns: u64, is_incoming: bool) -> bool {
    let Some(known) = maps::reply(flow) else { return false };
    // SAFETY: the kernel keeps the entry's memory until this run ends, and any bytes are a conversation.
    let seen = unsafe { ptr::read_volatile(known) };
    if !seen.is_live(now_ns) {
        return false;
    }
    if let Some(stage) = flow::renewed(seen.stage, seen.seen_ns, now_ns, part, is_incoming) {
        // SAFETY: as above. Should the memory be another conversation's by now, that one was seen a moment ago.
        unsafe { ptr::write_volatile(&raw mut (*known).seen_ns, now_ns) };
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*known).stage, stage) };
    }
    true
}

/// Notes that a conversation with a hidden service goes on; one that is not known begins at a stage, if one is given.
#[inline(never)]
fn go_on(flow: &FlowKey, part: Part, now_ns: u64, is_incoming: bool, begins: Option<Stage>) {
    let Some(sessions) = record(flow, begins.is_some()) else { return };
    let idle_ns = settings().udp_idle_ns();
    // SAFETY: the kernel keeps the record's memory until this run ends, and any bytes are a record.
    let sessions = unsafe { &mut *sessions };
    let slot = sessions.find(flow, now_ns, idle_ns);
    if let Some(known) = sessions.slots.get_mut(slot) {
        if let Some(stage) = flow::renewed(known.stage, known.seen_ns, now_ns, part, is_incoming) {
            known.seen_ns = now_ns;
            known.stage = stage;
        }
        return;
    }
    let Some(stage) = begins else { return };
    let free = sessions.find_free(now_ns, idle_ns);
    let is_taken = sessions.slots.get_mut(free).is_some_and(|slot| take(slot, flow, stage, now_ns));
    maps::count(if is_taken { Counter::SessionNoted } else { Counter::SessionNotStored });
}

/// Returns the record of the other side of a conversation, made if it is to be.
#[inline(always)]
fn record(flow: &FlowKey, is_made: bool) -> Option<*mut knock_common::abi::Sessions> {
    if let Some(sessions) = maps::sessions(&flow.remote) {
        return Some(sessions);
    }
    if !is_made {
        return None;
    }
    // Another CPU may have made it meanwhile.
    let _ = maps::insert_sessions(&flow.remote);
    let sessions = maps::sessions(&flow.remote);
    if sessions.is_none() {
        maps::count(Counter::SessionNotStored);
    }
    sessions
}

/// Takes a free slot for a conversation; returns whether no other CPU did.
#[inline(always)]
fn take(slot: &mut Session, flow: &FlowKey, stage: Stage, now_ns: u64) -> bool {
    let word = &raw mut slot.seen_ns;
    let before = slot.seen_ns;
    // SAFETY: an aligned word of a map value.
    if before == CLAIMED || !unsafe { atomic::compare_and_swap(word, before, CLAIMED) } {
        return false;
    }
    slot.flow = *flow;
    slot.stage = stage.number();
    // SAFETY: as above; a full barrier, so that the time is there only when the rest is.
    unsafe { atomic::compare_and_swap(word, CLAIMED, now_ns) }
}

const _: () = assert!(MAX_SESSIONS < u8::MAX as usize);
