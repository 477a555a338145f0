//! One packet opens a real sshd: by our client and by the shell's, over IPv4 and IPv6, through a NAT; and never twice.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use knock_common::{
    door::door_id,
    spa::{
        key::SpaKey,
        packet::{Datagram, Request},
    },
};
use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Namespace, Network, address, masquerade},
    packet::{SYN, TCP, V4, tcp},
    process::Process,
    program::{Finished, run, xdp_knock},
    sender::Sender,
    spa::frame_to,
    sshd::Sshd,
};
use knock_user::{
    generation::key_of,
    secret::{self, Place},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the doors of these tests listen: the client's default.
const PORT: u16 = 62_201;
const SHELL_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spa-client.sh");

/// Keys as `keygen` makes them.
struct Keys(TempDir);

impl Keys {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for keys");
        for name in names {
            let mut keygen = Command::new(xdp_knock());
            let _ = run(keygen.args(["keygen", name, "--dir"]).arg(folder.path())).succeeded();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.key"))
    }

    fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a key").trim().to_owned()
    }

    fn table(&self, name: &str, more: &str) -> String {
        format!("[[key]]\nname = \"{name}\"\nsecret_file = \"{}\"\n{more}\n", self.path(name).display())
    }
}

const SSH: &str =
    "[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nspa = { listen = \"udp/62201\", keys = [\"alice\"] }\n";
const BOX: &str = "[spa]\nidentity = \"box\"\n";

fn config(keys: &Keys, more: &str) -> String {
    [&guard(&[SSH.to_owned()]), BOX, &keys.table("alice", more)].concat()
}

/// Runs our client with a packet for `ssh`.
fn ours(from: &Namespace, to: IpAddr, keys: &Keys, more: &[&str]) -> Finished {
    let mut knock = from.bounded(xdp_knock());
    knock.args(["knock", &to.to_string(), "--spa", "--server", "box", "--door", "ssh", "--key"]);
    run(knock.arg(keys.path("alice")).args(more))
}

/// Runs the shell's client likewise.
fn shells(from: &Namespace, to: IpAddr, keys: &Keys, more: &[&str]) -> Finished {
    let mut shell = from.bounded("sh");
    shell.arg(SHELL_CLIENT).arg("-k").arg(keys.path("alice")).args(["-s", "box", "-d", "ssh"]);
    run(shell.args(more).args([&to.to_string(), &PORT.to_string()]))
}

/// Makes a packet without sending it.
fn packet(from: &Namespace, to: IpAddr, keys: &Keys, source: IpAddr) -> Vec<u8> {
    let text = ours(from, to, keys, &["--source", &source.to_string(), "--dry-run"]).succeeded();
    let digits = text.split_whitespace().find(|word| word.len() == 156).expect("78 bytes in hex");
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hex")
        })
        .collect()
}

fn send(from: &Namespace, to: IpAddr, bytes: &[u8]) {
    from.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let _ = socket.send_to(bytes, (to, PORT)).expect("sent");
    });
}

fn assert_refused(daemon: &mut Process, reason: &str) {
    let event = daemon.event("spa_rejected", |_| true);
    let detail = event["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with(reason), "refused as {detail}, not as {reason}");
}

fn hosts(family: Family) -> [IpAddr; 2] {
    [address(family, 0, 1), address(family, 0, 2)]
}

#[test]
fn a_packet_of_either_client_opens_ssh_over_both_families() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let keys = Keys::new(&["alice"]);
    for family in [Family::V4, Family::V6] {
        let [server, client] = hosts(family);
        for is_ours in [true, false] {
            let gate = Instance::new(&network.server, &["srv0"], &config(&keys, ""));
            let mut daemon = gate.serve(&[]);
            assert!(!sshd.opens_soon(&network.client, server, None), "{family:?}: shut before the packet");

            let source = client.to_string();
            let sent = if is_ours {
                ours(&network.client, server, &keys, &["--source", &source])
            } else {
                shells(&network.client, server, &keys, &["-a", &source])
            };

            assert!(sent.is_success(), "{sent}");
            let promoted = daemon.event("promoted", |_| true);
            assert_eq!((&promoted["via"], &promoted["door"]), (&json!("spa"), &json!("ssh")));
            assert_eq!(promoted["source"], json!(source));
            assert!(sshd.opens(&network.client, server), "{family:?}: open after it");
            let listed = gate.run("list", &["--json"]);
            assert!(listed.stdout.contains("\"via\":\"spa\""), "{listed}");
        }
    }
}

#[test]
fn through_a_nat_it_takes_the_right_or_the_nat_s_own_address() {
    let network = Network::new();
    let inside = Namespace::new("inside");
    masquerade(&network.client, &inside, 7);
    let sshd = Sshd::start(&network.server);
    let keys = Keys::new(&["alice"]);
    let [server, nat] = hosts(Family::V4);
    let own = address(Family::V4, 7, 2).to_string();
    for (right, args, opens) in [
        ("", &["--nat"][..], false),
        ("nat = true", &["--nat"][..], true),
        ("nat = true", &["--source", &own][..], false),
        ("", &["--source", &own][..], false),
        ("", &["--source", &nat.to_string()][..], true),
        ("any_address = true", &["--source", &nat.to_string()][..], true),
    ] {
        let gate = Instance::new(&network.server, &["srv0"], &config(&keys, right));
        let mut daemon = gate.serve(&[]);

        let sent = ours(&inside, server, &keys, args);

        assert!(sent.is_success(), "{sent}");
        if opens {
            assert_eq!(daemon.event("promoted", |_| true)["source"], json!(nat.to_string()));
            assert!(sshd.opens(&inside, server), "{right} {args:?}: open");
        } else {
            assert_refused(&mut daemon, "wrong_source");
            assert!(!sshd.opens_soon(&inside, server, None), "{right} {args:?}: shut");
        }
    }
}

#[test]
fn a_packet_is_refused_a_second_time_whatever_becomes_of_the_gate() {
    let network = Network::new();
    let keys = Keys::new(&["alice"]);
    let [server, client] = hosts(Family::V4);
    // A minute and more of patience: each step of this test takes seconds.
    let text = config(&keys, "").replace(BOX, "[spa]\nidentity = \"box\"\nwindow = \"10m\"\n");
    let gate = Instance::new(&network.server, &["srv0"], &text);
    let mut daemon = gate.serve(&["--persist"]);
    let copy = packet(&network.client, server, &keys, client);

    send(&network.client, server, &copy);
    let _ = daemon.event("promoted", |_| true);
    send(&network.client, server, &copy);
    assert_refused(&mut daemon, "replayed");

    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.is_success(), "{reloaded}");
    send(&network.client, server, &copy);
    assert_refused(&mut daemon, "replayed");

    daemon.kill();
    let mut daemon = gate.serve(&[]);
    send(&network.client, server, &copy);
    assert_refused(&mut daemon, "replayed");

    // Off, pins and all, and on again: as after a reboot, but for the clock.
    let detached = gate.run("detach", &[]);
    assert!(detached.is_success(), "{detached}");
    gate.assert_nothing("after detach");
    let mut daemon = gate.serve(&[]);
    let (id, counter) = (copy[6..14].try_into().expect("8 bytes"), copy[22..30].try_into().expect("8 bytes"));
    let floors = gate.state().floors.expect("a gate of this version has floors");
    assert_eq!(floors.get(&id).expect("readable"), Some(u64::from_be_bytes(counter)), "by the state file");
    send(&network.client, server, &copy);
    assert_refused(&mut daemon, "stale");
    let fresh = packet(&network.client, server, &keys, client);
    send(&network.client, server, &fresh);
    let _ = daemon.event("promoted", |_| true);
}

#[test]
fn a_client_with_a_wrong_clock_is_refused_with_the_reason_and_spends_nothing() {
    const HOUR: i128 = 3_600_000_000_000;
    let network = Network::new();
    let keys = Keys::new(&["alice"]);
    let [server, client] = hosts(Family::V4);
    let gate = Instance::new(&network.server, &["srv0"], &config(&keys, ""));
    let mut daemon = gate.serve(&[]);
    let source = client.to_string();
    for (ahead, reason) in [
        (HOUR, "future: its time is "),
        (24 * HOUR, "future: its time is "),
        (-HOUR, "stale: its time is 1h "),
        (-24 * HOUR, "stale: its time is 1day "),
    ] {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
        let counter = (i128::try_from(now).expect("a time of ours") + ahead).to_string();

        let sent = shells(&network.client, server, &keys, &["-a", &source, "-c", &counter]);

        assert!(sent.is_success(), "{sent}");
        assert_refused(&mut daemon, reason);
    }
    let sent = shells(&network.client, server, &keys, &["-a", &source]);
    assert!(sent.is_success(), "{sent}");
    let _ = daemon.event("promoted", |_| true);
}

#[test]
fn keys_follow_their_doors_by_name_and_what_is_taken_out_opens_nothing() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let keys = Keys::new(&["alice", "bob"]);
    let [server, client] = hosts(Family::V4);
    let source = client.to_string();
    let gate = Instance::new(&network.server, &["srv0"], &config(&keys, ""));
    let mut daemon = gate.serve(&[]);

    // Another door takes its number.
    let other = door("other", &["tcp/8022"], &["tcp/7101", "udp/5017"], "");
    let moved = [&guard(&[other, SSH.to_owned()]), BOX, &keys.table("alice", "")].concat();
    gate.configure(moved.as_bytes());
    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.is_success(), "{reloaded}");
    assert!(ours(&network.client, server, &keys, &["--source", &source]).is_success());
    assert_eq!(daemon.event("promoted", |_| true)["door"], json!("ssh"));
    assert!(sshd.opens(&network.client, server));

    let bobs = [&guard(&[SSH.replace("alice", "bob")]), BOX, &keys.table("bob", "")].concat();
    gate.configure(bobs.as_bytes());
    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.is_success() && reloaded.stdout.contains("key"), "{reloaded}");
    assert!(ours(&network.client, server, &keys, &["--source", &source]).is_success());
    assert_refused(&mut daemon, "unknown_key");
}

#[test]
fn what_happened_is_counted_and_no_secret_is_told() {
    let network = Network::new();
    let keys = Keys::new(&["alice"]);
    let [server, client] = hosts(Family::V4);
    let gate = Instance::new(&network.server, &["srv0"], &config(&keys, ""));
    let mut daemon = gate.serve(&[]);
    let copy = packet(&network.client, server, &keys, client);
    let mut damaged = copy.clone();
    damaged[70] ^= 1;
    for bytes in [&damaged, &copy, &copy] {
        send(&network.client, server, bytes);
    }
    assert_refused(&mut daemon, "bad_code");
    assert_refused(&mut daemon, "replayed");

    let status = gate.run("status", &["--json"]);

    let facts: Value =
        serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status}"));
    let counters = &facts["counters"];
    assert_eq!(
        [&counters["spa_accepted"], &counters["spa_bad_code"], &counters["spa_replayed"]],
        [&json!(1), &json!(1), &json!(1)]
    );
    assert_eq!(facts["doors"][0]["ways"], json!(["spa"]));
    let table = gate.run("status", &[]).stdout;
    for line in ["single packets accepted", "refused: right gate, wrong code", "refused: used before"] {
        assert!(table.contains(line), "no `{line}` in {table}");
    }
    let checked = run(Command::new(xdp_knock()).arg("check").arg(gate.config_file()));
    assert!(checked.is_success(), "{checked}");
    let list = gate.run("list", &["--json"]);
    for told in [&status.stdout, &list.stdout, &checked.stdout, &daemon.said()] {
        assert!(!told.contains(&keys.secret("alice")), "{told}");
    }
}

#[test]
fn in_deny_mode_and_by_tcx_it_opens_ssh_as_well() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let keys = Keys::new(&["alice"]);
    for (mode, attach) in [("deny", &[][..]), ("guard", &["--attach", "tcx"]), ("deny", &["--attach", "tcx"])]
    {
        for family in [Family::V4, Family::V6] {
            let [server, client] = hosts(family);
            let text = config(&keys, "").replace("\"guard\"", &format!("\"{mode}\""));
            let gate = Instance::new(&network.server, &["srv0"], &text);
            let mut daemon = gate.serve(attach);
            assert!(!sshd.opens_soon(&network.client, server, None), "{mode} {attach:?} {family:?}: shut");

            let sent = ours(&network.client, server, &keys, &["--source", &client.to_string()]);

            assert!(sent.is_success(), "{sent}");
            assert_eq!(daemon.event("promoted", |_| true)["via"], json!("spa"));
            assert!(sshd.opens(&network.client, server), "{mode} {attach:?} {family:?}: open");
        }
    }
}

/// The flood fills its own wire, which loses some of it before any program sees it; the client has another.
#[test]
fn under_a_flood_each_packet_opens_at_the_first_try() {
    const TRIES: usize = 1000;
    /// Packets of the flood for each try, at least.
    const A_TRY: u64 = 300;
    let network = Network::new();
    network.add_link(1, 1500);
    let keys = Keys::new(&["alice"]);
    let key = secret::read(&Place::File(keys.path("alice"))).unwrap_or_else(|error| panic!("{error}"));
    let knocked = SSH.replace("opens", "allow_weak = true\nknock = [\"tcp/7101\", \"udp/5017\"]\nopens");
    let gate = Instance::new(&network.server, &["srv0", "srv1"], &config(&keys, "").replace(SSH, &knocked));
    let _daemon = gate.serve(&[]);
    let (state, [server, client]) = (gate.state(), [address(Family::V4, 1, 1), address(Family::V4, 1, 2)]);
    let request = |counter| Request {
        seconds: 0,
        door: door_id(b"ssh"),
        counter,
        server: door_id(b"box"),
        source: Some(key_of(client)),
    };
    let stop = AtomicBool::new(false);
    let sender = Sender::new(&network.client, "cli0");
    let frames = flood_of(&key, &request(unix_ns()));
    let sent = AtomicU64::new(0);
    let opened = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for frame in frames.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                sent.fetch_add(u64::from(sender.send(frame)), Ordering::Relaxed);
            }
        });
        let opened = network.client.within(|| {
            let socket = UdpSocket::bind((client, 0)).expect("a socket");
            let floors = state.floors.as_ref().expect("a gate of this version has floors");
            let try_once = || {
                let counter = unix_ns();
                let _ = socket.send_to(Datagram::seal(&request(counter), &key).bytes(), (server, PORT));
                let is_there = || floors.get(&key.id()).expect("readable") == Some(counter);
                (0..2000).any(|_| {
                    is_there() || {
                        thread::sleep(Duration::from_millis(1));
                        false
                    }
                })
            };
            let is_under_way = |number| sent.load(Ordering::Relaxed) >= number * A_TRY;
            (0..TRIES)
                .filter(|number| {
                    while !is_under_way(*number as u64) {
                        thread::yield_now();
                    }
                    try_once()
                })
                .count()
        });
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("the flood ends");
        opened
    });
    let sent = sent.into_inner();

    let counts: BTreeMap<_, _> = state.counts().expect("readable").into_iter().collect();
    println!("{opened} of {TRIES} at the first try, beside {sent} packets of the flood");
    assert!(opened * 1000 >= TRIES * 999, "{opened} of {TRIES}: {counts:?}");
    // One that came too late to count as opened is accepted all the same.
    assert!(counts["spa_accepted"] >= opened as u64, "{counts:?}");
    for name in ["spa_unknown_key", "spa_bad_gate", "spa_bad_code", "knock"] {
        assert!(counts[name] > 10_000, "no flood, by {name}: {counts:?}");
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(since.as_nanos()).expect("a time of ours")
}

/// Packets of an unknown key, of a known one with either tag wrong, and first knocks; each from 250 forged sources.
fn flood_of(key: &SpaKey, request: &Request) -> Vec<Vec<u8>> {
    let unknown = Datagram::seal(request, &SpaKey::new(&[1; 32])).bytes().to_vec();
    let known = Datagram::seal(request, key).bytes().to_vec();
    let changed = |at: usize| {
        let mut packet = known.clone();
        packet[at] ^= 1;
        packet
    };
    let packets = [unknown, changed(20), changed(70)];
    let server = [10, 77, 0, 1];
    let of_source = |last| {
        let source = [198, 51, 100, last];
        let knock = V4 { source, destination: server, ..V4::new(TCP) }.frame(&tcp(7101, SYN));
        let packets = packets.iter().map(move |packet| frame_to(server, source, packet));
        packets.chain([knock]).collect::<Vec<_>>()
    };
    (1..=250).flat_map(of_source).collect()
}
