//! What a generation says of itself, kept in the kernel beside its program: so that every verb can read it, whoever
//! loaded it and whether or not that process still lives.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use jiff::Timestamp;
use knock_common::abi::{ABI_VERSION, ABOUT_CHUNK, DoorRule};
use serde::{Deserialize, Serialize};

use crate::{
    attach::Wish,
    config::{Config, Door, Forward, HideAs, Mode, SessionRule, keys},
    generation::Generation,
    loader::needs_egress,
    pages,
};

/// One generation's description of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `ABI_VERSION` of the program that wrote it.
    pub abi: u32,
    /// Its number.
    pub generation: u32,
    /// What becomes of packets.
    pub mode: Mode,
    /// How a hidden service looks from outside.
    // What came after the first version of this layout has a default, so that a gate of before is taken over.
    #[serde(default)]
    pub hide_as: HideAs,
    /// What becomes of packets that are not addressed to the host, in deny mode.
    #[serde(default)]
    pub forward: Forward,
    /// Whether programs for outgoing packets are part of it.
    #[serde(default)]
    pub egress: bool,
    /// The file it was read from, as an absolute path; `None` for the built-in example.
    pub config: Option<PathBuf>,
    /// Where grants and bans are kept across a reboot, if they are.
    pub state: Option<PathBuf>,
    /// When it was loaded.
    pub loaded: Timestamp,
    /// The interfaces it is meant for.
    pub interfaces: Vec<String>,
    /// What the command line said and the file does not.
    pub overrides: Overrides,
    /// Where the gate must be confirmed: the programs that were on the interfaces before, by their ids.
    pub previous: Option<BTreeMap<String, u32>>,
    /// Likewise the programs for outgoing packets, where there were any.
    #[serde(default)]
    pub previous_egress: BTreeMap<String, u32>,
    /// Sources never judged.
    pub allow: Vec<IpNet>,
    /// Services open to everybody.
    pub public: Vec<String>,
    /// The doors by name.
    pub doors: BTreeMap<String, AboutDoor>,
    /// What clients call this server, where single packets open a door.
    #[serde(default)]
    pub identity: Option<String>,
    /// Who may send them: names, and rights in words that hold no secret.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// First and last port of the host's ephemeral range when it was loaded, which the kernel keeps to.
    pub ephemeral: (u16, u16),
}

/// What the command line said; a reload keeps to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Interfaces instead of those of the file, if any.
    pub interfaces: Vec<String>,
    /// A mode instead of that of the file.
    pub mode: Option<Mode>,
    /// How to attach.
    pub attach: Wish,
    /// Interfaces that are not there yet are attached when they come.
    pub wait: bool,
    /// Sources allowed beside those of the file, as by `--allow-me`.
    pub allow: Vec<IpNet>,
}

impl Overrides {
    /// Puts what the command line said over a configuration.
    pub fn apply(&self, config: &mut Config) {
        if !self.interfaces.is_empty() {
            config.interfaces.clone_from(&self.interfaces);
        }
        if let Some(mode) = self.mode {
            config.mode = mode;
        }
        let more = self.allow.iter().filter(|net| !config.allow.contains(net)).copied().collect::<Vec<_>>();
        config.allow.extend(more);
    }
}

/// A door as its generation describes it. The sequence is a secret and is left out but for what tells two apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AboutDoor {
    /// What grants and events call it.
    pub id: u64,
    /// What attempts call it: its place in the configuration.
    pub number: u8,
    /// What it hides and opens.
    pub opens: Vec<String>,
    /// Steps of its sequence.
    pub steps: usize,
    /// Whether a UDP step lies in the host's ephemeral range, so that replies to the host's own traffic may spoil attempts.
    pub has_ephemeral_step: bool,
    /// Tells this sequence from another one. Root alone can read it, and root can read the sequence itself.
    pub sequence: u64,
    /// Longest time between two steps.
    pub step_timeout_ms: u64,
    /// Longest time from the first step to the last.
    pub total_timeout_ms: u64,
    /// How long a promotion grants.
    pub open_for_ms: u64,
    /// What becomes of what it let in when the grant ends.
    #[serde(default)]
    pub sessions: SessionRule,
    /// Sources that may use it; empty for any.
    pub from: Vec<IpNet>,
    /// Destinations it exists for; empty for any.
    pub to: Vec<IpNet>,
    /// New attempts a second.
    pub new_attempts_per_s: u32,
    /// How single packets open it, in words; `None` where they do not.
    #[serde(default)]
    pub spa: Option<String>,
    /// The sequence that changes with time, in words; `None` where there is none.
    #[serde(default)]
    pub rotate: Option<String>,
    /// The sequences that open it once each, in words; `None` where there are none.
    #[serde(default)]
    pub list: Option<String>,
    /// What attempts at those call it, beside [`Self::number`], with the most steps of each.
    #[serde(default)]
    pub lanes: Vec<(u8, usize)>,
}

impl About {
    /// Describes a configuration compiled into a generation.
    #[must_use]
    pub fn of(
        config: &Config,
        generation: &Generation,
        file: Option<PathBuf>,
        overrides: &Overrides,
        loaded: Timestamp,
    ) -> Self {
        Self {
            abi: ABI_VERSION,
            generation: generation.settings.generation,
            mode: config.mode,
            hide_as: config.hide_as,
            forward: config.forward,
            egress: needs_egress(&generation.settings),
            config: file,
            state: config.state.clone(),
            loaded,
            interfaces: config.interfaces.clone(),
            overrides: overrides.clone(),
            previous: None,
            previous_egress: BTreeMap::new(),
            allow: config.allow.clone(),
            public: config.public.iter().map(ToString::to_string).collect(),
            doors: config
                .doors
                .iter()
                .zip(&generation.doors)
                .zip(0..)
                .map(|((door, rule), number)| {
                    (door.name.clone(), about_door(door, rule, number, lanes(config, usize::from(number))))
                })
                .collect(),
            identity: config.spa.as_ref().map(|server| server.identity.clone()),
            keys: config.keys.iter().map(|key| (key.name.clone(), keys::in_words(key))).collect(),
            ephemeral: (generation.settings.ephemeral_first, generation.settings.ephemeral_last),
        }
    }

    /// Returns the name of the door with this id.
    #[must_use]
    pub fn door_name(&self, id: u64) -> Option<&str> {
        self.doors.iter().find(|(_, door)| door.id == id).map(|(name, _)| name.as_str())
    }

    /// Returns the description as the chunks of the kernel's map, padded with zeros.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn chunks(&self) -> Result<Vec<[u8; ABOUT_CHUNK]>> {
        let text = serde_json::to_vec(self).context("describing the generation")?;
        let chunk = |piece: &[u8]| {
            let mut chunk = [0; ABOUT_CHUNK];
            chunk[..piece.len()].copy_from_slice(piece);
            chunk
        };
        Ok(text.chunks(ABOUT_CHUNK).map(chunk).collect())
    }

    /// Reads the description from the bytes of the kernel's map.
    ///
    /// # Errors
    /// When it is not one, or of a program with another layout.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let about: Self = serde_json::from_slice(bytes.get(..end).unwrap_or_default())
            .context("the generation's description of itself cannot be read")?;
        ensure!(
            about.abi == ABI_VERSION,
            "the gate was loaded by an xdp-knock with layout {}, this one has layout {ABI_VERSION}",
            about.abi
        );
        Ok(about)
    }
}

/// Returns the lanes of a door of the configuration, with the most steps of each.
fn lanes(config: &Config, number: usize) -> Vec<(u8, usize)> {
    let door = config.doors.get(number);
    let rotating = door.and_then(|door| door.rotate.as_ref()).map(|rotate| usize::from(rotate.shape.steps));
    let list = door.and_then(|door| door.list.iter().map(|line| line.steps.len()).max());
    let ways = pages::lanes(config).into_iter().filter(|(door, _)| *door == number);
    let with_steps = ways.zip(rotating.into_iter().chain(list));
    with_steps.flat_map(|((_, lanes), steps)| lanes.map(move |lane| (lane, steps))).collect()
}

fn about_door(door: &Door, rule: &DoorRule, number: u8, lanes: Vec<(u8, usize)>) -> AboutDoor {
    let milliseconds =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let sequence: Vec<String> = door.knock.iter().map(ToString::to_string).collect();
    AboutDoor {
        id: rule.id,
        number,
        has_ephemeral_step: rule.has(DoorRule::UDP_EPHEMERAL),
        opens: door.opens.iter().map(ToString::to_string).collect(),
        steps: door.knock.len(),
        sequence: knock_common::door::door_id(sequence.join(" ").as_bytes()),
        step_timeout_ms: milliseconds(door.step_timeout),
        total_timeout_ms: milliseconds(door.total_timeout),
        open_for_ms: milliseconds(door.open_for),
        sessions: door.sessions,
        from: door.from.clone(),
        to: door.to.clone(),
        new_attempts_per_s: door.new_attempts_per_s,
        spa: door.spa.as_ref().map(|spa| format!("udp/{} {}", spa.listen, spa.keys.join(" "))),
        rotate: door.rotate.as_ref().map(|rotate| format!("{rotate:?}")),
        list: list_in_words(door),
        lanes,
    }
}

/// How many sequences a door's list has, and what tells them from others.
fn list_in_words(door: &Door) -> Option<String> {
    let words: Vec<String> = door.list.iter().flat_map(|line| &line.steps).map(ToString::to_string).collect();
    let mark = knock_common::door::door_id(words.join(" ").as_bytes());
    (!door.list.is_empty()).then(|| format!("{} sequences #{mark:x}", door.list.len()))
}

/// What a reload changed, in words that hold no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// One line a change; empty when nothing changed.
    pub changes: Vec<String>,
}

impl Diff {
    /// Compares two generations.
    #[must_use]
    pub fn between(old: &About, new: &About) -> Self {
        let mut changes = Vec::new();
        if old.mode != new.mode {
            changes.push(format!("mode {} -> {}", old.mode, new.mode));
        }
        if old.hide_as != new.hide_as {
            changes.push(format!("hide_as {} -> {}", old.hide_as, new.hide_as));
        }
        if old.forward != new.forward {
            changes.push(format!("forward {} -> {}", old.forward, new.forward));
        }
        sets(&mut changes, "interface", &old.interfaces, &new.interfaces);
        sets(&mut changes, "allow", &old.allow, &new.allow);
        sets(&mut changes, "public", &old.public, &new.public);
        if old.identity != new.identity {
            let show = |one: &Option<String>| one.clone().unwrap_or_else(|| "none".to_owned());
            changes.push(format!("identity {} -> {}", show(&old.identity), show(&new.identity)));
        }
        let keys = |about: &About| -> Vec<String> {
            about.keys.iter().map(|(name, rights)| format!("{name}: {rights}")).collect()
        };
        sets(&mut changes, "key", &keys(old), &keys(new));
        for (name, door) in &new.doors {
            match old.doors.get(name) {
                None => changes.push(format!("+ door {name}: {}", door.opens.join(" "))),
                Some(before) => changed_door(&mut changes, name, before, door),
            }
        }
        for (name, door) in &old.doors {
            if !new.doors.contains_key(name) {
                changes.push(format!("- door {name}: {}", door.opens.join(" ")));
            }
        }
        Self { changes }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&self.changes.join("\n"))
    }
}

fn sets<T: PartialEq + fmt::Display>(changes: &mut Vec<String>, what: &str, old: &[T], new: &[T]) {
    changes.extend(new.iter().filter(|one| !old.contains(one)).map(|one| format!("+ {what} {one}")));
    changes.extend(old.iter().filter(|one| !new.contains(one)).map(|one| format!("- {what} {one}")));
}

fn changed_door(changes: &mut Vec<String>, name: &str, old: &AboutDoor, new: &AboutDoor) {
    let mut facts = Vec::new();
    sets(&mut facts, "opens", &old.opens, &new.opens);
    sets(&mut facts, "from", &old.from, &new.from);
    sets(&mut facts, "to", &old.to, &new.to);
    if (old.sequence, old.steps) != (new.sequence, new.steps) {
        facts.push("another sequence".to_owned());
    }
    let numbers = [
        ("step_timeout", old.step_timeout_ms, new.step_timeout_ms),
        ("total_timeout", old.total_timeout_ms, new.total_timeout_ms),
        ("open_for", old.open_for_ms, new.open_for_ms),
    ];
    for (what, old_ms, new_ms) in numbers {
        if old_ms != new_ms {
            let show = |ms| humantime::format_duration(std::time::Duration::from_millis(ms)).to_string();
            facts.push(format!("{what} {} -> {}", show(old_ms), show(new_ms)));
        }
    }
    let ways =
        [("spa", &old.spa, &new.spa), ("rotate", &old.rotate, &new.rotate), ("list", &old.list, &new.list)];
    for (what, old, new) in ways.into_iter().filter(|(_, old, new)| old != new) {
        let show = |one: &Option<String>| one.clone().unwrap_or_else(|| "none".to_owned());
        facts.push(format!("{what} {} -> {}", show(old), show(new)));
    }
    if old.sessions != new.sessions {
        facts.push(format!("sessions {} -> {}", old.sessions, new.sessions));
    }
    if old.new_attempts_per_s != new.new_attempts_per_s {
        facts.push(format!("new_attempts_per_s {} -> {}", old.new_attempts_per_s, new.new_attempts_per_s));
    }
    if !facts.is_empty() {
        changes.push(format!("~ door {name}: {}", facts.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{KNOCK, about};

    #[test]
    fn what_a_gate_of_before_does_not_say_is_as_it_was_then() {
        // A gate of then had no program for outgoing packets; in this mode one of now has none either.
        let now = about(7, KNOCK, "observe");
        let mut said = serde_json::to_value(&now).expect("JSON");
        let words = said.as_object_mut().expect("an object");
        for word in ["hide_as", "forward", "egress", "previous_egress", "identity", "keys"] {
            assert!(words.remove(word).is_some(), "{word}");
        }
        for door in words["doors"].as_object_mut().expect("doors").values_mut() {
            let door = door.as_object_mut().expect("a door");
            for word in ["sessions", "spa", "rotate", "list", "lanes"] {
                assert!(door.remove(word).is_some(), "{word}");
            }
        }

        let read = About::from_bytes(said.to_string().as_bytes()).expect("a gate of this layout");

        assert_eq!(read, now);
    }

    #[test]
    fn a_gate_s_mode_says_whether_programs_for_outgoing_packets_are_part_of_it() {
        assert!(about(7, KNOCK, "deny").egress);
        assert!(about(7, KNOCK, "guard").egress && !about(7, KNOCK, "observe").egress);
    }

    #[test]
    fn what_becomes_of_sessions_is_part_of_what_a_reload_changed() {
        let [keep, cut] =
            ["keep", "cut"].map(|word| about(7, &format!("{KNOCK}\nsessions = \"{word}\""), "guard"));

        assert_eq!(Diff::between(&keep, &cut).changes, ["~ door ssh: sessions keep -> cut"]);
        assert_eq!(Diff::between(&cut, &cut).changes, Vec::<String>::new());
    }
}
