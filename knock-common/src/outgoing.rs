//! What is to be remembered of a packet that leaves: the conversations whose answers deny mode lets in, and those with hidden
//! services that no socket of the host's shows.

use crate::{
    abi::{FlowKey, Proto, Role},
    decide::{self, Access, Tables, Visit},
    flow::Stage,
    parse::wire::{PROTO_ICMP, PROTO_TCP, PROTO_UDP},
    talk::{self, Part},
};

/// What is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// Nothing.
    Nothing,
    /// That answers are awaited in this conversation, which begins at this stage unless it goes on already.
    Reply(FlowKey, Stage),
    /// That this conversation with a hidden service, if it is known, goes on.
    Session,
    /// The same, and that it begins if it is not known and the other side has a grant.
    Accepted,
}

/// Returns what is to be remembered of an outgoing packet that plays a part in a conversation. `has_socket`: it comes from a
/// socket of the host's.
#[must_use]
#[inline(always)]
pub fn remember<T: Tables>(flow: &FlowKey, part: Part, has_socket: bool, tables: &T) -> Remember {
    let role = match flow.proto {
        // The kernel's own sockets are asked for these.
        PROTO_TCP if has_socket => return Remember::Nothing,
        PROTO_TCP => tables.role(Proto::Tcp, flow.local_port),
        PROTO_UDP => tables.role(Proto::Udp, flow.local_port),
        PROTO_ICMP => Role(0),
        _ => return Remember::Nothing,
    };
    if role.is_hidden() {
        return of_hidden(role, part);
    }
    if !tables.is_deny() || role.is_public() {
        return Remember::Nothing;
    }
    if talk::is_lease(flow) {
        return Remember::Reply(talk::lease(flow), Stage::Asked);
    }
    // Nobody answers from a group's address.
    if talk::is_group(&flow.remote) {
        return Remember::Nothing;
    }
    match part {
        Part::Datagram | Part::Asks => Remember::Reply(*flow, Stage::Asked),
        Part::Begins | Part::Accepts => Remember::Reply(*flow, Stage::Opening),
        Part::Goes => Remember::Reply(*flow, Stage::Established),
        Part::Ends => Remember::Reply(*flow, Stage::Closing),
        Part::None | Part::Answers | Part::Fails | Part::LaterFragment => Remember::Nothing,
    }
}

#[inline(always)]
const fn of_hidden(role: Role, part: Part) -> Remember {
    if !role.keeps() {
        return Remember::Nothing;
    }
    match part {
        Part::Accepts => Remember::Accepted,
        Part::Goes | Part::Ends | Part::Datagram => Remember::Session,
        Part::None | Part::Begins | Part::Asks | Part::Answers | Part::Fails | Part::LaterFragment => {
            Remember::Nothing
        }
    }
}

/// Returns whether the other side of a conversation with a hidden service has a grant for it; `visit` is room to ask in.
#[inline(always)]
pub fn is_granted<T: Tables>(flow: &FlowKey, tables: &T, visit: &mut Visit, access: &mut Access) -> bool {
    let proto = if flow.proto == PROTO_TCP { Proto::Tcp } else { Proto::Udp };
    visit.source = flow.remote;
    visit.destination = flow.local;
    *access = Access::default();
    decide::ask_doors(
        visit,
        tables.port_doors(tables.role(proto, flow.local_port).index()).opens,
        tables,
        access,
    );
    access.is_granted
}
