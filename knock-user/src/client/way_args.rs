//! The options that say how a door is opened, where a sequence of steps or a profile does not.

use std::{net::IpAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use crate::{rotating::PortRange, secret::Place};

/// The options of each way to open a door.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WayArgs {
    /// Send one packet that proves who you are.
    #[arg(long, group = "way", requires_all = ["key", "server", "door"])]
    pub spa: bool,

    /// Send the sequence that the secret makes of the time.
    #[arg(long, group = "way", requires_all = ["key", "door", "steps", "every", "ports"])]
    pub rotate: bool,

    /// Send the first line of this file that is not used, and mark it as used.
    #[arg(long, group = "way", value_name = "FILE")]
    pub list: Option<PathBuf>,

    /// The secret, for --spa and --rotate: a file that you alone can read, `fd:N`, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub key: Option<Place>,

    /// What the server calls the door, for --spa and --rotate.
    #[arg(long, value_name = "NAME")]
    pub door: Option<String>,

    /// --spa: the name that the server is configured with ([spa] identity).
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,

    /// --spa: the UDP port that the door listens on; 62201 if left out.
    #[arg(long, value_name = "PORT")]
    pub port: Option<NonZeroU16>,

    /// --spa: how long to be let in, if not as long as the door gives; the server may have a limit.
    #[arg(long = "for", value_name = "DUR", value_parser = seconds)]
    pub open_for: Option<Duration>,

    /// --spa: your address as the server sees it; this machine's own if that is a public one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "nat")]
    pub source: Option<IpAddr>,

    /// --spa: let in whoever the packet comes from, as behind a NAT; the key must be allowed to ask for that.
    #[arg(long)]
    pub nat: bool,

    /// --rotate: how many steps a sequence has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub steps: Option<u8>,

    /// --rotate: how long a time step is.
    #[arg(long, value_name = "DUR", value_parser = seconds)]
    pub every: Option<Duration>,

    /// --rotate: the ports that steps are drawn from, as 10000-32767.
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: Option<PortRange>,
}

/// Whole seconds are what a packet has room for, and what a time step is counted in.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.as_secs() == 0 || duration.subsec_nanos() != 0 || u32::try_from(duration.as_secs()).is_err() {
        return Err("give whole seconds, from 1s on".to_owned());
    }
    Ok(duration)
}
