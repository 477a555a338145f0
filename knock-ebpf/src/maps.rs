//! All maps, private to this file behind functions that copy values out.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
    macros::btf_map,
    programs::{TcContext, XdpContext},
};
use knock_common::{
    abi::{
        ABOUT_CHUNK, ANSWERS_ENTRIES, Address, Attempts, BANS_ENTRIES, BUDGETS_WORDS, Ban, DoorRule,
        EVENT_BUDGET, EVENTS_BYTES, FIRST_ATTEMPTS_ENTRIES, FRAGMENTS_ENTRIES, Flow, FlowKey, FragmentKey,
        GRANTS_ENTRIES, Grant, GrantKey, LATER_ATTEMPTS_ENTRIES, LEDGER_WORDS, LINKS_ENTRIES, List,
        MAX_DOORS, MAX_PORT_DOORS, MAX_PREFIXES, MAX_SESSIONS, PREVIOUS_SLOTS, PortDoors, PrefixKey, Proto,
        REPLIES_ENTRIES, Role, SESSIONS_ENTRIES, Sessions, Settings,
    },
    answer::{Head, Question},
    budget,
    counter::{COUNTERS as COUNTER_ENTRIES, Counter},
    decide::{self, Access, Tables, Visit},
    event::Event,
    machine::{Change, Occasion},
    parse::Header,
    talk::Part,
    verdict::Mode,
};

use crate::{
    atomic, clock,
    constants::{self, settings},
    events::Scene,
    kernel, pages,
};

#[btf_map]
static DOORS: Array<DoorRule, MAX_DOORS> = Array::new();
#[btf_map]
static PORT_DOORS: Array<PortDoors, MAX_PORT_DOORS> = Array::new();
#[btf_map]
static PREFIXES: LpmTrie<PrefixKey, u32, MAX_PREFIXES> = LpmTrie::new();

#[btf_map]
static FIRST_ATTEMPTS: LruHashMap<Address, Attempts, FIRST_ATTEMPTS_ENTRIES> = LruHashMap::new();
#[btf_map]
static LATER_ATTEMPTS: LruHashMap<Address, Attempts, LATER_ATTEMPTS_ENTRIES> = LruHashMap::new();
#[btf_map]
static GRANTS: HashMap<GrantKey, Grant, GRANTS_ENTRIES> = HashMap::new();
#[btf_map]
static BANS: HashMap<Address, Ban, BANS_ENTRIES> = HashMap::new();
#[btf_map]
static BANS_IN_USE: Array<u64, 1> = Array::new();
#[btf_map]
static ABOUT: Array<[u8; ABOUT_CHUNK], 1> = Array::new();
#[btf_map]
static CONFIRM: Array<u64, 1> = Array::new();
#[btf_map]
static PREVIOUS: ProgramArray<{ PREVIOUS_SLOTS as usize }> = ProgramArray::new();
#[btf_map]
static BUDGETS: Array<u64, BUDGETS_WORDS> = Array::new();
#[btf_map]
static ANSWERS: LruHashMap<Address, u64, ANSWERS_ENTRIES> = LruHashMap::new();
#[btf_map]
static LINKS: HashMap<u32, u64, LINKS_ENTRIES> = HashMap::new();
#[btf_map]
static SESSIONS: LruHashMap<Address, Sessions, SESSIONS_ENTRIES> = LruHashMap::new();
#[btf_map]
static REPLIES: LruHashMap<FlowKey, Flow, REPLIES_ENTRIES> = LruHashMap::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, u64, FRAGMENTS_ENTRIES> = LruHashMap::new();
/// The TC programs that were there before: of ingress, then of egress.
#[btf_map]
static PREVIOUS_TC: ProgramArray<{ 2 * PREVIOUS_SLOTS as usize }> = ProgramArray::new();
/// What a source without conversations begins with: zeros.
#[btf_map]
static NO_SESSIONS: Array<Sessions, 1> = Array::new();
/// Room for an outgoing packet.
#[btf_map]
static DEPARTURE: PerCpuArray<Departure, 1> = PerCpuArray::new();

/// Working room of one outgoing packet on one CPU.
#[repr(C)]
pub struct Departure {
    /// Where its layers are.
    pub header: Header,
    /// Its conversation.
    pub flow: FlowKey,
    /// Its part in it.
    pub part: Part,
    /// Whether a socket sent it.
    pub is_own: bool,
    /// Room to ask doors in.
    pub visit: Visit,
    /// What they say.
    pub access: Access,
}

/// Returns the room for an outgoing packet of this CPU.
#[inline(always)]
pub fn departure() -> Option<*mut Departure> {
    DEPARTURE.get_ptr_mut(0)
}

/// Returns the conversations of a source with hidden services.
#[inline(always)]
pub fn sessions(source: &Address) -> Option<*mut Sessions> {
    SESSIONS.get_ptr_mut(source)
}

/// Stores an empty record of conversations for a source that has none.
#[inline(always)]
pub fn insert_sessions(source: &Address) -> Result<(), i32> {
    let Some(none) = NO_SESSIONS.get(0) else { return Err(0) };
    SESSIONS.insert(source, none, u64::from(BPF_NOEXIST))
}

/// Returns a conversation whose answers are awaited.
#[inline(always)]
pub fn reply(flow: &FlowKey) -> Option<*mut Flow> {
    REPLIES.get_ptr_mut(flow)
}

/// Stores one.
#[inline(always)]
pub fn insert_reply(flow: &FlowKey, known: &Flow) -> Result<(), i32> {
    REPLIES.insert(flow, known, 0)
}

/// Lets the later fragments of a datagram in until a time.
#[inline(always)]
pub fn let_fragments_in(key: &FragmentKey, until_ns: u64) {
    // For want of room the datagram is lost, which its sender may send again.
    let _ = FRAGMENTS.insert(key, &until_ns, 0);
}

/// Goes on in the TC program that was on the interface before; returns if there was none.
#[inline(always)]
pub fn call_previous_tc(ctx: &TcContext, interface: u32, is_egress: bool) {
    let slot = interface % PREVIOUS_SLOTS + if is_egress { PREVIOUS_SLOTS } else { 0 };
    // SAFETY: nothing of this run is left undone: its references are dropped, and the packet is as it came.
    unsafe { PREVIOUS_TC.tail_call(ctx, slot) }
}
#[btf_map]
static COUNTERS: PerCpuArray<u64, COUNTER_ENTRIES> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<(), EVENTS_BYTES> = RingBuf::new();
/// For user space alone.
#[btf_map]
static LEDGER: Array<u64, LEDGER_WORDS> = Array::new();
#[btf_map]
static TEST_CLOCK: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Room that a run needs and that the 512-byte stack does not have.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// An answer under construction.
#[btf_map]
static DRAFT: PerCpuArray<Draft, 1> = PerCpuArray::new();

/// An answer under construction, on one CPU.
#[repr(C)]
pub struct Draft {
    /// What is answered.
    pub question: Question,
    /// The headers of the answer.
    pub head: Head,
}

/// Returns the room for an answer of this CPU.
#[inline(always)]
pub fn draft() -> Option<*mut Draft> {
    DRAFT.get_ptr_mut(0)
}

/// Working room of one run on one CPU.
#[repr(C)]
pub struct Scratch {
    /// Where numbers go through that the verifier is not to follow.
    blur: u64,
    /// What the events of this run have in common.
    pub scene: Scene,
    /// Where its layers are.
    pub header: Header,
    /// Whether it is a packet of single packet authorization, right or wrong; where they are in use.
    pub is_packet: bool,
    /// The packet under judgement.
    pub visit: Visit,
    /// What the doors of its port say.
    pub access: Access,
    /// When and where the knock arrives.
    pub occasion: Occasion,
    /// What the knock did.
    pub change: Change,
    /// Whether that holds: no other CPU came between.
    pub is_kept: bool,
    /// A record under construction.
    pub fresh: Attempts,
}

/// Returns the time that a test has set.
#[inline(always)]
pub fn test_clock_ns() -> u64 {
    word(&TEST_CLOCK)
}

/// Returns the word that says whether the generation is confirmed, or until when it may be.
#[inline(always)]
pub fn confirm_word() -> u64 {
    word(&CONFIRM)
}

#[inline(always)]
fn word<const FLAGS: usize>(array: &Array<u64, 1, FLAGS>) -> u64 {
    let Some(word) = array.get_ptr(0) else { return 0 };
    // SAFETY: an array entry lives as long as the program; user space writes it as one aligned word.
    unsafe { ptr::read_volatile(word) }
}

/// Goes on in the program that was on the interface before; returns if there was none.
#[inline(always)]
pub fn call_previous(ctx: &XdpContext) {
    let slot = ctx.ingress_ifindex() as u32 % PREVIOUS_SLOTS;
    // SAFETY: nothing of this run is left undone: its references are dropped, and the packet is as it came.
    unsafe { PREVIOUS.tail_call(ctx, slot) }
}

/// Looks at the generation's description of itself: for a branch that is never taken.
#[inline(always)]
pub fn touch_about() {
    let _ = ABOUT.get_ptr(0);
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    count_by(counter, 1);
}

/// Adds one to the counter of a number.
#[inline(always)]
pub fn count_number(number: u32) {
    add(number, 1);
}

/// Adds to a counter.
#[inline(always)]
pub fn count_by(counter: Counter, more: u64) {
    add(counter as u32, more);
}

#[inline(always)]
fn add(number: u32, more: u64) {
    let Some(count) = COUNTERS.get_ptr_mut(number) else { return };
    // SAFETY: the entry is this CPU's own and XDP programs do not interrupt one another on it.
    unsafe { *count += more }
}

/// Returns the working room of this CPU.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// Returns the number, by a way through memory that the verifier does not follow.
#[inline(always)]
pub fn blur(number: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the entry is this CPU's own; the field is an aligned word.
    let cell = unsafe { &raw mut (*scratch).blur };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(cell, number) };
    // SAFETY: as above.
    unsafe { ptr::read_volatile(cell) }
}

/// Returns the record of a source that got no further than a first step.
#[inline(always)]
pub fn first_attempts(source: &Address) -> Option<*mut Attempts> {
    FIRST_ATTEMPTS.get_ptr_mut(source)
}

/// Returns the record of a source that got further.
#[inline(always)]
pub fn later_attempts(source: &Address) -> Option<*mut Attempts> {
    LATER_ATTEMPTS.get_ptr_mut(source)
}

/// Stores the first record of a source; fails if it has one, or with the kernel's error number.
#[inline(always)]
pub fn insert_first(source: &Address, record: &Attempts) -> Result<(), i32> {
    FIRST_ATTEMPTS.insert(source, record, u64::from(BPF_NOEXIST))
}

/// Stores the record of a source that got further; fails if it has one, or with the kernel's error number.
#[inline(always)]
pub fn insert_later(source: &Address, record: &Attempts) -> Result<(), i32> {
    LATER_ATTEMPTS.insert(source, record, u64::from(BPF_NOEXIST))
}

/// Forgets the first record of a source.
#[inline(always)]
pub fn remove_first(source: &Address) {
    // Gone already is as good.
    let _ = FIRST_ATTEMPTS.remove(source);
}

/// Forgets the later record of a source.
#[inline(always)]
pub fn remove_later(source: &Address) {
    // Gone already is as good.
    let _ = LATER_ATTEMPTS.remove(source);
}

/// Returns a grant, live or expired.
#[inline(always)]
pub fn grant(key: &GrantKey) -> Option<*mut Grant> {
    GRANTS.get_ptr_mut(key)
}

/// Stores a grant that is not there yet.
#[inline(always)]
pub fn insert_grant(key: &GrantKey, grant: &Grant) -> Result<(), i32> {
    GRANTS.insert(key, grant, u64::from(BPF_NOEXIST))
}

/// Stores a grant in the place of one that is there. Never in place: the memory may be another grant's by then.
#[inline(always)]
pub fn replace_grant(key: &GrantKey, grant: &Grant) -> Result<(), i32> {
    GRANTS.insert(key, grant, u64::from(BPF_EXIST))
}

/// Takes one use from the budget of new attempts of a door.
#[inline(always)]
pub fn admit_attempt(door: u8, now_ns: u64, limit: u32) -> bool {
    admit(u32::from(door), now_ns, limit)
}

/// Takes one use from the budget of events.
#[inline(always)]
pub fn admit_event(now_ns: u64) -> bool {
    admit(EVENT_BUDGET, now_ns, settings().events())
}

#[inline(never)]
fn admit(index: u32, now_ns: u64, limit: u32) -> bool {
    let Some(word) = BUDGETS.get_ptr_mut(index) else { return false };
    // Other CPUs take from the same word; one that loses four times in a row goes without.
    for _ in 0..4 {
        // SAFETY: an array entry lives as long as the program and is one aligned word.
        let seen = unsafe { ptr::read_volatile(word) };
        let Some(next) = budget::admit(seen, now_ns, limit) else { return false };
        // SAFETY: as above.
        if unsafe { atomic::compare_and_swap(word, seen, next) } {
            return true;
        }
    }
    false
}

/// Returns a word of the budgets.
#[inline(always)]
pub fn budget(index: u32) -> Option<*mut u64> {
    BUDGETS.get_ptr_mut(index)
}

/// Returns the word of a source's rate of answers.
#[inline(always)]
pub fn answers(source: &Address) -> Option<*mut u64> {
    ANSWERS.get_ptr_mut(source)
}

/// Stores the word of a source that has none.
#[inline(always)]
pub fn insert_answers(source: &Address, word: u64) -> Result<(), i32> {
    ANSWERS.insert(source, &word, u64::from(BPF_NOEXIST))
}

/// Returns what is known of an interface's link layer.
#[inline(always)]
pub fn link(interface: u32) -> Option<u64> {
    let word = LINKS.get_ptr(&interface)?;
    // SAFETY: the kernel keeps the entry's memory until this run ends; an aligned word.
    Some(unsafe { ptr::read_volatile(word) })
}

/// Puts an event into the ring; returns whether there was room.
#[inline(always)]
pub fn push_event(event: Event) -> bool {
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else { return false };
    entry.write(event);
    entry.submit(0);
    true
}

/// Returns whether a list holds the source of the visit in the working room, or its destination where that is what the
/// list is of; of the visit in the room of the outgoing packet, if `is_leaving` is not 0.
// Exported, which makes it a global function to the verifier: gone through once (kernel commit 51c39bb1d5d1). Such a
// function takes numbers, so it finds the address by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_up_prefix(list: u32, door: u32, is_leaving: u32) -> u32 {
    let Some(visit) = visit(is_leaving != 0) else { return 0 };
    // SAFETY: the entry is this CPU's own, and the caller's reference to the visit only reads it.
    let visit = unsafe { &*visit };
    let [list, ..] = list.to_le_bytes();
    let [low, high, ..] = door.to_le_bytes();
    let address = if list == List::To.number() { &visit.destination } else { &visit.source };
    u32::from(is_in_prefix(list, u16::from_le_bytes([low, high]), address))
}

/// Returns whether a list, by its number, holds an address for its owner.
#[inline(always)]
pub fn is_in_prefix(list: u8, owner: u16, address: &Address) -> bool {
    PREFIXES.get(&Key::new(PrefixKey::ALL_BITS, PrefixKey::new(list, owner, address))).is_some()
}

/// Returns the visit in the working room, or in the room of the outgoing packet.
#[inline(always)]
fn visit(is_leaving: bool) -> Option<*const Visit> {
    if is_leaving {
        let room = departure()?;
        // SAFETY: the entry is this CPU's own.
        return Some(unsafe { &raw const (*room).visit });
    }
    let scratch = scratch()?;
    // SAFETY: as above.
    Some(unsafe { &raw const (*scratch).visit })
}

/// The maps, and the kernel's own tables, as decisions ask for them about the visit in the working room, or, if it `LEAVES`, in
/// the room of the outgoing packet.
// By its type: a word to tell would cost the verifier another state for each door.
pub struct Maps<const LEAVES: bool> {
    /// The context of this run, by which the kernel's own tables are asked.
    ctx: *mut c_void,
    /// Index of the interface of its packet.
    interface: u32,
}

/// The maps where no packet is at hand: sockets and routes are not asked for there.
pub const NO_PACKET: Maps<false> = Maps { ctx: ptr::null_mut(), interface: 0 };

impl<const LEAVES: bool> Maps<LEAVES> {
    /// Returns the maps, for the packet of a run.
    #[inline(always)]
    pub fn of_run(ctx: *mut c_void, interface: u32) -> Self {
        Self { ctx, interface }
    }
}

impl<const LEAVES: bool> Tables for Maps<LEAVES> {
    #[inline(always)]
    fn role(&self, proto: Proto, port: u16) -> Role {
        constants::role(proto, port)
    }

    #[inline(always)]
    fn port_doors(&self, index: u32) -> PortDoors {
        PORT_DOORS.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn door(&self, door: u8) -> Option<&DoorRule> {
        DOORS.get(u32::from(door))
    }

    #[inline(always)]
    fn page(&self, door: u8, now_ns: u64) -> Option<&DoorRule> {
        // Of the same map, so that the verifier goes on with one kind of rule.
        DOORS.get(pages::entry(door, now_ns)?)
    }

    #[inline(always)]
    fn has_allow(&self) -> bool {
        settings().lists() & List::Allow.bit() != 0
    }

    #[inline(always)]
    fn is_listed(&self, list: List, door: u8, _address: &Address) -> bool {
        // Constant once loaded: without such a list the verifier never sees the rest.
        settings().lists() & list.bit() != 0
            && look_up_prefix(u32::from(list.number()), u32::from(door), u32::from(LEAVES)) != 0
    }

    #[inline(always)]
    fn is_ephemeral(&self, port: u16) -> bool {
        settings().ephemeral_first() <= port && port <= settings().ephemeral_last()
    }

    #[inline(always)]
    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64> {
        let grant = grant(&GrantKey { source: *source, door: door_id })?;
        // SAFETY: the kernel keeps the entry's memory until this run ends; the word is read once and is aligned.
        Some(unsafe { ptr::read_volatile(&raw const (*grant).until_ns) })
    }

    #[inline(always)]
    fn has_bans(&self) -> bool {
        word(&BANS_IN_USE) != 0
    }

    #[inline(always)]
    fn ban_until_ns(&self, source: &Address) -> Option<u64> {
        let ban = BANS.get_ptr(source)?;
        // SAFETY: the kernel keeps the entry's memory until this run ends; the word is read once and is aligned.
        Some(unsafe { ptr::read_volatile(&raw const (*ban).until_ns) })
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    #[inline(always)]
    fn is_deny(&self) -> bool {
        settings().mode() == Mode::Deny.number()
    }

    #[inline(always)]
    fn any_doors(&self) -> u64 {
        settings().any_doors()
    }

    #[inline(always)]
    fn is_public_proto(&self, proto: u8) -> bool {
        constants::is_public_proto(proto)
    }

    #[inline(always)]
    fn has_socket(&self, flow: &FlowKey) -> bool {
        kernel::has_socket(self.ctx, flow)
    }

    #[inline(always)]
    fn sessions(&self, source: &Address) -> Option<&Sessions> {
        // Constant once loaded: where nothing is kept the verifier never sees the rest.
        if settings().flags() & Settings::SESSIONS == 0 {
            return None;
        }
        // SAFETY: the kernel keeps the record's memory until this run ends, and any bytes are a record.
        unsafe { SESSIONS.get(source) }
    }

    #[inline(always)]
    fn udp_idle_ns(&self) -> u64 {
        settings().udp_idle_ns()
    }

    #[inline(always)]
    fn reply(&self, flow: &FlowKey) -> Option<Flow> {
        if settings().mode() != Mode::Deny.number() {
            return None;
        }
        // SAFETY: the kernel keeps the entry's memory until this run ends, and any bytes are a conversation.
        unsafe { REPLIES.get(flow) }.copied()
    }

    #[inline(always)]
    fn fragments_until_ns(&self, key: &FragmentKey) -> Option<u64> {
        // SAFETY: as above.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn is_forwarded(&self, visit: &Visit) -> bool {
        // The host takes what is for a group, and its routes do not say so.
        settings().flags() & Settings::DENY_FORWARD == 0
            && !visit.is_group
            && kernel::is_forwarded(self.ctx, self.interface, &visit.source, &visit.destination)
    }

    #[inline(always)]
    fn ask(&self, _visit: &Visit, doors: u64, _access: &mut Access) {
        if doors != 0 {
            ask_about_visit(doors);
        }
    }

    #[inline(always)]
    fn find_session(&self, _flow: &FlowKey) -> usize {
        // Constant once loaded: where nothing is kept the verifier never sees the rest.
        if settings().flags() & Settings::SESSIONS == 0 {
            return MAX_SESSIONS;
        }
        find_visit_session() as usize
    }
}

/// Asks doors about the visit in the working room.
// Exported, which makes it a global function to the verifier: gone through once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_about_visit(doors: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the entry is this CPU's own; the caller's references to both rest while these are in use.
    let Scratch { visit, access, .. } = unsafe { &mut *scratch };
    decide::ask_doors(visit, doors, &NO_PACKET, access);
    0
}

/// Returns the slot of the conversation of the visit in the working room, as `session_slot` does.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_visit_session() -> u32 {
    let Some(scratch) = scratch() else { return MAX_SESSIONS as u32 };
    // SAFETY: the entry is this CPU's own, and the caller's reference to the visit only reads it.
    let visit = unsafe { &(*scratch).visit };
    decide::session_slot(&visit.flow, &NO_PACKET) as u32
}
