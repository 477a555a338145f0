//! What a network driver can do with XDP and what the card has turned on, asked by generic netlink.

use anyhow::{Context, Result, anyhow, bail};
use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _, NlasIterator,
    Parseable as _, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// `NETDEV_CMD_DEV_GET` and the attributes it takes and gives (`uapi/linux/netdev.h`; since Linux 6.3).
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `enum netdev_xdp_act`: runs XDP programs; gives them packets in fragments.
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_RX_SG: u64 = 32;

/// What a driver can do with XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Native {
    /// It runs XDP programs itself.
    pub is_supported: bool,
    /// It runs them on packets longer than a page, too.
    pub takes_fragments: bool,
}

/// Returns what the driver of an interface can do with XDP.
///
/// # Errors
/// When the kernel does not tell, as one before 6.3.
pub fn native(index: u32) -> Result<Native> {
    apart(async move {
        let (connection, mut handle, _) = genetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let ask = Netdev(vec![DefaultNla::new(NETDEV_A_DEV_IFINDEX, index.to_ne_bytes().to_vec())]);
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(ask));
        message.header.flags = NLM_F_REQUEST;
        let mut answers = handle.request(message).await?;
        let answer = answers.try_next().await?.context("no answer about the interface")?;
        connection.abort();
        let NetlinkPayload::InnerMessage(message) = answer.payload else {
            bail!("no answer about the interface")
        };
        let features =
            message.payload.number(NETDEV_A_DEV_XDP_FEATURES).context("nothing about XDP in it")?;
        Ok(Native {
            is_supported: features & NETDEV_XDP_ACT_BASIC != 0,
            takes_fragments: features & NETDEV_XDP_ACT_RX_SG != 0,
        })
    })
}

/// Returns what an interface has turned on, in the words of `ethtool -k`'s kernel: `rx-lro`, `rx-gro-hw`.
///
/// # Errors
/// When the kernel does not tell.
pub fn turned_on(interface: &str) -> Result<Vec<String>> {
    apart(async move {
        let (connection, mut handle, _) = ethtool::new_connection()?;
        let connection = tokio::spawn(connection);
        let mut answers = handle.feature().get(Some(interface)).execute().await?.boxed();
        let answer = answers.try_next().await?.context("no answer about the interface")?;
        connection.abort();
        let mut names = Vec::new();
        for attribute in answer.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                names.extend(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name));
            }
        }
        Ok(names)
    })
}

/// Runs it on a thread of its own, since a caller may be inside a runtime already, which would not have another one.
fn apart<T: Send>(ask: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let run = || tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(ask);
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow!("asking by netlink failed"))?
}

/// A message of the family `netdev`.
#[derive(Clone, Debug)]
struct Netdev(Vec<DefaultNla>);

impl Netdev {
    fn number(&self, kind: u16) -> Option<u64> {
        let attribute = self.0.iter().find(|attribute| attribute.kind() == kind)?;
        let mut bytes = vec![0; attribute.value_len()];
        attribute.emit_value(&mut bytes);
        bytes.try_into().ok().map(u64::from_ne_bytes)
    }
}

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Netdev {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Netdev {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        NlasIterator::new(bytes).map(|one| DefaultNla::parse(&one?)).collect::<Result<_, _>>().map(Self)
    }
}
