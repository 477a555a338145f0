//! Single packets in the kernel's terms: keys, rights and the server of a generation.

use std::{fmt, time::Duration};

use knock_common::{
    door::door_id,
    spa::abi::{KeyId, KeyRule, Right, RightKey, ServerRule},
};

use crate::config::{Config, Door, spa::Key};

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
        let secrets =
            config.keys.iter().flat_map(|key| key.secrets.iter().map(move |secret| (key, &secret.0)));
        let keys = secrets.map(|(key, secret)| (secret.id(), KeyRule { flags: flags(key), ..secret.rule() }));
        let numbered = config.doors.iter().zip(0_u8..);
        Self {
            keys: keys.collect(),
            rights: numbered.flat_map(|(door, number)| rights(config, door, number)).collect(),
            server: server.filter(|_| config.doors.iter().any(|door| door.spa.is_some())),
        }
    }
}

fn flags(key: &Key) -> u8 {
    let flags = [(key.nat, KeyRule::ANY_SOURCE), (key.any_address, KeyRule::OTHER_SOURCE)];
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
