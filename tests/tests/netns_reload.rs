//! Another configuration without a gap: nothing leaks and nothing is dropped while generations follow each other, and a bad
//! file changes nothing.

use std::{env, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, thread};

use knock_common::counter::Counter;
use knock_tests::{
    hosts::{friend, network, server, stranger},
    instance::{Instance, door, guard},
    reach::Reach,
    storm::{Service, Steady, Storm},
};
use knock_user::{config::Config, report::sight::Sight};
use nix::sys::signal::Signal;

const HIDDEN: u16 = 7000;

fn reloads() -> usize {
    env::var("KNOCK_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(500)
}

fn kept() -> String {
    door("kept", &["udp/7000"], &["udp/6101", "udp/5017"], "open_for = \"1h\"")
}

fn other(port: u16) -> String {
    let (opens, first, second) =
        (format!("udp/{port}"), format!("udp/{}", port - 900), format!("udp/{}", port - 1900));
    door(&format!("other-{port}"), &[&opens], &[&first, &second], "open_for = \"1h\"")
}

/// Four configurations that number, name and hide differently around the door that is kept.
fn variants() -> [String; 4] {
    [
        guard(&[kept()]),
        guard(&[other(7101), kept()]),
        guard(&[other(7102), other(7103), kept(), other(7104)]),
        guard(&[kept(), other(7101)]),
    ]
}

#[test]
fn hundreds_of_reloads_under_traffic_leak_nothing_and_drop_nothing_of_a_granted_client() {
    let network = network();
    let variants = variants();
    let gate = Instance::new(&network.server, &["srv0"], &variants[0]);
    let mut daemon = gate.serve(&["--persist"]);
    Reach::new(&network, server(), &[]).knock(friend(), &[6101, 5017]);
    daemon.event("promoted", |_| true);
    let service = Service::start(&network.server, HIDDEN);
    let to = SocketAddr::new(server(), HIDDEN);
    let storm = Storm::start(&network.client, SocketAddr::new(stranger(), 0), to, 10_000);
    let client = Steady::start(&network.client, SocketAddr::new(friend(), 0), to, 500, &service);

    let count = reloads();
    for round in 1..=count {
        gate.configure(variants[round % variants.len()].as_bytes());
        // By signal and by the verb, in turns; the verb waits until it is done.
        if round % 10 == 0 {
            daemon.signal(Signal::SIGHUP);
        } else {
            let reloaded = gate.run("reload", &[]);
            assert!(reloaded.is_success(), "round {round}: {reloaded}");
        }
        daemon.event("reloaded", |_| true);
        let _ = daemon.take_events();
    }

    let (probes, took) = storm.stop();
    let (sent, lost) = client.stop();
    let leaked = service.probes();
    println!(
        "{count} reloads in {:.0} s: {probes} probes of a stranger ({:.0} a second), {leaked} delivered; {sent} datagrams of a granted client, {lost} lost",
        took.as_secs_f64(),
        probes as f64 / took.as_secs_f64(),
    );
    assert_eq!((leaked, lost), (0, 0));
    assert!(sent > 0 && probes > 0);
    let generation = gate.one_in_force().generation;
    assert_eq!(generation as usize, count + 1, "every reload brought in a generation");
    assert_eq!(gate.count(Counter::Promoted), 1);
    // Its twin: without the gate the same socket hears the same stranger.
    assert!(gate.run("detach", &[]).is_success());
    let storm = Storm::start(&network.client, SocketAddr::new(stranger(), 0), to, 1000);
    knock_tests::program::poll("a probe to come", knock_tests::process::PATIENCE, || {
        (service.probes() > 0).then_some(())
    });
    storm.stop();
    service.stop();
}

#[test]
fn a_look_while_the_program_is_swapped_takes_no_gate_for_foreign() {
    let network = network();
    let variants = variants();
    let gate = Instance::new(&network.server, &["srv0"], &variants[0]);
    // Without a daemon: nothing but the link holds a program, so that the swap is the end of the one before.
    let _ = gate.run("attach", &[]).succeeded();
    let (pins, mut looks) = (gate.pins(), 0);

    thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for round in 1..=20 {
                gate.configure(variants[round % variants.len()].as_bytes());
                let _ = gate.run("reload", &[]).succeeded();
            }
        });
        while !swaps.is_finished() {
            let sight = Sight::of_root(&pins).expect("a folder of pins");
            assert_eq!(sight.foreign, [], "after {looks} looks");
            assert_eq!(sight.links.len(), 1, "after {looks} looks");
            looks += 1;
        }
    });

    println!("{looks} looks during 20 reloads");
    assert!(looks > 20);
}

#[test]
fn a_grant_goes_with_its_door_and_does_not_come_back_with_it() {
    let network = network();
    let reach = Reach::new(&network, server(), &[HIDDEN, 7101]);
    let gate = Instance::new(&network.server, &["srv0"], &guard(&[other(7101), kept()]));
    assert!(gate.run("attach", &[]).is_success());
    reach.knock(friend(), &[6101, 5017]);
    reach.knock(friend(), &[6201, 5201]);
    reach.until_open(friend(), HIDDEN);
    reach.until_open(friend(), 7101);

    gate.configure(guard(&[kept()]).as_bytes());
    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.stdout.contains("- door other-7101"), "{reloaded}");
    assert!(reach.is_open(friend(), HIDDEN), "its door is still there");
    assert!(reach.is_open(stranger(), 7101), "nothing hides it any more");

    gate.configure(guard(&[kept(), other(7101)]).as_bytes());
    let reloaded = gate.run("reload", &[]);
    assert!(reloaded.stdout.contains("+ door other-7101"), "{reloaded}");
    assert!(reach.is_open(friend(), HIDDEN));
    assert!(!reach.is_open(friend(), 7101), "the grant of a door that was taken away lives again");
    reach.knock(friend(), &[6201, 5201]);
    reach.until_open(friend(), 7101);
}

#[test]
fn a_file_cut_at_any_byte_changes_nothing_unless_what_is_left_is_a_whole_configuration() {
    let network = network();
    let whole = guard(&[kept(), other(7101)]);
    let gate = Instance::new(&network.server, &["srv0"], &whole);
    let mut daemon = gate.serve(&[]);
    let before = gate.one_in_force();
    let (mut refused, mut taken) = (0, 0);
    for end in 0..whole.len() {
        let text = &whole.as_bytes()[..end];
        gate.configure(text);
        let is_whole = std::str::from_utf8(text).is_ok_and(|text| Config::parse("cut", text).is_ok());
        if is_whole {
            // As valid as any other: it would be taken, and is left out here.
            taken += 1;
            continue;
        }
        let outcome = gate.run("reload", &[]);
        refused += 1;
        assert_eq!(outcome.status, Some(78), "cut at {end}: {outcome}");
        assert!(outcome.stderr.contains("config.toml"), "cut at {end}: {outcome}");
        assert_eq!(gate.one_in_force(), before, "cut at {end}");
    }
    println!("{refused} cuts refused, {taken} are configurations of their own");
    assert!(refused > taken);
    // The daemon itself is asked, too: the verb reads the file before it asks.
    gate.configure(b"[xdp");
    daemon.signal(Signal::SIGHUP);
    daemon.diagnostics("not reloaded");
    assert_eq!(gate.one_in_force(), before);
    gate.configure(whole.as_bytes());
    daemon.signal(Signal::SIGHUP);
    daemon.event("reloaded", |_| true);
    assert_eq!(gate.one_in_force().generation, before.generation + 1);
}

#[test]
fn an_empty_huge_world_writable_or_missing_file_leaves_the_gate_and_is_named() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0"], &guard(&[kept()]));
    assert!(gate.run("attach", &[]).is_success());
    let before = gate.one_in_force();
    let file = gate.config_file();
    let refuse = |status: i32, word: &str| {
        let outcome = gate.run("reload", &[]);
        assert_eq!(outcome.status, Some(status), "{outcome}");
        assert!(outcome.stderr.contains(word) && outcome.stderr.contains("config.toml"), "{word}: {outcome}");
        assert_eq!(gate.one_in_force(), before, "{word}");
    };

    gate.configure(b"");
    refuse(78, "door");
    gate.configure(&vec![b'#'; (1 << 20) + 1]);
    refuse(78, "1 MiB");
    gate.configure(guard(&[kept()]).as_bytes());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o602)).expect("ours");
    refuse(78, "0602");
    fs::remove_file(&file).expect("ours");
    refuse(1, "cannot");

    gate.configure(guard(&[kept()]).as_bytes());
    assert!(gate.run("reload", &[]).is_success());
    assert_eq!(gate.one_in_force().generation, before.generation + 1);
}
