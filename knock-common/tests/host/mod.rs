//! A host with conversations: the gate of the other tests, and what deny mode asks besides.

use std::collections::{HashMap, HashSet};

use knock_common::{
    abi::{
        Address, DoorRule, Flow, FlowKey, FragmentKey, List, MAX_SESSIONS, PortDoors, Proto, Role, Session,
        Sessions,
    },
    decide::{self, Access, Tables, Visit},
    flow::Stage,
    parse,
    verdict::Verdict,
};

use crate::gate::{Gate, SECOND};

/// How long a UDP conversation with a hidden service may rest.
pub const UDP_IDLE_NS: u64 = 900 * SECOND;

/// A host at one instant.
#[derive(Debug)]
pub struct Host {
    /// Its doors, grants and the time.
    pub gate: Gate,
    /// Whether what is not open is shut.
    pub is_deny: bool,
    /// Whether hidden ports keep what a grant let in.
    pub keeps: bool,
    /// What is open to everybody, by the bit of its protocol; port 0 is echo.
    pub public: HashSet<(u8, u16)>,
    /// Protocols of IP that are open to everybody.
    pub public_protos: HashSet<u8>,
    /// Doors that open everything.
    pub any_doors: u64,
    /// Conversations that a TCP socket other than a listening one is there for.
    pub sockets: HashSet<FlowKey>,
    /// Conversations of sources with hidden services.
    pub sessions: HashMap<Address, Sessions>,
    /// Conversations whose answers are awaited.
    pub replies: HashMap<FlowKey, Flow>,
    /// Datagrams whose later fragments pass, and until when.
    pub fragments: HashMap<FragmentKey, u64>,
    /// Destinations that the host sends packets on to.
    pub forwarded: HashSet<Address>,
}

impl Host {
    /// Returns a host in deny mode with nothing open, that keeps what a grant let in.
    pub fn new(gate: Gate) -> Self {
        Self {
            gate,
            is_deny: true,
            keeps: true,
            public: HashSet::new(),
            public_protos: HashSet::new(),
            any_doors: 0,
            sockets: HashSet::new(),
            sessions: HashMap::new(),
            replies: HashMap::new(),
            fragments: HashMap::new(),
            forwarded: HashSet::new(),
        }
    }

    /// Returns the verdict on a frame.
    pub fn verdict(&self, frame: &[u8]) -> Verdict {
        self.decided(frame).unwrap_or_else(|verdict| verdict)
    }

    fn decided(&self, frame: &[u8]) -> Result<Verdict, Verdict> {
        let segment = parse::parse(frame)?;
        let mut visit = Visit::NONE;
        decide::classify(frame, &segment, self, &mut visit)?;
        Ok(decide::decide(&visit, self, &mut Access::default()).verdict)
    }

    /// Awaits answers in a conversation, seen now.
    pub fn await_reply(&mut self, flow: FlowKey, stage: Stage) {
        self.replies.insert(flow, Flow::new(stage, self.gate.now_ns));
    }

    /// Puts a conversation with a hidden service, seen now, into the last slot of its source.
    pub fn keep(&mut self, flow: FlowKey, stage: Stage) {
        let slot = Session { seen_ns: self.gate.now_ns, flow, stage: stage.number(), _pad: [0; 7] };
        let free = Session { seen_ns: 0, stage: 0, ..slot };
        let mut slots = [free; MAX_SESSIONS];
        slots[MAX_SESSIONS - 1] = slot;
        self.sessions.insert(flow.remote, Sessions { slots });
    }
}

impl Tables for Host {
    fn role(&self, proto: Proto, port: u16) -> Role {
        if self.is_deny && self.public.contains(&(proto.bit(), port)) {
            return Role(Role::PUBLIC);
        }
        let role = self.gate.role(proto, port);
        if role.is_hidden() && self.keeps { Role(role.0 | Role::KEEPS) } else { role }
    }

    fn port_doors(&self, index: u32) -> PortDoors {
        self.gate.port_doors(index)
    }

    fn door(&self, door: u8) -> Option<&DoorRule> {
        self.gate.door(door)
    }

    fn page(&self, _door: u8, _now_ns: u64) -> Option<&DoorRule> {
        None
    }

    fn has_allow(&self) -> bool {
        self.gate.has_allow()
    }

    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool {
        self.gate.is_listed(list, door, address)
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        self.gate.is_ephemeral(port)
    }

    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64> {
        self.gate.grant_until_ns(source, door_id)
    }

    fn has_bans(&self) -> bool {
        self.gate.has_bans()
    }

    fn ban_until_ns(&self, source: &Address) -> Option<u64> {
        self.gate.ban_until_ns(source)
    }

    fn now_ns(&self) -> u64 {
        self.gate.now_ns
    }

    fn is_deny(&self) -> bool {
        self.is_deny
    }

    fn any_doors(&self) -> u64 {
        self.any_doors
    }

    fn is_public_proto(&self, proto: u8) -> bool {
        self.public_protos.contains(&proto)
    }

    fn has_socket(&self, flow: &FlowKey) -> bool {
        // As the kernel is asked: for TCP, whatever the protocol of the conversation.
        self.sockets.contains(&FlowKey { proto: 6, ..*flow })
    }

    fn sessions(&self, source: &Address) -> Option<&Sessions> {
        self.sessions.get(source)
    }

    fn udp_idle_ns(&self) -> u64 {
        UDP_IDLE_NS
    }

    fn reply(&self, flow: &FlowKey) -> Option<Flow> {
        self.replies.get(flow).copied()
    }

    fn fragments_until_ns(&self, key: &FragmentKey) -> Option<u64> {
        self.fragments.get(key).copied()
    }

    fn is_forwarded(&self, visit: &Visit) -> bool {
        !visit.is_group && self.forwarded.contains(&visit.destination)
    }
}
