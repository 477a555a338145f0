//! The doors of a host: `[home.door.ssh]`.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use toml::{Spanned, de::DeValue};

use super::{Door, Way, settings, way};
use crate::{
    config::{MAX_STEPS, problem::Findings, section::Section},
    step::Step,
};

/// Keys of a door.
pub(super) const DOOR_KEYS: &[&str] =
    &["knock", "spa", "rotate", "list", "verify", "timeout", "retry", "delay"];
/// Those that open it.
const WAYS: [&str; 4] = ["knock", "spa", "rotate", "list"];
/// As the server has it.
const MAX_NAME: usize = 31;

pub(super) fn read_all(
    host: &Section<'_, '_>,
    folder: &Path,
    found: &mut Findings,
) -> BTreeMap<String, Door> {
    let mut doors = BTreeMap::new();
    let Some(value) = host.value("door") else { return doors };
    let DeValue::Table(table) = value.get_ref() else {
        let message = format!("{}: `door` is not a table", host.title);
        found.error(
            value.span(),
            message,
            "write a door as [home.door.ssh], with the names of host and door",
        );
        return doors;
    };
    for (name, value) in table {
        let door = door(host, name, value, folder, found);
        doors.extend(door.map(|door| (name.get_ref().to_string(), door)));
    }
    doors
}

fn door(
    host: &Section<'_, '_>,
    name: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    folder: &Path,
    found: &mut Findings,
) -> Option<Door> {
    let title = format!("{}, door \"{}\"", host.title, name.get_ref());
    let DeValue::Table(table) = value.get_ref() else {
        found.error(value.span(), format!("{title}: not a table"), "write it as [home.door.ssh]");
        return None;
    };
    if !is_name(name.get_ref()) {
        let help = format!(
            "a name is 1 to {MAX_NAME} characters of a-z, 0-9, - and _, and not digits alone, which are a port to `knock`"
        );
        found.error(name.span(), format!("{title}: not a name of a door"), help);
    }
    let section = Section::new(title, value.span(), table);
    section.refuse_unknown(DOOR_KEYS, found);
    let settings = settings(&section, found);
    Some(Door { way: the_way(name.get_ref(), &section, folder, found)?, settings })
}

/// Returns whether a word names a door, rather than a step.
pub(crate) fn is_name(word: &str) -> bool {
    (1..=MAX_NAME).contains(&word.len())
        && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && !word.bytes().all(|byte| byte.is_ascii_digit())
}

fn the_way(name: &str, door: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Way> {
    let mut given = WAYS.into_iter().filter(|way| door.has(way));
    let Some(first) = given.next() else {
        let message = format!("{}: no way to open it", door.title);
        found.error(door.span.clone(), message, "add one of knock, spa, rotate, list");
        return None;
    };
    if let Some(second) = given.next() {
        let span = door.value(second).map_or(door.span.clone(), Spanned::span);
        let message = format!("{}: `{first}` and `{second}`", door.title);
        found.error(
            span,
            message,
            "a door of a profile has one way: write another door for the other, with `door` in it",
        );
        return None;
    }
    if first == "knock" {
        return sequence(door, found).map(Way::Knock);
    }
    let (title, value) = (format!("{}: {first}", door.title), door.value(first)?);
    let DeValue::Table(table) = value.get_ref() else {
        let help = format!("write {first} = {{ {} }}", way::example(first));
        found.error(value.span(), format!("{}: `{first}` is not a table", door.title), help);
        return None;
    };
    way::read(first, name, &Section::new(title, value.span(), table), folder, found)
}

fn sequence(door: &Section<'_, '_>, found: &mut Findings) -> Option<Vec<Step>> {
    let steps = door.list("knock", "steps", str::parse, found)?;
    if let Some(first_too_many) = steps.get(MAX_STEPS) {
        let message = format!("{}: `knock` has {} steps", door.title, steps.len());
        found.error(first_too_many.span(), message, format!("a sequence has 1 to {MAX_STEPS} steps"));
    }
    Some(steps.into_iter().map(Spanned::into_inner).collect())
}
