//! One run of a hook: the program, its arguments and its environment.

use std::{fmt, path::PathBuf, process::Stdio};

use tokio::process::Command;

use super::user::Identity;
use crate::{
    config::{Argv, Fact},
    events::{Line, rfc3339},
};

/// Where a hook looks for programs of its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One run of a hook.
#[derive(Clone, Debug)]
pub(super) struct Job {
    program: PathBuf,
    arguments: Vec<String>,
    environment: [(&'static str, String); 7],
    door: Option<String>,
}

impl Job {
    pub(super) fn new(argv: &Argv, line: &Line) -> Self {
        let fact = |fact| of_line(line, fact);
        Self {
            program: argv.program().to_owned(),
            arguments: argv.arguments(fact),
            environment: [
                ("XDP_KNOCK_EVENT", fact(Fact::Event)),
                ("XDP_KNOCK_SOURCE", fact(Fact::Source)),
                ("XDP_KNOCK_DOOR", fact(Fact::Door)),
                ("XDP_KNOCK_VIA", fact(Fact::Via)),
                ("XDP_KNOCK_EXPIRES", fact(Fact::Expires)),
                ("XDP_KNOCK_IFACE", fact(Fact::Iface)),
                ("XDP_KNOCK_TIME", rfc3339(&line.time)),
            ],
            door: line.door.clone(),
        }
    }

    /// The command. Its standard error is that of the daemon, so that a hook can say why it fails.
    pub(super) fn command(&self, identity: &Identity) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        identity.apply(&mut command);
        command
    }
}

fn of_line(line: &Line, fact: Fact) -> String {
    match fact {
        Fact::Door => line.door.clone().unwrap_or_default(),
        Fact::Source => line.source.map(|source| source.to_string()).unwrap_or_default(),
        Fact::Event => line.event.word().to_owned(),
        Fact::Via => line.via.clone().unwrap_or_default(),
        Fact::Expires => line.expires.as_ref().map(rfc3339).unwrap_or_default(),
        Fact::Iface => line.iface.clone().unwrap_or_default(),
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        match &self.door {
            Some(door) => write!(f, " (door {door})"),
            None => Ok(()),
        }
    }
}
