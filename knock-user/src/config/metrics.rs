//! The `[metrics]` table: where the daemon answers scrapes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{problem::Findings, section::Section, spelling::METRICS_KEYS, table};

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

/// The address to listen on; none when the table is absent.
pub(super) fn read(root: &Section<'_, '_>, found: &mut Findings) -> Option<SocketAddr> {
    let (value, table) = table(root, "metrics", found)?;
    let section = Section::new("[metrics]".to_owned(), value.span(), table);
    section.refuse_unknown(METRICS_KEYS, found);
    if !section.has("listen") {
        return Some(DEFAULT);
    }
    let text = section.text("listen", found)?;
    let shown = *text.get_ref();
    let allowed = "it must be a loopback address and a port, as \"127.0.0.1:9477\" or \"[::1]:9477\"";
    let Some(address) = shown.parse().ok().filter(|address: &SocketAddr| address.port() != 0) else {
        found.error(text.span(), format!("[metrics]: `listen` is \"{shown}\""), allowed);
        return None;
    };
    if !address.ip().is_loopback() {
        let message = format!("[metrics]: `listen` is \"{shown}\", which is not of this machine alone");
        let help = format!("{allowed}; let a proxy or an ssh tunnel carry it farther");
        found.error(text.span(), message, help);
        return None;
    }
    Some(address)
}
