//! What becomes of a packet: from its segment, the configuration, the grants and the bans to a verdict, and to the knock
//! in it.

use crate::{
    abi::{
        Address, DoorRule, Flow, FlowKey, FragmentKey, List, MAX_DOORS, MAX_SESSIONS, PortDoors, Proto, Role,
        Sessions,
    },
    frame::Frame,
    machine::Knock,
    parse::{Segment, Transport, wire},
    talk::{self, Part},
    verdict::Verdict,
};

/// The configuration, the grants, the bans and the conversations, as a packet may ask for them.
///
/// Two implementations: the maps of the kernel program, and plain collections in the tests.
pub trait Tables {
    /// Returns the role of a TCP or UDP port, or of echo requests.
    fn role(&self, proto: Proto, port: u16) -> Role;
    /// Returns an interned set of doors.
    fn port_doors(&self, index: u32) -> PortDoors;
    /// Returns the rule of a door.
    fn door(&self, door: u8) -> Option<&DoorRule>;
    /// Returns the rule of the page that a door whose sequence changes has at a time, if it has one then.
    fn page(&self, door: u8, now_ns: u64) -> Option<&DoorRule>;
    /// Returns the rule with the sequence that a door has at a time.
    #[inline(always)]
    fn sequence(&self, door: u8, now_ns: u64) -> Option<&DoorRule> {
        let rule = self.door(door)?;
        if rule.changes() { self.page(door, now_ns) } else { Some(rule) }
    }
    /// Returns whether there is an allow list.
    fn has_allow(&self) -> bool;
    /// Returns whether a prefix of the list holds the address.
    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool;
    /// Returns whether the port lies in the host's ephemeral range.
    fn is_ephemeral(&self, port: u16) -> bool;
    /// Returns until when the source may pass the door with this id.
    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64>;
    /// Returns whether there may be bans.
    fn has_bans(&self) -> bool;
    /// Returns until when the source is banned.
    fn ban_until_ns(&self, source: &Address) -> Option<u64>;
    /// Returns the time.
    fn now_ns(&self) -> u64;
    /// Returns whether what is not open is shut, rather than what is hidden.
    fn is_deny(&self) -> bool;
    /// Returns the doors that open everything, one bit each.
    fn any_doors(&self) -> u64;
    /// Returns whether a protocol of IP is public.
    fn is_public_proto(&self, proto: u8) -> bool;
    /// Returns whether the kernel has a TCP socket, other than one that listens, for the conversation.
    fn has_socket(&self, flow: &FlowKey) -> bool;
    /// Returns the conversations of a source with hidden services.
    fn sessions(&self, source: &Address) -> Option<&Sessions>;
    /// Returns how long a UDP conversation with a hidden service may rest.
    fn udp_idle_ns(&self) -> u64;
    /// Returns what is known of a conversation whose answers are awaited.
    fn reply(&self, flow: &FlowKey) -> Option<Flow>;
    /// Returns until when later fragments of a datagram pass, its first having passed.
    fn fragments_until_ns(&self, key: &FragmentKey) -> Option<u64>;
    /// Returns whether the host would send the packet on instead of taking it.
    fn is_forwarded(&self, visit: &Visit) -> bool;
    /// Does [`ask_doors`]. The kernel program has a way of its own to it, which its verifier goes through once.
    fn ask(&self, visit: &Visit, doors: u64, access: &mut Access)
    where
        Self: Sized,
    {
        ask_doors(visit, doors, self, access);
    }
    /// Does [`session_slot`], likewise.
    fn find_session(&self, flow: &FlowKey) -> usize
    where
        Self: Sized,
    {
        session_slot(flow, self)
    }
}

/// A packet that may concern a door: all that the rest of the decision needs of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Its role.
    pub role: Role,
    /// The knock in it, if a knock at this port is judged.
    pub knock: Option<Knock>,
    /// Who comes.
    pub source: Address,
    /// Where to.
    pub destination: Address,
    /// The conversation that it belongs to.
    pub flow: FlowKey,
    /// Its part in it.
    pub part: Part,
    /// Which datagram it is a fragment of, where it is one; deny mode only.
    pub fragment: FragmentKey,
    /// Whether it is one.
    pub is_fragment: bool,
    /// Sent to a group of hosts, by its link-layer or its IP address.
    pub is_group: bool,
}

impl Visit {
    /// Nobody's.
    pub const NONE: Self = Self {
        role: Role(0),
        knock: None,
        source: [0; 16],
        destination: [0; 16],
        flow: talk::NO_FLOW,
        part: Part::None,
        fragment: FragmentKey { source: [0; 16], destination: [0; 16], id: 0, proto: 0, _pad: [0; 3] },
        is_fragment: false,
        is_group: false,
    };
}

/// A verdict, and what else is to be done about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The knock in it is to be judged against the attempts of its source.
    pub is_judged: bool,
    /// It would be, were its source not banned.
    pub is_banned: bool,
}

impl Decision {
    const fn without_judgement(verdict: Verdict) -> Self {
        Self { verdict, is_judged: false, is_banned: false }
    }
}

/// What the doors of a port say of a source, and where the conversation of the packet was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Some door hides the port at the destination.
    pub is_hidden: bool,
    /// The source has a grant for one that does.
    pub is_granted: bool,
    /// It has one that has expired.
    pub is_expired: bool,
    /// Where the conversation was found.
    pub found: Found,
}

/// Where a conversation was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Among the kernel's own sockets.
    Socket,
    /// In this slot of its source's record.
    Session(usize),
    /// Among those whose answers are awaited.
    Reply(Flow),
}

/// Returns the verdict on a packet that needs no more looking into, by its role alone.
///
/// # Errors
///
/// The verdict: the packet concerns no door, or is open to all.
#[inline(always)]
pub fn pass_by<T: Tables>(segment: &Segment, tables: &T) -> Result<(), Verdict> {
    let role = role_of(segment, tables);
    if tables.is_deny() {
        return open_to_all(segment, role, tables).map_or(Ok(()), Err);
    }
    if matches!(segment.transport, Transport::LaterFragment) {
        return Err(Verdict::LaterFragment);
    }
    if role.is_hidden() || (role.is_judged() && Knock::in_segment(segment).is_some()) {
        return Ok(());
    }
    Err(Verdict::Unrelated)
}

/// Fills in the visit that a packet is, or returns the verdict on one that needs no more looking into.
///
/// # Errors
///
/// The verdict: the packet concerns no door, or its IP header is not sound.
#[inline(always)]
pub fn classify<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    segment: &Segment,
    tables: &T,
    visit: &mut Visit,
) -> Result<(), Verdict> {
    pass_by(segment, tables)?;
    fill(frame, segment, tables, visit)
}

/// Fills in the visit that a packet is, which does not pass by.
///
/// # Errors
///
/// The verdict: its IP header is not sound.
#[inline(always)]
pub fn fill<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    segment: &Segment,
    tables: &T,
    visit: &mut Visit,
) -> Result<(), Verdict> {
    let role = role_of(segment, tables);
    if !segment.is_checksum_right(frame) {
        return Err(Verdict::BadIp);
    }
    visit.role = role;
    // Written apart: one store of either would also store what no path has set, which the verifier refuses.
    visit.knock = None;
    if role.is_judged()
        && let Some(knock) = Knock::in_segment(segment)
    {
        visit.knock = Some(knock);
    }
    visit.source = segment.source(frame).ok_or(Verdict::BadIp)?;
    visit.destination = segment.destination(frame).ok_or(Verdict::BadIp)?;
    visit.part = talk::incoming(frame, segment, &visit.source, &visit.destination, &mut visit.flow);
    if tables.is_deny() {
        visit.fragment = talk::fragment_key(segment, &visit.source, &visit.destination);
        visit.is_fragment = segment.is_fragment;
        visit.is_group = segment.is_group || talk::is_group(&visit.destination);
    }
    Ok(())
}

/// Returns the verdict on what everybody may send in deny mode.
#[inline(always)]
fn open_to_all<T: Tables>(segment: &Segment, role: Role, tables: &T) -> Option<Verdict> {
    // A first fragment is looked into further: its later ones are let in by what it says.
    if role.is_public() && !segment.is_fragment {
        return Some(Verdict::Public);
    }
    match segment.transport {
        Transport::Icmp { kind, .. } if segment.is_v6 && is_neighbourly(kind) => Some(Verdict::Control),
        Transport::Other if !segment.is_v6 && segment.proto == wire::PROTO_IGMP => Some(Verdict::Control),
        Transport::Other if tables.is_public_proto(segment.proto) => Some(Verdict::Public),
        Transport::LaterFragment if tables.is_public_proto(segment.proto) => Some(Verdict::LaterFragment),
        Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Echo { .. }
        | Transport::Icmp { .. }
        | Transport::LaterFragment
        | Transport::Other => None,
    }
}

/// Returns whether an ICMPv6 message is one that the link lives by: neighbour discovery (RFC 4861) and multicast listeners
/// (RFC 2710, RFC 3810). The stack takes them from the link alone, by their hop limit.
#[inline(always)]
const fn is_neighbourly(kind: u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

/// Returns the decision on a visit; `access` is left saying what the doors of the port said.
#[inline(always)]
pub fn decide<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> Decision {
    *access = Access::default();
    if tables.has_allow() && tables.is_listed(List::Allow, 0, &visit.source) {
        return Decision::without_judgement(Verdict::Allowed);
    }
    if visit.role.is_public() {
        return Decision::without_judgement(Verdict::Public);
    }
    if visit.role.is_hidden() {
        tables.ask(visit, tables.port_doors(visit.role.index()).opens, access);
    }
    if access.is_granted {
        return Decision::without_judgement(Verdict::Granted);
    }
    if access.is_hidden && visit.role.keeps() && is_in_session(visit, tables, access) {
        return Decision::without_judgement(Verdict::Session);
    }
    if tables.is_deny()
        && !access.is_hidden
        && let Some(verdict) = not_hidden(visit, tables, access)
    {
        return Decision::without_judgement(verdict);
    }
    let is_knock = visit.knock.is_some();
    let verdict = match (access.is_hidden, is_knock) {
        (true, _) => Verdict::Hidden,
        (false, true) => Verdict::Knock,
        (false, false) if tables.is_deny() => Verdict::Denied,
        (false, false) => Verdict::Unrelated,
    };
    let is_banned = is_knock && is_banned(&visit.source, tables);
    Decision { verdict, is_judged: is_knock && !is_banned, is_banned }
}

/// Returns whether the packet goes on with a conversation that a grant let in.
#[inline(always)]
fn is_in_session<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> bool {
    match visit.part {
        Part::Accepts | Part::Goes | Part::Ends => {
            find_socket(visit, tables, access) || find_session(visit, tables, access)
        }
        Part::Datagram => find_session(visit, tables, access),
        Part::None | Part::Begins | Part::Asks | Part::Answers | Part::Fails | Part::LaterFragment => false,
    }
}

/// Returns the verdict on what deny mode lets in although nothing hides it, or `None` for what it does not let in.
// Not inlined: the verifier goes through it once.
#[inline(never)]
fn not_hidden<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> Option<Verdict> {
    if visit.part == Part::LaterFragment {
        let until_ns = tables.fragments_until_ns(&visit.fragment);
        let has_first = until_ns.is_some_and(|until_ns| tables.now_ns() <= until_ns);
        let is_let_on = has_first || tables.is_forwarded(visit);
        return Some(if is_let_on { Verdict::LaterFragment } else { Verdict::StrayFragment });
    }
    if is_reply(visit, tables, access) {
        return Some(Verdict::Reply);
    }
    if tables.any_doors() != 0 {
        tables.ask(visit, tables.any_doors(), access);
        // What a door of everything hides is told like the rest: nothing of its own is there.
        access.is_hidden = false;
        if access.is_granted {
            return Some(Verdict::Granted);
        }
    }
    tables.is_forwarded(visit).then_some(Verdict::Forwarded)
}

/// Returns whether the packet answers something that the host, or one behind it, sent.
#[inline(always)]
fn is_reply<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> bool {
    match visit.part {
        Part::Accepts | Part::Goes | Part::Ends => {
            find_socket(visit, tables, access) || find_reply(&visit.flow, tables, access)
        }
        Part::Datagram if talk::is_lease(&visit.flow) => {
            find_reply(&talk::lease(&visit.flow), tables, access) || find_reply(&visit.flow, tables, access)
        }
        Part::Datagram | Part::Answers => find_reply(&visit.flow, tables, access),
        Part::Fails => is_known_failure(visit, tables, access),
        Part::None | Part::Begins | Part::Asks | Part::LaterFragment => false,
    }
}

/// Returns whether an ICMP error is about a conversation that goes on, or about an answer of a public service.
#[inline(always)]
fn is_known_failure<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> bool {
    let (proto, port) = match visit.flow.proto {
        wire::PROTO_TCP => (Proto::Tcp, visit.flow.local_port),
        wire::PROTO_UDP => (Proto::Udp, visit.flow.local_port),
        // An answer to a ping, of which no note is taken where pings are public.
        wire::PROTO_ICMP => (Proto::Icmp, 0),
        _ => return find_reply(&visit.flow, tables, access),
    };
    if tables.role(proto, port).is_public() {
        return true;
    }
    (proto.bit() == Proto::Tcp.bit() && find_socket(visit, tables, access))
        || find_reply(&visit.flow, tables, access)
        || find_session(visit, tables, access)
}

#[inline(always)]
fn find_socket<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> bool {
    if tables.has_socket(&visit.flow) {
        access.found = Found::Socket;
    }
    access.found == Found::Socket
}

#[inline(always)]
fn find_session<T: Tables>(visit: &Visit, tables: &T, access: &mut Access) -> bool {
    let slot = tables.find_session(&visit.flow);
    if slot < MAX_SESSIONS {
        access.found = Found::Session(slot);
    }
    slot < MAX_SESSIONS
}

/// Returns the slot of a conversation with a hidden service in its source's record; [`MAX_SESSIONS`] if there is none.
#[inline(always)]
pub fn session_slot<T: Tables>(flow: &FlowKey, tables: &T) -> usize {
    let Some(sessions) = tables.sessions(&flow.remote) else { return MAX_SESSIONS };
    sessions.find(flow, tables.now_ns(), tables.udp_idle_ns())
}

#[inline(always)]
fn find_reply<T: Tables>(flow: &FlowKey, tables: &T, access: &mut Access) -> bool {
    let Some(known) = tables.reply(flow).filter(|known| known.is_live(tables.now_ns())) else {
        return false;
    };
    access.found = Found::Reply(known);
    true
}

/// Returns whether the source's knocks are not judged: the verdict on its packets is the same, but they lead nowhere.
#[inline(always)]
pub fn is_banned<T: Tables>(source: &Address, tables: &T) -> bool {
    tables.has_bans() && tables.ban_until_ns(source).is_some_and(|until_ns| tables.now_ns() <= until_ns)
}

#[inline(always)]
fn role_of<T: Tables>(segment: &Segment, tables: &T) -> Role {
    match segment.transport {
        Transport::Tcp { port, .. } => tables.role(Proto::Tcp, port),
        Transport::Udp { port, .. } => tables.role(Proto::Udp, port),
        Transport::Echo { .. } => tables.role(Proto::Icmp, 0),
        Transport::Icmp { .. } | Transport::LaterFragment | Transport::Other => Role(0),
    }
}

/// Asks doors whether they hide a service at the destination of a visit, and whether its source has a grant for one.
#[inline(always)]
pub fn ask_doors<T: Tables>(visit: &Visit, doors: u64, tables: &T, access: &mut Access) {
    let mut rest = doors;
    for _ in 0..MAX_DOORS {
        let Some((door, others)) = lowest(rest) else { return };
        rest = others;
        ask_door(visit, door, tables, access);
        if access.is_granted {
            return;
        }
    }
}

// Not inlined, and answering through memory: the verifier then goes on with one state a door, not one for each of
// its answers.
#[inline(never)]
fn ask_door<T: Tables>(visit: &Visit, door: u8, tables: &T, access: &mut Access) {
    let Some(rule) = tables.door(door).filter(|rule| is_at(rule, &visit.destination, tables)) else {
        return;
    };
    access.is_hidden = true;
    let Some(until_ns) = tables.grant_until_ns(&visit.source, rule.id) else { return };
    if tables.now_ns() <= until_ns {
        access.is_granted = true;
    } else {
        access.is_expired = true;
    }
}

/// Returns whether the door exists at the destination.
#[inline(always)]
pub(crate) fn is_at<T: Tables>(rule: &DoorRule, destination: &Address, tables: &T) -> bool {
    !rule.has(DoorRule::TO) || tables.is_listed(List::To, rule.prefixes, destination)
}

/// Returns the lowest door of a set, and the others.
#[must_use]
#[inline(always)]
pub fn lowest(doors: u64) -> Option<(u8, u64)> {
    if doors == 0 {
        return None;
    }
    let [door, ..] = doors.trailing_zeros().to_le_bytes();
    Some((door & 63, doors & doors.wrapping_sub(1)))
}
