//! A client of single packets that makes them itself, of any time and as often as it likes.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use knock_common::{
    door::door_id,
    spa::{
        abi::KeyId,
        key::SpaKey,
        packet::{Datagram, Request},
    },
};
use knock_user::generation::key_of;
use tempfile::TempDir;

use crate::{
    instance::guard,
    netns::{Family, Namespace, address},
};

/// Where the door listens.
const PORT: u16 = 62_201;

/// A key, and who has it.
pub struct Asker<'a> {
    client: &'a Namespace,
    key: SpaKey,
    folder: TempDir,
}

impl<'a> Asker<'a> {
    /// Makes a key for the client.
    pub fn new(client: &'a Namespace) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the key");
        let path = folder.path().join("alice.key");
        fs::write(&path, "42".repeat(32)).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        Self { client, key: SpaKey::new(&[0x42; 32]), folder }
    }

    /// A configuration of a server that has the key, takes packets of a window, and keeps its state in a file.
    pub fn config(&self, window: &str, state: &str) -> String {
        let door = "[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nspa = { listen = \"udp/62201\", keys = [\"alice\"] }\n";
        let key = self.folder.path().join("alice.key");
        format!(
            "{}[spa]\nidentity = \"box\"\nwindow = \"{window}\"\n[[key]]\nname = \"alice\"\nsecret_file = {key:?}\n{state}",
            guard(&[door.to_owned()])
        )
    }

    /// Where the server finds its secret, `alice.key`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The id of its secret.
    pub fn id(&self) -> KeyId {
        self.key.id()
    }

    /// Who it is to be let in.
    pub fn source(&self) -> IpAddr {
        address(Family::V4, 0, 2)
    }

    /// Makes a packet of a time: Unix nanoseconds.
    pub fn packet(&self, counter: u64) -> Vec<u8> {
        let request = Request {
            seconds: 0,
            door: door_id(b"ssh"),
            counter,
            server: door_id(b"box"),
            source: Some(key_of(self.source())),
        };
        Datagram::seal(&request, &self.key).bytes().to_vec()
    }

    /// Sends a packet.
    pub fn send(&self, packet: &[u8]) {
        self.client.within(|| {
            let socket = UdpSocket::bind((self.source(), 0)).expect("a socket");
            let _ = socket.send_to(packet, (address(Family::V4, 0, 1), PORT)).expect("sent");
        });
    }
}

/// The wall time, plus a time: Unix nanoseconds.
pub fn ahead_by(time: Duration) -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from((now + time).as_nanos()).expect("a time of ours")
}
