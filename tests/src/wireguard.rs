//! WireGuard in user space: wireguard-go on a tun device, told by its socket what to do.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{netns::Namespace, program::poll};

/// A pair of keys, in hexadecimal.
#[derive(Clone, Debug)]
pub struct Keys {
    private: String,
    public: String,
}

impl Keys {
    /// Makes a pair.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for keys");
        let file = folder.path().join("key");
        openssl(
            Command::new("openssl")
                .args(["genpkey", "-algorithm", "X25519", "-outform", "DER", "-out"])
                .arg(&file),
        );
        let private = fs::read(&file).expect("openssl wrote a key");
        let public = openssl(
            Command::new("openssl")
                .args(["pkey", "-inform", "DER", "-pubout", "-outform", "DER", "-in"])
                .arg(&file),
        );
        Self { private: last_32(&private), public: last_32(&public) }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The key itself is the end of its DER form (RFC 8410, sections 4 and 7).
fn last_32(der: &[u8]) -> String {
    der[der.len() - 32..].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One end of a tunnel; it ends when dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// Its device.
    pub device: String,
    child: Child,
    socket: PathBuf,
}

impl Tunnel {
    /// Starts an end on a UDP port, with an address inside the tunnel such as `10.78.0.1/24`.
    pub fn start(
        namespace: &Namespace,
        port: u16,
        address: &str,
        own: &Keys,
        peer: &Keys,
        at: Option<SocketAddr>,
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Its socket has the name of the device, whatever the namespace.
        let name = format!("wg{}-{}", id() % 100_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let socket = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
        let mut wireguard = namespace.command("wireguard-go");
        wireguard.args(["-f", &name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = wireguard.spawn().expect("nsenter is installed");
        let tunnel = Self { device: name.clone(), child, socket };
        let mut stream = poll("wireguard-go to listen", Duration::from_secs(10), || {
            UnixStream::connect(&tunnel.socket).ok()
        });
        let endpoint = at.map_or_else(String::new, |at| format!("endpoint={at}\n"));
        let Keys { private, .. } = own;
        let Keys { public, .. } = peer;
        let wanted = format!(
            "set=1\nprivate_key={private}\nlisten_port={port}\npublic_key={public}\n{endpoint}allowed_ip=10.78.0.0/24\nallowed_ip=fd78::/64\n\n"
        );
        stream.write_all(wanted.as_bytes()).expect("wireguard-go reads");
        stream.shutdown(Shutdown::Write).expect("a connected socket");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("wireguard-go answers");
        assert_eq!(said.trim(), "errno=0");
        namespace.run(&format!("ip address add {address} dev {name}"));
        namespace.run(&format!("ip link set {name} up"));
        tunnel
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // It may have ended by itself, and takes its socket away only when told to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}
