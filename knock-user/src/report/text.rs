//! The facts for people: aligned columns without lines, times as seen from now.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What is worth a look.
pub const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Returns rows under a head, in columns as wide as their longest entry. No line ends in blanks.
#[must_use]
pub fn columns(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Returns a duration in its two largest units: `4d 3h`, `1m 30s`, `12s`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else { return "0s".to_owned() };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units.into_iter().skip(first).take(2) {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// Returns how long ago a time was, in words; `now` is what it is seen from.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(between(time, now)))
}

/// Returns how long something has been so.
#[must_use]
pub fn since(time: Timestamp, now: Timestamp) -> String {
    span(between(time, now))
}

/// Returns when something ends, in words, by the seconds that are left; `None` for what has no end.
#[must_use]
pub fn ends(remaining_s: Option<f64>) -> String {
    match remaining_s {
        Some(left_s) => format!("in {}", span(Duration::from_secs_f64(left_s.max(0.0)))),
        None => "never".to_owned(),
    }
}

/// Returns a count with its noun, in the plural where it is due.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_two_largest_units_and_no_zero() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3601, "1h"),
            (7_384, "2h 3m"),
            (86_400, "1d"),
            (86_400 * 4 + 3 * 3600 + 59, "4d 3h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), shown, "{seconds} s");
        }
    }

    #[test]
    fn times_are_told_as_seen_from_now() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let before = Timestamp::from_second(999_910).expect("a time");

        assert_eq!(ago(before, now), "1m 30s ago");
        assert_eq!(ago(now, before), "0s ago", "a clock that was set back");
        assert_eq!(
            (ends(Some(3.9)), ends(Some(-1.0)), ends(None)),
            ("in 3s".into(), "in 0s".into(), "never".into())
        );
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_in_blanks() {
        let rows = [vec!["192.0.2.1".to_owned(), "ssh".to_owned()], vec!["::1".to_owned(), String::new()]];

        let text = columns(&["source", "door"], rows);

        assert_eq!(text, "source     door\n192.0.2.1  ssh\n::1\n");
    }
}
