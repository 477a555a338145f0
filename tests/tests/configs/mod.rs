//! Configurations that together reach everything the program does.

use std::{fs, os::unix::fs::PermissionsExt as _};

use knock_tests::kernel::compile;
use knock_user::generation::Generation;

/// A configuration with a name, and its cap on events.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Names it in what is printed.
    pub name: &'static str,
    text: &'static str,
    more: fn() -> String,
    events: Option<u32>,
}

impl Case {
    const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, more: String::new, events: None }
    }

    /// Compiles it.
    pub fn generation(&self) -> Generation {
        let mut generation = compile(&format!("{}{}", self.text, (self.more)()));
        if let Some(events) = self.events {
            generation.settings.events = events;
        }
        generation
    }
}

pub const CASES: [Case; 9] = [
    Case::new(
        "one door, observed",
        r#"
[xdp]
mode = "observe"
[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172", "tcp/5124"]
"#,
    ),
    Case {
        events: Some(40),
        ..Case::new(
            "one door, guarded, small budgets",
            r#"
[xdp]
mode = "guard"
allow = ["192.0.2.0/24", "2001:db8:a::/48"]
public = ["tcp/80", "tcp/443", "udp/123", "icmp/echo"]
[[door]]
name = "ssh"
opens = ["tcp/22", "tcp/9000-9010", "udp/51820"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172", "tcp/5124"]
step_timeout = "1s"
total_timeout = "2s"
open_for = "2s"
new_attempts_per_s = 2
"#,
        )
    },
    Case { more: overlapping, ..Case::new("eight doors with a first step in common", GUARD) },
    Case { more: changing, ..Case::new("sequences that rotate, and a list", GUARD) },
    Case {
        more: echoes,
        events: Some(200),
        ..Case::new("eleven doors that one echo begins", GUARD_ECHO_PUBLIC)
    },
    Case::new(
        "prefixes, an ephemeral step, a long sequence",
        r#"
[xdp]
mode = "guard"
allow = ["192.0.2.5/32", "2001:db8:a::5/128"]
public = ["tcp/443", "icmp/echo"]
[[door]]
name = "near"
opens = ["tcp/22"]
from = ["198.51.100.0/25", "2001:db8:0::/121"]
to = ["203.0.113.1/32", "2001:db8:1::1/128"]
knock = ["tcp/7101", "udp/40000", "icmp/echo?id=7", "tcp/7101"]
allow_weak = true
[[door]]
name = "far"
opens = ["tcp/22", "udp/51820"]
to = ["203.0.113.2/32", "2001:db8:1::/64"]
knock = ["tcp/7101", "udp/9032", "tcp/1200"]
[[door]]
name = "long"
opens = ["tcp/8443", "tcp/9000-9010"]
knock = [
    "udp/2001", "tcp/3001", "tcp/3005", "tcp/3001", "udp/2005", "icmp/echo?size=56", "tcp/3009", "udp/2009",
    "icmp/echo?size=57", "tcp/3001", "udp/2001", "tcp/3009", "tcp/3009", "icmp/echo?id=9", "udp/2013", "tcp/3013",
]
total_timeout = "30s"
"#,
    ),
    Case::new(
        "one step",
        r#"
[xdp]
mode = "guard"
[[door]]
name = "one"
opens = ["tcp/22", "icmp/echo"]
knock = ["udp/9032"]
open_for = "1s"
allow_weak = true
[[door]]
name = "two"
opens = ["tcp/22", "tcp/8443"]
knock = ["tcp/7101", "tcp/7105"]
step_timeout = "100ms"
total_timeout = "150ms"
allow_weak = true
"#,
    ),
    Case::new(
        "denied, with a door to everything",
        r#"
[xdp]
mode = "deny"
allow = ["192.0.2.0/24", "2001:db8:a::/48"]
public = ["tcp/443", "udp/123", "proto/47"]
udp_idle = "30s"
[[door]]
name = "near"
opens = ["tcp/22", "udp/51820"]
to = ["203.0.113.1/32", "2001:db8:1::1/128"]
knock = ["tcp/7101", "udp/9032", "icmp/echo?size=172"]
open_for = "60s"
allow_weak = true
[[door]]
name = "all"
opens = ["any"]
knock = ["udp/9032", "udp/40000", "tcp/1200"]
open_for = "1s"
allow_weak = true
"#,
    ),
    Case::new(
        "denied, sessions cut, nothing sent on",
        r#"
[xdp]
mode = "deny"
forward = "deny"
public = ["tcp/80", "icmp/echo"]
[[door]]
name = "cut"
opens = ["tcp/22", "udp/51820", "tcp/9000-9010"]
sessions = "cut"
knock = ["tcp/7101", "udp/9032", "tcp/1200"]
open_for = "2s"
allow_weak = true
"#,
    ),
];

const GUARD: &str = "[xdp]\nmode = \"guard\"\npublic = [\"tcp/80\"]\n";
const GUARD_ECHO_PUBLIC: &str = "[xdp]\nmode = \"guard\"\npublic = [\"icmp/echo\"]\n";

/// Doors whose sequences change, beside one whose does not.
fn changing() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = (0..900)
        .map(|line| format!("tcp/{} udp/{} icmp/echo?size=9\n", 10_000 + line, 9999 - line))
        .collect();
    let [secret, list] = [("secret", "17".repeat(32)), ("list", lines)].map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a writable folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        path.display().to_string()
    });
    let door = |name: &str, way: &str| {
        format!(
            "[[door]]\nname = \"{name}\"\nallow_weak = true\nopens = [\"tcp/22\"]\nopen_for = \"1s\"\n{way}\n"
        )
    };
    let rotate = |steps| {
        format!(
            "rotate = {{ secret_file = \"{secret}\", steps = {steps}, every = \"10s\", ports = \"20000-20020\" }}"
        )
    };
    let text = [
        door("short", &rotate(2)),
        door("long", &format!("{}\nfrom = [\"198.51.100.0/25\", \"2001:db8::/32\"]", rotate(5))),
        door("list", &format!("list = {{ file = \"{list}\" }}")),
        door("both", &format!("knock = [\"tcp/7101\", \"udp/9032\"]\n{}", rotate(3))),
    ];
    // The files are read after this.
    let _ = folder.keep();
    text.concat()
}

/// Doors that share their first two steps, or their first, and what they open.
fn overlapping() -> String {
    let doors = (0..8).map(|number| {
        let second = ["udp/9032", "tcp/7120", "icmp/echo?size=56"][number % 3];
        door(number, &["tcp/7101", second, &format!("tcp/{}", 7200 + 10 * number)])
    });
    let others = (8..12).map(|number| {
        door(number, &["udp/9032", "tcp/7101", &format!("udp/{}", 7200 + 10 * number), "tcp/7101"])
    });
    doors.chain(others).collect()
}

/// Doors whose first steps are all met by an echo of 56 bytes with id 7.
fn echoes() -> String {
    let firsts = ["icmp/echo", "icmp/echo?size=56", "icmp/echo?id=7", "icmp/echo?size=56&id=7"];
    (0..11)
        .map(|number| {
            let third = if number % 2 == 0 { "icmp/echo?size=57" } else { "udp/9032" };
            door(number, &[firsts[number % 4], &format!("tcp/{}", 7200 + 10 * number), third])
        })
        .collect()
}

fn door(number: usize, steps: &[&str]) -> String {
    let opens = ["tcp/22", "tcp/22\", \"tcp/8443", "udp/51820", "tcp/9000-9005"][number % 4];
    let steps = steps.join("\", \"");
    format!(
        "[[door]]\nname = \"d{number}\"\nopens = [\"{opens}\"]\nknock = [\"{steps}\"]\n\
         open_for = \"{}s\"\nallow_weak = true\n",
        1 + number
    )
}
