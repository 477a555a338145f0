//! Single packet authorization: the packet out of the frame, its secret and rights out of the maps, and the grant.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
    macros::btf_map,
};
use knock_common::{
    abi::{Address, DoorRule, Grant, GrantKey, List},
    counter::Counter,
    decide::Tables,
    event::{Event, Kind, Via},
    spa::{
        abi::{
            FLOORS_ENTRIES, KEYS_ENTRIES, KeyId, KeyRule, RIGHTS_ENTRIES, Right, RightKey, ServerRule,
            WallClock,
        },
        find,
        floor::{self, Floor},
        packet::{Datagram, LENGTH, Request},
        sha256::Work,
        verdict::{self, REFUSALS, Refusal, Server},
    },
};

use crate::{
    atomic, clock, constants,
    events::Scene,
    maps::{self, NO_PACKET},
    publish,
};

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
}

/// Judges the packet of the visit in the working room, at XDP.
#[inline(always)]
pub fn receive(ctx: *mut xdp_md) {
    if take_packet(ctx) == 0 {
        judge_packet();
    }
}

/// Does the same at TC.
#[inline(always)]
pub fn receive_tc(skb: *mut __sk_buff) {
    if take_packet_tc(skb) == 0 {
        judge_packet();
    }
}

// Exported, as are those below, which makes them global functions to the verifier: gone through once, by themselves
// (kernel commit 51c39bb1d5d1). One beside the other, since the stacks of all functions in a chain of calls are added up.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_packet(ctx: *mut xdp_md) -> u32 {
    take(|at, place| {
        // SAFETY: the place has `LENGTH` bytes; the helper checks the offset.
        unsafe { bpf_xdp_load_bytes(ctx, at, place, LENGTH as u32) }
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_packet_tc(skb: *mut __sk_buff) -> u32 {
    take(|at, place| {
        // SAFETY: as at XDP.
        unsafe { bpf_skb_load_bytes(skb.cast(), at, place, LENGTH as u32) }
    })
}

/// Puts the packet into its room, by a helper that returns 0 once it is there; returns 0 then.
#[inline(always)]
fn take(load: impl FnOnce(u32, *mut c_void) -> i64) -> u32 {
    let (Some(room), Some(scratch)) = (SPA_ROOM.get_ptr_mut(0), maps::scratch()) else { return 1 };
    // SAFETY: the entry is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    // SAFETY: as above.
    let scratch = unsafe { &*scratch };
    room.scene = Scene { source: scratch.visit.source, ..scratch.scene };
    room.port = scratch.visit.flow.local_port;
    let place = room.datagram.bytes_mut().as_mut_ptr().cast();
    u32::from(load(find::packet_at(&scratch.header) as u32, place) != 0)
}

/// Judges the packet in its room; returns 0 or the number of its refusal.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_packet() -> u32 {
    let Some(room) = SPA_ROOM.get_ptr_mut(0) else { return 1 };
    // SAFETY: the entry is this CPU's own; the caller's reference rests while this one is in use.
    let room = unsafe { &mut *room };
    room.scene.now_ns = clock::now_ns();
    let outcome = authenticate(room).and_then(|rule| admit(room, rule));
    let number = outcome.err().map_or(0, |refusal| u32::from(refusal.number()));
    count(number);
    if number != 0 {
        tell_refusal(room, number);
    }
    number
}

#[inline(always)]
fn count(number: u32) {
    let Some(count) = SPA_COUNTS.get_ptr_mut(number) else { return };
    // SAFETY: the entry is this CPU's own and XDP programs do not interrupt one another on it.
    unsafe { *count += 1 }
}

#[inline(always)]
fn authenticate(room: &mut Room) -> Result<&'static KeyRule, Refusal> {
    if !room.datagram.is_known() {
        return Err(Refusal::Malformed);
    }
    let rule = SPA_KEYS.get_ptr(&room.datagram.key_id()).ok_or(Refusal::UnknownKey)?;
    // SAFETY: the map belongs to this generation, which fills it before it is attached and never after.
    let rule = unsafe { &*rule };
    if !room.datagram.passes(rule) {
        return Err(Refusal::BadGate);
    }
    if !room.datagram.is_authentic(rule, &mut room.work) {
        return Err(Refusal::BadCode);
    }
    Ok(rule)
}

/// Decides on an authentic packet, and lets in whom it asks for.
#[inline(always)]
fn admit(room: &mut Room, rule: &KeyRule) -> Result<(), Refusal> {
    room.request = room.datagram.request();
    let id = room.datagram.key_id();
    let server = server(room.scene.now_ns).ok_or(Refusal::NoClock)?;
    let source = verdict::beneficiary(&room.request, rule, &server, &room.scene.source)?;
    room.grant = GrantKey { source, door: room.request.door };
    let asked = RightKey { key: id, door: room.request.door };
    // SAFETY: the map belongs to this generation, which fills it before it is attached and never after.
    let right = unsafe { SPA_RIGHTS.get(&asked) }.ok_or(Refusal::NotAllowed)?;
    if right.port != room.port || !is_open_here(right, room.request.door) {
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
    let Some(door) = NO_PACKET.door(right.door).filter(|door| door.id == id) else { return false };
    // The addresses are those of the visit in the working room.
    let any = Address::default();
    (!door.has(DoorRule::FROM) || NO_PACKET.is_listed(List::From, right.door, &any))
        && (!door.has(DoorRule::TO) || NO_PACKET.is_listed(List::To, right.door, &any))
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

/// Tells of a refusal, unless the cap is reached.
#[inline(never)]
fn tell_refusal(room: &Room, number: u32) {
    if !maps::admit_event(room.scene.now_ns) {
        maps::count(Counter::EventCapped);
        return;
    }
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
