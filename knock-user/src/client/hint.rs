//! Where to look when a door stays shut: a gate says nothing about a wrong knock.

use std::num::NonZeroU16;

use super::{verify::Probe, way::Way};

/// Returns what was seen, and what may be the cause.
pub(super) fn hint(way: &Way, (port, probe): &(NonZeroU16, Probe)) -> (String, Vec<&'static str>) {
    let seen = match probe {
        Probe::Refused => {
            format!("it answered: nothing listens on tcp/{port}, or the gate hides as \"closed\"")
        }
        Probe::Open | Probe::Silent(_) | Probe::Failed(_) => {
            format!("the host is down, or something between drops tcp/{port}, or the gate holds it shut")
        }
    };
    let causes = causes(way).iter().chain(&CAUSES).copied().collect();
    (format!("{seen}. A gate never says which knock was wrong; look at"), causes)
}

/// What may be the cause whatever was sent.
const CAUSES: [&str; 2] = [
    "address: a proxy, VPN or NAT may send from another one than the gate expects (try -4, -6)",
    "server: `xdp-knock events` there shows how far this attempt got, `xdp-knock status` whether a door is loaded",
];
const PACE: &str =
    "time: slower if knocks overtake each other (--delay 500ms), faster than the door's step_timeout";
const CLOCK: &str = "clock: this machine's and the server's must agree (`timedatectl` on both)";

fn causes(way: &Way) -> &'static [&'static str] {
    match way {
        Way::Steps(_) => {
            &["steps: the same ports, protocols, sizes and order as in the door's `knock` list", PACE]
        }
        Way::Packet(_) => &[
            "names: --server is the server's `identity`, --door its door; the door has this key",
            CLOCK,
            "NAT: a packet that lets in whoever sends it needs `nat = true` of its key; --source ADDRESS does without",
        ],
        Way::Rotating(_) => &[
            "secret, door, steps, every, ports: the same as in the door's `rotate`; each time step's sequence works once",
            CLOCK,
            PACE,
        ],
        Way::List(_) => {
            &["list: the same lines as the server's; it looks a few lines ahead of the last one used", PACE]
        }
    }
}
