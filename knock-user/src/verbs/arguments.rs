//! What people type after a verb: an address, a time.

use std::{net::IpAddr, time::Duration};

use crate::clock;

/// How long something is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// So long from now.
    For(Duration),
    /// Until it is taken back.
    Forever,
}

impl Lasting {
    /// Returns the last instant of it on the kernel's clock, from `now_ns` on.
    #[must_use]
    pub fn until_ns(self, now_ns: u64) -> u64 {
        match self {
            Self::For(time) => now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            Self::Forever => u64::MAX,
        }
    }

    /// Returns the last instant of it on the kernel's clock, from now on.
    #[must_use]
    pub fn from_now_ns(self) -> u64 {
        self.until_ns(clock::now_ns())
    }
}

/// Reads a time: `30s`, `7d`, `1h30m`, or `forever`.
///
/// # Errors
/// When it is none, or no time at all.
pub fn lasting(text: &str) -> Result<Lasting, String> {
    if text == "forever" {
        return Ok(Lasting::Forever);
    }
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 30s, 1h30m, 7d or forever"))?;
    if time.is_zero() {
        return Err("no time at all would change nothing".to_owned());
    }
    Ok(Lasting::For(time))
}

/// Reads the address of a source. IPv4 written as IPv6 is IPv4; the zone of a link-local address is not asked for by the
/// kernel, and left out.
///
/// # Errors
/// When it is no address, or not one that packets come from.
pub fn source(text: &str) -> Result<IpAddr, String> {
    let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
    let parsed = address.parse::<IpAddr>().map_err(|_| {
        if address.contains('/') {
            "this is about one address; whole networks go under `allow` in the configuration".to_owned()
        } else {
            "not an IP address: write 192.0.2.7 or 2001:db8::7".to_owned()
        }
    })?;
    let source = parsed.to_canonical();
    let is_group = source.is_multicast() || source == IpAddr::from([255, 255, 255, 255]);
    if source.is_unspecified() || is_group {
        return Err("no packet comes from this address".to_owned());
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_in_any_of_its_forms() {
        for (text, read) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
            ("fe80::1", "fe80::1"),
        ] {
            assert_eq!(source(text).map(|source| source.to_string()).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_no_packet_comes_from_is_refused() {
        for text in ["", "host", "192.0.2.0/24", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_duration_or_for_ever() {
        assert_eq!(lasting("7d"), Ok(Lasting::For(Duration::from_secs(7 * 86_400))));
        assert_eq!(lasting("forever"), Ok(Lasting::Forever));
        for text in ["", "0s", "7", "soon", "-1s"] {
            assert!(lasting(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_time_is_too_long_for_the_clock() {
        assert_eq!(Lasting::For(Duration::MAX).until_ns(5), u64::MAX);
        assert_eq!(Lasting::Forever.until_ns(5), u64::MAX);
        assert_eq!(Lasting::For(Duration::from_nanos(7)).until_ns(5), 12);
    }
}
