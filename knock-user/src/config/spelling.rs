//! What to say about a key that is not known: the nearest one, the table it belongs to, or the version.

/// Keys of the `[xdp]` table.
pub(super) const XDP_KEYS: &[&str] =
    &["interfaces", "mode", "hide_as", "forward", "udp_idle", "allow", "public"];
/// Keys of a `[[door]]` table.
pub(super) const DOOR_KEYS: &[&str] = &[
    "name",
    "opens",
    "knock",
    "step_timeout",
    "total_timeout",
    "open_for",
    "sessions",
    "from",
    "to",
    "new_attempts_per_s",
    "allow_weak",
    "spa",
    "rotate",
    "list",
];
/// Keys outside any table.
pub(super) const ROOT_KEYS: &[&str] = &["xdp", "door", "spa", "key", "hooks", "metrics", "state"];
/// Keys of the `[hooks]` table.
pub(super) const HOOKS_KEYS: &[&str] = &["on_promote", "on_expire", "on_ban", "user", "timeout", "at_once"];
/// Keys of the `[metrics]` table.
pub(super) const METRICS_KEYS: &[&str] = &["listen"];
/// Keys of the `[state]` table.
pub(super) const STATE_KEYS: &[&str] = &["file"];
/// Keys of the `[spa]` table.
pub(super) const SPA_KEYS: &[&str] = &["identity", "window"];
/// Keys of a `[[key]]` table.
pub(super) const KEY_KEYS: &[&str] =
    &["name", "secret_file", "old_secret_file", "max_open", "nat", "any_address", "from"];
/// Keys of `spa` in a door.
pub(super) const DOOR_SPA_KEYS: &[&str] = &["listen", "keys"];

/// Keys of `rotate` in a door.
pub(super) const ROTATE_KEYS: &[&str] = &["secret_file", "steps", "every", "ports"];
/// Keys of `list` in a door.
pub(super) const LIST_KEYS: &[&str] = &["file"];

/// Each table with its keys.
const TABLES: [(&str, &[&str]); 10] = [
    ("[xdp]", XDP_KEYS),
    ("a [[door]]", DOOR_KEYS),
    ("[hooks]", HOOKS_KEYS),
    ("[metrics]", METRICS_KEYS),
    ("[state]", STATE_KEYS),
    ("[spa]", SPA_KEYS),
    ("a [[key]]", KEY_KEYS),
    ("`spa` of a [[door]]", DOOR_SPA_KEYS),
    ("`rotate` of a [[door]]", ROTATE_KEYS),
    ("`list` of a [[door]]", LIST_KEYS),
];

/// Farther than this a suggestion is a guess.
const NEAR: usize = 2;

/// The help for an unknown key of a table that has the keys `known`.
pub(super) fn advice(key: &str, known: &[&str]) -> String {
    let all = format!("the keys here are {}", known.join(", "));
    if let Some(near) = nearest(key, known) {
        return format!("did you mean `{near}`? {all}");
    }
    match TABLES.iter().find(|(_, keys)| keys.contains(&key)) {
        Some((table, _)) => format!("`{key}` belongs in {table}; {all}"),
        None => all,
    }
}

/// The nearest of `known`, when it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // A long word cannot be a slip of a short key, and the table below would grow with its length.
    let candidates = known.iter().filter(|key| key.len().abs_diff(word.len()) <= NEAR);
    let (far, key) = candidates.map(|key| (distance(word, key), *key)).min()?;
    (far <= NEAR && far < key.len()).then_some(key)
}

/// Insertions, deletions and changes of one character that lead from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_finds_the_key() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("open", DOOR_KEYS), Some("opens"));
        assert_eq!(nearest("step_timout", DOOR_KEYS), Some("step_timeout"));
        assert_eq!(nearest("colour", DOOR_KEYS), None);
        assert_eq!(nearest("t", DOOR_KEYS), Some("to"));
    }
}
