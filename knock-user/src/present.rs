//! What XDP program an interface carries, asked by netlink, which alone knows.

use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};

/// Returns the XDP program of an interface in words: its name and id where they can be had.
#[must_use]
pub fn on(interface: &str) -> String {
    let Some(id) = program_id(interface) else { return "an XDP program".to_owned() };
    let name = loaded_programs()
        .flatten()
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(str::to_owned));
    match name {
        Some(name) => format!("the XDP program {name} (id {id})"),
        None => format!("the XDP program with id {id}"),
    }
}

/// Returns the id of the XDP program of an interface.
fn program_id(interface: &str) -> Option<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().ok()?;
        let connection = tokio::spawn(connection);
        let link = handle.link().get().match_name(interface.to_owned()).execute().try_next().await.ok()??;
        connection.abort();
        link.attributes.iter().find_map(|attribute| {
            let LinkAttribute::Xdp(facts) = attribute else { return None };
            facts.iter().find_map(|fact| if let LinkXdp::ProgId(id) = fact { Some(*id) } else { None })
        })
    })
}
