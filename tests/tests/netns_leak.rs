//! Nothing gets past the gate: generated frames of a source without rights, to a hidden port with a real TCP and UDP service
//! behind it. `KNOCK_LEAK_FRAMES` says how many (1,000,000), `KNOCK_SEED` brings a run back.
//!
//! What gets past is counted by the kernel's own firewall behind the gate and by the services.

use std::{
    env,
    net::IpAddr,
    time::{Duration, Instant},
};

use knock_common::{
    abi::{Address, mapped},
    counter::{ALL, Counter},
};
use knock_tests::{
    instance::Instance,
    netns::{Family, Network, address},
    oracle::{Oracle, Tally},
    packet::{TCP, UDP, tcp, udp},
    program::poll,
    random::Random,
    raw::{link_address, seal},
    sender::Sender,
    shape::{self, Route},
};

const HIDDEN: u16 = 4022;
const FRIEND: u8 = 2;
/// Hosts without rights.
const STRANGERS: [u8; 4] = [3, 4, 5, 6];
/// Sources with a grant all the while, whose addresses no damaged frame comes by.
const ELSEWHERE: [&str; 2] = ["203.0.113.77", "2001:db8::77"];
/// How long what is certain to come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const DEFAULT_FRAMES: u64 = 1_000_000;
/// One frame in so many that the twin is sent.
const TWIN: u64 = 20;

fn frames() -> u64 {
    let given = env::var("KNOCK_LEAK_FRAMES").ok();
    given.map_or(DEFAULT_FRAMES, |text| text.parse().expect("KNOCK_LEAK_FRAMES is a number"))
}

fn config(mode: &str) -> String {
    format!(
        "[xdp]\nmode = \"{mode}\"\n[[door]]\nname = \"hidden\"\nallow_weak = true\nopens = [\"tcp/{HIDDEN}\", \"udp/{HIDDEN}\"]\n\
         knock = [\"tcp/20011\", \"udp/5017\"]\nopen_for = \"1h\"\n"
    )
}

/// Makes frames to the hidden port.
struct Maker {
    random: Random,
    links: [u8; 12],
}

impl Maker {
    fn next(&mut self, host: u8) -> Vec<u8> {
        let family = *self.random.pick(&[Family::V4, Family::V6]);
        let route = Route { source: octets(family, host), destination: octets(family, 1) };
        let (proto, segment) = self.segment();
        let mut frame = match self.random.below(4) {
            0 => seal(shape::plain(route, proto, &segment)),
            _ => {
                // With the checksum that it has without whatever is put before it.
                let whole = seal(shape::plain(route, proto, &segment));
                let header = 14 + if route.is_v4() { 20 } else { 40 };
                shape::strange(&mut self.random, route, proto, &whole[header..])
            }
        };
        let group = frame[0] & 1;
        frame[..12].copy_from_slice(&self.links);
        frame[0] |= group;
        if self.random.once_in(10) { shape::damage(&mut self.random, frame) } else { frame }
    }

    fn segment(&mut self) -> (u8, Vec<u8>) {
        if self.random.once_in(2) {
            let size = self.random.below(200);
            return (UDP, udp(HIDDEN, u16::try_from(size).expect("short")));
        }
        let mut segment = tcp(HIDDEN, self.random.byte());
        let (source, numbers) = (self.random.word(), self.random.bits());
        segment[..2].copy_from_slice(&source.to_be_bytes());
        segment[4..12].copy_from_slice(&numbers.to_be_bytes());
        if self.random.once_in(4) {
            // As many options as the data offset says; Linux skips those of length 1 (RFC 9293, section 3.2).
            let words = self.random.below(11);
            segment[12] = u8::try_from(5 + words).expect("at most 15") << 4;
            segment.extend(std::iter::repeat_n(1, 4 * words));
        }
        segment.extend(std::iter::repeat_n(b'x', self.random.below(60)));
        (TCP, segment)
    }
}

fn octets(family: Family, host: u8) -> Address {
    match address(family, 0, host) {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Frames judged, by the gate's own count.
fn judged(gate: &Instance<'_>) -> u64 {
    let verdicts = ALL.iter().filter(|(counter, ..)| (*counter as u32) < 32);
    verdicts.map(|(counter, ..)| gate.count(*counter)).sum()
}

/// A gate, where it is and how it is attached.
type Scene<'a> = (&'a Network, &'a Instance<'a>, &'a str);

/// Sends frames of hosts in turn; all of them are judged.
fn send((network, gate, attach): Scene<'_>, maker: &mut Maker, count: u64, hosts: &[u8]) {
    let sender = Sender::new(&network.client, "cli0");
    let (before, began) = (judged(gate), Instant::now());
    let mut sent = 0;
    for host in hosts.iter().cycle() {
        if sent == count {
            break;
        }
        sent += u64::from(sender.send(&maker.next(*host)));
    }
    let took = began.elapsed();
    // A queue of the sender's may still hold some. One whose tag is cut short the kernel drops by itself in front of TCX
    // (`skb_vlan_untag`): one in 2500 of these.
    let dropped = if attach == "tcx" { sent / 1000 } else { 0 };
    poll("all frames to be judged", PATIENCE, || (judged(gate) - before >= sent - dropped).then_some(()));
    println!("{sent} frames in {took:?}: {:.0} a second", sent as f64 / took.as_secs_f64());
}

fn grant(gate: &Instance<'_>, sources: &[String; 2]) {
    for source in sources {
        let _ = gate.run("grant", &[source, "hidden", "--for", "1h"]).succeeded();
    }
}

fn nothing_leaks(mode: &str, attach: &str, count: u64) -> Tally {
    let seed = Random::seed("KNOCK_SEED");
    println!("{mode} by {attach}: KNOCK_SEED={seed}");
    let network = Network::new();
    STRANGERS.iter().for_each(|host| network.add_host("cli0", 0, *host));
    let oracle = Oracle::new(&network.server, "srv0", HIDDEN);
    let gate = Instance::new(&network.server, &["srv0"], &config(mode));
    let _ = gate.run("attach", &["--attach", attach]).succeeded();
    grant(&gate, &ELSEWHERE.map(String::from));
    let links = [link_address(&network.server, "srv0"), link_address(&network.client, "cli0")].concat();
    let mut maker = Maker { random: Random::new(seed), links: links.try_into().expect("two addresses") };

    send((&network, &gate, attach), &mut maker, count, &STRANGERS);
    let leaked = oracle.tally();
    println!("{mode} by {attach}: {leaked:?}; by the gate: {} hidden", gate.count(Counter::Hidden));
    assert_eq!((leaked.hidden_tcp, leaked.hidden_udp, leaked.delivered), (0, 0, 0), "came out of the gate");
    assert_eq!((leaked.answers, leaked.accepted, leaked.received), (0, 0, 0), "was delivered");

    // The twin: the same frames of a host with a grant.
    grant(&gate, &[Family::V4, Family::V6].map(|family| address(family, 0, FRIEND).to_string()));
    maker.random = Random::new(seed);
    send((&network, &gate, attach), &mut maker, (count / TWIN).max(2000), &[FRIEND]);
    let granted = poll("datagrams to be received", PATIENCE, || {
        Some(oracle.tally()).filter(|tally| tally.received > 0)
    });
    println!("{mode} by {attach}, with a grant: {granted:?}");
    assert!(granted.hidden_tcp > 0 && granted.hidden_udp > 0, "{granted:?}");
    assert!(granted.answers > 0, "{granted:?}");
    leaked
}

#[test]
fn no_frame_of_a_stranger_reaches_a_hidden_port_in_guard_mode() {
    nothing_leaks("guard", "auto", frames() / 2);
}

#[test]
fn no_frame_of_a_stranger_reaches_a_hidden_port_by_tcx() {
    nothing_leaks("guard", "tcx", frames() / 8);
}

#[test]
fn no_frame_of_a_stranger_reaches_anything_in_deny_mode() {
    let leaked = nothing_leaks("deny", "auto", frames() / 2);
    assert_eq!((leaked.taken, leaked.out), (0, 0), "{leaked:?}");
}

#[test]
fn no_frame_of_a_stranger_reaches_anything_by_tcx_in_deny_mode() {
    let leaked = nothing_leaks("deny", "tcx", frames() / 8);
    assert_eq!((leaked.taken, leaked.out), (0, 0), "{leaked:?}");
}
