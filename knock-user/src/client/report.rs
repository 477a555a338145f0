//! What `knock` says: results on stdout (text, or one JSON object), the rest on stderr. A failed write is not
//! an error: `xdp-knock knock ... | head` ends quietly, and the exit status still tells.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    net::SocketAddr,
    num::NonZeroU16,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{
    Args, Exit, address::shown, hint::hint, send::Answer, sequence::Broken, source::LetsIn, verify::Probe,
    way::Way,
};
use crate::step::Step;

/// What one address got, and whether its door is open.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) to: SocketAddr,
    pub(super) steps: Vec<Step>,
    /// Whom a single packet lets in, where one was sent.
    pub(super) lets_in: Option<LetsIn>,
    pub(super) broken: Option<Broken>,
    pub(super) door: Option<(NonZeroU16, Probe)>,
}

impl Outcome {
    pub(super) const fn new(to: SocketAddr, steps: Vec<Step>, broken: Option<Broken>) -> Self {
        Self { to, steps, lets_in: None, broken, door: None }
    }

    /// Returns whether anything left this machine.
    pub(super) fn is_sent(&self) -> bool {
        self.broken.as_ref().is_none_or(|broken| broken.sent > 0)
    }

    fn sent(&self) -> impl Iterator<Item = String> {
        let count = self.broken.as_ref().map_or(self.steps.len(), |broken| broken.sent);
        self.steps.iter().take(count).map(Step::to_string)
    }
}

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const AID: Style = AnsiColor::Cyan.on_default().bold();

/// Where the lines go, as the options and the terminal have it.
#[derive(Debug)]
pub(super) struct Console {
    /// Result lines as text.
    results: bool,
    /// One line a knock.
    verbose: bool,
    /// What is going on, for somebody who waits.
    progress: bool,
    /// What to look at when the door stays shut.
    hints: bool,
}

impl Console {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            results: !args.quiet && !args.json,
            verbose: args.verbose,
            progress: !args.quiet && std::io::stderr().is_terminal(),
            hints: !args.quiet,
        }
    }

    pub(super) fn error(&self, text: &str) {
        to_stderr(format_args!("{BAD}error:{BAD:#} {text}"));
    }

    /// What is doubtful about the profile.
    pub(super) fn warn(&self, text: &str) {
        if self.hints {
            to_stderr(text);
        }
    }

    /// After each knock.
    pub(super) fn knocked(&self, to: SocketAddr, step: Step, answer: &Answer) {
        if self.verbose {
            to_stderr(format_args!("{}: {step} sent{}", shown(&to), describe(answer)));
        }
    }

    /// After each address.
    pub(super) fn sent(&self, outcome: &Outcome) {
        let to = shown(&outcome.to);
        let Some(Broken { sent, cause }) = &outcome.broken else {
            let steps = outcome.sent().collect::<Vec<_>>().join(" ");
            let lets_in = outcome.lets_in.map_or(String::new(), |whom| format!(" ({whom})"));
            return self.result(format_args!("knocked {to}: {steps}{lets_in}"));
        };
        if outcome.steps.is_empty() {
            return self.error(&format!("{to}: {cause}"));
        }
        self.error(&format!("{cause} (step {} of {})", sent + 1, outcome.steps.len()));
    }

    /// After each try of a door.
    pub(super) fn tried(&self, to: SocketAddr, port: NonZeroU16, probe: &Probe) {
        let to = shown(&to);
        let why = match probe {
            Probe::Open => return self.result(format_args!("{to}: tcp/{port} is {GOOD}open{GOOD:#}")),
            Probe::Refused => "connection refused".to_owned(),
            Probe::Silent(waited) => format!("no answer in {}", humantime::format_duration(*waited)),
            Probe::Failed(error) => error.to_string(),
        };
        self.result(format_args!("{to}: tcp/{port} is {BAD}still shut{BAD:#}: {why}"));
    }

    /// Before a sequence is sent again.
    pub(super) fn retrying(&self, next: u32, retries: u32, pause: Duration) {
        if self.progress || self.verbose {
            let pause = humantime::format_duration(pause);
            to_stderr(format_args!("knocking again in {pause} (retry {next} of {retries})"));
        }
    }

    /// Before the time step of a sequence that is not used.
    pub(super) fn waiting(&self, wait: Duration) {
        if self.progress || self.verbose {
            to_stderr(format_args!("waiting {}s for the next time step", wait.as_secs() + 1));
        }
    }

    /// What is shown instead of sent.
    pub(super) fn dry(&self, text: &str) {
        let _ = writeln!(anstream::stdout(), "{text}");
    }

    /// At the end.
    pub(super) fn finish(&self, args: &Args, way: &Way, outcomes: &[Outcome], tries: u32, exit: Exit) {
        if args.json {
            let summary = Summary::new(&args.host, outcomes, tries, exit);
            let line = serde_json::to_string(&summary).expect("strings and numbers only");
            let _ = writeln!(anstream::stdout(), "{line}");
        }
        let door = outcomes.iter().find_map(|outcome| outcome.door.as_ref());
        if let (true, Exit::StillShut, Some(door)) = (self.hints, exit, door) {
            let (first, causes) = hint(way, door);
            to_stderr(format_args!("{AID}hint:{AID:#} {first}"));
            causes.iter().for_each(|cause| to_stderr(format_args!("  - {cause}")));
        }
    }

    fn result(&self, text: impl Display) {
        if self.results {
            let _ = writeln!(anstream::stdout(), "{text}");
        }
    }
}

fn to_stderr(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::NotAwaited => String::new(),
        Answer::Silence => ", no answer".to_owned(),
        Answer::Refused => ", refused as by any closed port".to_owned(),
        Answer::Accepted => ", and a listener took the connection: is this a port for knocks?".to_owned(),
        Answer::Rejected(error) => format!(", and the network answered: {error}"),
    }
}

/// The result as `--json` prints it. Fields are only ever added while `v` is 1.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    v: u8,
    host: &'a str,
    exit: u8,
    tries: u32,
    addresses: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    address: String,
    knocked: Vec<String>,
    lets_in: Option<String>,
    error: Option<String>,
    verify: Option<Verified>,
}

#[derive(Debug, Serialize)]
struct Verified {
    service: String,
    state: &'static str,
}

impl<'a> Summary<'a> {
    fn new(host: &'a str, outcomes: &[Outcome], tries: u32, exit: Exit) -> Self {
        let addresses = outcomes.iter().map(Line::new).collect();
        Self { v: 1, host, exit: exit.status(), tries, addresses }
    }
}

impl Line {
    fn new(outcome: &Outcome) -> Self {
        let verify = outcome.door.as_ref().map(|(port, probe)| {
            let state = match probe {
                Probe::Open => "open",
                Probe::Refused => "refused",
                Probe::Silent(_) => "silent",
                Probe::Failed(_) => "unreachable",
            };
            Verified { service: format!("tcp/{port}"), state }
        });
        Self {
            address: shown(&outcome.to),
            knocked: outcome.sent().collect(),
            lets_in: outcome.lets_in.map(|whom| {
                whom.address().map_or_else(|| "sender".to_owned(), |address| address.to_string())
            }),
            error: outcome.broken.as_ref().map(|broken| broken.cause.to_string()),
            verify,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_tells_per_address_what_was_sent_and_what_is_open() {
        let outcome = |to: &str, probe| Outcome {
            to: to.parse().unwrap(),
            steps: vec!["tcp/7000".parse().unwrap(), "icmp/echo?size=9".parse().unwrap()],
            lets_in: None,
            broken: None,
            door: Some((NonZeroU16::new(22).unwrap(), probe)),
        };
        let outcomes = [outcome("192.0.2.7:0", Probe::Open), outcome("[2001:db8::7]:0", Probe::Refused)];

        let json = serde_json::to_string(&Summary::new("box.example", &outcomes, 2, Exit::Done)).unwrap();

        let knocked = r#""knocked":["tcp/7000","icmp/echo?size=9"],"lets_in":null,"error":null"#;
        let expected = format!(
            r#"{{"v":1,"host":"box.example","exit":0,"tries":2,"addresses":[{{"address":"192.0.2.7",{knocked},"verify":{{"service":"tcp/22","state":"open"}}}},{{"address":"2001:db8::7",{knocked},"verify":{{"service":"tcp/22","state":"refused"}}}}]}}"#
        );
        assert_eq!(json, expected);
    }
}
