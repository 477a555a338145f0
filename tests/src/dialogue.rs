//! Conversations that the host begins: what leaves, what answers it, errors about it, and what is one field off.

use std::collections::HashMap;

use knock_common::{
    abi::{Address, Flow, FlowKey, is_mapped, mapped},
    flow::{REFRESH_NS, Stage},
};

use crate::{
    packet::{ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, icmp, tcp, udp},
    random::Random,
    shape::{self, Route},
};

/// Conversations gone on with at a time.
const REMEMBERED: usize = 48;
/// All servers of DHCPv6 on the link (RFC 8415, section 7.1).
const ALL_SERVERS: Address = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];

/// Conversations that the host has gone on with.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    asked: Vec<FlowKey>,
}

impl Dialogue {
    /// Returns whether there are none yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Returns a frame that leaves: in a conversation that there is, or in one with who is at the other end of the route.
    pub fn question(&mut self, random: &mut Random, route: Route) -> Vec<u8> {
        let is_fresh = self.asked.is_empty() || random.once_in(3);
        let flow = if is_fresh { fresh_flow(random, route) } else { *random.pick(&self.asked) };
        if self.asked.len() < REMEMBERED {
            self.asked.push(flow);
        } else {
            self.asked[random.below(REMEMBERED)] = flow;
        }
        question(random, &flow)
    }

    /// Returns a frame of, about or near such a conversation. Errors come from any of the sources.
    pub fn talk(&self, random: &mut Random, sources: &[Address]) -> Vec<u8> {
        let flow = *random.pick(&self.asked);
        let flow = near(random, &flow, sources);
        if !random.once_in(4) {
            return answer(random, &flow);
        }
        let of_family: Vec<Address> =
            sources.iter().filter(|source| is_mapped(source) == is_mapped(&flow.local)).copied().collect();
        let source = *random.pick(&of_family);
        failure(random, &flow, source)
    }

    /// Returns when some awaited answer is noted again, or comes too late.
    pub fn edge_ns(&self, random: &mut Random, replies: &HashMap<FlowKey, Flow>) -> Option<u64> {
        if self.asked.is_empty() {
            return None;
        }
        let known = replies.get(random.pick(&self.asked))?;
        let idle_ns = Stage::from_number(known.stage).map_or(0, |stage| stage.idle_ns(0));
        Some(known.seen_ns + *random.pick(&[REFRESH_NS, REFRESH_NS, idle_ns]))
    }
}

fn fresh_flow(random: &mut Random, route: Route) -> FlowKey {
    let mut flow = FlowKey {
        remote: route.source,
        local: route.destination,
        remote_port: *random.pick(&[53, 123, 443, 1, 22]),
        local_port: *random.pick(&[32_768, 40_000, 7, 443, 22, 51_820, 0]),
        proto: *random.pick(&[TCP, UDP, UDP, UDP, ICMP]),
        _pad: [0; 3],
    };
    if random.once_in(2) {
        flow.local_port = random.word();
    }
    if flow.proto == ICMP {
        flow.remote_port = flow.local_port;
    }
    if random.once_in(8) {
        (flow.local_port, flow.remote_port) = if route.is_v4() { (68, 67) } else { (546, 547) };
        flow.proto = UDP;
        if random.once_in(2) {
            flow.remote = if route.is_v4() { mapped([255; 4]) } else { ALL_SERVERS };
        }
    }
    flow
}

/// Returns a frame by which the other side goes on with a conversation.
fn answer(random: &mut Random, flow: &FlowKey) -> Vec<u8> {
    let route = Route { source: flow.remote, destination: flow.local };
    let (proto, segment) = segment(random, flow, false);
    if random.once_in(6) {
        shape::strange(random, route, proto, &segment)
    } else {
        shape::plain(route, proto, &segment)
    }
}

/// Returns a frame that leaves in a conversation.
fn question(random: &mut Random, flow: &FlowKey) -> Vec<u8> {
    let back = FlowKey {
        remote: flow.local,
        local: flow.remote,
        remote_port: flow.local_port,
        local_port: flow.remote_port,
        ..*flow
    };
    let (proto, segment) = segment(random, &back, true);
    shape::plain(Route { source: flow.local, destination: flow.remote }, proto, &segment)
}

/// Returns an ICMP error about a packet that left in a conversation, from anybody.
fn failure(random: &mut Random, flow: &FlowKey, source: Address) -> Vec<u8> {
    let quoted = question(random, flow);
    let is_v4 = is_mapped(&flow.local);
    let kind = if is_v4 { *random.pick(&[3, 3, 11, 12, 5]) } else { *random.pick(&[1, 2, 3, 4, 5]) };
    let mut message = icmp(kind, random.byte() & 7, 0);
    message.extend(&quoted[14..]);
    if random.once_in(6) {
        let at = 8 + random.below(28.min(message.len() - 8));
        message[at] ^= 1 << random.below(8);
    }
    if random.once_in(8) {
        message.truncate(8 + random.below(message.len() - 7));
    }
    let proto = if is_v4 { ICMP } else { ICMPV6 };
    shape::plain(Route { source, destination: flow.local }, proto, &message)
}

/// Returns the conversation with one field, perhaps, off.
fn near(random: &mut Random, flow: &FlowKey, sources: &[Address]) -> FlowKey {
    let mut near = *flow;
    match random.below(8) {
        0 => near.remote_port ^= 1 << random.below(16),
        1 => near.local_port ^= 1 << random.below(16),
        2 => near.proto = *random.pick(&[TCP, UDP, ICMP]),
        3 => near.remote = *random.pick(sources),
        _ => return near,
    }
    // Of one family, or it is no packet.
    if is_mapped(&near.remote) == is_mapped(&near.local) { near } else { *flow }
}

/// Returns the protocol and the segment that the remote side of a conversation sends.
fn segment(random: &mut Random, flow: &FlowKey, asks: bool) -> (u8, Vec<u8>) {
    let is_v4 = is_mapped(&flow.local);
    let ports = [flow.remote_port, flow.local_port].map(u16::to_be_bytes);
    match flow.proto {
        TCP => {
            let mut segment = tcp(0, *random.pick(&[ACK, SYN, SYN | ACK, FIN | ACK, RST]));
            segment[..4].copy_from_slice(ports.as_flattened());
            (TCP, segment)
        }
        UDP => {
            let mut segment = udp(0, 5);
            segment[..4].copy_from_slice(ports.as_flattened());
            (UDP, segment)
        }
        _ => {
            let kind = match (is_v4, asks) {
                (true, true) => 8,
                (true, false) => 0,
                (false, true) => 128,
                (false, false) => 129,
            };
            let mut segment = icmp(kind, 0, 8);
            segment[4..6].copy_from_slice(&ports[0]);
            (if is_v4 { ICMP } else { ICMPV6 }, segment)
        }
    }
}
