//! The command line of `knock`. Doc comments here are the text of `--help`.

use std::{num::NonZeroU16, str::FromStr, time::Duration};

use super::{address::Family, packet::PacketArgs};
use crate::step::{Step, StepError};

/// Knock on a host: send a sequence of steps, in order, and optionally see whether the door opened.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 done, 1 not sent, 2 usage, 4 the door is still shut (--verify).

Examples:
  xdp-knock knock box.example tcp/33817 udp/9032 'icmp/echo?size=172' tcp/51240 --verify 22
  xdp-knock knock box.example --spa --key box.key --server box --door ssh --verify 22
  xdp-knock knock box.example 7000 8000:udp 9000 && ssh box.example")]
pub struct Args {
    /// Name or address to knock on; a name is knocked on at all its addresses.
    pub host: String,

    /// Steps in order: tcp/PORT, udp/PORT, icmp/echo[?size=BYTES&id=NUMBER], or PORT[:tcp|:udp].
    #[arg(value_name = "STEP")]
    pub steps: Vec<StepArg>,

    /// One packet instead.
    #[command(flatten)]
    pub packet: PacketArgs,

    /// Pause after each knock, so that none overtakes another; a bare number is milliseconds.
    #[arg(short, long, value_name = "DUR", default_value = "100ms", value_parser = delay)]
    pub delay: Duration,

    /// Knock on IPv4 addresses only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Knock on IPv6 addresses only.
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Take steps that name no protocol as UDP instead of TCP.
    #[arg(short, long)]
    pub udp: bool,

    /// After the sequence, try to connect to this TCP port and say whether it is open.
    #[arg(long, value_name = "PORT")]
    pub verify: Option<VerifyPort>,

    /// How long --verify waits for an answer.
    #[arg(long, value_name = "DUR", default_value = "3s", value_parser = timeout, requires = "verify")]
    pub timeout: Duration,

    /// Send the whole sequence up to N more times while --verify finds the door shut.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "verify")]
    pub retry: u32,

    /// Say on stderr what each knock met.
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Print errors only; the exit status tells the rest.
    #[arg(short, long)]
    pub quiet: bool,

    /// Print the result as one JSON object.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

impl Args {
    pub(super) fn family(&self) -> Family {
        match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (false, true) => Family::V6,
            (false, false) => Family::Any,
        }
    }

    pub(super) fn sequence(&self) -> Vec<Step> {
        self.steps.iter().map(|step| step.resolve(self.udp)).collect()
    }
}

/// A step on the command line, which remembers whether it named its protocol (`--udp` fills that in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepArg {
    step: Step,
    names_protocol: bool,
}

impl StepArg {
    fn resolve(self, bare_is_udp: bool) -> Step {
        match self.step {
            Step::Tcp(port) if bare_is_udp && !self.names_protocol => Step::Udp(port),
            step @ (Step::Tcp(_) | Step::Udp(_) | Step::Icmp { .. }) => step,
        }
    }
}

impl FromStr for StepArg {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        Ok(Self { step: text.parse()?, names_protocol: text.contains(['/', ':']) })
    }
}

/// The TCP port that `--verify` tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyPort(pub NonZeroU16);

impl FromStr for VerifyPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Step>().map_err(|error| error.to_string())? {
            Step::Tcp(port) => Ok(Self(port)),
            step @ (Step::Udp(_) | Step::Icmp { .. }) => {
                Err(format!("{step} cannot be tried, since only TCP says that it is open: give a TCP port"))
            }
        }
    }
}

/// The stock client takes its delay in milliseconds without a unit; fingers remember.
fn delay(text: &str) -> Result<Duration, String> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(Duration::from_millis(milliseconds));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("nothing answers in no time: give at least 1ms".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("knock").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn shown(line: &str) -> String {
        let steps = parse(line).unwrap().sequence();
        steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_forms_of_a_step_mix() {
        assert_eq!(
            shown("h 7000 udp/8000 9000:udp icmp/echo?size=9"),
            "tcp/7000 udp/8000 udp/9000 icmp/echo?size=9"
        );
    }

    #[test]
    fn udp_option_changes_only_steps_without_protocol() {
        assert_eq!(shown("-u h 7000 tcp/8000 9000:tcp"), "udp/7000 tcp/8000 tcp/9000");
    }

    #[test]
    fn a_bare_delay_is_milliseconds_as_in_the_stock_client() {
        assert_eq!(parse("h 1 -d 250").unwrap().delay, Duration::from_millis(250));
        assert_eq!(parse("h 1 -d 2s").unwrap().delay, Duration::from_secs(2));
        assert_eq!(parse("h 1").unwrap().delay, Duration::from_millis(100));
    }

    #[test]
    fn verify_takes_a_tcp_port_in_either_form() {
        for text in ["22", "tcp/22", "22:tcp"] {
            let given = parse(&format!("h 1 --verify {text}")).unwrap().verify;

            assert_eq!(given, Some(VerifyPort(NonZeroU16::new(22).unwrap())));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (line, reason) in [
            ("h 1 --verify udp/53", "only TCP"),
            ("h 1 --retry 2", "--verify"),
            ("h 1 --timeout 1s", "--verify"),
            ("h 1 --verify 22 --timeout 0s", "at least 1ms"),
            ("h 1 -4 -6", "cannot be used with"),
            ("h 1 --spa --key k --server s --door d", "cannot be used with"),
            ("h --spa --key k --server s", "--door"),
            ("h 1 --key k", "--spa"),
            ("h --spa --key k --server s --door d --for 1500ms", "whole seconds"),
            ("h --spa --key k --server s --door d --nat --source 192.0.2.1", "cannot be used with"),
            ("h 70000", "1 to 65535"),
            ("", "HOST"),
        ] {
            let message = parse(line).err().unwrap_or_else(|| panic!("`{line}` was taken"));

            assert!(message.contains(reason), "`{line}`: {message}");
        }
    }
}
