//! Single packet authorization: the packet out of the frame, its secret and rights out of the maps, and the grant.

use core::ptr;

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::bpf_jiffies64,
    macros::btf_map,
};
use knock_common::{
    abi::{Address, DoorRule, Grant, GrantKey, List, Proto, Settings},
    counter::Counter,
    decide::{self, Tables},
    event::{Event, Kind, Via},
    frame::Frame,
    spa::{
        abi::{
            FLOORS_ENTRIES, KEYS_ENTRIES, KeyId, KeyRule, RIGHTS_ENTRIES, Right, RightKey, ServerRule,
            WallClock,
        },
        find,
        floor::{self, Floor},
        packet::{Datagram, Request, WORDS},
        sha256::Work,
        verdict::{self, REFUSALS, Refusal, Server},
    },
};

use crate::{atomic, clock, constants, events::Scene, maps, program, publish};

#[btf_map]
static SPA_KEYS: HashMap<KeyId, KeyRule, KEYS_ENTRIES> = HashMap::new();
#[btf_map]
static SPA_RIGHTS: HashMap<RightKey, Right, RIGHTS_ENTRIES> = HashMap::new();
/// Filled by user space: a secret without a floor is refused.
#[btf_map]
static SPA_FLOORS: HashMap<KeyId, u64, FLOORS_ENTRIES> = HashMap::new();
#[btf_map]
static SPA_CLOCK: Array<WallClock, 1> = Array::new();
#[btf_map]
static SPA_SERVER: Array<ServerRule, 1> = Array::new();
#[btf_map]
static SPA_COUNTS: PerCpuArray<u64, { REFUSALS.len() + 1 }> = PerCpuArray::new();
#[btf_map]
static SPA_ROOM: PerCpuArray<Room, 1> = PerCpuArray::new();

/// Working room of one packet on one CPU.
#[repr(C)]
struct Room {
    datagram: Datagram,
    work: Work,
    scene: Scene,
    request: Request,
    grant: GrantKey,
    port: u16,
    /// The tick of the kernel's clock in which the cap of events was last found reached.
    capped_tick: u64,
}

/// What [`sift`] finds: no packet of single packet authorization.
pub const NO_PACKET: u32 = 0;
/// One that passed the gate, to be judged further.
pub const SIFTED: u32 = 1;
/// One that is refused.
pub const REFUSED: u32 = 2;

/// Returns whether some door opens by single packets. A constant once loaded: else the verifier never sees the rest.
#[inline(always)]
pub fn is_in_use() -> bool {
    constants::settings().flags() & Settings::SPA != 0
}

/// Looks whether the frame whose header is in the working room is a packet, and keeps out by the gate what was made without the
/// secret, before anything else is asked of it. `copy` puts the datagram at an offset into its place.
#[inline(always)]
pub fn sift<F: Frame>(
    frame: &F,
    interface: impl FnOnce() -> u32,
    copy: impl FnOnce(usize, &mut [u64; WORDS]) -> bool,
) -> u32 {
    let (Some(room), Some(scratch)) = (SPA_ROOM.get_ptr_mut(0), maps::scratch()) else { return NO_PACKET };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let scratch = unsafe { &mut *scratch };
    let header = program::bounded(&scratch.header);
    let port = find::port(frame, &header).filter(|port| constants::role(Proto::Udp, *port).listens());
    scratch.is_packet = port.is_some();
    let Some(port) = port else { return NO_PACKET };
    // SAFETY: the entry is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    room.port = port;
    let is_there = copy(find::packet_at(&header), &mut room.datagram.words);
    let outcome = if is_there { pass_gate(&room.datagram).map(|_| ()) } else { Err(Refusal::Malformed) };
    let Err(refusal) = outcome else { return SIFTED };
    count(u32::from(refusal.number()));
    if let Some(now_ns) = event_time(room) {
        let source = header.source(frame).unwrap_or_default();
        room.scene = Scene { now_ns, source, interface: interface() };
        tell_refusal(room, u32::from(refusal.number()));
    }
    REFUSED
}

/// Returns the rule of the secret that a datagram was made with, as the gate says.
#[inline(always)]
fn pass_gate(datagram: &Datagram) -> Result<&'static KeyRule, Refusal> {
    if !datagram.is_known() {
        return Err(Refusal::Malformed);
    }
    let rule = rule(datagram).ok_or(Refusal::UnknownKey)?;
    if datagram.passes(rule) { Ok(rule) } else { Err(Refusal::BadGate) }
}

/// Returns the rule of the secret that a datagram claims to be made with.
#[inline(always)]
fn rule(datagram: &Datagram) -> Option<&'static KeyRule> {
    let rule = SPA_KEYS.get_ptr(&datagram.key_id())?;
    // SAFETY: the map belongs to this generation, which fills it before it is attached and never after.
    Some(unsafe { &*rule })
}

/// Judges the packet of the visit in the working room, if there is one that passed the gate.
#[inline(always)]
pub fn receive(sifted: u32) {
    if is_in_use() && sifted == SIFTED {
        judge_packet();
    }
}

/// Judges the packet in its room; returns 0 or the number of its refusal.
// Exported, which makes it a global function to the verifier: gone through once, by itself (kernel commit 51c39bb1d5d1).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_packet() -> u32 {
    let (Some(room), Some(scratch)) = (SPA_ROOM.get_ptr_mut(0), maps::scratch()) else { return 1 };
    // SAFETY: the entry is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    // SAFETY: as above; it is only read here.
    let scratch = unsafe { &*scratch };
    room.scene = Scene { now_ns: clock::now_ns(), source: scratch.visit.source, ..scratch.scene };
    let outcome = authenticate(room).and_then(|rule| admit(room, rule));
    let number = outcome.err().map_or(0, |refusal| u32::from(refusal.number()));
    count(number);
    if number != 0 && event_time(room).is_some() {
        tell_refusal(room, number);
    }
    number
}

/// Returns the time, if the event of a refusal may be told of; counts it if not.
// Reading the clock and the budget that all CPUs share is dear to a flood, so one answer is good for a tick (`jiffies`, 1 to 10 ms).
#[inline(always)]
fn event_time(room: &mut Room) -> Option<u64> {
    // SAFETY: the helper takes no argument and has no precondition.
    let tick = unsafe { bpf_jiffies64() };
    if room.capped_tick != tick {
        let now_ns = clock::now_ns();
        if maps::admit_event(now_ns) {
            return Some(now_ns);
        }
        room.capped_tick = tick;
    }
    maps::count(Counter::EventCapped);
    None
}

#[inline(always)]
fn count(number: u32) {
    let Some(count) = SPA_COUNTS.get_ptr_mut(number) else { return };
    // SAFETY: the entry is this CPU's own and XDP programs do not interrupt one another on it.
    unsafe { *count += 1 }
}

#[inline(always)]
fn authenticate(room: &mut Room) -> Result<&'static KeyRule, Refusal> {
    let rule = rule(&room.datagram).ok_or(Refusal::UnknownKey)?;
    if room.datagram.is_authentic(rule, &mut room.work) { Ok(rule) } else { Err(Refusal::BadCode) }
}

/// Decides on an authentic packet, and lets in whom it asks for.
#[inline(always)]
fn admit(room: &mut Room, rule: &KeyRule) -> Result<(), Refusal> {
    room.request = room.datagram.request();
    let id = room.datagram.key_id();
    let server = server(room.scene.now_ns).ok_or(Refusal::NoClock)?;
    let source = verdict::beneficiary(&room.request, rule, &server, &room.scene.source)?;
    room.grant = GrantKey { source, door: room.request.door };
    let is_banned = |source| decide::is_banned(source, &maps::NO_PACKET);
    if is_banned(&room.scene.source) || is_banned(&room.grant.source) {
        return Err(Refusal::Banned);
    }
    let asked = RightKey { key: id, door: room.request.door };
    // SAFETY: the map belongs to this generation, which fills it before it is attached and never after.
    let right = unsafe { SPA_RIGHTS.get(&asked) }.ok_or(Refusal::NotAllowed)?;
    if right.port != room.port || !is_open_here(right, room.request.door) || !is_within(room, rule, right) {
        return Err(Refusal::NotAllowed);
    }
    verdict::check_time(room.request.counter, &server)?;
    if !claim_floor(&id, room.request.counter) {
        return Err(Refusal::Replayed);
    }
    let until_ns = let_in(room, verdict::open_for_ns(&room.request, right));
    tell(room, until_ns);
    Ok(())
}

/// Returns what the server goes by.
#[inline(always)]
fn server(now_ns: u64) -> Option<Server> {
    let rule = SPA_SERVER.get(0).copied()?;
    let clock = SPA_CLOCK.get_ptr(0)?;
    // SAFETY: an array entry lives as long as the program. User space may write it meanwhile, word by word: an offset and a
    // look that are one look apart.
    let clock = unsafe { ptr::read_volatile(clock) };
    Some(Server { rule, clock, now_ns })
}

/// Returns the Unix time in nanoseconds, where it is known well enough.
#[inline(always)]
pub fn wall_ns(now_ns: u64) -> Option<u64> {
    let clock = SPA_CLOCK.get_ptr(0)?;
    // SAFETY: as in `server`.
    let clock = unsafe { ptr::read_volatile(clock) };
    verdict::wall_ns(&clock, now_ns)
}

/// Raises a floor to a counter; returns whether the counter was above it. A floor that is not there is never raised.
#[inline(always)]
pub fn claim_floor(id: &KeyId, counter: u64) -> bool {
    SPA_FLOORS.get_ptr_mut(id).is_some_and(|floor| floor::claim(&Word(floor), counter))
}

/// Returns whether the door is there at the destination, and for the sender.
#[inline(always)]
fn is_open_here(right: &Right, id: u64) -> bool {
    let Some(door) = maps::NO_PACKET.door(right.door).filter(|door| door.id == id) else { return false };
    // The addresses are those of the visit in the working room.
    let any = Address::default();
    (!door.has(DoorRule::FROM) || maps::NO_PACKET.is_listed(List::From, right.door, &any))
        && (!door.has(DoorRule::TO) || maps::NO_PACKET.is_listed(List::To, right.door, &any))
}

/// Returns whether the key and the door may be opened for whom the packet is for, by their prefixes.
#[inline(always)]
fn is_within(room: &Room, rule: &KeyRule, right: &Right) -> bool {
    let has_from = maps::NO_PACKET.door(right.door).is_some_and(|door| door.has(DoorRule::FROM));
    (!has_from || is_for(room, List::From, u16::from(right.door)))
        && (!rule.has(KeyRule::FROM) || is_for(room, List::Key, rule.number))
}

/// Returns whether a list holds whom the packet is for.
#[inline(always)]
fn is_for(room: &Room, list: List, owner: u16) -> bool {
    // Constant once loaded: without such a list the verifier never sees the rest.
    constants::settings().lists() & list.bit() != 0 && look_up_beneficiary(room, list.number(), owner)
}

// Not inlined: its key has a stack of its own.
#[inline(never)]
fn look_up_beneficiary(room: &Room, list: u8, owner: u16) -> bool {
    maps::is_in_prefix(list, owner, &room.grant.source)
}

/// Gives the grant; returns when it ends, or 0 for want of room.
#[inline(never)]
fn let_in(room: &Room, open_for_ns: u64) -> u64 {
    let fresh = Grant {
        until_ns: room.scene.now_ns.saturating_add(open_for_ns),
        since_ns: room.scene.now_ns,
        via: Via::Spa as u32,
        generation: constants::settings().generation(),
    };
    let until_ns = publish::give(&room.grant, &fresh);
    if until_ns.is_none() {
        maps::count(Counter::GrantTableFull);
    }
    until_ns.unwrap_or(0)
}

// Beside `let_in`, not below it: the stacks of nested calls add up.
#[inline(never)]
fn tell(room: &Room, until_ns: u64) {
    let kind = if until_ns == 0 { Kind::TableFull } else { Kind::Promoted };
    push(Event { until_ns, source: room.grant.source, door: room.grant.door, ..event(room, kind) });
}

/// Tells of a refusal.
#[inline(never)]
fn tell_refusal(room: &Room, number: u32) {
    let [reason, ..] = number.to_le_bytes();
    let is_by_time = matches!(Refusal::from_number(reason), Some(Refusal::Stale | Refusal::Future));
    let until_ns = if is_by_time { room.request.counter } else { 0 };
    push(Event { reason, until_ns, ..event(room, Kind::SpaRejected) });
}

#[inline(always)]
fn event(room: &Room, kind: Kind) -> Event {
    Event {
        time_ns: room.scene.now_ns,
        until_ns: 0,
        source: room.scene.source,
        door: 0,
        interface: room.scene.interface,
        generation: constants::settings().generation(),
        kind: kind as u8,
        via: Via::Spa as u8,
        step: 0,
        reason: 0,
        _pad2: 0,
    }
}

#[inline(always)]
fn push(event: Event) {
    if !maps::push_event(event) {
        maps::count(Counter::EventLost);
    }
}

/// The floor of a secret, in its map.
struct Word(*mut u64);

impl Floor for Word {
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: floors are never removed while a program asks for them; an aligned word.
        unsafe { ptr::read_volatile(self.0) }
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { atomic::compare_and_swap(self.0, old, new) }
    }
}
