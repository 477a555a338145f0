//! What an interface is and which XDP program it carries, asked by netlink, which alone knows.

use anyhow::{Context, Result, anyhow};
use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use crate::{attach::Way, hook::Header};

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its id, where one is told.
    pub program: Option<u32>,
    /// How it is attached, where it is one of the two ways.
    pub way: Option<Way>,
}

/// Returns the XDP program of an interface in words: its name and id where they can be had.
#[must_use]
pub fn on(interface: &str) -> String {
    let Ok(Some(Carried { program: Some(id), .. })) = carried(interface) else {
        return "an XDP program".to_owned();
    };
    let name = loaded_programs()
        .flatten()
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(str::to_owned));
    match name {
        Some(name) => format!("the XDP program {name} (id {id})"),
        None => format!("the XDP program with id {id}"),
    }
}

/// Returns how an interface's XDP program is attached.
#[must_use]
pub fn way(interface: &str) -> Option<Way> {
    carried(interface).ok()??.way
}

/// Returns what XDP program an interface carries; `None` for none.
///
/// # Errors
/// When there is no such interface, or netlink does not answer.
pub fn carried(interface: &str) -> Result<Option<Carried>> {
    let facts = asked(interface)?
        .attributes
        .into_iter()
        .find_map(|attribute| if let LinkAttribute::Xdp(facts) = attribute { Some(facts) } else { None });
    Ok(facts.and_then(|facts| carried_by(&facts)))
}

/// Returns what an interface's packets begin with.
///
/// # Errors
/// When there is no such interface, netlink does not answer, or no program here can read its packets.
pub fn header(interface: &str) -> Result<Header> {
    let kind = u16::from(asked(interface)?.header.link_layer_type);
    Header::of_type(kind).with_context(|| {
        format!(
            "cannot guard {interface}: its packets begin with a header that this program does not read (type {kind} of linux/if_arp.h); guard the interfaces under it"
        )
    })
}

fn asked(interface: &str) -> Result<LinkMessage> {
    // A thread of its own, since a caller may be inside a runtime already, which would not have another one.
    let answer = std::thread::scope(|scope| scope.spawn(|| ask(interface)).join());
    answer.map_err(|_| anyhow!("asking netlink about {interface} failed"))?
}

fn ask(interface: &str) -> Result<LinkMessage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let mut links = handle.link().get().match_name(interface.to_owned()).execute();
        let link = links.try_next().await.with_context(|| format!("asking netlink about {interface}"))?;
        connection.abort();
        link.with_context(|| format!("no interface {interface}"))
    })
}

/// Returns what netlink's facts about XDP say.
#[must_use]
pub fn carried_by(facts: &[LinkXdp]) -> Option<Carried> {
    let attached =
        facts.iter().find_map(|fact| if let LinkXdp::Attached(how) = fact { Some(*how) } else { None })?;
    let way = match attached {
        XdpAttached::None => return None,
        XdpAttached::Driver => Some(Way::Native),
        XdpAttached::SocketBuffer => Some(Way::Generic),
        XdpAttached::Hardware | XdpAttached::Multiple | XdpAttached::Other(_) | _ => None,
    };
    let program = facts.iter().find_map(|fact| if let LinkXdp::ProgId(id) = fact { Some(*id) } else { None });
    Some(Carried { program, way })
}
