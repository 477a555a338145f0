//! The sequence machine: what one knock does to all attempts of its source.
//!
//! Every door judges each knock on its own. For an open attempt a knock is one of four things, tried in this order:
//! too late (the attempt is void), a duplicate of a step it accepted (ignored, no timer moves), its next step
//! (accepted), or wrong (the attempt is void). A knock that voids an attempt, or meets none, is tried as a first step.

use crate::{
    abi::{
        Accepted, Address, Attempt, Attempts, DoorRule, List, MAX_ACCEPTED, MAX_DOORS, MAX_SLOTS, Proto,
        StepRule,
    },
    counter::Counter,
    decide::{Tables, Visit, is_at, lowest},
    parse::{
        Segment, Transport,
        wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    },
};

/// Acceptance times are kept in units of 2^20 ns, about 1.05 ms: the granularity of the window for UDP and ICMP
/// duplicates. Timeouts are compared in nanoseconds.
pub const UNIT_SHIFT: u32 = 20;
/// UDP and ICMP packets alike within this many units (0.999 s) are duplicates; TCP tells by its sequence number.
pub const DUPLICATE_UNITS: u32 = 953;

/// Of these a knock has SYN alone.
const TCP_KNOCK_MASK: u8 = TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN;

/// A packet that could be a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Its protocol.
    pub proto: Proto,
    /// Destination port; 0 for echo.
    pub port: u16,
    /// Source port; echo identifier for ICMP.
    pub source_port: u16,
    /// TCP or echo sequence number; 0 for UDP.
    pub tag: u32,
    /// Echo payload bytes; 0 otherwise.
    pub size: u16,
}

impl Knock {
    /// Returns the knock in a segment: a SYN without ACK, RST and FIN, a UDP datagram or an echo request, whole and
    /// sent to this host alone.
    #[must_use]
    #[inline(always)]
    pub fn in_segment(segment: &Segment) -> Option<Self> {
        if segment.is_fragment || segment.is_group {
            return None;
        }
        match segment.transport {
            Transport::Tcp { source_port, port, sequence, flags } if flags & TCP_KNOCK_MASK == TCP_SYN => {
                Some(Self { proto: Proto::Tcp, port, source_port, tag: sequence, size: 0 })
            }
            Transport::Udp { source_port, port } => {
                Some(Self { proto: Proto::Udp, port, source_port, tag: 0, size: 0 })
            }
            Transport::Echo { id, sequence, size } => {
                Some(Self { proto: Proto::Icmp, port: 0, source_port: id, tag: u32::from(sequence), size })
            }
            Transport::Tcp { .. } | Transport::Icmp { .. } | Transport::LaterFragment | Transport::Other => {
                None
            }
        }
    }

    /// Returns whether the knock is this step.
    #[must_use]
    #[inline(always)]
    pub fn is(&self, step: &StepRule) -> bool {
        if step.proto != self.proto.bit() || step.port != self.port {
            return false;
        }
        (step.conditions & StepRule::SIZE == 0 || step.size == self.size)
            && (step.conditions & StepRule::ID == 0 || step.id == self.source_port)
    }

    /// The number that tells knocks to different places apart: the port, or the payload size of an echo.
    #[inline(always)]
    fn place(&self) -> u16 {
        match self.proto {
            Proto::Tcp | Proto::Udp => self.port,
            Proto::Icmp => self.size,
        }
    }

    #[inline(always)]
    fn is_copy_of(&self, accepted: &Accepted, now_units: u32) -> bool {
        let is_same = accepted.proto == self.proto.bit()
            && accepted.port == self.place()
            && accepted.source_port == self.source_port
            && accepted.tag == self.tag;
        let is_recent = match self.proto {
            Proto::Tcp => true,
            // Signed: a clock that reads less than at acceptance makes no copy a second knock.
            Proto::Udp | Proto::Icmp => {
                now_units.wrapping_sub(accepted.at_units).cast_signed() <= DUPLICATE_UNITS.cast_signed()
            }
        };
        is_same && is_recent
    }
}

/// When and where a knock arrives, and which doors it could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The time.
    pub now_ns: u64,
    /// Doors whose first step the knock is.
    pub starts: u64,
    /// The destination of the knock.
    pub destination: Address,
    /// The knock.
    pub knock: Knock,
}

/// What a knock did: sets of doors, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first step was accepted.
    pub started: u64,
    /// A later step was accepted.
    pub advanced: u64,
    /// The last step was accepted.
    pub promoted: u64,
    /// An attempt was ended by a wrong knock.
    pub reset: u64,
    /// An attempt had timed out.
    pub timed_out: u64,
    /// The knock was a duplicate.
    pub duplicate: u64,
    /// A first step found no free slot.
    pub no_slot: u64,
    /// Slots that were given up.
    freed: u8,
    /// Slots that accepted the knock.
    taken: u8,
    /// Where the knock is to be noted among the accepted.
    place: u8,
    /// Some attempt is past its first step.
    pub is_later: bool,
    /// Steps reached by each door in `advanced` and `promoted`, or lost by each in `reset`.
    pub steps: [u8; MAX_DOORS],
}

impl Change {
    /// Nothing happened.
    pub const NONE: Self = Self {
        started: 0,
        advanced: 0,
        promoted: 0,
        reset: 0,
        timed_out: 0,
        duplicate: 0,
        no_slot: 0,
        freed: 0,
        taken: 0,
        place: 0,
        is_later: false,
        steps: [0; MAX_DOORS],
    };

    /// Makes it nothing again; `steps` says nothing of doors that are in no set.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.started = 0;
        self.advanced = 0;
        self.promoted = 0;
        self.reset = 0;
        self.timed_out = 0;
        self.duplicate = 0;
        self.no_slot = 0;
        self.freed = 0;
        self.taken = 0;
        self.is_later = false;
    }

    /// Returns what a change is counted as: each counter with the doors it counts.
    #[must_use]
    #[inline(always)]
    pub const fn facts(&self) -> [(Counter, u64); 7] {
        [
            (Counter::AttemptStarted, self.started),
            (Counter::AttemptAdvanced, self.advanced),
            (Counter::AttemptReset, self.reset),
            (Counter::AttemptTimedOut, self.timed_out),
            (Counter::AttemptDuplicate, self.duplicate),
            (Counter::AttemptNoSlot, self.no_slot),
            (Counter::Promoted, self.promoted),
        ]
    }

    #[inline(always)]
    fn note_steps(&mut self, door: u8, step: u8) {
        if let Some(noted) = self.steps.get_mut(usize::from(door)) {
            *noted = step;
        }
    }
}

impl Occasion {
    /// Notes a visit's knock and the doors that it could begin; the time is left to be set.
    #[inline(always)]
    pub fn note<T: Tables>(&mut self, visit: &Visit, tables: &T) {
        self.starts = 0;
        let Some(knock) = visit.knock else { return };
        self.destination = visit.destination;
        self.knock = knock;
        let mut rest = tables.port_doors(visit.role.index()).first;
        for _ in 0..MAX_DOORS {
            let Some((door, others)) = lowest(rest) else { return };
            rest = others;
            self.note_door(visit, door, tables);
        }
    }

    // Not inlined, and answering through memory: see `decide::ask_door`.
    #[inline(never)]
    fn note_door<T: Tables>(&mut self, visit: &Visit, door: u8, tables: &T) {
        let Some(mut rule) = tables.door(door) else { return };
        if rule.changes() {
            // The clock is read for those alone that go by it.
            let Some(page) = tables.page(door, tables.now_ns()) else { return };
            rule = page;
        }
        let [first, ..] = &rule.steps;
        if self.knock.is(first)
            && is_at(rule, &visit.destination, tables)
            && (!rule.has(DoorRule::FROM) || tables.is_listed(List::From, rule.prefixes, &visit.source))
        {
            self.starts |= 1_u64.wrapping_shl(u32::from(door));
        }
    }
}

impl Attempts {
    /// Makes it the record of a source that has no attempt.
    #[inline(always)]
    pub fn reset_to(&mut self, source: &Address, turn: u64, epoch_ns: u64, generation: u32) {
        self.source = *source;
        self.turn = turn;
        self.epoch_ns = epoch_ns;
        self.generation = generation;
        self.next = 0;
        self.void();
    }

    /// Returns whether the record is this source's. One comparison, as in [`crate::abi::is_mapped`].
    #[must_use]
    #[inline(always)]
    pub fn belongs_to(&self, source: &Address) -> bool {
        self.source.iter().zip(source).fold(0, |differences, (ours, theirs)| differences | (ours ^ theirs))
            == 0
    }

    /// Makes the record fit to be judged: attempts of another generation, and those that a knock passed by
    /// unjudged, are void.
    #[inline(always)]
    pub fn renew(&mut self, turn: u64, generation: u32) {
        if self.generation != generation || crate::claim::is_poisoned(turn) {
            self.void();
            self.generation = generation;
        }
    }

    /// Ends all attempts.
    #[inline(always)]
    pub fn void(&mut self) {
        for slot in &mut self.slots {
            slot.step = 0;
        }
        for accepted in &mut self.accepted {
            accepted.slots = 0;
        }
    }
}

/// Applies one knock to the attempts of its source. `change` is to be [`Change::NONE`] before.
#[inline(always)]
pub fn advance<T: Tables>(attempts: &mut Attempts, occasion: &mut Occasion, tables: &T, change: &mut Change) {
    let copies = copies(attempts, occasion);
    for index in 0..MAX_SLOTS {
        judge_slot(attempts, index, copies, &mut Judgement { occasion, tables, change });
    }
    for _ in 0..MAX_SLOTS {
        let Some((door, others)) = lowest(occasion.starts) else { break };
        occasion.starts = others;
        start(attempts, door, occasion.now_ns, tables, change);
    }
    // Doors are left only if even empty slots did not suffice.
    change.no_slot |= occasion.starts;
    remember(attempts, occasion, change);
}

/// Returns the slots that the knock is a duplicate for.
#[inline(always)]
fn copies(attempts: &Attempts, occasion: &Occasion) -> u8 {
    let now_units = units(occasion.now_ns);
    let mut copies = 0;
    for accepted in &attempts.accepted {
        if occasion.knock.is_copy_of(accepted, now_units) {
            copies |= accepted.slots;
        }
    }
    copies
}

/// What judging a slot reads and writes.
struct Judgement<'a, T> {
    occasion: &'a mut Occasion,
    tables: &'a T,
    change: &'a mut Change,
}

// Not inlined: the verifier then sees one outcome a slot instead of all combinations of eight.
#[inline(never)]
fn judge_slot<T: Tables>(
    attempts: &mut Attempts,
    index: usize,
    copies: u8,
    judgement: &mut Judgement<'_, T>,
) {
    let Judgement { occasion, tables, change } = judgement;
    let epoch_ns = attempts.epoch_ns;
    let Some(slot) = attempts.slots.get_mut(index) else { return };
    if slot.step == 0 {
        return;
    }
    let bit = slot_bit(index);
    let door = slot.door & 63;
    let rule = tables.sequence(door, occasion.now_ns);
    // A page that has gone takes its attempts with it.
    let Some(rule) = rule.filter(|rule| slot.epoch_ns == epoch_ns && slot.page == rule.page) else {
        slot.step = 0;
        change.freed |= bit;
        return;
    };
    let door_bit = 1_u64.wrapping_shl(u32::from(door));
    // First of all, so that an attempt nobody goes on with does not keep its slot from other doors.
    if is_timed_out(slot, rule, occasion.now_ns) {
        if slot.step < rule.step_count {
            change.timed_out |= door_bit;
        }
        slot.step = 0;
        change.freed |= bit;
        return;
    }
    if !counts(rule, occasion, *tables) {
        change.is_later |= slot.step > 1;
        return;
    }
    if copies & bit != 0 {
        change.duplicate |= door_bit;
        change.is_later |= slot.step > 1;
        occasion.starts &= !door_bit;
        return;
    }
    let expected = rule.steps.get(usize::from(slot.step)).filter(|_| slot.step < rule.step_count);
    if expected.is_some_and(|step| occasion.knock.is(step)) {
        slot.step = slot.step.wrapping_add(1);
        slot.last_ns = occasion.now_ns;
        change.taken |= bit;
        change.is_later = true;
        change.note_steps(door, slot.step);
        if slot.step == rule.step_count {
            change.promoted |= door_bit;
        } else {
            change.advanced |= door_bit;
        }
        occasion.starts &= !door_bit;
        return;
    }
    if occasion.knock.proto == Proto::Icmp && rule.has(DoorRule::ECHO_PUBLIC) {
        change.is_later |= slot.step > 1;
        return;
    }
    if slot.step < rule.step_count {
        change.reset |= door_bit;
        change.note_steps(door, slot.step);
    }
    slot.step = 0;
    change.freed |= bit;
}

/// Returns whether the door takes the knock for one: its protocol occurs in the sequence, the door exists at the
/// destination, and it is not UDP that may be a reply to the host's own traffic. Deny mode knows those.
#[inline(always)]
fn counts<T: Tables>(rule: &DoorRule, occasion: &Occasion, tables: &T) -> bool {
    let knock = &occasion.knock;
    if rule.protos & knock.proto.bit() == 0 {
        return false;
    }
    let may_be_reply = knock.proto == Proto::Udp
        && !tables.is_deny()
        && !rule.has(DoorRule::UDP_EPHEMERAL)
        && tables.is_ephemeral(knock.port);
    !may_be_reply && is_at(rule, &occasion.destination, tables)
}

#[inline(always)]
fn is_timed_out(slot: &Attempt, rule: &DoorRule, now_ns: u64) -> bool {
    now_ns.saturating_sub(slot.last_ns) > rule.step_timeout_ns
        || now_ns.saturating_sub(slot.started_ns) > rule.total_timeout_ns
}

#[inline(never)]
fn start<T: Tables>(attempts: &mut Attempts, door: u8, now_ns: u64, tables: &T, change: &mut Change) {
    let epoch_ns = attempts.epoch_ns;
    let door_bit = 1_u64.wrapping_shl(u32::from(door));
    let Some(rule) = tables.sequence(door, now_ns) else { return };
    for (index, slot) in attempts.slots.iter_mut().enumerate() {
        if slot.step != 0 {
            continue;
        }
        *slot = Attempt {
            started_ns: now_ns,
            last_ns: now_ns,
            epoch_ns,
            door,
            step: 1,
            _pad: 0,
            page: rule.page,
        };
        change.taken |= slot_bit(index);
        change.started |= door_bit;
        if rule.step_count == 1 {
            change.promoted |= door_bit;
            change.note_steps(door, 1);
        }
        return;
    }
    change.no_slot |= door_bit;
}

/// Forgets what was accepted by slots that were given up, and notes the knock for those that accepted it.
#[inline(always)]
fn remember(attempts: &mut Attempts, occasion: &Occasion, change: &mut Change) {
    for accepted in &mut attempts.accepted {
        accepted.slots &= !change.freed;
    }
    if change.taken == 0 {
        return;
    }
    // Kept in memory, not in a register: the verifier then goes on with one place instead of sixteen.
    [change.place, ..] = attempts.next.to_le_bytes();
    for (index, accepted) in attempts.accepted.iter().enumerate() {
        if accepted.slots == 0 {
            [change.place, ..] = index.to_le_bytes();
        }
    }
    attempts.next = attempts.next.wrapping_add(1);
    let place = usize::from(change.place) % MAX_ACCEPTED;
    let Some(entry) = attempts.accepted.get_mut(place) else { return };
    *entry = Accepted {
        tag: occasion.knock.tag,
        at_units: units(occasion.now_ns),
        port: occasion.knock.place(),
        source_port: occasion.knock.source_port,
        proto: occasion.knock.proto.bit(),
        slots: change.taken,
        _pad: 0,
    };
}

#[inline(always)]
fn units(now_ns: u64) -> u32 {
    let [a, b, c, d, ..] = (now_ns >> UNIT_SHIFT).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[inline(always)]
fn slot_bit(index: usize) -> u8 {
    let [shift, ..] = index.to_le_bytes();
    1_u8.wrapping_shl(u32::from(shift & 7))
}
