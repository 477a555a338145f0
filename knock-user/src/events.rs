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

use crate::{clock, config::spa::LONGEST_WINDOW, generation::address};

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
    /// How far ahead of this machine's clock a single packet was made that is too old or too new; below 0 is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<i64>,
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
            skew_ms: None,
            detail: None,
        }
    }

    /// Returns the line of an event of the kernel, or `None` for a kind that this program does not know. `since` is as in
    /// [`Self::of_event`].
    #[must_use]
    pub fn of_kernel(event: &Event, door: &str, iface: String, since: Option<Timestamp>) -> Option<Self> {
        let kind = Kind::from_number(event.kind)?;
        let name = match kind {
            Kind::Step => Name::Step,
            Kind::Reset => Name::Reset,
            Kind::Promoted => Name::Promoted,
            Kind::TableFull => Name::TableFull,
            Kind::SpaRejected => return Some(Self::of_refusal(event, iface, since)),
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
    fn of_refusal(event: &Event, iface: String, since: Option<Timestamp>) -> Self {
        let refusal = Refusal::from_number(event.reason);
        let reason = refusal.map_or("unknown", Refusal::name);
        let time = clock::wall(event.time_ns);
        let is_by_time = matches!(refusal, Some(Refusal::Stale | Refusal::Future));
        // The kernel tells the packet's own time there.
        let made =
            is_by_time.then(|| Timestamp::from_nanosecond(event.until_ns.into()).unwrap_or(Timestamp::MAX));
        let detail = match (made, refusal) {
            (Some(made), _) => format!("{reason}: {}; {}", skew(made, time), remedy(made, time, since)),
            (None, Some(Refusal::NoClock)) => {
                format!("{reason}: no daemon has told the kernel the time of late: start it")
            }
            (None, _) => reason.to_owned(),
        };
        Self {
            source: Some(address(&event.source)),
            iface: Some(iface),
            skew_ms: made
                .map(|made| i64::try_from(made.duration_since(time).as_millis()).unwrap_or(i64::MAX)),
            detail: Some(detail),
            ..Self::new(time, Name::SpaRejected)
        }
    }

    /// Returns the line of an event of the kernel, with doors named by their ids; `since` is since when it is known which
    /// single packets were accepted.
    #[must_use]
    pub fn of_event(
        event: &Event,
        door_names: &BTreeMap<u64, String>,
        since: Option<Timestamp>,
    ) -> Option<Self> {
        let iface = if_indextoname(event.interface)
            .map_or_else(|_| format!("if{}", event.interface), |name| name.to_string_lossy().into_owned());
        let unknown = || format!("#{:x}", event.door);
        Self::of_kernel(event, &door_names.get(&event.door).cloned().unwrap_or_else(unknown), iface, since)
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
fn skew(made: Timestamp, here: Timestamp) -> String {
    let apart = made.duration_since(here);
    let which = if apart.is_negative() { "behind" } else { "ahead of" };
    let apart = humantime::format_duration(Duration::from_secs(apart.as_secs().unsigned_abs()));
    format!("its time is {apart} {which} this machine's")
}

/// Returns what to do about a packet that is too old or too new: of a clock that no window allows for, set it.
fn remedy(made: Timestamp, here: Timestamp, since: Option<Timestamp>) -> String {
    let is_near = made.duration_since(here).unsigned_abs() <= LONGEST_WINDOW;
    match since.filter(|since| is_near && made < *since) {
        Some(since) => format!(
            "which packets were accepted that were made before {} is not known: send another then",
            since.strftime("%Y-%m-%d %H:%M:%S UTC")
        ),
        None => "set the client's clock, or this machine's".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use jiff::SignedDuration;

    use super::*;
    use crate::clock::Moment;

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

    #[test]
    fn a_packet_of_another_time_is_told_with_how_far_it_is_and_what_to_do() {
        let now = Moment::now();
        let made =
            |ahead_ms: i64| now.wall.checked_add(SignedDuration::from_millis(ahead_ms)).expect("a time");
        let (before, after) = (Some(made(-100_000)), Some(made(5000)));
        // Half a second more than is told: the two clocks are read one after the other.
        for (refusal, ahead_ms, since, told) in [
            (
                Refusal::Future,
                3_602_500,
                before,
                "future: its time is 1h 2s ahead of this machine's; set the client's",
            ),
            (
                Refusal::Stale,
                -86_401_500,
                None,
                "stale: its time is 1day 1s behind this machine's; set the client's",
            ),
            (
                Refusal::Stale,
                -60_500,
                before,
                "stale: its time is 1m behind this machine's; set the client's",
            ),
            (
                Refusal::Stale,
                2500,
                after,
                "stale: its time is 2s ahead of this machine's; which packets were accepted",
            ),
        ] {
            let event = Event {
                time_ns: now.ns,
                kind: Kind::SpaRejected as u8,
                reason: refusal.number(),
                until_ns: u64::try_from(made(ahead_ms).as_nanosecond()).expect("after 1970"),
                ..Zeroable::zeroed()
            };

            let line = Line::of_kernel(&event, "", "eth0".to_owned(), since).expect("a known kind");

            let apart_ms = line.skew_ms.expect("a skew") - ahead_ms;
            assert!(apart_ms.abs() < 400 && plain(&line).contains(told), "{apart_ms}: {}", plain(&line));
            assert!(line.json().contains("\"skew_ms\":") && line.json().contains(told), "{}", line.json());
        }
    }
}
