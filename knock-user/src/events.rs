//! The event stream as people and programs read it: one line an event, aligned text or JSON.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use knock_common::{
    event::{Event, Kind, Via},
    spa::verdict::Refusal,
};
use nix::net::if_::if_indextoname;
use serde::{Deserialize, Serialize, Serializer};

use crate::{clock, generation::address};

/// What happened. The names are the words of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A grant ended by itself.
    Expired,
    /// A grant was ended by hand.
    Revoked,
    /// A source was banned.
    Banned,
    /// A ban was lifted, or ended by itself.
    Unbanned,
    /// Another configuration is in use.
    Reloaded,
    /// A promotion was refused for want of room.
    TableFull,
    /// A single packet was refused.
    SpaRejected,
    /// A sequence was completed that had been used before.
    Spent,
    /// Events were left out or lost.
    Lost,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Attached,
        Self::Detached,
        Self::Reloaded,
        Self::Step,
        Self::Reset,
        Self::Promoted,
        Self::Expired,
        Self::Revoked,
        Self::Banned,
        Self::Unbanned,
        Self::TableFull,
        Self::SpaRejected,
        Self::Spent,
        Self::Lost,
    ];

    /// The word of the event stream.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Reloaded => "reloaded",
            Self::Step => "step",
            Self::Reset => "reset",
            Self::Promoted => "promoted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Banned => "banned",
            Self::Unbanned => "unbanned",
            Self::TableFull => "table_full",
            Self::SpaRejected => "spa_rejected",
            Self::Spent => "spent",
            Self::Lost => "lost",
        }
    }
}

/// One line of the event stream; fields that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default = "Line::nothing")]
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
    pub via: Option<String>,
    /// The interface's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// How the interface is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<String>,
    /// The gate's mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When the grant or ban ends; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "milliseconds_if_any")]
    pub expires: Option<Timestamp>,
    /// Events left out by the cap on what strangers can cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capped: Option<u64>,
    /// Events lost because the ring buffer was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrun: Option<u64>,
    /// Events that this reader of the stream was too slow for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// What there is to say in words: why, or what has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A time as RFC 3339 in UTC; finer than a millisecond, wall time derived from the kernel's clock would only pretend.
#[must_use]
pub fn rfc3339(time: &Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// As [`rfc3339`].
pub(crate) fn milliseconds<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(time))
}

/// As [`milliseconds`], for a time that may not be.
pub(crate) fn milliseconds_if_any<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, to),
        None => to.serialize_none(),
    }
}

impl Line {
    /// What fields are that a line from elsewhere leaves out.
    fn nothing() -> Self {
        Self::new(Timestamp::UNIX_EPOCH, Name::Lost)
    }

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
            missed: None,
            detail: None,
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
            Kind::SpaRejected => return Some(Self::of_refusal(event, iface)),
            Kind::Spent => Name::Spent,
        };
        let is_grant = matches!(kind, Kind::Promoted | Kind::TableFull | Kind::Spent);
        Some(Self {
            source: Some(address(&event.source)),
            door: Some(door.to_owned()),
            step: (event.via != Via::Spa as u8).then_some(event.step),
            via: if is_grant { Via::from_number(event.via).map(|via| via.name().to_owned()) } else { None },
            iface: Some(iface),
            expires: clock::wall_end(event.until_ns),
            ..Self::new(clock::wall(event.time_ns), name)
        })
    }

    /// Returns the line of a single packet that was refused.
    fn of_refusal(event: &Event, iface: String) -> Self {
        let refusal = Refusal::from_number(event.reason);
        let reason = refusal.map_or("unknown", Refusal::name);
        let detail = match refusal {
            Some(Refusal::Stale | Refusal::Future) => format!("{reason}: {}", skew(event)),
            Some(Refusal::NoClock) => format!("{reason}: no daemon has told the kernel the time of late"),
            _ => reason.to_owned(),
        };
        Self {
            source: Some(address(&event.source)),
            iface: Some(iface),
            detail: Some(detail),
            ..Self::new(clock::wall(event.time_ns), Name::SpaRejected)
        }
    }

    /// Returns the line of an event of the kernel, with doors named by their ids.
    #[must_use]
    pub fn of_event(event: &Event, door_names: &BTreeMap<u64, String>) -> Option<Self> {
        let iface = if_indextoname(event.interface)
            .map_or_else(|_| format!("if{}", event.interface), |name| name.to_string_lossy().into_owned());
        let unknown = || format!("#{:x}", event.door);
        Self::of_kernel(event, &door_names.get(&event.door).cloned().unwrap_or_else(unknown), iface)
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
        let event = self.event.word();
        let who =
            self.source.map_or_else(|| self.iface.clone().unwrap_or_default(), |source| source.to_string());
        let door = self.door.clone().unwrap_or_default();
        let line = format!("{time}  {style}{event:<12}{style:#}  {who:<39}  {door:<12}  {}", self.rest());
        line.trim_end().to_owned()
    }

    fn style(&self) -> Style {
        match self.event {
            Name::Promoted => AnsiColor::Green.on_default().bold(),
            Name::TableFull | Name::Lost | Name::Banned => AnsiColor::Red.on_default().bold(),
            Name::Reset | Name::SpaRejected | Name::Spent => AnsiColor::Yellow.on_default(),
            Name::Attached
            | Name::Detached
            | Name::Step
            | Name::Expired
            | Name::Revoked
            | Name::Unbanned
            | Name::Reloaded => Style::new(),
        }
    }

    /// Returns the line as a sentence without a time, for logs that have their own.
    #[must_use]
    pub fn sentence(&self) -> String {
        let who = self.source.map(|source| source.to_string()).or_else(|| self.iface.clone());
        let door = self.door.as_ref().map(|door| format!("at door {door}"));
        let words = [Some(self.event.word().to_owned()), who, door];
        let head = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let rest = self.rest();
        if rest.is_empty() { head } else { format!("{head}: {rest}") }
    }

    fn rest(&self) -> String {
        match self.event {
            Name::Attached => {
                format!(
                    "{}, mode {}",
                    self.attach.as_deref().unwrap_or_default(),
                    self.mode.as_deref().unwrap_or_default()
                )
            }
            Name::Detached
            | Name::Expired
            | Name::Revoked
            | Name::Unbanned
            | Name::Reloaded
            | Name::SpaRejected => self.detail.clone().unwrap_or_default(),
            Name::Step => format!("step {}", self.step.unwrap_or_default()),
            Name::Reset => format!("wrong knock after step {}", self.step.unwrap_or_default()),
            Name::Promoted => format!("open until {}", self.until()),
            Name::Banned => {
                let why = self.detail.as_ref().map_or(String::new(), |why| format!(": {why}"));
                format!("until {}{why}", self.until())
            }
            Name::TableFull => "refused: no room for the grant".to_owned(),
            Name::Spent => "refused: this sequence has been used".to_owned(),
            Name::Lost => self.losses(),
        }
    }

    fn losses(&self) -> String {
        let counts = [
            (self.capped, "left out by the cap"),
            (self.overrun, "lost to a full ring"),
            (self.missed, "missed by this reader, who is too slow"),
        ];
        let told = counts.iter().filter_map(|(count, words)| count.map(|count| format!("{count} {words}")));
        told.collect::<Vec<_>>().join(", ")
    }

    /// When the grant or ban ends; one without an end is ended by hand.
    fn until(&self) -> String {
        let by_hand = if self.event == Name::Banned { "unbanned" } else { "revoked" };
        self.expires.map_or(by_hand.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
    }
}

/// Returns in words how far the time of a packet was from this machine's.
fn skew(event: &Event) -> String {
    let here_ns = clock::wall(event.time_ns).as_nanosecond();
    let apart_ns = i128::from(event.until_ns) - here_ns;
    let apart =
        Duration::from_secs(u64::try_from(apart_ns.unsigned_abs() / 1_000_000_000).unwrap_or(u64::MAX));
    let which = if apart_ns < 0 { "behind" } else { "ahead of" };
    format!("its time is {} {which} this machine's", humantime::format_duration(apart))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn plain(line: &Line) -> String {
        anstream::adapter::strip_str(&line.text()).to_string()
    }

    fn line(event: Name) -> Line {
        Line {
            source: Some("203.0.113.9".parse().expect("an address")),
            door: Some("ssh".to_owned()),
            ..Line::new(at("2026-01-02T03:04:05.6789Z"), event)
        }
    }

    #[test]
    fn every_kind_has_one_word_in_text_and_json() {
        for event in Name::ALL {
            let json: serde_json::Value = serde_json::from_str(&line(event).json()).expect("JSON");

            assert_eq!(json["event"], event.word());
            assert_eq!(plain(&line(event)).split_whitespace().nth(1), Some(event.word()));
        }
    }

    #[test]
    fn a_sentence_has_no_time_and_no_gaps() {
        let attached = Line {
            iface: Some("eth0".to_owned()),
            attach: Some("native".to_owned()),
            mode: Some("guard".to_owned()),
            ..Line::new(at("2026-01-02T03:04:05Z"), Name::Attached)
        };

        assert_eq!(attached.sentence(), "attached eth0: native, mode guard");
        assert_eq!(line(Name::Promoted).sentence(), "promoted 203.0.113.9 at door ssh: open until revoked");
        assert_eq!(line(Name::Expired).sentence(), "expired 203.0.113.9 at door ssh");
    }

    #[test]
    fn a_grant_or_ban_without_an_end_says_what_ends_it() {
        let ended = Some(at("2026-01-09T03:04:05Z"));
        for (event, expires, rest) in [
            (Name::Promoted, ended, "open until 2026-01-09 03:04:05 UTC"),
            (Name::Promoted, None, "open until revoked"),
            (Name::Banned, ended, "until 2026-01-09 03:04:05 UTC"),
            (Name::Banned, None, "until unbanned"),
        ] {
            let shown = plain(&Line { expires, ..line(event) });
            assert!(shown.ends_with(&format!("ssh           {rest}")), "{shown}");
        }
        let why = Line { detail: Some("trap tcp/23".to_owned()), ..line(Name::Banned) };
        assert!(plain(&why).ends_with("until unbanned: trap tcp/23"), "{}", plain(&why));
    }

    #[test]
    fn the_detail_of_a_reload_is_in_both_forms() {
        let reloaded = Line { detail: Some("doors +vpn -web".to_owned()), ..line(Name::Reloaded) };

        assert!(plain(&reloaded).ends_with("doors +vpn -web"), "{}", plain(&reloaded));
        assert!(reloaded.json().contains(r#""detail":"doors +vpn -web""#), "{}", reloaded.json());
        assert!(!line(Name::Expired).json().contains("detail"), "what does not apply is left out");
    }
}
