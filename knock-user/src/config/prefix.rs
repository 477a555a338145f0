//! Address prefixes: what is taken, and what is refused with the text that was probably meant.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Reads one prefix in CIDR form; the error says what to write instead.
pub(super) fn parse(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let whole = IpNet::from(address);
        return Err(format!("a bare address is not a prefix: write \"{whole}\" for this one address"));
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        return Err("it must be an address prefix, as \"192.0.2.0/24\" or \"2001:db8::/32\"".to_owned());
    };
    if let Some(v4) = mapped(prefix) {
        return Err(format!("packets never carry v4-mapped addresses: write \"{v4}\""));
    }
    let trunc = prefix.trunc();
    if trunc != prefix {
        let one = IpNet::from(prefix.addr());
        return Err(format!(
            "bits are set after the first {}: write \"{trunc}\" for the network or \"{one}\" for the address",
            prefix.prefix_len()
        ));
    }
    Ok(prefix)
}

/// The v4 prefix that a v4-mapped v6 prefix stands for.
fn mapped(prefix: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = prefix else { return None };
    let v4 = Ipv6Addr::to_ipv4_mapped(&v6.addr())?;
    let len = v6.prefix_len().checked_sub(96)?;
    ipnet::Ipv4Net::new(v4, len).ok().map(|net| IpNet::V4(net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_what_was_probably_meant() {
        for (text, meant) in [
            ("192.0.2.7/24", "\"192.0.2.0/24\""),
            ("192.0.2.7/24", "\"192.0.2.7/32\""),
            ("192.0.2.7", "\"192.0.2.7/32\""),
            ("2001:db8::1/64", "\"2001:db8::/64\""),
            ("::ffff:192.0.2.0/120", "\"192.0.2.0/24\""),
            ("192.0.2.0/33", "\"192.0.2.0/24\""),
            ("everybody", "\"192.0.2.0/24\""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(meant), "{text}: {error}");
        }
    }

    #[test]
    fn prefixes_of_both_families_are_taken() {
        for text in ["0.0.0.0/0", "::/0", "192.0.2.7/32", "2001:db8::/32"] {
            assert_eq!(parse(text).map(|prefix| prefix.to_string()), Ok(text.to_owned()));
        }
    }
}
