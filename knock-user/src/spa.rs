//! Single packets in the kernel's terms: keys, rights and the server of a generation.

use std::{fmt, time::Duration};

use knock_common::{
    door::door_id,
    spa::abi::{KeyId, KeyRule, Right, RightKey, ServerRule},
};

use crate::config::{
    Config, Door,
    keys::{Key, Secret},
};

/// What a generation knows of single packets.
#[derive(Clone, Default)]
pub struct Spa {
    /// Secrets by their ids.
    pub keys: Vec<(KeyId, KeyRule)>,
    /// What each may ask for.
    pub rights: Vec<(RightKey, Right)>,
    /// The server; `None` where no door opens by single packets.
    pub server: Option<ServerRule>,
}

impl fmt::Debug for Spa {
    /// Leaves the keys out: debug output ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} keys, {} rights>", self.keys.len(), self.rights.len())
    }
}

impl Spa {
    /// Compiles what a configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let server = config.spa.as_ref().map(|server| ServerRule {
            identity: door_id(server.identity.as_bytes()),
            window_ns: nanoseconds(server.window),
        });
        let keys = config.keys.iter().zip(0_u16..).flat_map(|(key, number)| {
            let rule = move |secret: &Secret| KeyRule { flags: flags(key), number, ..secret.0.rule() };
            key.secrets.iter().map(move |secret| (secret.0.id(), rule(secret)))
        });
        let numbered = config.doors.iter().zip(0_u8..);
        Self {
            keys: keys.collect(),
            rights: numbered.flat_map(|(door, number)| rights(config, door, number)).collect(),
            server: server.filter(|_| config.doors.iter().any(|door| door.spa.is_some())),
        }
    }
}

fn flags(key: &Key) -> u8 {
    let flags = [
        (key.nat, KeyRule::ANY_SOURCE),
        (key.any_address, KeyRule::OTHER_SOURCE),
        (!key.from.is_empty(), KeyRule::FROM),
    ];
    flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag)
}

/// A door gives what it gives to anybody, or what is asked for, and a key no more than its own limit.
fn rights(config: &Config, door: &Door, number: u8) -> Vec<(RightKey, Right)> {
    let Some(spa) = &door.spa else { return Vec::new() };
    let id = door_id(door.name.as_bytes());
    let named = config.keys.iter().filter(|key| spa.keys.contains(&key.name));
    let right = |key: &Key| Right {
        open_for_ns: nanoseconds(door.open_for),
        longest_ns: nanoseconds(key.max_open),
        port: spa.listen,
        door: number,
        _pad: [0; 5],
    };
    named
        .flat_map(|key| {
            key.secrets.iter().map(move |secret| (RightKey { key: secret.0.id(), door: id }, right(key)))
        })
        .collect()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use knock_common::abi::{List, PORTS, Settings};

    use super::*;
    use crate::generation::{DEFAULT_EPHEMERAL, Generation};

    fn compiled(folder: &Path, key: &str, door: &str) -> Generation {
        for (name, digits) in [("new", "01"), ("old", "02")] {
            let path = folder.join(name);
            fs::write(&path, digits.repeat(32)).expect("a writable folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        }
        let new = folder.join("new").display().to_string();
        let text = format!(
            "[spa]\nidentity = \"box\"\n[[key]]\nname = \"alice\"\nsecret_file = \"{new}\"\n{key}\n[[door]]\nname = \"ssh\"\n\
             opens = [\"tcp/22\"]\nopen_for = \"10s\"\n{door}\n"
        );
        let (config, _) = Config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"));
        Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).expect("few sets of doors")
    }

    const SPA: &str = "spa = { listen = \"udp/40000\", keys = [\"alice\"] }";

    #[test]
    fn both_secrets_of_a_key_have_its_rights() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join("old").display().to_string();
        let more = format!(
            "old_secret_file = \"{old}\"\nnat = true\nmax_open = \"1m\"\nfrom = [\"192.0.2.0/24\", \"2001:db8::/32\"]"
        );

        let Generation { spa, settings, port_roles, prefixes, .. } = compiled(folder.path(), &more, SPA);

        assert_eq!((spa.keys.len(), spa.rights.len()), (2, 2));
        assert!(spa.keys[0].0 != spa.keys[1].0, "each has its own id");
        for ((id, rule), (asked, right)) in spa.keys.iter().zip(&spa.rights) {
            let flags = KeyRule::ANY_SOURCE | KeyRule::FROM;
            assert_eq!((rule.flags, rule.number, asked.key, asked.door), (flags, 0, *id, door_id(b"ssh")));
            assert_eq!((right.open_for_ns, right.longest_ns), (10_000_000_000, 60_000_000_000));
            assert_eq!((right.port, right.door), (40_000, 0));
        }
        assert_eq!(spa.server.map(|server| server.identity), Some(door_id(b"box")));
        assert!(settings.flags & Settings::SPA != 0);
        assert_eq!(settings.lists, List::Key.bit());
        let prefixes = prefixes.iter().map(|(bits, key)| (*bits, key.list, key.owner, key.family));
        assert_eq!(prefixes.collect::<Vec<_>>(), [(32 + 96 + 24, 4, 0, 4), (32 + 32, 4, 0, 6)]);
        assert!(port_roles[PORTS + 40_000].is_judged(), "also in the ephemeral range");
        assert!(port_roles[PORTS + 40_000].listens());
        assert!(port_roles[PORTS + 40_001].is_none());
        assert!(!port_roles[40_000].listens(), "TCP has none");
        assert_eq!(format!("{spa:?}"), "<2 keys, 2 rights>");
    }

    #[test]
    fn where_no_door_opens_by_them_the_program_knows_nothing_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let knock = "knock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\", \"udp/7121\"]";

        let Generation { spa, settings, .. } = compiled(folder.path(), "", knock);

        assert_eq!((spa.rights.len(), spa.server.is_none()), (0, true));
        assert_eq!(settings.flags & Settings::SPA, 0);
    }
}
