//! One line of what the doctor says.

use anstyle::Style;
use serde::Serialize;

use crate::report::text::{BAD, DOUBTFUL, GOOD};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warn,
    /// The gate does not work, or not on this interface.
    Fail,
    /// It could not be looked at.
    Unseen,
}

/// What was found at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `kernel`, `bpffs`, an interface's name.
    pub topic: String,
    /// What was found, in a sentence.
    pub what: String,
    /// What to do about it: a command, or a few words; `None` where nothing need be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(topic: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, topic: topic.into(), what: what.into(), remedy: None }
    }

    /// It works, but not as well as it could.
    pub fn warn(topic: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(topic, what) }
    }

    /// It does not work.
    pub fn fail(topic: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(topic, what) }
    }

    /// It could not be looked at.
    pub fn unseen(topic: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Unseen, remedy: Some(remedy.into()), ..Self::ok(topic, what) }
    }

    /// Returns it as a line for people.
    pub fn line(&self) -> String {
        let (word, style) = match self.level {
            Level::Ok => ("ok", GOOD),
            Level::Warn => ("warn", DOUBTFUL),
            Level::Fail => ("fail", BAD),
            Level::Unseen => ("unseen", Style::new()),
        };
        let remedy = self.remedy.as_ref().map(|remedy| format!("  -> {remedy}")).unwrap_or_default();
        format!("{style}{word:<6}{style:#}  {}: {}{remedy}\n", self.topic, self.what)
    }
}
