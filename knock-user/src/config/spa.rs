//! Single packet authorization: the `[spa]` table and `spa` in a door, and what they and the keys say of one another.

use std::{collections::HashMap, ops::Range, path::Path, time::Duration};

use knock_common::spa::abi::{KEYS_ENTRIES, RIGHTS_ENTRIES};
use toml::{Spanned, de::DeValue};

use super::{
    MAX_PREFIXES, door,
    keys::{self, Key, apart, name},
    problem::Findings,
    section::{DurationKey, Section},
    spelling::{DOOR_SPA_KEYS, SPA_KEYS},
    table, xdp,
};
use crate::step::Step;

/// How far clocks may be apart where nothing is said of it.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(30);
/// How far apart they may be at most.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(600);

/// The shortest is what clocks in step keep; the longest is the time that a packet held back on the way stays good.
const WINDOW: DurationKey = DurationKey {
    name: "window",
    min: Duration::from_secs(1),
    max: LONGEST_WINDOW,
    examples: "\"10s\", \"30s\" or \"2m\"",
};

/// What is said of single packets as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What clients call this server.
    pub identity: String,
    /// How far a client's clock may be from this one's.
    pub window: Duration,
}

/// How single packets open a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorSpa {
    /// The UDP port that they are sent to.
    pub listen: u16,
    /// Names of the keys that may.
    pub keys: Vec<String>,
}

/// The same as read, with its places.
pub(super) struct DoorDraft {
    span: Range<usize>,
    listen: Option<Spanned<u16>>,
    keys: Vec<Spanned<String>>,
}

impl DoorDraft {
    /// Reads `spa` of a door, where it has one.
    pub(super) fn read(door: &Section<'_, '_>, found: &mut Findings) -> Option<Self> {
        let value = door.value("spa")?;
        let DeValue::Table(table) = value.get_ref() else {
            let help = "write spa = { listen = \"udp/62201\", keys = [\"alice\"] }";
            found.error(value.span(), format!("{}: `spa` is not a table", door.title), help);
            return None;
        };
        let section = Section::new(format!("{}: spa", door.title), value.span(), table);
        section.refuse_unknown(DOOR_SPA_KEYS, found);
        for (key, example) in [("listen", "\"udp/62201\""), ("keys", "[\"alice\"]")] {
            if !section.has(key) {
                let message = format!("{}: no `{key}`", section.title);
                found.error(value.span(), message, format!("add one, as {key} = {example}"));
            }
        }
        let keys = section.list("keys", "names of keys", |name| Ok::<_, String>(name.to_owned()), found);
        Some(Self { span: value.span(), listen: listen(&section, found), keys: keys.unwrap_or_default() })
    }

    pub(super) fn bare(self) -> DoorSpa {
        DoorSpa {
            listen: self.listen.map_or(0, Spanned::into_inner),
            keys: self.keys.into_iter().map(Spanned::into_inner).collect(),
        }
    }
}

fn listen(section: &Section<'_, '_>, found: &mut Findings) -> Option<Spanned<u16>> {
    let text = section.text("listen", found)?;
    let Ok(Step::Udp(port)) = text.get_ref().parse() else {
        let message = format!("{}: `listen` is \"{}\"", section.title, text.get_ref());
        found.error(text.span(), message, "it must be a port of UDP, as \"udp/62201\"");
        return None;
    };
    Some(Spanned::new(text.span(), port.get()))
}

/// Reads the tables and judges what doors say of them. `folder` is what names of files begin from.
pub(super) fn read(
    root: &Section<'_, '_>,
    xdp: &xdp::Draft,
    doors: &[door::Draft],
    folder: &Path,
    found: &mut Findings,
) -> (Option<Server>, Vec<Key>) {
    let server = server(root, found);
    let keys = keys::read(root, folder, found);
    for (door, spa) in doors.iter().filter_map(|door| Some((door, door.spa.as_ref()?))) {
        if !root.has("spa") {
            let message = format!("{}: `spa` without a [spa] table", door.title);
            let help = "add one with the name that clients give this server, as identity = \"box\"";
            found.error(spa.span.clone(), message, help);
        }
        known_keys(door, spa, &keys, found);
        listens_apart(door, spa, xdp, doors, found);
    }
    apart(&keys, found);
    counts(doors, &keys, found);
    prefix_count(xdp, doors, &keys, found);
    let is_used = |name: &str| {
        doors
            .iter()
            .filter_map(|door| door.spa.as_ref())
            .any(|spa| spa.keys.iter().any(|key| key.get_ref() == name))
    };
    for key in keys.iter().filter(|key| !is_used(key.name.get_ref())) {
        let message = format!("key \"{}\" opens no door", key.name.get_ref());
        found.warning(key.name.span(), message, "name it in `keys` of a door's `spa`, or take it out");
    }
    (server, keys.into_iter().map(|draft| draft.key).collect())
}

fn server(root: &Section<'_, '_>, found: &mut Findings) -> Option<Server> {
    let (value, table) = table(root, "spa", found)?;
    let section = Section::new("[spa]".to_owned(), value.span(), table);
    section.refuse_unknown(SPA_KEYS, found);
    let identity = name("identity", &section, found)?.into_inner();
    let window = section.duration(&WINDOW, found).map_or(DEFAULT_WINDOW, Spanned::into_inner);
    Some(Server { identity, window })
}

fn known_keys(door: &door::Draft, spa: &DoorDraft, keys: &[keys::Draft], found: &mut Findings) {
    let mut seen: Vec<&str> = Vec::new();
    for key in &spa.keys {
        let name = key.get_ref().as_str();
        if !keys.iter().any(|known| known.name.get_ref() == name) {
            let names: Vec<&str> = keys.iter().map(|known| known.name.get_ref().as_str()).collect();
            let help = if names.is_empty() {
                "there is none: add a [[key]] table".to_owned()
            } else {
                format!("the keys are {}", names.join(", "))
            };
            found.error(key.span(), format!("{}: no [[key]] is called \"{name}\"", door.title), help);
        }
        if seen.contains(&name) {
            let message = format!("{}: key \"{name}\" is listed twice in `keys`", door.title);
            found.error(key.span(), message, "name each key once");
        }
        seen.push(name);
    }
}

/// What is sent to a public port is never looked at, and a hidden port is no closed one.
fn listens_apart(
    door: &door::Draft,
    spa: &DoorDraft,
    xdp: &xdp::Draft,
    doors: &[door::Draft],
    found: &mut Findings,
) {
    let Some(listen) = &spa.listen else { return };
    let Ok(step) = format!("udp/{}", listen.get_ref()).parse::<Step>() else { return };
    let hidden = doors.iter().flat_map(|other| &other.opens);
    for (service, is) in xdp.public.iter().map(|one| (one, "public")).chain(hidden.map(|one| (one, "hidden")))
    {
        if service.get_ref().takes(step) {
            let message =
                format!("{}: `listen` is \"{step}\", in {is} \"{}\"", door.title, service.get_ref());
            found.error(
                listen.span(),
                message,
                "packets are sent to a port that looks closed: choose another",
            );
        }
    }
}

/// The kernel's maps have room for so many. Told where the room ends.
fn counts(doors: &[door::Draft], keys: &[keys::Draft], found: &mut Findings) {
    let secrets = keys.iter().map(|draft| (draft.name.span(), draft.key.secrets.len()));
    let help =
        format!("at most {KEYS_ENTRIES}: take keys out, or an `old_secret_file` that is not needed any more");
    room(secrets, KEYS_ENTRIES, "secrets", help, found);
    let of_key: HashMap<&str, usize> =
        keys.iter().map(|draft| (draft.name.get_ref().as_str(), draft.key.secrets.len())).collect();
    let of_door = |spa: &DoorDraft| {
        let secrets = spa.keys.iter().filter_map(|key| of_key.get(key.get_ref().as_str()));
        (spa.span.clone(), secrets.sum())
    };
    let pairs = doors.iter().filter_map(|door| door.spa.as_ref()).map(of_door);
    let help =
        format!("at most {RIGHTS_ENTRIES}: name fewer keys in `keys`, or take an `old_secret_file` out");
    room(pairs, RIGHTS_ENTRIES, "pairs of a door and a secret", help, found);
}

fn room(
    counted: impl Iterator<Item = (Range<usize>, usize)>,
    most: usize,
    what: &str,
    help: String,
    found: &mut Findings,
) {
    let (mut all, mut end) = (0, None);
    for (place, count) in counted {
        all += count;
        if all > most {
            end.get_or_insert(place);
        }
    }
    if let Some(place) = end {
        found.error(place, format!("{all} {what} are too many"), help);
    }
}

/// What is too many without those of keys is told of where the others are judged.
fn prefix_count(xdp: &xdp::Draft, doors: &[door::Draft], keys: &[keys::Draft], found: &mut Findings) {
    let others = xdp.allow.len() + doors.iter().map(|door| door.from.len() + door.to.len()).sum::<usize>();
    let Some(room) = MAX_PREFIXES.checked_sub(others) else { return };
    let of_keys: Vec<_> = keys.iter().flat_map(|key| &key.from).collect();
    let Some(first_too_many) = of_keys.get(room) else { return };
    let all = others + of_keys.len();
    let message =
        format!("{all} prefixes in `allow`, `from` and `to` together, those of keys included, are too many");
    found.error(first_too_many.span(), message, format!("at most {MAX_PREFIXES}: merge neighbouring ones"));
}
