//! A service as people write it: `tcp/22`, `tcp/9000-9010`, `udp/51820`, `icmp/echo`, `proto/47`, `any`.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use crate::step::Step;

/// What a door hides and opens, or what is open to everybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// TCP ports, both ends included.
    Tcp(RangeInclusive<u16>),
    /// UDP ports, both ends included.
    Udp(RangeInclusive<u16>),
    /// ICMP and ICMPv6 echo requests: being answered to `ping`.
    IcmpEcho,
    /// A protocol of IP by its number, other than TCP, UDP, ICMP and ICMPv6.
    Proto(u8),
    /// Everything: whoever has a grant for it is trusted.
    Any,
}

/// Numbers of protocols that are services by their ports or echo requests: ICMP, TCP, UDP, ICMPv6.
const NAMED_PROTOS: [u8; 4] = [1, 6, 17, 58];

/// Why a text is not a service; the message says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The port is missing, not a number, or not in 1 to 65535.
    #[error(
        "`{0}` is not a port: a port is a number from 1 to 65535, a range is LOW-HIGH, as in tcp/9000-9010"
    )]
    Port(String),
    /// The range ends before it begins.
    #[error("`{0}` is a range that ends before it begins: write the lower port first")]
    Backwards(String),
    /// There is no protocol, or not one that can be hidden.
    #[error(
        "`{0}` is not a service: use tcp/PORT, udp/PORT, tcp/LOW-HIGH, udp/LOW-HIGH, icmp/echo, proto/NUMBER or any"
    )]
    Shape(String),
    /// The protocol's number is missing, not a number, or of a protocol that has a name here.
    #[error(
        "`{0}` is not a protocol: a number from 0 to 255, as in proto/47; what has a name is tcp/PORT, udp/PORT or icmp/echo"
    )]
    Proto(String),
}

impl Service {
    /// Whether some packet belongs to both services.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) | (Self::Udp(a), Self::Udp(b)) => {
                a.start() <= b.end() && b.start() <= a.end()
            }
            (Self::Proto(a), Self::Proto(b)) => a == b,
            (Self::IcmpEcho, Self::IcmpEcho) => true,
            // A list of everything leaves each service what it is: a door of its own, or public.
            (Self::Any, Self::Any) => true,
            (Self::Tcp(_) | Self::Udp(_) | Self::IcmpEcho | Self::Proto(_) | Self::Any, _) => false,
        }
    }

    /// Whether a packet that is this step is also addressed to this service.
    pub fn takes(&self, step: Step) -> bool {
        match (self, step) {
            (Self::Tcp(ports), Step::Tcp(port)) | (Self::Udp(ports), Step::Udp(port)) => {
                ports.contains(&port.get())
            }
            (Self::IcmpEcho, Step::Icmp { .. }) => true,
            (Self::Tcp(_) | Self::Udp(_) | Self::IcmpEcho | Self::Proto(_) | Self::Any, _) => false,
        }
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let lower = text.to_ascii_lowercase();
        let Some((proto, rest)) = lower.split_once('/') else {
            return if lower == "any" { Ok(Self::Any) } else { Err(ServiceError::Shape(text.to_owned())) };
        };
        match proto {
            "tcp" => ports(rest).map(Self::Tcp),
            "udp" => ports(rest).map(Self::Udp),
            "icmp" if rest == "echo" => Ok(Self::IcmpEcho),
            "proto" => number(rest).map(Self::Proto),
            _ => Err(ServiceError::Shape(text.to_owned())),
        }
    }
}

pub(crate) fn ports(text: &str) -> Result<RangeInclusive<u16>, ServiceError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(ServiceError::Backwards(text.to_owned()));
    }
    Ok(low..=high)
}

fn number(text: &str) -> Result<u8, ServiceError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    let unnamed = number.filter(|number| !NAMED_PROTOS.contains(number));
    unnamed.ok_or_else(|| ServiceError::Proto(text.to_owned()))
}

fn port(text: &str) -> Result<u16, ServiceError> {
    // `u16::from_str` takes a leading plus sign, which no other tool reads as a port.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|&port| port != 0).ok_or_else(|| ServiceError::Port(text.to_owned()))
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proto, ports) = match self {
            Self::Tcp(ports) => ("tcp", ports),
            Self::Udp(ports) => ("udp", ports),
            Self::IcmpEcho => return f.write_str("icmp/echo"),
            Self::Proto(number) => return write!(f, "proto/{number}"),
            Self::Any => return f.write_str("any"),
        };
        write!(f, "{proto}/{}", ports.start())?;
        if ports.start() == ports.end() {
            return Ok(());
        }
        write!(f, "-{}", ports.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> Service {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_service_is_shown_as_it_is_written() {
        for (text, shown) in [
            ("tcp/22", "tcp/22"),
            ("TCP/22", "tcp/22"),
            ("tcp/22-22", "tcp/22"),
            ("udp/1-65535", "udp/1-65535"),
            ("icmp/echo", "icmp/echo"),
            ("proto/047", "proto/47"),
            ("ANY", "any"),
        ] {
            assert_eq!(service(text).to_string(), shown);
            assert_eq!(shown.parse(), Ok(service(text)));
        }
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for text in
            ["", "22", "22/tcp", "tcp/", "tcp/0", "tcp/0-9", "tcp/65536", "tcp/+1", "tcp/9-1", "tcp/1-2-3"]
        {
            assert!(text.parse::<Service>().is_err(), "{text:?} was taken");
        }
        for text in ["proto/", "proto/256", "proto/+4", "proto/1", "proto/6", "proto/17", "proto/58", "any/1"]
        {
            assert!(text.parse::<Service>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn ranges_meet_where_they_share_a_port() {
        assert!(service("tcp/1-10").overlaps(&service("tcp/10-20")));
        assert!(!service("tcp/1-9").overlaps(&service("tcp/10-20")));
        assert!(!service("tcp/1-10").overlaps(&service("udp/1-10")));
        assert!(service("tcp/1-10").takes("tcp/10".parse().expect("a step")));
        assert!(!service("tcp/1-10").takes("udp/10".parse().expect("a step")));
        assert!(service("icmp/echo").takes("icmp/echo?size=3".parse().expect("a step")));
    }
}
