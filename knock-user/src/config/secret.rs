//! How much an attacker has to guess.

use crate::step::Step;

/// Fewer bits than this are refused unless the door says `allow_weak = true`: 2^40 packets at a million a
/// second take under 13 days.
pub(super) const REFUSE_BELOW: f64 = 40.0;
/// Fewer bits than this are warned about: 2^56 packets at a million a second take about 2,280 years.
pub(super) const WARN_BELOW: f64 = 56.0;

/// Choices of a port, of an echo size and of an echo identifier.
const PORTS: f64 = 65_535.0;
const SIZES: f64 = 65_508.0;
const IDS: f64 = 65_536.0;

/// Bits of secret in a sequence: the logarithm of the choices each step had, added up.
///
/// A port counts the same for TCP and UDP. The choice between the two is not counted, nor is the number of
/// steps: an attacker is taken to know both. A bare echo step adds nothing.
pub fn bits(steps: &[Step]) -> f64 {
    steps.iter().map(|step| step_bits(*step)).sum()
}

fn step_bits(step: Step) -> f64 {
    match step {
        Step::Tcp(_) | Step::Udp(_) => PORTS.log2(),
        Step::Icmp { size, id } => size.map_or(0.0, |_| SIZES.log2()) + id.map_or(0.0, |_| IDS.log2()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_counts_and_a_bare_echo_does_not() {
        for (texts, expected) in [
            (&["icmp/echo"][..], 0.0),
            (&["tcp/1"], 16.0),
            (&["tcp/1", "udp/2", "icmp/echo"], 32.0),
            (&["icmp/echo?size=1&id=2", "tcp/9"], 48.0),
        ] {
            let steps: Vec<Step> = texts.iter().map(|text| text.parse().expect("a step")).collect();
            assert!((bits(&steps) - expected).abs() < 0.01, "{texts:?}: {}", bits(&steps));
        }
    }
}
