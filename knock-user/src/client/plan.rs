//! What is to be done: the profile's word, and the command line's where it has another.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use super::{
    Args, Exit, VerifyPort, Word,
    address::{self, Family},
    list::ListError,
    profile::Profile,
    way::{Way, WayError},
    way_args::WayArgs,
};
use crate::{
    config::{
        ConfigError,
        hosts::{self, Host, Rotate, Settings, Spa, Whom},
    },
    rotating::Shape,
};

const DELAY: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(3);

/// All that a knock takes.
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) targets: Vec<SocketAddr>,
    pub(super) delay: Duration,
    pub(super) verify: Option<NonZeroU16>,
    pub(super) timeout: Duration,
    pub(super) retry: u32,
}

/// Why nothing is done, in words, and the exit status.
#[derive(Debug)]
pub(super) struct PlanError {
    pub(super) text: String,
    pub(super) exit: Exit,
}

impl PlanError {
    fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Usage }
    }

    fn failed(error: &impl ToString) -> Self {
        Self { text: error.to_string(), exit: Exit::Failed }
    }
}

impl From<ConfigError> for PlanError {
    fn from(bad: ConfigError) -> Self {
        Self { text: bad.for_stderr().trim_end().to_owned(), exit: Exit::BadProfile }
    }
}

impl From<hosts::ReadError> for PlanError {
    fn from(error: hosts::ReadError) -> Self {
        match error {
            hosts::ReadError::Bad(bad) => bad.into(),
            hosts::ReadError::Io { .. } => Self::failed(&error),
        }
    }
}

impl From<WayError> for PlanError {
    fn from(error: WayError) -> Self {
        match error {
            WayError::List(ListError::Malformed { .. } | ListError::TooLarge { .. }) => {
                Self { text: error.to_string(), exit: Exit::BadProfile }
            }
            WayError::List(_) | WayError::Secret(_) | WayError::SecretItself => Self::failed(&error),
        }
    }
}

impl Plan {
    /// Reads all that it takes; `warn` is given what is doubtful about the profile.
    pub(super) fn new(args: &Args, warn: &mut dyn FnMut(&str)) -> Result<Self, PlanError> {
        let profile = Profile::read(args.profile.as_deref(), warn)?;
        let host = profile.host(&args.host);
        let (way, settings) = choose(args, &profile)?;
        let way = with_options(way, &args.way)?;
        let (verify, retry) = (verify(args, &settings)?, args.retry.or(settings.retry));
        for (given, option) in [(args.retry.is_some(), "--retry"), (args.timeout.is_some(), "--timeout")] {
            if given && verify.is_none() {
                return Err(PlanError::usage(format!("{option} is of use with --verify PORT only")));
            }
        }
        let way = Way::new(way)?;
        let address = host.map_or(args.host.as_str(), |host| &host.address);
        let targets = address::resolve(address, family(args, host));
        Ok(Self {
            way,
            targets: targets.map_err(|error| PlanError::failed(&error))?,
            delay: args.delay.or(settings.delay).unwrap_or(DELAY),
            verify,
            timeout: args.timeout.or(settings.timeout).unwrap_or(TIMEOUT),
            retry: retry.unwrap_or_default(),
        })
    }
}

fn family(args: &Args, host: Option<&Host>) -> Family {
    match (args.ipv4, args.ipv6, host.and_then(|host| host.family)) {
        (true, _, _) | (false, false, Some(hosts::Family::V4)) => Family::V4,
        (false, true, _) | (false, false, Some(hosts::Family::V6)) => Family::V6,
        (false, false, None) => Family::Any,
    }
}

fn verify(args: &Args, settings: &Settings) -> Result<Option<NonZeroU16>, PlanError> {
    match args.verify {
        _ if args.no_verify => Ok(None),
        None => Ok(settings.verify),
        Some(Some(VerifyPort(port))) => Ok(Some(port)),
        Some(None) if settings.verify.is_some() => Ok(settings.verify),
        Some(None) => Err(PlanError::usage(
            "--verify without a port, and the profile names none: give one, as --verify 22",
        )),
    }
}

/// Returns the way that the words or the options name, with what the profile says besides.
fn choose(args: &Args, profile: &Profile) -> Result<(hosts::Way, Settings), PlanError> {
    let host = profile.host(&args.host);
    let settings = || host.map(|host| host.settings.clone()).unwrap_or_default();
    if let Some(way) = of_options(&args.way) {
        return Ok((way, settings()));
    }
    let steps: Option<Vec<_>> = args
        .words
        .iter()
        .map(|word| match word {
            Word::Step(step) => Some(step.resolve(args.udp)),
            Word::Door(_) => None,
        })
        .collect();
    if let Some(steps) = steps.filter(|steps| !steps.is_empty()) {
        return Ok((hosts::Way::Knock(steps), settings()));
    }
    let Some(host) = host else { return Err(PlanError::usage(no_way(args, profile))) };
    let door = door(&args.host, host, &args.words)?;
    Ok((door.way.clone(), door.settings.or(&host.settings)))
}

fn no_way(args: &Args, profile: &Profile) -> String {
    let (host, lacks) = (&args.host, profile.lacks(&args.host));
    let example = format!("`xdp-knock knock {host} tcp/33817 udp/9032 'icmp/echo?size=172'`");
    match args.words.first() {
        Some(Word::Door(door)) => {
            format!("`{door}` is no step, and {lacks}: give the sequence, as in {example}")
        }
        Some(Word::Step(_)) | None => {
            format!("no step to knock on {host}: give the sequence, as in {example} ({lacks})")
        }
    }
}

fn door<'h>(name: &str, host: &'h Host, words: &[Word]) -> Result<&'h hosts::Door, PlanError> {
    let doors = host.doors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut named = words.iter().filter_map(|word| match word {
        Word::Door(door) => Some(door),
        Word::Step(_) => None,
    });
    let found = match (named.next(), words.len()) {
        (Some(door), 1) => host
            .doors
            .get(door)
            .ok_or_else(|| format!("host `{name}` has no door `{door}` in the profile, only {doors}")),
        (Some(door), _) => Err(format!("`{door}` is a door: give one door, or steps alone")),
        (None, _) if doors.is_empty() => {
            Err(format!("host `{name}` has no door in the profile: add one, or give the sequence"))
        }
        (None, _) if host.doors.len() > 1 => {
            Err(format!("host `{name}` has several doors: name one of {doors}"))
        }
        (None, _) => host.doors.values().next().ok_or_else(String::new),
    };
    found.map_err(PlanError::usage)
}

/// Returns the way that options name. The command line has all that it takes, or clap would have refused it.
fn of_options(options: &WayArgs) -> Option<hosts::Way> {
    if let Some(file) = &options.list {
        return Some(hosts::Way::List(file.clone()));
    }
    let (key, door) = (options.key.clone()?, options.door.clone()?);
    if options.spa {
        let server = options.server.clone()?;
        return Some(hosts::Way::Spa(Spa { key, server, door, port: None, whom: None, open_for: None }));
    }
    let shape = Shape { steps: options.steps?, every: options.every?, ports: options.ports? };
    options.rotate.then_some(hosts::Way::Rotate(Rotate { key, door, shape }))
}

/// Puts what options say in the place of what the profile says; an option of another way is an error.
fn with_options(way: hosts::Way, options: &WayArgs) -> Result<hosts::Way, PlanError> {
    let WayArgs { key, door, server, port, open_for, source, nat, steps, every, ports, .. } = options;
    let for_both = [(key.is_some(), "--key"), (door.is_some(), "--door")];
    let for_spa = [
        (server.is_some(), "--server"),
        (port.is_some(), "--port"),
        (open_for.is_some(), "--for"),
        (source.is_some(), "--source"),
        (*nat, "--nat"),
    ];
    let for_rotate =
        [(steps.is_some(), "--steps"), (every.is_some(), "--every"), (ports.is_some(), "--ports")];
    match way {
        hosts::Way::Spa(spa) => {
            none_of(&for_rotate, "--rotate")?;
            Ok(hosts::Way::Spa(spa_with(spa, options)))
        }
        hosts::Way::Rotate(rotate) => {
            none_of(&for_spa, "--spa")?;
            rotate_with(rotate, options).map(hosts::Way::Rotate)
        }
        way @ (hosts::Way::Knock(_) | hosts::Way::List(_)) => {
            none_of(&for_both, "--spa or --rotate")?;
            none_of(&for_spa, "--spa")?;
            none_of(&for_rotate, "--rotate")?;
            Ok(way)
        }
    }
}

fn none_of(options: &[(bool, &str)], whose: &str) -> Result<(), PlanError> {
    match options.iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => Err(PlanError::usage(format!(
            "{option} is of use with {whose} only, or with such a door of the profile"
        ))),
        None => Ok(()),
    }
}

fn spa_with(spa: Spa, options: &WayArgs) -> Spa {
    let named = options.source.map(Whom::Named).or(options.nat.then_some(Whom::Sender));
    let seconds = options.open_for.and_then(|wanted| u32::try_from(wanted.as_secs()).ok());
    Spa {
        key: options.key.clone().unwrap_or(spa.key),
        server: options.server.clone().unwrap_or(spa.server),
        door: options.door.clone().unwrap_or(spa.door),
        port: options.port.or(spa.port),
        whom: named.or(spa.whom),
        open_for: seconds.and_then(NonZeroU32::new).or(spa.open_for),
    }
}

fn rotate_with(rotate: Rotate, options: &WayArgs) -> Result<Rotate, PlanError> {
    let Shape { steps, every, ports } = rotate.shape;
    let shape = Shape {
        steps: options.steps.unwrap_or(steps),
        every: options.every.unwrap_or(every),
        ports: options.ports.unwrap_or(ports),
    };
    if shape.ports.count() < usize::from(shape.steps) {
        return Err(PlanError::usage(
            "--ports has fewer ports than there are steps: each needs one of its own",
        ));
    }
    Ok(Rotate {
        key: options.key.clone().unwrap_or(rotate.key),
        door: options.door.clone().unwrap_or(rotate.door),
        shape,
    })
}

#[cfg(test)]
mod tests;
