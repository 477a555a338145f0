//! From a host on the command line to the addresses to knock on: all of them, since which one the next
//! connection will come from and go to is not ours to guess (mrash/fwknop#138, impalex/knockonports#9).

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
};

/// Which addresses of a name are knocked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn takes(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Why there is nothing to knock on.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("looking up `{host}`: {cause}; check the name, or give an address")]
    Lookup { host: String, cause: io::Error },
    #[error("`{host}` has no address of the family asked for, only {found}: leave out {option}")]
    Family { host: String, found: String, option: &'static str },
    #[error("`{0}` is a link-local address: say on which interface, as in {0}%eth0")]
    Scope(IpAddr),
}

/// Returns every address of `host` in the resolver's order, once each, with port 0.
pub(super) fn resolve(host: &str, family: Family) -> Result<Vec<SocketAddr>, AddressError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let lookup = |cause| AddressError::Lookup { host: host.to_owned(), cause };
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (bare, 0).to_socket_addrs().map_err(lookup)?.map(canonical) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    let kept: Vec<_> = found.iter().copied().filter(|address| family.takes(address)).collect();
    if kept.is_empty() {
        let option = if family == Family::V6 { "-6" } else { "-4" };
        let found = found.iter().map(shown).collect::<Vec<_>>().join(", ");
        return Err(AddressError::Family { host: host.to_owned(), found, option });
    }
    match kept.iter().find(|address| lacks_scope(address)) {
        Some(address) => Err(AddressError::Scope(address.ip())),
        None => Ok(kept),
    }
}

/// Returns the address as a person writes it, without the port.
pub(super) fn shown(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip().to_string(),
    }
}

/// `::ffff:192.0.2.7` puts an IPv4 packet on the wire, so it is knocked on as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn lacks_scope(address: &SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(host: &str, family: Family) -> Result<Vec<String>, String> {
        let addresses = resolve(host, family).map_err(|error| error.to_string())?;
        Ok(addresses.iter().map(shown).collect())
    }

    #[test]
    fn an_address_is_taken_in_every_way_it_is_written() {
        for (host, address) in
            [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::7"), ("[2001:db8::7]", "2001:db8::7")]
        {
            assert_eq!(resolved(host, Family::Any), Ok(vec![address.to_owned()]));
        }
    }

    #[test]
    fn a_mapped_address_is_knocked_on_as_ipv4() {
        assert_eq!(resolved("::ffff:192.0.2.7", Family::V4), Ok(vec!["192.0.2.7".to_owned()]));
    }

    #[test]
    fn the_wrong_family_is_an_error_that_says_what_there_is() {
        let error = resolved("192.0.2.7", Family::V6).unwrap_err();

        assert!(error.contains("only 192.0.2.7: leave out -6"), "{error}");
    }

    #[test]
    fn a_link_local_address_needs_its_interface() {
        let error = resolved("fe80::1", Family::Any).unwrap_err();

        assert!(error.contains("fe80::1%eth0"), "{error}");
        assert_eq!(resolved("fe80::1%1", Family::Any), Ok(vec!["fe80::1%1".to_owned()]));
    }
}
