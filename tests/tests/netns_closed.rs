//! `hide_as = "closed"`: what a hidden port answers is, field by field, what this kernel's own closed port answers.
//!
//! Each probe goes to a hidden port and, but for the number of the port, the same to a closed one that the gate leaves to
//! the kernel. What differs by nature is only compared in kind: the identification of an ICMP error over IPv4, and the
//! flow label, which the kernel makes with a secret of its own.

use std::net::{Ipv6Addr, TcpListener, UdpSocket};

use aya::programs::XdpMode;
use knock_common::abi::Settings;
use knock_tests::{
    kernel::compile,
    netns::Network,
    packet::{
        ACK, CWR, DESTINATION, ECE, FIN, IPV4, IPV6, PSH, RST, SYN, TCP, UDP, URG, V4, V6, extension, tcp,
        udp,
    },
    program::run,
    raw::{Raw, link_address, seal},
};
use knock_user::loader::{Gate, Options};

const CONFIG: &str = r#"
[xdp]
mode = "guard"
[[door]]
name = "hidden"
opens = ["tcp/22", "udp/5353"]
knock = ["tcp/7101", "udp/9032", "tcp/5124"]
"#;

/// Hidden, with a listener behind it; and closed.
const TCP_PORTS: [u16; 2] = [22, 23];
/// Likewise.
const UDP_PORTS: [u16; 2] = [5353, 5354];
/// A closed port that ends the wait for answers.
const MARK: u16 = 4;
const MARKING_HOST: u8 = 9;
const FIRST_HOST: u8 = 10;

/// A guarded server with a listener on every hidden port, and a client that sends what it likes.
struct Scene {
    network: Network,
    raw: Raw,
    links: [u8; 12],
    _gates: [Gate; 2],
    _listeners: (TcpListener, UdpSocket),
}

fn scene(mode: XdpMode) -> Scene {
    let network = Network::new();
    // What is sent back natively over a veth waits there unless the other end has an XDP program, too (`veth_xdp_flush`).
    let observer = network.client.within(|| {
        let mut gate =
            Gate::load_undisturbed(&compile(&CONFIG.replace("guard", "observe")), &Options::default())
                .expect("a gate");
        gate.program().expect("the program").attach("cli0", XdpMode::Driver).expect("a free interface");
        gate
    });
    let links = [link_address(&network.server, "srv0"), link_address(&network.client, "cli0")].concat();
    for host in MARKING_HOST..=254 {
        let lladdr = links[6..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        for address in [format!("10.77.0.{host}"), format!("fd77::{host:x}")] {
            network.server.run(&format!("ip neigh replace {address} lladdr {lladdr} dev srv0"));
        }
    }
    let mut generation = compile(CONFIG);
    generation.settings.flags |= Settings::CLOSED | Settings::LABELS;
    let (gate, listeners) = network.server.within(|| {
        let mut gate = Gate::load_undisturbed(&generation, &Options::default()).expect("a gate");
        gate.program().expect("the program").attach("srv0", mode).expect("a free interface");
        let any = Ipv6Addr::UNSPECIFIED;
        let listeners = (TcpListener::bind((any, 22)), UdpSocket::bind((any, 5353)));
        (gate, (listeners.0.expect("a free port"), listeners.1.expect("a free port")))
    });
    let raw = Raw::new(&network.client, "cli0");
    Scene {
        raw,
        network,
        links: links.try_into().expect("two addresses"),
        _gates: [gate, observer],
        _listeners: listeners,
    }
}

/// What a probe is, but for the port and the host it comes from.
struct Probe {
    name: String,
    is_v6: bool,
    make: Box<dyn Fn(u8, u16) -> Vec<u8>>,
    ports: [u16; 2],
    is_answered: bool,
}

fn v4_probe(
    name: &str,
    proto: u8,
    payload: impl Fn(u16) -> Vec<u8> + 'static,
    change: impl Fn(&mut Vec<u8>) + 'static,
) -> Probe {
    v4_with_options(name, proto, vec![], payload, change)
}

fn v4_with_options(
    name: &str,
    proto: u8,
    options: Vec<u8>,
    payload: impl Fn(u16) -> Vec<u8> + 'static,
    change: impl Fn(&mut Vec<u8>) + 'static,
) -> Probe {
    let make = move |host: u8, port: u16| {
        let mut packet = V4 {
            source: [10, 77, 0, host],
            destination: [10, 77, 0, 1],
            options: options.clone(),
            ..V4::new(proto)
        }
        .packet(&payload(port));
        change(&mut packet);
        resum(&mut packet);
        packet
    };
    let ports = if proto == TCP { TCP_PORTS } else { UDP_PORTS };
    Probe { name: format!("v4 {name}"), is_v6: false, make: Box::new(make), ports, is_answered: true }
}

fn v6_probe(
    name: &str,
    proto: u8,
    extensions: Vec<(u8, Vec<u8>)>,
    payload: impl Fn(u16) -> Vec<u8> + 'static,
    change: impl Fn(&mut Vec<u8>) + 'static,
) -> Probe {
    let make = move |host: u8, port: u16| {
        let mut packet = V6 { source: v6(host), destination: v6(1), ..V6::behind(proto, &extensions) }
            .packet(&payload(port));
        change(&mut packet);
        packet
    };
    let ports = if proto == TCP { TCP_PORTS } else { UDP_PORTS };
    Probe { name: format!("v6 {name}"), is_v6: true, make: Box::new(make), ports, is_answered: true }
}

fn v6(host: u8) -> [u8; 16] {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)).octets()
}

/// Computes an IPv4 header checksum anew.
fn resum(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !ones(&packet[..len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, without the complement.
fn ones(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn same(_: &mut Vec<u8>) {}

fn silent(probe: Probe) -> Probe {
    Probe { is_answered: false, ..probe }
}

/// A segment with flags, options and so many bytes of data.
fn segment(flags: u8, options: &'static [u8], data: usize) -> impl Fn(u16) -> Vec<u8> + Copy {
    move |port| {
        let mut bytes = tcp(port, flags);
        bytes[8..12].copy_from_slice(&[0x11, 0x22, 0x33, 0x44]);
        bytes[12] = u8::try_from((20 + options.len()) / 4).expect("at most 15 words") << 4;
        bytes.extend(options);
        bytes.extend((0..data).map(|at| at.to_le_bytes()[0]));
        bytes
    }
}

const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

fn flag_sets() -> Vec<(&'static str, u8)> {
    vec![
        ("SYN", SYN),
        ("ACK", ACK),
        ("FIN", FIN),
        ("NULL", 0),
        ("Xmas", FIN | PSH | URG),
        ("SYN ACK", SYN | ACK),
        ("FIN ACK", FIN | ACK),
        ("SYN FIN", SYN | FIN),
        ("SYN with ECN", SYN | ECE | CWR),
        ("all but RST", !RST),
    ]
}

fn tcp_probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, flags) in flag_sets() {
        for (with, options, data) in [
            ("", &[][..], 0),
            (" and data", &[], 100),
            (" and odd data", &[], 7),
            (" and options", OPTIONS, 1),
        ] {
            let name = format!("{name}{with}");
            probes.push(v4_probe(&name, TCP, segment(flags, options, data), same));
            probes.push(v6_probe(&name, TCP, vec![], segment(flags, options, data), same));
        }
    }
    for flags in [RST, RST | ACK, RST | SYN] {
        probes.push(silent(v4_probe("RST", TCP, segment(flags, &[], 0), same)));
        probes.push(silent(v6_probe("RST", TCP, vec![], segment(flags, &[], 0), same)));
    }
    probes.push(v4_probe("a full segment", TCP, segment(ACK, &[], 1460), same));
    probes.push(v6_probe("a full segment", TCP, vec![], segment(ACK, &[], 1440), same));
    probes
}

fn udp_probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for size in [0, 1, 500, 520, 521, 1183, 1184, 1185, 1400] {
        probes.push(v4_probe(&format!("{size} bytes"), UDP, move |port| udp(port, size), same));
        probes.push(v6_probe(&format!("{size} bytes"), UDP, vec![], move |port| udp(port, size), same));
    }
    let trailing = |port| [udp(port, 9), vec![7; 20]].concat();
    probes.push(v4_probe("bytes behind the datagram", UDP, trailing, same));
    probes.push(v6_probe("bytes behind the datagram", UDP, vec![], trailing, same));
    probes
}

/// IP headers of every kind, around a SYN and a datagram.
fn header_probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for proto in [TCP, UDP] {
        let payload = move |port| if proto == TCP { segment(SYN, &[], 0)(port) } else { udp(port, 33) };
        for tos in [0x01, 0x02, 0x03, 0x10, 0x1e, 0xb8, 0xe0, 0xff] {
            probes.push(v4_probe(&format!("{proto} TOS {tos:#x}"), proto, payload, move |p| p[1] = tos));
            let class = move |p: &mut Vec<u8>| {
                p[0] = 0x60 | tos >> 4;
                p[1] = tos << 4;
            };
            probes.push(v6_probe(&format!("{proto} class {tos:#x}"), proto, vec![], payload, class));
        }
        for ttl in [1, 37, 255] {
            probes.push(v4_probe(&format!("{proto} TTL {ttl}"), proto, payload, move |p| p[8] = ttl));
            probes
                .push(v6_probe(&format!("{proto} hops {ttl}"), proto, vec![], payload, move |p| p[7] = ttl));
        }
        let label = |p: &mut Vec<u8>| p[1..4].copy_from_slice(&[0x0a, 0xbc, 0xde]);
        probes.push(v6_probe(&format!("{proto} label"), proto, vec![], payload, label));
        probes.push(v4_probe(&format!("{proto} DF"), proto, payload, |p| p[6] = 0x40));
        probes.push(v4_probe(&format!("{proto} reserved bit"), proto, payload, |p| p[6] = 0x80));
        probes.push(v4_probe(&format!("{proto} id 0"), proto, payload, |p| p[4..6].fill(0)));
        let options = vec![1, 1, 1, 1, 1, 1, 1, 0];
        probes.push(v4_with_options(&format!("{proto} padding options"), proto, options, payload, same));
        let extensions = vec![padded(extension(DESTINATION, 0)), padded(extension(DESTINATION, 0))];
        probes.push(v6_probe(&format!("{proto} behind options"), proto, extensions, payload, same));
        probes.push(silent(v4_probe(&format!("{proto} first fragment"), proto, payload, |p| p[6] = 0x20)));
        for source in [[127, 0, 0, 1], [224, 0, 0, 9], [0, 0, 0, 9], [255; 4], [10, 77, 0, 1]] {
            let from = move |p: &mut Vec<u8>| p[12..16].copy_from_slice(&source);
            probes.push(silent(v4_probe(&format!("{proto} from {source:?}"), proto, payload, from)));
        }
    }
    probes
}

/// Fills an extension header of options with padding (RFC 8200, section 4.2).
fn padded((kind, mut bytes): (u8, Vec<u8>)) -> (u8, Vec<u8>) {
    bytes[2] = 1;
    bytes[3] = u8::try_from(bytes.len() - 4).expect("short");
    (kind, bytes)
}

impl Scene {
    /// Sends a packet from a host; returns what came back for it.
    fn ask(&self, packet: &[u8], is_v6: bool, is_sealed: bool) -> Vec<Vec<u8>> {
        let ethertype = if is_v6 { IPV6 } else { IPV4 };
        let frame = [&self.links[..], &ethertype.to_be_bytes(), packet].concat();
        self.raw.send(&if is_sealed { seal(frame) } else { frame });
        // Answers of one run of the device's poll may change places, those of two do not.
        let mut frames = self.mark(1);
        frames.extend(self.mark(2));
        frames
    }

    /// Waits for the answer of a closed port; returns what came before it, without what a namespace says by itself.
    fn mark(&self, number: u8) -> Vec<Vec<u8>> {
        let packet = V4 { source: [10, 77, 0, MARKING_HOST], destination: [10, 77, 0, 1], ..V4::new(TCP) };
        let mut segment = tcp(MARK, SYN);
        segment[1] = number;
        self.raw.send(&seal([&self.links[..], &IPV4.to_be_bytes(), &packet.packet(&segment)].concat()));
        let is_mark = |frame: &[u8]| frame.len() == 54 && frame[34..38] == [0, 4, 0x9c, number];
        let mut frames = self.raw.frames_until(is_mark);
        frames.pop();
        frames.retain(|frame| is_tcp_or_unreachable(frame));
        frames
    }
}

fn is_tcp_or_unreachable(frame: &[u8]) -> bool {
    match (frame[12], frame[13]) {
        (8, 0) => frame[23] == TCP || (frame[23] == 1 && frame[34] == 3),
        (0x86, 0xdd) => frame[20] == TCP || (frame[20] == 58 && frame[54] == 1),
        _ => false,
    }
}

/// Checks the sums of an answer and takes out of it what the port, or chance, makes different.
fn in_kind(frame: &[u8], port: u16) -> Vec<u8> {
    let mut kind = frame.to_vec();
    let is_v6 = frame[12] == 0x86;
    let l4 = if is_v6 { 54 } else { 34 };
    let proto = if is_v6 { frame[20] } else { frame[23] };
    if !is_v6 {
        assert_eq!(ones(&frame[14..34]), 0xffff, "the header checksum of {frame:x?}");
        kind[24..26].fill(0);
    }
    let addresses = if is_v6 { 22..54 } else { 26..34 };
    let len = u32::try_from(frame.len() - l4).expect("short").to_be_bytes();
    let pseudo = [&frame[addresses], &len, &[0, proto]].concat();
    let covered = if proto == 1 { frame[l4..].to_vec() } else { [&pseudo, &frame[l4..]].concat() };
    assert_eq!(ones(&covered), 0xffff, "the checksum of {frame:x?}");
    if is_v6 {
        let label = u32::from_be_bytes([0, frame[15] & 15, frame[16], frame[17]]);
        kind[15] = frame[15] & 0xf0 | u8::from(label != 0);
        kind[16..18].fill(0);
    }
    if proto == TCP {
        assert_eq!(kind[l4..l4 + 2], port.to_be_bytes());
        kind[l4..l4 + 2].fill(0);
        kind[l4 + 16..l4 + 18].fill(0);
        return kind;
    }
    if !is_v6 {
        assert_ne!(kind[18..20], [0, 0], "an ICMP error has an identification");
        kind[18..20].fill(0);
    }
    kind[l4 + 2..l4 + 4].fill(0);
    let ip = l4 + 8;
    let quoted = if is_v6 { quoted_v6(frame, ip) } else { ip + usize::from(frame[ip] & 15) * 4 };
    assert_eq!(kind[quoted + 2..quoted + 4], port.to_be_bytes());
    kind[quoted + 2..quoted + 4].fill(0);
    kind[quoted + 6..quoted + 8].fill(0);
    kind
}

/// Returns where the UDP header is in a quoted IPv6 packet.
fn quoted_v6(frame: &[u8], ip: usize) -> usize {
    let (mut next, mut at) = (frame[ip + 6], ip + 40);
    while next == DESTINATION {
        (next, at) = (frame[at], at + 8 * (usize::from(frame[at + 1]) + 1));
    }
    at
}

/// Asks both ports the same and compares; each probe comes from another host, as the kernel limits ICMP errors by host.
fn compare(scene: &Scene, probes: &[Probe]) {
    let mut differing = Vec::new();
    let mut host = FIRST_HOST;
    for probe in probes {
        let answers = probe.ports.map(|port| {
            let frames = scene.ask(&(probe.make)(host, port), probe.is_v6, true);
            frames.iter().map(|frame| in_kind(frame, port)).collect::<Vec<_>>()
        });
        let [hidden, closed] = &answers;
        if hidden != closed {
            differing.push(format!("{}\n  hidden {hidden:02x?}\n  closed {closed:02x?}", probe.name));
        }
        assert_eq!(closed.len(), usize::from(probe.is_answered), "{}: the kernel's own answers", probe.name);
        host = if host == 254 { FIRST_HOST } else { host + 1 };
    }
    assert!(
        differing.is_empty(),
        "{} of {} differ:\n{}",
        differing.len(),
        probes.len(),
        differing.join("\n")
    );
}

#[test]
fn tcp_to_a_hidden_port_is_answered_as_by_a_closed_one() {
    compare(&scene(XdpMode::Driver), &tcp_probes());
}

#[test]
fn udp_to_a_hidden_port_is_answered_as_by_a_closed_one() {
    compare(&scene(XdpMode::Driver), &udp_probes());
}

#[test]
fn whatever_the_ip_header_says_the_answers_are_alike() {
    compare(&scene(XdpMode::Driver), &header_probes());
}

#[test]
fn in_generic_mode_the_answers_are_alike_too() {
    let mut probes = udp_probes();
    probes.extend(tcp_probes().into_iter().step_by(3));
    compare(&scene(XdpMode::Skb), &probes);
}

#[test]
fn wrong_checksums_are_answered_by_neither() {
    let scene = scene(XdpMode::Driver);
    for (proto, ports) in [(TCP, TCP_PORTS), (UDP, UDP_PORTS)] {
        for port in ports {
            let payload = if proto == TCP { segment(SYN, &[], 0)(port) } else { udp(port, 33) };
            for is_v6 in [false, true] {
                let mut packet = if is_v6 {
                    V6 { source: v6(9), destination: v6(1), ..V6::new(proto) }.packet(&payload)
                } else {
                    V4 { source: [10, 77, 0, 9], destination: [10, 77, 0, 1], ..V4::new(proto) }
                        .packet(&payload)
                };
                let at = packet.len() - payload.len() + if proto == TCP { 16 } else { 6 };
                packet[at..at + 2].copy_from_slice(&[0xde, 0xad]);
                assert_eq!(scene.ask(&packet, is_v6, false), Vec::<Vec<u8>>::new(), "{proto} {port} {is_v6}");
            }
        }
    }
}

#[test]
fn nmap_cannot_tell_a_hidden_port_from_a_closed_one() {
    let scene = scene(XdpMode::Driver);
    for scan in ["-sS", "-sA", "-sF", "-sN", "-sX", "-sU", "-6 -sS", "-6 -sF"] {
        let (ports, target) = if scan == "-sU" { ("5353,5354", "10.77.0.1") } else { ("22,23", "10.77.0.1") };
        let target = if scan.starts_with("-6") { "fd77::1" } else { target };
        let mut nmap = scene.network.client.bounded("nmap");
        nmap.args(["-Pn", "-n", "--reason", "-oG", "-", "--max-retries", "3"]).args(scan.split(' '));
        let report = run(nmap.args(["-p", ports, target])).succeeded();
        let state = |port: &str| {
            let list = report.split("Ports: ").nth(1).unwrap_or_else(|| panic!("{scan}: {report}"));
            let entry = list.split(", ").find(|entry| entry.starts_with(port));
            let words = entry.unwrap_or_else(|| panic!("{scan}: {report}")).split('/').nth(1);
            words.expect("a state").to_owned()
        };
        let (hidden, closed) = ports.split_once(',').expect("two ports");
        assert_eq!(state(hidden), state(closed), "{scan}: {report}");
        let expected = if scan == "-sA" { "unfiltered" } else { "closed" };
        assert_eq!(state(hidden), expected, "{scan}: {report}");
    }
}
