//! Typed, spanned reading of one table of the document: every wrong value becomes a finding, none a panic.
//!
//! The document is walked by hand instead of through serde, since a derived `Deserialize` stops at its
//! first error and a person mends a file faster when all of them are shown.

use std::{fmt, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problem::Findings, show_duration, spelling};

/// One table, with the words its errors use for it.
pub(super) struct Section<'t, 'd> {
    /// How an error names it: `[xdp]`, or a door by name or number.
    pub(super) title: String,
    /// Where its header stands, for what is missing from it.
    pub(super) span: Range<usize>,
    table: &'t DeTable<'d>,
}

/// A duration key: its limits, and examples within them for the help.
pub(super) struct DurationKey {
    pub(super) name: &'static str,
    pub(super) min: Duration,
    pub(super) max: Duration,
    pub(super) examples: &'static str,
}

impl<'t, 'd> Section<'t, 'd> {
    pub(super) fn new(title: String, span: Range<usize>, table: &'t DeTable<'d>) -> Self {
        Self { title, span, table }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'d>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Reports every key that this table does not have, with the nearest one that it does.
    pub(super) fn refuse_unknown(&self, known: &[&str], found: &mut Findings) {
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            found.error(
                key.span(),
                format!("{}: unknown key `{name}`", self.title),
                spelling::advice(name, known),
            );
        }
    }

    pub(super) fn text(&self, key: &str, found: &mut Findings) -> Option<Spanned<&'t str>> {
        let value = self.value(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, "a text in double quotes", found);
            return None;
        };
        Some(Spanned::new(value.span(), text))
    }

    pub(super) fn boolean(&self, key: &str, found: &mut Findings) -> Option<bool> {
        let value = self.value(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong_type(key, value, "true or false, without quotes", found);
            return None;
        };
        Some(*flag)
    }

    pub(super) fn count(&self, key: &str, min: u32, max: u32, found: &mut Findings) -> Option<u32> {
        let allowed = format!("a whole number from {min} to {max}");
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, &allowed, found);
            return None;
        };
        let parsed = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let count = parsed.filter(|count| (min..=max).contains(count));
        if count.is_none() {
            let message = format!("{}: `{key}` is {number}", self.title);
            found.error(value.span(), message, format!("it must be {allowed}"));
        }
        count
    }

    pub(super) fn duration(&self, key: &DurationKey, found: &mut Findings) -> Option<Spanned<Duration>> {
        let name = key.name;
        let (min, max) = (show_duration(key.min), show_duration(key.max));
        let limits = format!("a duration from {min} to {max}, as {}", key.examples);
        let value = self.value(name)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(name, value, &limits, found);
            return None;
        };
        match humantime::parse_duration(text) {
            Ok(parsed) if (key.min..=key.max).contains(&parsed) => Some(Spanned::new(value.span(), parsed)),
            Ok(_) => {
                let message = format!("{}: `{name}` is \"{text}\", which is out of range", self.title);
                found.error(value.span(), message, format!("it must be {limits}"));
                None
            }
            Err(error) => {
                let message = format!("{}: `{name}` is \"{text}\", not a duration: {error}", self.title);
                found.error(value.span(), message, format!("it must be {limits}"));
                None
            }
        }
    }

    /// A duration of whole seconds.
    pub(super) fn whole_seconds(&self, key: &DurationKey, found: &mut Findings) -> Option<Duration> {
        let duration = self.duration(key, found)?;
        if duration.get_ref().subsec_nanos() != 0 {
            let message = format!("{}: `{}` has a part of a second", self.title, key.name);
            found.error(duration.span(), message, format!("give whole seconds, as {}", key.examples));
            return None;
        }
        Some(duration.into_inner())
    }

    /// A list of texts, each read by `parse`. None when the key is absent or anything in it is wrong: rules
    /// over a whole list must not judge what is left of it.
    pub(super) fn list<T, E: fmt::Display>(
        &self,
        key: &str,
        kind: &str,
        parse: impl Fn(&str) -> Result<T, E>,
        found: &mut Findings,
    ) -> Option<Vec<Spanned<T>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value, &format!("a list of {kind}, as [\"...\"]"), found);
            return None;
        };
        if items.is_empty() {
            let or_not = match key {
                "opens" | "knock" | "keys" => "",
                "on_promote" | "on_expire" | "on_ban" => ", or leave the key out",
                _ => ", or leave the key out: an empty list never means all",
            };
            let message = format!("{}: `{key}` is [], an empty list", self.title);
            found.error(value.span(), message, format!("list {kind}{or_not}"));
            return None;
        }
        let read: Vec<_> = items.iter().map(|item| self.item(key, kind, item, &parse, found)).collect();
        read.into_iter().collect()
    }

    fn item<T, E: fmt::Display>(
        &self,
        key: &str,
        kind: &str,
        item: &Spanned<DeValue<'d>>,
        parse: impl Fn(&str) -> Result<T, E>,
        found: &mut Findings,
    ) -> Option<Spanned<T>> {
        let DeValue::String(text) = item.get_ref() else {
            self.wrong_type(key, item, &format!("a list of {kind}, each a text in double quotes"), found);
            return None;
        };
        match parse(text) {
            Ok(read) => Some(Spanned::new(item.span(), read)),
            Err(error) => {
                let message = format!("{}: \"{text}\" in `{key}`", self.title);
                found.error(item.span(), message, error.to_string());
                None
            }
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'d>>, allowed: &str, found: &mut Findings) {
        let given = match value.get_ref() {
            DeValue::String(text) => format!("the text \"{text}\""),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let message = format!("{}: `{key}` has {given}", self.title);
        found.error(value.span(), message, format!("it must be {allowed}"));
    }
}
