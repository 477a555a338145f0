//! The `[xdp]` table.

use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::{
    Config, Door, HideAs, Hooks, Mode,
    problem::Findings,
    section::Section,
    spelling::{self, XDP_KEYS},
    table,
};
use crate::service::Service;

/// Longest name of an interface: `IFNAMSIZ` less its final zero (linux/if.h).
const MAX_INTERFACE_NAME: usize = 15;

/// The table as read, with the places of its values.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) mode: Mode,
    pub(super) mode_span: Range<usize>,
    pub(super) allow: Vec<Spanned<IpNet>>,
    pub(super) public: Vec<Spanned<Service>>,
    interfaces: Vec<String>,
    hide_as: HideAs,
}

impl Draft {
    pub(super) fn read(root: &Section<'_, '_>, found: &mut Findings) -> Self {
        let Some((value, table)) = table(root, "xdp", found) else { return Self::default() };
        let section = Section::new("[xdp]".to_owned(), value.span(), table);
        section.refuse_unknown(XDP_KEYS, found);
        Self {
            mode: mode(&section, found),
            mode_span: section.value("mode").map_or(0..0, Spanned::span),
            allow: section.list("allow", "address prefixes", super::prefix::parse, found).unwrap_or_default(),
            public: section.list("public", "services", str::parse, found).unwrap_or_default(),
            interfaces: interfaces(&section, found),
            hide_as: hide_as(&section, found),
        }
    }

    /// The whole configuration, with the doors that were read beside this table.
    pub(super) fn config(self, doors: Vec<Door>) -> Config {
        Config {
            interfaces: self.interfaces,
            mode: self.mode,
            hide_as: self.hide_as,
            allow: self.allow.into_iter().map(Spanned::into_inner).collect(),
            public: self.public.into_iter().map(Spanned::into_inner).collect(),
            doors,
            hooks: Hooks::default(),
            metrics: None,
            state: None,
        }
    }
}

fn mode(section: &Section<'_, '_>, found: &mut Findings) -> Mode {
    let Some(text) = section.text("mode", found) else { return Mode::default() };
    match *text.get_ref() {
        "observe" => return Mode::Observe,
        "guard" => return Mode::Guard,
        "deny" => {
            let message = "[xdp]: `mode` is \"deny\", which is not in this version of xdp-knock";
            let help = "use \"guard\": it drops what is addressed to the services that a door opens";
            found.error(text.span(), message, help);
        }
        other => wrong_word("mode", other, &["observe", "guard"], text.span(), found),
    }
    Mode::default()
}

fn hide_as(section: &Section<'_, '_>, found: &mut Findings) -> HideAs {
    let Some(text) = section.text("hide_as", found) else { return HideAs::default() };
    match *text.get_ref() {
        "filtered" => {}
        "closed" => {
            let message = "[xdp]: `hide_as` is \"closed\", which is not in this version of xdp-knock";
            found.error(text.span(), message, "use \"filtered\": a hidden service does not answer");
        }
        other => wrong_word("hide_as", other, &["filtered"], text.span(), found),
    }
    HideAs::Filtered
}

fn wrong_word(key: &str, word: &str, known: &[&str], span: Range<usize>, found: &mut Findings) {
    let near =
        spelling::nearest(word, known).map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
    let help = format!("{near}it must be one of: {}", known.join(", "));
    found.error(span, format!("[xdp]: `{key}` is \"{word}\""), help);
}

fn interfaces(section: &Section<'_, '_>, found: &mut Findings) -> Vec<String> {
    let read = section.list("interfaces", "interface names", interface, found).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for name in read {
        if names.contains(name.get_ref()) {
            let message = format!("[xdp]: \"{}\" is listed twice in `interfaces`", name.get_ref());
            found.error(name.span(), message, "name each interface once");
        }
        names.push(name.into_inner());
    }
    names
}

/// The kernel's own rule for a device name (`dev_valid_name` in net/core/dev.c).
fn interface(text: &str) -> Result<String, String> {
    let wrong = text.is_empty()
        || text.len() > MAX_INTERFACE_NAME
        || matches!(text, "." | "..")
        || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if wrong {
        let limit = MAX_INTERFACE_NAME;
        return Err(format!(
            "an interface name is 1 to {limit} bytes without spaces, `/` or `:`; `ip link` lists them"
        ));
    }
    Ok(text.to_owned())
}
