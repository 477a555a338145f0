//! Interfaces that come and go: netlink tells at once, and a look at the clock tick finds what a full socket lost.

use std::pin::Pin;

use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt as _};
use rtnetlink::{
    MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage,
};

/// Changes of the machine's interfaces.
pub struct Watch {
    messages: Pin<Box<dyn Stream<Item = ()>>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins to listen. Must be called inside the runtime.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn open() -> Result<Self> {
        let (connection, _, messages) =
            new_multicast_connection(&[MulticastGroup::Link]).context("listening for interfaces")?;
        tokio::spawn(connection);
        let changes = messages.filter_map(|(message, _)| async move {
            let is_link = matches!(
                message.payload,
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_)
                )
            );
            is_link.then_some(())
        });
        Ok(Self { messages: Box::pin(changes) })
    }

    /// Waits until some interface came, went or changed.
    pub async fn changed(&mut self) {
        if self.messages.next().await.is_none() {
            // The connection ended: the tick has to do.
            std::future::pending::<()>().await;
        }
    }
}
