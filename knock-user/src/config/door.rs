//! The `[[door]]` tables.

use std::{ops::Range, path::Path, time::Duration};

use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    Door, MAX_STEPS, SessionRule, list,
    problem::Findings,
    rotate,
    section::{DurationKey, Section},
    show_duration, spa,
    spelling::DOOR_KEYS,
};
use crate::{service::Service, step::Step};

const MAX_NAME: usize = 31;
const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(30);
const DEFAULT_ATTEMPTS: u32 = 10_000;
const MAX_ATTEMPTS: u32 = 1_000_000;

/// The shortest is what a person's tools can keep; the longest already leaves an attempt open for minutes.
const STEP_TIMEOUT: DurationKey = DurationKey {
    name: "step_timeout",
    min: Duration::from_millis(100),
    max: Duration::from_secs(600),
    examples: "\"500ms\", \"5s\" or \"1m\"",
};
const TOTAL_TIMEOUT: DurationKey = DurationKey {
    name: "total_timeout",
    min: Duration::from_millis(100),
    max: Duration::from_secs(3600),
    examples: "\"15s\", \"3m\" or \"1m30s\"",
};
const OPEN_FOR: DurationKey = DurationKey {
    name: "open_for",
    min: Duration::from_secs(1),
    max: Duration::from_secs(365 * 24 * 3600),
    examples: "\"30s\", \"1h30m\" or \"7d\"",
};

/// A door as read, with the places of its values; None where a value is absent or wrong.
pub(super) struct Draft {
    pub(super) title: String,
    /// The header, for what the door lacks.
    pub(super) span: Range<usize>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) opens: Vec<Spanned<Service>>,
    pub(super) knock: Vec<Spanned<Step>>,
    /// The whole list of steps.
    pub(super) knock_span: Range<usize>,
    pub(super) open_for: Option<Spanned<Duration>>,
    pub(super) from: Vec<Spanned<IpNet>>,
    pub(super) to: Vec<Spanned<IpNet>>,
    pub(super) sessions: SessionRule,
    /// Where `sessions` stands, or the header.
    pub(super) sessions_span: Range<usize>,
    pub(super) allow_weak: bool,
    /// How single packets open it, if they do.
    pub(super) spa: Option<spa::DoorDraft>,
    /// Its sequence that changes with time, if it has one.
    pub(super) rotate: Option<rotate::Draft>,
    /// Its sequences that open it once each, if it has any.
    pub(super) list: Option<list::Draft>,
    step_timeout: Duration,
    total_timeout: Duration,
    new_attempts_per_s: u32,
}

/// A sequence with what messages call it and where it stands.
pub(super) struct Sequence {
    pub(super) title: String,
    pub(super) span: Range<usize>,
    pub(super) steps: Vec<Spanned<Step>>,
    pub(super) allow_weak: bool,
}

impl Draft {
    /// Every door of the file.
    pub(super) fn read_all(root: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Vec<Self> {
        let Some(value) = root.value("door") else {
            found.error(0..0, "no door: nothing is hidden and nothing can be opened", "add a [[door]] table");
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            found.error(value.span(), "`door` is not a list of tables", "write [[door]], in double brackets");
            return Vec::new();
        };
        if items.is_empty() {
            found.error(value.span(), "no door: `door` is []", "add a [[door]] table");
        }
        items.iter().enumerate().filter_map(|(i, item)| Self::read(i + 1, item, folder, found)).collect()
    }

    fn read(number: usize, item: &Spanned<DeValue<'_>>, folder: &Path, found: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = item.get_ref() else {
            found.error(item.span(), format!("door {number} is not a table"), "write it under [[door]]");
            return None;
        };
        let mut section = Section::new(format!("door {number}"), item.span(), table);
        let name = name(&section, found);
        if let Some(name) = &name {
            section.title = format!("door \"{}\"", name.get_ref());
        }
        section.refuse_unknown(DOOR_KEYS, found);
        Some(Self::from_section(name, &section, folder, found))
    }

    fn from_section(
        name: Option<Spanned<String>>,
        section: &Section<'_, '_>,
        folder: &Path,
        found: &mut Findings,
    ) -> Self {
        for (key, what) in [("opens", "hides nothing"), ("knock", "can never be opened")] {
            let has_other = key == "knock" && ["rotate", "list", "spa"].iter().any(|way| section.has(way));
            if !section.has(key) && !has_other {
                let help = format!("add `{key}`, as {}", example(key));
                found.error(section.span.clone(), format!("{}: no `{key}`: it {what}", section.title), help);
            }
        }
        let knock = knock(section, found);
        let (step_timeout, total_timeout) = timeouts(section, knock.len(), found);
        let prefixes = |key, found: &mut Findings| {
            section.list(key, "address prefixes", super::prefix::parse, found).unwrap_or_default()
        };
        Self {
            title: section.title.clone(),
            span: section.span.clone(),
            name,
            opens: section.list("opens", "services", str::parse, found).unwrap_or_default(),
            knock,
            knock_span: section.value("knock").map_or(section.span.clone(), Spanned::span),
            open_for: section.duration(&OPEN_FOR, found),
            from: prefixes("from", found),
            to: prefixes("to", found),
            sessions: sessions(section, found),
            sessions_span: section.value("sessions").map_or(section.span.clone(), Spanned::span),
            allow_weak: section.boolean("allow_weak", found).unwrap_or(false),
            spa: spa::DoorDraft::read(section, found),
            rotate: rotate::Draft::read(section, folder, found),
            list: list::Draft::read(section, folder, found),
            step_timeout,
            total_timeout,
            new_attempts_per_s: section
                .count("new_attempts_per_s", 1, MAX_ATTEMPTS, found)
                .unwrap_or(DEFAULT_ATTEMPTS),
        }
    }

    /// Returns every sequence that does not change: its own, and those of its list.
    pub(super) fn sequences(&self) -> Vec<Sequence> {
        let own = Sequence {
            title: self.title.clone(),
            span: self.knock_span.clone(),
            steps: self.knock.clone(),
            allow_weak: self.allow_weak,
        };
        let of_line = |list: &list::Draft, line: &list::Line| Sequence {
            title: format!("{}: {} line {}", self.title, list.file, line.number),
            span: list.span.clone(),
            steps: line.steps.iter().map(|step| Spanned::new(list.span.clone(), *step)).collect(),
            allow_weak: self.allow_weak,
        };
        let lines = self.list.iter().flat_map(|list| list.lines.iter().map(|line| of_line(list, line)));
        [own].into_iter().chain(lines).filter(|sequence| !sequence.steps.is_empty()).collect()
    }

    /// The door itself; what is wrong in the draft has been reported before.
    pub(super) fn door(self) -> Door {
        fn bare<T>(list: Vec<Spanned<T>>) -> Vec<T> {
            list.into_iter().map(Spanned::into_inner).collect()
        }
        Door {
            name: self.name.map(Spanned::into_inner).unwrap_or_default(),
            opens: bare(self.opens),
            knock: bare(self.knock),
            step_timeout: self.step_timeout,
            total_timeout: self.total_timeout,
            open_for: self.open_for.map_or(DEFAULT_OPEN_FOR, Spanned::into_inner),
            sessions: self.sessions,
            from: bare(self.from),
            to: bare(self.to),
            new_attempts_per_s: self.new_attempts_per_s,
            spa: self.spa.map(spa::DoorDraft::bare),
            rotate: self.rotate.and_then(|draft| draft.rotate),
            list_file: self.list.as_ref().map(|draft| draft.path.clone()),
            list: self.list.map(|draft| draft.lines).unwrap_or_default(),
        }
    }
}

fn example(key: &str) -> &'static str {
    if key == "opens" {
        "opens = [\"tcp/22\"]"
    } else {
        "knock = [\"tcp/PORT\", \"udp/PORT\", \"tcp/PORT\"], with ports of your own; `xdp-knock init` draws some"
    }
}

fn name(section: &Section<'_, '_>, found: &mut Findings) -> Option<Spanned<String>> {
    if !section.has("name") {
        let message = format!("{}: no `name`", section.title);
        found.error(section.span.clone(), message, "add one, as name = \"ssh\"");
    }
    let text = section.text("name", found)?;
    let name = *text.get_ref();
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if !fits {
        let message = format!("{}: `name` is \"{name}\"", section.title);
        let help = format!("a name is 1 to {MAX_NAME} characters of a-z, 0-9, - and _");
        found.error(text.span(), message, help);
        return None;
    }
    Some(Spanned::new(text.span(), name.to_owned()))
}

fn sessions(section: &Section<'_, '_>, found: &mut Findings) -> SessionRule {
    let Some(text) = section.text("sessions", found) else { return SessionRule::default() };
    match *text.get_ref() {
        "keep" => SessionRule::Keep,
        "cut" => SessionRule::Cut,
        other => {
            let message = format!("{}: `sessions` is \"{other}\"", section.title);
            found.error(text.span(), message, "it must be one of: keep, cut");
            SessionRule::default()
        }
    }
}

fn knock(section: &Section<'_, '_>, found: &mut Findings) -> Vec<Spanned<Step>> {
    let steps = section.list("knock", "steps", str::parse, found).unwrap_or_default();
    let Some(first_too_many) = steps.get(MAX_STEPS) else { return steps };
    let message = format!("{}: `knock` has {} steps", section.title, steps.len());
    found.error(first_too_many.span(), message, format!("a sequence has 1 to {MAX_STEPS} steps"));
    Vec::new()
}

/// The per-step and the total timeout. A total that is not given leaves every step its whole time.
fn timeouts(section: &Section<'_, '_>, steps: usize, found: &mut Findings) -> (Duration, Duration) {
    let given = section.has(STEP_TIMEOUT.name);
    let step = section.duration(&STEP_TIMEOUT, found).map(Spanned::into_inner);
    let total = section.duration(&TOTAL_TIMEOUT, found);
    let step_time = step.unwrap_or(DEFAULT_STEP_TIMEOUT);
    let Some(total) = total else {
        if !given {
            return (step_time, DEFAULT_TOTAL_TIMEOUT);
        }
        let all = step_time.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        return (step_time, all.clamp(DEFAULT_TOTAL_TIMEOUT, TOTAL_TIMEOUT.max));
    };
    let step_is_known = !given || step.is_some();
    if step_is_known && *total.get_ref() < step_time {
        let shown = show_duration(*total.get_ref());
        let origin = if given { "" } else { ", its default" };
        let message = format!("{}: `total_timeout` is {shown}, less than one step may take", section.title);
        let help =
            format!("it must be at least `step_timeout`, which is {}{origin}", show_duration(step_time));
        found.error(total.span(), message, help);
    }
    (step_time, total.into_inner())
}
