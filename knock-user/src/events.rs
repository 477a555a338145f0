//! The event stream as people and programs read it: one line an event, aligned text or JSON.

use std::net::IpAddr;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use knock_common::event::{Event, Kind, Via};
use serde::{Serialize, Serializer};

use crate::{clock, generation::address};

/// What happened. The names are the words of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The program was put on an interface.
    Attached,
    /// It was taken off.
    Detached,
    /// A step was accepted.
    Step,
    /// A wrong knock ended an attempt.
    Reset,
    /// A source may pass a door.
    Promoted,
    /// A grant ended.
    Expired,
    /// A promotion was refused for want of room.
    TableFull,
    /// Events were left out or lost.
    Lost,
}

/// One line of the event stream; fields that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When.
    #[serde(serialize_with = "milliseconds")]
    pub time: Timestamp,
    /// What.
    pub event: Name,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The door's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// Steps accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u8>,
    /// How a grant came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<&'static str>,
    /// The interface's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// How the interface is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<String>,
    /// The gate's mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// When the grant ends.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
    /// Events left out by the cap on what strangers can cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capped: Option<u64>,
    /// Events lost because the ring buffer was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrun: Option<u64>,
}

/// RFC 3339 in UTC; finer than a millisecond, wall time derived from the kernel's clock would only pretend.
fn milliseconds<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
}

fn milliseconds_if_any<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, to),
        None => to.serialize_none(),
    }
}

impl Line {
    /// Returns a line with a time and a name alone.
    #[must_use]
    pub fn new(time: Timestamp, event: Name) -> Self {
        Self {
            time,
            event,
            source: None,
            door: None,
            step: None,
            via: None,
            iface: None,
            attach: None,
            mode: None,
            expires: None,
            capped: None,
            overrun: None,
        }
    }

    /// Returns the line of an event of the kernel, or `None` for a kind that this program does not know.
    #[must_use]
    pub fn of_kernel(event: &Event, door: &str, iface: String) -> Option<Self> {
        let kind = Kind::from_number(event.kind)?;
        let name = match kind {
            Kind::Step => Name::Step,
            Kind::Reset => Name::Reset,
            Kind::Promoted => Name::Promoted,
            Kind::TableFull => Name::TableFull,
        };
        let is_grant = matches!(kind, Kind::Promoted | Kind::TableFull);
        Some(Self {
            source: Some(address(&event.source)),
            door: Some(door.to_owned()),
            step: Some(event.step),
            via: if is_grant { Via::from_number(event.via).map(Via::name) } else { None },
            iface: Some(iface),
            expires: (event.until_ns != 0).then(|| clock::wall(event.until_ns)),
            ..Self::new(clock::wall(event.time_ns), name)
        })
    }

    /// Returns the line as one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain fields always serialise")
    }

    /// Returns the line as text: time, event, who, door, and the rest in words.
    #[must_use]
    pub fn text(&self) -> String {
        let time = self.time.strftime("%H:%M:%S%.3f");
        let style = self.style();
        let event = self.word();
        let who =
            self.source.map_or_else(|| self.iface.clone().unwrap_or_default(), |source| source.to_string());
        let door = self.door.clone().unwrap_or_default();
        let line = format!("{time}  {style}{event:<10}{style:#}  {who:<39}  {door:<12}  {}", self.rest());
        line.trim_end().to_owned()
    }

    fn word(&self) -> &'static str {
        match self.event {
            Name::Attached => "attached",
            Name::Detached => "detached",
            Name::Step => "step",
            Name::Reset => "reset",
            Name::Promoted => "promoted",
            Name::Expired => "expired",
            Name::TableFull => "table_full",
            Name::Lost => "lost",
        }
    }

    fn style(&self) -> Style {
        match self.event {
            Name::Promoted => AnsiColor::Green.on_default().bold(),
            Name::TableFull | Name::Lost => AnsiColor::Red.on_default().bold(),
            Name::Reset => AnsiColor::Yellow.on_default(),
            Name::Attached | Name::Detached | Name::Step | Name::Expired => Style::new(),
        }
    }

    fn rest(&self) -> String {
        match self.event {
            Name::Attached => {
                format!(
                    "{}, mode {}",
                    self.attach.as_deref().unwrap_or_default(),
                    self.mode.unwrap_or_default()
                )
            }
            Name::Detached | Name::Expired => String::new(),
            Name::Step => format!("step {}", self.step.unwrap_or_default()),
            Name::Reset => format!("wrong knock after step {}", self.step.unwrap_or_default()),
            Name::Promoted => {
                let until = self.expires.map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
                format!("open until {}", until.unwrap_or_default())
            }
            Name::TableFull => "refused: no room for the grant".to_owned(),
            Name::Lost => format!(
                "{} left out by the cap, {} lost to a full ring",
                self.capped.unwrap_or_default(),
                self.overrun.unwrap_or_default()
            ),
        }
    }
}
