//! What both sides of a rotating door agree on: the same keys in the server's configuration and in the client's profile.

use std::{ops::Range, time::Duration};

use toml::Spanned;

use super::{
    MAX_STEPS,
    problem::Findings,
    section::{DurationKey, Section},
};
use crate::rotating::{PortRange, Shape};

/// The shortest is what clocks in step and a sequence of a few steps keep to; the longest still ends what was overheard.
const EVERY: DurationKey = DurationKey {
    name: "every",
    min: Duration::from_secs(10),
    max: Duration::from_secs(3600),
    examples: "\"30s\" or \"1m\"",
};

const EXAMPLES: [(&str, &str); 3] = [("steps", "4"), ("every", "\"30s\""), ("ports", "\"10000-32767\"")];

/// Reads `steps`, `every` and `ports`, with the place of the last.
pub(super) fn read(section: &Section<'_, '_>, found: &mut Findings) -> Option<(Shape, Range<usize>)> {
    for (key, example) in EXAMPLES {
        if !section.has(key) {
            let message = format!("{}: no `{key}`", section.title);
            found.error(section.span.clone(), message, format!("add it, as {key} = {example}"));
        }
    }
    let most = u32::try_from(MAX_STEPS).unwrap_or(u32::MAX);
    let steps = section.count("steps", 1, most, found).and_then(|steps| u8::try_from(steps).ok());
    let every = section.whole_seconds(&EVERY, found);
    let ports = ports(section, found);
    if let (Some(steps), Some(ports)) = (steps, &ports)
        && ports.get_ref().count() < usize::from(steps)
    {
        let message = format!("{}: `ports` has fewer ports than there are steps", section.title);
        found.error(ports.span(), message, "each step needs a port of its own: give a wider range");
        return None;
    }
    let (steps, every, ports) = (steps?, every?, ports?);
    let span = ports.span();
    Some((Shape { steps, every, ports: ports.into_inner() }, span))
}

fn ports(section: &Section<'_, '_>, found: &mut Findings) -> Option<Spanned<PortRange>> {
    let text = section.text("ports", found)?;
    match text.get_ref().parse() {
        Ok(range) => Some(Spanned::new(text.span(), range)),
        Err(help) => {
            let message = format!("{}: `ports` is \"{}\"", section.title, text.get_ref());
            found.error(text.span(), message, help);
            None
        }
    }
}
