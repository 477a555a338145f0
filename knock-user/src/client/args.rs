//! The command line of `knock`. Doc comments here are the text of `--help`.

use std::{num::NonZeroU16, path::PathBuf, str::FromStr, time::Duration};

use super::way_args::WayArgs;
use crate::{
    config::hosts::is_door_name,
    step::{Step, StepError},
};

/// Knock on a host: open a door of the profile, or send a sequence of steps, and optionally see whether it opened.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The profile is ~/.config/xdp-knock/hosts.toml; `xdp-knock keygen` writes stanzas for it. Options beat what it says.
Exit status: 0 done, 1 not sent, 2 usage, 4 the door is still shut (--verify), 78 the profile or list is wrong.

Examples:
  xdp-knock knock home ssh --verify 22 --retry 3
  xdp-knock knock box.example tcp/33817 udp/9032 'icmp/echo?size=172' tcp/51240 --verify 22
  xdp-knock knock box.example --spa --key box.key --server box --door ssh --verify 22
  xdp-knock knock box.example --rotate --key vpn.secret --door vpn --steps 4 --every 30s --ports 10000-32767
  xdp-knock knock box.example 7000 8000:udp 9000 && ssh box.example")]
pub struct Args {
    /// A host of the profile, or a name or address to knock on; a name is knocked on at all its addresses.
    pub host: String,

    /// A door of the profile, or steps in order: tcp/PORT, udp/PORT, icmp/echo[?size=BYTES&id=NUMBER], or
    /// PORT[:tcp|:udp].
    #[arg(value_name = "DOOR|STEP", conflicts_with = "way")]
    pub words: Vec<Word>,

    /// Another way than a sequence of steps.
    #[command(flatten)]
    pub way: WayArgs,

    /// Read this profile instead.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,

    /// Print what would be sent, a packet in hex, and send nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Pause after each knock, so that none overtakes another; a bare number is milliseconds. 100ms if left out.
    #[arg(short, long, value_name = "DUR", value_parser = delay)]
    pub delay: Option<Duration>,

    /// Knock on IPv4 addresses only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Knock on IPv6 addresses only.
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Take steps that name no protocol as UDP instead of TCP.
    #[arg(short, long)]
    pub udp: bool,

    /// After the knock, try to connect to this TCP port and say whether it is open; without PORT, to the profile's.
    #[arg(long, value_name = "PORT", num_args = 0..=1)]
    pub verify: Option<Option<VerifyPort>>,

    /// Do not try, though the profile says so.
    #[arg(long, conflicts_with = "verify")]
    pub no_verify: bool,

    /// How long --verify waits for an answer. 3s if left out.
    #[arg(long, value_name = "DUR", value_parser = timeout)]
    pub timeout: Option<Duration>,

    /// Knock again up to N times, with growing pauses, while --verify finds the door shut.
    #[arg(long, value_name = "N")]
    pub retry: Option<u32>,

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

/// A step on the command line, which remembers whether it named its protocol (`--udp` fills that in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepArg {
    step: Step,
    names_protocol: bool,
}

impl StepArg {
    /// Returns the step; one that names no protocol is of TCP unless told otherwise.
    #[must_use]
    pub fn resolve(self, bare_is_udp: bool) -> Step {
        match self.step {
            Step::Tcp(port) if bare_is_udp && !self.names_protocol => Step::Udp(port),
            step @ (Step::Tcp(_) | Step::Udp(_) | Step::Icmp { .. }) => step,
        }
    }
}

/// A word behind the host: what it says tells which of both it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A step.
    Step(StepArg),
    /// The name of a door.
    Door(String),
}

impl FromStr for Word {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        if is_door_name(text) {
            return Ok(Self::Door(text.to_owned()));
        }
        Ok(Self::Step(StepArg { step: text.parse()?, names_protocol: text.contains(['/', ':']) }))
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
    use super::*;
    use crate::client::tests::parse;

    #[test]
    fn a_word_is_a_step_or_a_door() {
        let words = parse("h ssh 7000 tcp/1 9000:udp a-1 22").unwrap().words;
        let is_door: Vec<_> = words.iter().map(|word| matches!(word, Word::Door(_))).collect();

        assert_eq!(is_door, [true, false, false, false, true, false]);
    }

    #[test]
    fn a_bare_delay_is_milliseconds_as_in_the_stock_client() {
        assert_eq!(parse("h 1 -d 250").unwrap().delay, Some(Duration::from_millis(250)));
        assert_eq!(parse("h 1 -d 2s").unwrap().delay, Some(Duration::from_secs(2)));
    }

    #[test]
    fn verify_takes_a_tcp_port_in_either_form_or_none() {
        for text in ["22", "tcp/22", "22:tcp"] {
            let given = parse(&format!("h 1 --verify {text}")).unwrap().verify;

            assert_eq!(given, Some(Some(VerifyPort(NonZeroU16::new(22).unwrap()))));
        }
        assert_eq!(parse("h ssh --verify").unwrap().verify, Some(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (line, reason) in [
            ("h 1 --verify udp/53", "only TCP"),
            ("h 1 --verify 22 --timeout 0s", "at least 1ms"),
            ("h 1 --verify 22 --no-verify", "cannot be used with"),
            ("h 1 -4 -6", "cannot be used with"),
            ("h 1 --spa --key k --server s --door d", "cannot be used with"),
            ("h ssh --list f", "cannot be used with"),
            ("h --list f --spa --key k --server s --door d", "cannot be used with"),
            ("h --spa --key k --server s", "--door"),
            ("h --rotate --key k --door d --steps 4 --every 30s", "--ports"),
            ("h --rotate --key k --door d --steps 17 --every 30s --ports 1-9", "17"),
            ("h --rotate --key k --door d --steps 4 --every 30s --ports 9-1", "no range of ports"),
            ("h --rotate --key k --door d --steps 4 --every 100ms --ports 1-9", "whole seconds"),
            ("h --spa --key k --server s --door d --for 1500ms", "whole seconds"),
            ("h --spa --key k --server s --door d --nat --source 192.0.2.1", "cannot be used with"),
            ("h 70000", "1 to 65535"),
            ("h SSH", "not a port"),
            ("", "HOST"),
        ] {
            let message = parse(line).err().unwrap_or_else(|| panic!("`{line}` was taken"));

            assert!(message.contains(reason), "`{line}`: {message}");
        }
    }
}
