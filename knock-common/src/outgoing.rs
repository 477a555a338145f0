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
    /// That this conversation, if answers are awaited in it, goes on.
    Known(FlowKey),
    /// That this conversation with a hidden service, if it is known, goes on.
    Session,
    /// The same, and that it begins if it is not known and the other side has a grant.
    Accepted,
}

/// Returns what is to be remembered of an outgoing packet that plays a part in a conversation. `is_own`: it comes from a
/// socket, of the host's or of a guest that is bridged past it.
///
/// TCP of a socket that the answer will be looked up by needs no note. Where addresses are translated between the two, or the
/// socket is another host's, the lookup finds none; that is asked of the packet that begins the conversation alone.
#[must_use]
#[inline(always)]
pub fn remember<T: Tables>(flow: &FlowKey, part: Part, is_own: bool, tables: &T) -> Remember {
    let role = match flow.proto {
        PROTO_TCP => tables.role(Proto::Tcp, flow.local_port),
        PROTO_UDP => tables.role(Proto::Udp, flow.local_port),
        PROTO_ICMP => Role(0),
        _ => return Remember::Nothing,
    };
    let is_noted = if role.is_hidden() { role.keeps() } else { tables.is_deny() && !role.is_public() };
    if !is_noted || (is_own && begins(part) && tables.has_socket(flow)) {
        return Remember::Nothing;
    }
    if role.is_hidden() {
        return of_hidden(part);
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
        Part::Goes | Part::Ends if is_own => Remember::Known(*flow),
        Part::Goes => Remember::Reply(*flow, Stage::Established),
        Part::Ends => Remember::Reply(*flow, Stage::Closing),
        Part::None | Part::Answers | Part::Fails | Part::LaterFragment => Remember::Nothing,
    }
}

/// Returns whether a TCP segment begins a conversation, from either side.
#[inline(always)]
const fn begins(part: Part) -> bool {
    matches!(part, Part::Begins | Part::Accepts)
}

#[inline(always)]
const fn of_hidden(part: Part) -> Remember {
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
