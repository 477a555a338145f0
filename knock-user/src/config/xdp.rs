//! The `[xdp]` table.

use std::{ops::Range, time::Duration};

use ipnet::IpNet;
use toml::Spanned;

use super::{
    Config, Door, Forward, HideAs, Hooks, Mode,
    problem::Findings,
    section::{DurationKey, Section},
    spelling::{self, XDP_KEYS},
    table,
};
use crate::service::Service;

/// Longest name of an interface: `IFNAMSIZ` less its final zero (linux/if.h).
const MAX_INTERFACE_NAME: usize = 15;

const DEFAULT_UDP_IDLE: Duration = Duration::from_secs(15 * 60);
/// The shortest outlasts the keep-alives of tunnels only just; the longest is a week's rest.
const UDP_IDLE: DurationKey = DurationKey {
    name: "udp_idle",
    min: Duration::from_secs(10),
    max: Duration::from_secs(7 * 24 * 3600),
    examples: "\"30s\", \"15m\" or \"1h\"",
};

/// The table as read, with the places of its values.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) mode: Mode,
    pub(super) mode_span: Range<usize>,
    pub(super) allow: Vec<Spanned<IpNet>>,
    pub(super) public: Vec<Spanned<Service>>,
    /// Where `forward` stands, if it does.
    pub(super) forward_span: Option<Range<usize>>,
    interfaces: Vec<String>,
    hide_as: HideAs,
    forward: Forward,
    udp_idle: Option<Duration>,
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
            forward_span: section.value("forward").map(Spanned::span),
            forward: forward(&section, found),
            udp_idle: section.duration(&UDP_IDLE, found).map(Spanned::into_inner),
        }
    }

    /// The whole configuration, with the doors that were read beside this table.
    pub(super) fn config(self, doors: Vec<Door>) -> Config {
        Config {
            interfaces: self.interfaces,
            mode: self.mode,
            hide_as: self.hide_as,
            forward: self.forward,
            udp_idle: self.udp_idle.unwrap_or(DEFAULT_UDP_IDLE),
            allow: self.allow.into_iter().map(Spanned::into_inner).collect(),
            public: self.public.into_iter().map(Spanned::into_inner).collect(),
            doors,
            spa: None,
            keys: Vec::new(),
            hooks: Hooks::default(),
            metrics: None,
            state: None,
        }
    }
}

fn mode(section: &Section<'_, '_>, found: &mut Findings) -> Mode {
    let Some(text) = section.text("mode", found) else { return Mode::default() };
    match *text.get_ref() {
        "observe" => Mode::Observe,
        "guard" => Mode::Guard,
        "deny" => Mode::Deny,
        other => {
            wrong_word("mode", other, &["observe", "guard", "deny"], text.span(), found);
            Mode::default()
        }
    }
}

fn hide_as(section: &Section<'_, '_>, found: &mut Findings) -> HideAs {
    let Some(text) = section.text("hide_as", found) else { return HideAs::default() };
    match *text.get_ref() {
        "filtered" => HideAs::Filtered,
        "closed" => HideAs::Closed,
        other => {
            wrong_word("hide_as", other, &["filtered", "closed"], text.span(), found);
            HideAs::default()
        }
    }
}

fn forward(section: &Section<'_, '_>, found: &mut Findings) -> Forward {
    let Some(text) = section.text("forward", found) else { return Forward::default() };
    match *text.get_ref() {
        "pass" => Forward::Pass,
        "deny" => Forward::Deny,
        other => {
            wrong_word("forward", other, &["pass", "deny"], text.span(), found);
            Forward::default()
        }
    }
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
