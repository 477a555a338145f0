//! A step as people write it: `tcp/33817`, `udp/9032`, `icmp/echo?size=172&id=7`, or the stock client's
//! `33817`, `33817:tcp`, `9032:udp`.

use std::{fmt, num::NonZeroU16, str::FromStr};

/// One knock of a sequence, in the words of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A TCP SYN to this port.
    Tcp(NonZeroU16),
    /// A UDP datagram to this port, whatever it carries.
    Udp(NonZeroU16),
    /// An ICMP or ICMPv6 echo request.
    Icmp {
        /// Bytes of payload after the 8-byte echo header, as in `ping -s SIZE`; any when absent.
        size: Option<u16>,
        /// The echo identifier, as in `ping -e ID`; any when absent.
        id: Option<u16>,
    },
}

/// Why a text is not a step; the message says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The port is missing, not a number, or not in 1 to 65535.
    #[error("`{0}` is not a port: a port is a number from 1 to 65535")]
    Port(String),
    /// The protocol is not one that can knock.
    #[error("`{0}` is not a protocol of a knock: use tcp, udp or icmp")]
    Proto(String),
    /// Something other than `echo` after `icmp/`.
    #[error("`icmp/{0}` is not a knock: use icmp/echo, with ?size=BYTES or ?id=NUMBER if wanted")]
    Icmp(String),
    /// A condition after `?` that is not `size=N` or `id=N`, or that is given twice.
    #[error("`{0}` is not a condition of an echo step: use size=0 to 65507 or id=0 to 65535, once each")]
    Condition(String),
}

/// Most payload an echo request can carry: 65535 less a 20-byte IPv4 header and the 8-byte echo header.
const MAX_ECHO_SIZE: u16 = 65507;

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        if let Some((proto, rest)) = text.split_once('/') {
            return with_proto(proto, rest);
        }
        let (port, proto) = text.split_once(':').unwrap_or((text, "tcp"));
        with_proto(proto, port)
    }
}

fn with_proto(proto: &str, rest: &str) -> Result<Step, StepError> {
    match proto.to_ascii_lowercase().as_str() {
        "tcp" => port(rest).map(Step::Tcp),
        "udp" => port(rest).map(Step::Udp),
        "icmp" => echo(rest),
        _ => Err(StepError::Proto(proto.to_owned())),
    }
}

fn port(text: &str) -> Result<NonZeroU16, StepError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| StepError::Port(text.to_owned()))
}

fn echo(text: &str) -> Result<Step, StepError> {
    let (kind, conditions) = text.split_once('?').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    if !kind.eq_ignore_ascii_case("echo") {
        return Err(StepError::Icmp(text.to_owned()));
    }
    let (mut size, mut id) = (None, None);
    for condition in conditions.into_iter().flat_map(|list| list.split('&')) {
        let wrong = || StepError::Condition(condition.to_owned());
        let (name, value) = condition.split_once('=').ok_or_else(wrong)?;
        let number = value.parse::<u16>().map_err(|_| wrong())?;
        let slot = match name {
            "size" if number <= MAX_ECHO_SIZE => &mut size,
            "id" => &mut id,
            _ => return Err(wrong()),
        };
        if slot.replace(number).is_some() {
            return Err(wrong());
        }
    }
    Ok(Step::Icmp { size, id })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Icmp { size, id } => {
                f.write_str("icmp/echo")?;
                let conditions = [("size", size), ("id", id)];
                let given = conditions.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
                for (i, (name, value)) in given.enumerate() {
                    write!(f, "{}{name}={value}", if i == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_step() {
        for (text, shown) in [
            ("tcp/33817", "tcp/33817"),
            ("33817", "tcp/33817"),
            ("33817:TCP", "tcp/33817"),
            ("9032:udp", "udp/9032"),
            ("udp/9032", "udp/9032"),
            ("icmp/echo", "icmp/echo"),
            ("icmp/echo?id=7&size=172", "icmp/echo?size=172&id=7"),
        ] {
            let step: Step = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));

            assert_eq!(step.to_string(), shown);
            assert_eq!(shown.parse(), Ok(step));
        }
    }

    #[test]
    fn what_is_no_step_is_refused() {
        for text in [
            "",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+22",
            "tcp/ 22",
            "70000",
            "0",
            "22:",
            "22:sctp",
            "sctp/22",
            "icmp/22",
            "icmp/reply",
            "icmp/echo?",
            "icmp/echo?size=65508",
            "icmp/echo?size=1&size=1",
            "icmp/echo?ttl=3",
            "22/tcp",
        ] {
            assert!(text.parse::<Step>().is_err(), "{text:?} was taken");
        }
    }
}
