//! Single packet authorization: the packet out of the frame, its secret and rights out of the maps, and the grant.

use core::ptr;

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::bpf_xdp_load_bytes,
    macros::btf_map,
    programs::XdpContext,
};
use knock_common::{
    abi::{Address, DoorRule, Grant, GrantKey, List},
    counter::Counter,
    decide::{Tables, Visit},
    event::{Event, Kind, Via},
    spa::{
        abi::{
            FLOORS_ENTRIES, KEYS_ENTRIES, KeyId, KeyRule, RIGHTS_ENTRIES, Right, RightKey, ServerRule,
            WallClock,
        },
        floor::{self, Floor},
        packet::{Datagram, LENGTH, Request},
        sha256::Work,
        verdict::{self, REFUSALS, Refusal, Server},
    },
};

use crate::{
    atomic, clock, constants,
    events::Scene,
    maps::{self, Maps},
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

/// Judges what may be a packet at this offset.
#[inline(always)]
pub fn receive(ctx: &XdpContext, at: usize, scene: &Scene, visit: &Visit) {
    let Some(room) = SPA_ROOM.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    room.scene = Scene { source: visit.source, ..*scene };
    room.port = visit.knock.map_or(0, |knock| knock.port);
    let place = room.datagram.bytes_mut().as_mut_ptr().cast();
    // SAFETY: the place has `LENGTH` bytes; the helper checks the offset.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, at as u32, place, LENGTH as u32) } == 0 {
        judge_packet();
    }
}

/// Judges the packet in the working room; returns 0 or the number of its refusal.
// Exported, which makes it a global function to the verifier: gone through once (kernel commit 51c39bb1d5d1).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_packet() -> u32 {
    let Some(room) = SPA_ROOM.get_ptr_mut(0) else { return 1 };
    // SAFETY: the entry is this CPU's own; the caller's reference rests while this one is in use.
    let room = unsafe { &mut *room };
    let outcome = authenticate(room).and_then(|rule| admit(room, rule));
    let number = outcome.err().map_or(0, |refusal| u32::from(refusal.number()));
    count(number);
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
    room.scene.now_ns = clock::now_ns();
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
    let floor = SPA_FLOORS.get_ptr_mut(&id).ok_or(Refusal::Replayed)?;
    if !floor::claim(&Word(floor), room.request.counter) {
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

/// Returns whether the door is there at the destination, and for the sender.
#[inline(always)]
fn is_open_here(right: &Right, id: u64) -> bool {
    let Some(door) = Maps.door(right.door).filter(|door| door.id == id) else { return false };
    // The addresses are those of the visit in the working room.
    let any = Address::default();
    (!door.has(DoorRule::FROM) || Maps.is_listed(List::From, right.door, &any))
        && (!door.has(DoorRule::TO) || Maps.is_listed(List::To, right.door, &any))
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
    let event = Event {
        time_ns: room.scene.now_ns,
        until_ns,
        source: room.grant.source,
        door: room.grant.door,
        interface: room.scene.interface,
        generation: constants::settings().generation(),
        kind: kind as u8,
        via: Via::Spa as u8,
        step: 0,
        _pad: 0,
        _pad2: 0,
    };
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
