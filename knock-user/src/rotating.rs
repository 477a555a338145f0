//! Rotating sequences as people meet them: the range of ports in words, and steps of a time step as knocks.

use std::{fmt, num::NonZeroU16, ops::RangeInclusive, str::FromStr, time::Duration};

use knock_common::{
    abi::Proto,
    rotate::{Ports, RotatingStep, Rotation},
};

use crate::{service, step::Step};

/// A range of ports as it is written: `10000-32767`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange(pub Ports);

impl PortRange {
    /// Returns the ports.
    #[must_use]
    pub const fn range(self) -> RangeInclusive<u16> {
        self.0.first..=self.0.last
    }

    /// Returns whether some port is in both.
    #[must_use]
    pub fn meets(self, other: &RangeInclusive<u16>) -> bool {
        self.0.first <= *other.end() && *other.start() <= self.0.last
    }

    /// Returns how many ports there are to draw from.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.0.last.saturating_sub(self.0.first)) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.first, self.0.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match service::ports(text) {
            Ok(ports) if ports.start() < ports.end() => {
                Ok(Self(Ports { first: *ports.start(), last: *ports.end() }))
            }
            Ok(_) | Err(_) => {
                Err(format!("`{text}` is no range of ports: write the first and the last, as 10000-32767"))
            }
        }
    }
}

/// What both sides of a rotating door agree on, but for the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many steps a sequence has.
    pub steps: u8,
    /// How long a time step is: whole seconds.
    pub every: Duration,
    /// What steps are drawn from.
    pub ports: PortRange,
}

impl Shape {
    /// Returns the sequence of a time step; `None` where the range has too few ports.
    #[must_use]
    pub fn sequence(&self, rotation: &Rotation, time_step: u64) -> Option<Vec<Step>> {
        let mut steps = vec![RotatingStep { proto: Proto::Tcp, port: 0 }; usize::from(self.steps)];
        if !rotation.fill(time_step, self.ports.0, &mut steps) {
            return None;
        }
        steps.into_iter().map(step).collect()
    }
}

fn step(RotatingStep { proto, port }: RotatingStep) -> Option<Step> {
    let port = NonZeroU16::new(port)?;
    match proto {
        Proto::Tcp => Some(Step::Tcp(port)),
        Proto::Udp => Some(Step::Udp(port)),
        // Never drawn.
        Proto::Icmp => None,
    }
}

#[cfg(test)]
mod tests {
    use knock_common::{door::door_id, spa::key::SpaKey};

    use super::*;

    /// The vectors of docs/rotating.md.
    fn sequence(steps: u8, ports: &str, time_step: u64) -> Option<String> {
        let secret: [u8; 32] = std::array::from_fn(|at| at as u8);
        let rotation = Rotation::new(&SpaKey::new(&secret), door_id(b"vpn"));
        let shape = Shape { steps, every: Duration::from_secs(30), ports: ports.parse().unwrap() };
        let steps = shape.sequence(&rotation, time_step)?;
        Some(steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_sequence_is_that_of_the_vectors() {
        for (steps, ports, time_step, expected) in [
            (4, "20000-60000", 58_910_768, "tcp/38454 tcp/30903 tcp/34022 udp/33710"),
            (4, "20000-60000", 58_910_769, "tcp/38105 udp/55058 udp/27486 tcp/37326"),
            (5, "7000-7004", 1, "tcp/7000 udp/7001 tcp/7002 udp/7003 udp/7004"),
        ] {
            assert_eq!(sequence(steps, ports, time_step).as_deref(), Some(expected));
        }
        assert_eq!(sequence(6, "7000-7004", 1), None);
    }

    #[test]
    fn a_range_is_two_ports_in_order() {
        assert_eq!("1-65535".parse::<PortRange>().map(PortRange::count), Ok(65_535));
        assert_eq!("7-8".parse::<PortRange>().map(PortRange::count), Ok(2));
        for text in ["", "7", "7-7", "7-", "-7", "0-7", "9-7", "1-65536", "a-b", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text} was taken");
        }
    }
}
