//! The ways of a door that are tables: `spa`, `rotate` and `list`.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{Rotate, Spa, Way, Whom, port};
use crate::{
    config::{
        problem::Findings,
        section::{DurationKey, Section},
        shape,
    },
    secret::Place,
};

pub(super) const SPA_KEYS: &[&str] = &["key", "server", "door", "port", "source", "nat", "for"];
pub(super) const ROTATE_KEYS: &[&str] = &["secret_file", "door", "steps", "every", "ports"];
pub(super) const LIST_KEYS: &[&str] = &["file"];

/// As many seconds as a packet has room for.
const FOR: DurationKey = DurationKey {
    name: "for",
    min: Duration::from_secs(1),
    max: Duration::from_secs(u32::MAX as u64),
    examples: "\"30m\" or \"8h\"",
};
/// What such a table holds at least.
pub(super) fn example(way: &str) -> &'static str {
    match way {
        "spa" => "key = \"alice.key\", server = \"box\"",
        "rotate" => "secret_file = \"vpn.secret\", steps = 4, every = \"30s\", ports = \"10000-32767\"",
        _ => "file = \"lab.list\"",
    }
}

/// Reads one; `name` is what the profile calls the door.
pub(super) fn read(
    way: &str,
    name: &str,
    section: &Section<'_, '_>,
    folder: &Path,
    found: &mut Findings,
) -> Option<Way> {
    match way {
        "spa" => spa(name, section, folder, found).map(Way::Spa),
        "rotate" => rotate(name, section, folder, found).map(Way::Rotate),
        _ => list(section, folder, found).map(Way::List),
    }
}

fn spa(name: &str, section: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Spa> {
    section.refuse_unknown(SPA_KEYS, found);
    let key = place("key", "\"alice.key\"", section, folder, found);
    let server = required("server", "\"box\"", section, found);
    let whom = whom(section, found);
    let port = port("port", section, found);
    let open_for = section.whole_seconds(&FOR, found).and_then(|whole| {
        let seconds = u32::try_from(whole.as_secs()).ok()?;
        NonZeroU32::new(seconds)
    });
    let (server, door) = (server?.into_inner().to_owned(), door(name, section, found));
    Some(Spa { key: key?, server, door, port, whom, open_for })
}

fn whom(section: &Section<'_, '_>, found: &mut Findings) -> Option<Whom> {
    let nat = section.boolean("nat", found).unwrap_or(false);
    let Some(source) = section.text("source", found) else { return nat.then_some(Whom::Sender) };
    let Ok(address) = source.get_ref().parse::<IpAddr>() else {
        let message = format!("{}: `source` is \"{}\"", section.title, source.get_ref());
        found.error(
            source.span(),
            message,
            "it must be your address as the server sees it, as \"198.51.100.4\"",
        );
        return None;
    };
    if nat {
        let message = format!("{}: `nat = true` and `source`", section.title);
        found.error(source.span(), message, "a packet lets in whoever sends it, or this address: keep one");
        return None;
    }
    Some(Whom::Named(address))
}

fn rotate(name: &str, section: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Rotate> {
    section.refuse_unknown(ROTATE_KEYS, found);
    let key = place("secret_file", "\"vpn.secret\"", section, folder, found);
    let shape = shape::read(section, found).map(|(shape, _)| shape);
    Some(Rotate { key: key?, door: door(name, section, found), shape: shape? })
}

fn list(section: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<PathBuf> {
    section.refuse_unknown(LIST_KEYS, found);
    file(&required("file", "\"lab.list\"", section, found)?, folder, section, found)
}

/// The server's name of the door: the profile's, unless it says another.
fn door(name: &str, section: &Section<'_, '_>, found: &mut Findings) -> String {
    section.text("door", found).map_or(name, Spanned::into_inner).to_owned()
}

fn place(
    key: &str,
    example: &str,
    section: &Section<'_, '_>,
    folder: &Path,
    found: &mut Findings,
) -> Option<Place> {
    let text = required(key, example, section, found)?;
    match text.get_ref().parse() {
        Ok(Place::File(_)) => file(&text, folder, section, found).map(Place::File),
        Ok(place @ (Place::Descriptor(_) | Place::Input)) => Some(place),
        Err(help) => {
            let message = format!("{}: `{key}` is \"{}\"", section.title, text.get_ref());
            found.error(text.span(), message, help);
            None
        }
    }
}

fn file(
    name: &Spanned<&str>,
    folder: &Path,
    section: &Section<'_, '_>,
    found: &mut Findings,
) -> Option<PathBuf> {
    if name.get_ref().starts_with('~') {
        let message = format!("{}: no file is called \"{}\"", section.title, name.get_ref());
        let help = "`~` means something to a shell alone: write the whole path, or one that begins at this file's folder";
        found.error(name.span(), message, help);
        return None;
    }
    Some(folder.join(name.get_ref()))
}

fn required<'t>(
    key: &str,
    example: &str,
    section: &Section<'t, '_>,
    found: &mut Findings,
) -> Option<Spanned<&'t str>> {
    if !section.has(key) {
        missing(key, example, section, found);
    }
    section.text(key, found)
}

fn missing(key: &str, example: &str, section: &Section<'_, '_>, found: &mut Findings) {
    let message = format!("{}: no `{key}`", section.title);
    found.error(section.span.clone(), message, format!("add it, as {key} = {example}"));
}
