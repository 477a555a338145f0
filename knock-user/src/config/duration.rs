//! Durations as people write them.

use std::time::Duration;

/// The units of a duration, in milliseconds. No months and years: nobody agrees on their length.
const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];

/// A duration in the form the configuration takes: `7d`, `1h30m`, `500ms`.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut shown = String::new();
    for (size, unit) in UNITS {
        if rest >= size {
            shown.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_itself() {
        for text in ["0s", "500ms", "5s", "1m30s", "1h", "7d", "365d", "1d1h1m1s1ms"] {
            let duration = humantime::parse_duration(text).expect(text);
            assert_eq!(show_duration(duration), text);
        }
    }
}
