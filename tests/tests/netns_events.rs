//! The event stream: every reader gets every event, or an exact count of those it missed, whoever serves it, stops or is
//! killed. `KNOCK_EVENTS` says over how many events the daemon's memory is watched.

use std::{
    fs,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use knock_common::counter::Counter;
use knock_tests::{
    flood::Flood,
    instance::{Instance, door, guard},
    listener::{Listener, Tally},
    netns::{Family, Network, address},
    program::{self, Finished, poll, xdp_knock},
    reach::Reach,
};
use nix::sys::signal::Signal;

const HIDDEN: u16 = 7000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Fewer than there is room for in the table of grants, and than are remembered with a first step.
const SOURCES: u32 = 10_000;

fn config() -> String {
    let many = "open_for = \"1d\"\nnew_attempts_per_s = 100000";
    guard(&[
        door("flood", &["tcp/22"], &["tcp/6101", "tcp/5017"], many),
        door("marker", &["udp/7000"], &["udp/6303", "udp/5204"], "open_for = \"1d\""),
    ])
}

fn host(number: u8) -> IpAddr {
    address(Family::V4, 0, number)
}

fn network() -> Network {
    let network = Network::new();
    (3..6).for_each(|host| network.add_host("cli0", 0, host));
    network
}

/// A network with a gate on it, and who is before and behind it.
struct Scene<'a> {
    gate: Instance<'a>,
    reach: Reach<'a>,
    flood: Flood,
}

impl<'a> Scene<'a> {
    fn new(network: &'a Network) -> Self {
        let gate = Instance::new(&network.server, &["srv0"], &config());
        let reach = Reach::new(network, host(1), &[HIDDEN]);
        let flood = Flood::new(&network.client, "cli0", [10, 77, 0, 1], [6101, 5017], SOURCES);
        Self { gate, reach, flood }
    }

    fn daemon(&self) -> Listener {
        let listener = Listener::spawn(self.gate.command("run", &["--persist", "--json"]));
        // Packets are judged a moment before the link is pinned, and verbs go by the pin.
        let is_ready = || self.gate.run("status", &[]).is_success() && !self.reach.is_open(host(3), HIDDEN);
        poll("the gate to be in force", PATIENCE, || is_ready().then_some(()));
        listener
    }

    fn reader(&self) -> Listener {
        Listener::spawn(self.gate.command("events", &["--json"]))
    }

    /// Events of the kernel's so far, delivered or not.
    fn produced(&self) -> u64 {
        let counters =
            [Counter::AttemptStarted, Counter::AttemptAdvanced, Counter::AttemptReset, Counter::Promoted];
        counters.iter().map(|counter| self.gate.count(*counter)).sum()
    }

    /// Waits until every reader reads; returns where each stands, with nothing more under way.
    fn begin(&self, readers: &[&Listener]) -> (u64, Vec<Tally>) {
        for reader in readers {
            poll("a reader to read", PATIENCE, || {
                self.reach.knock(host(5), &[6303, 5204]);
                thread::sleep(Duration::from_millis(20));
                (reader.tally().markers > 0).then_some(())
            });
        }
        // Losses so far are told once a tick: the one after the last.
        let produced = self.produced();
        let mut last: Vec<Tally> = Vec::new();
        poll("all to be read", PATIENCE, || {
            thread::sleep(Duration::from_millis(300));
            let now: Vec<Tally> = readers.iter().map(|reader| reader.tally()).collect();
            let is_same = now == last;
            last = now;
            is_same.then_some(())
        });
        assert_eq!(produced, self.produced());
        (produced, last)
    }

    /// Waits until each reader accounts for every event since the beginning, exactly, and returns what each has read.
    fn end(&self, readers: &[&Listener], (produced, before): (u64, Vec<Tally>)) -> Vec<Tally> {
        let produced = self.produced() - produced;
        let mut tallies = Vec::new();
        for (number, (reader, before)) in readers.iter().zip(before).enumerate() {
            let what = format!("{produced} events to be accounted for by reader {number}, from {before:?}");
            let now = reader.until(&what, PATIENCE, |now| now.since(before).accounted() >= produced);
            tallies.push((now.since(before), before));
        }
        // Nothing comes on top.
        thread::sleep(Duration::from_millis(600));
        for (number, (reader, (tally, before))) in readers.iter().zip(&tallies).enumerate() {
            if number < 6 {
                println!("reader {number}: of {produced} events {tally:?}");
            }
            assert_eq!(reader.tally().since(*before).accounted(), produced, "reader {number}");
        }
        tallies.into_iter().map(|(tally, _)| tally).collect()
    }
}

#[test]
fn every_terminal_gets_every_event_in_order() {
    let network = network();
    let mut scene = Scene::new(&network);
    let daemon = scene.daemon();
    let terminals: Vec<Listener> = (0..5).map(|_| scene.reader()).collect();
    let readers: Vec<&Listener> = [&daemon].into_iter().chain(&terminals).collect();
    let beginning = scene.begin(&readers);

    for _ in 0..40 {
        scene.flood.send(100);
        thread::sleep(Duration::from_millis(10));
    }

    let tallies = scene.end(&readers, beginning);
    for tally in &tallies {
        assert_eq!((tally.promoted, tally.missed, tally.overrun), (4000, 0, 0), "{tally:?}");
    }
    assert!(tallies.iter().all(|tally| tally.order == tallies[0].order), "in another order: {tallies:?}");
}

#[test]
fn eighty_terminals_are_not_too_many() {
    let network = network();
    let mut scene = Scene::new(&network);
    let daemon = scene.daemon();
    let terminals: Vec<Listener> = (0..80).map(|_| scene.reader()).collect();
    let readers: Vec<&Listener> = [&daemon].into_iter().chain(&terminals).collect();
    let beginning = scene.begin(&readers);

    scene.flood.send(100);

    let tallies = scene.end(&readers, beginning);
    let is_alike =
        |tally: &Tally| (tally.promoted, tally.missed) == (100, 0) && tally.order == tallies[0].order;
    assert!(tallies.iter().all(is_alike), "{tallies:?}");
}

#[test]
fn a_stopped_reader_learns_exactly_how_many_it_missed() {
    let network = network();
    let mut scene = Scene::new(&network);
    let daemon = scene.daemon();
    let (stopped, quick) = (scene.reader(), scene.reader());
    let readers = [&daemon, &stopped, &quick];
    let beginning = scene.begin(&readers);
    stopped.signal(Signal::SIGSTOP);

    for _ in 0..300 {
        scene.flood.send(200);
        thread::sleep(Duration::from_millis(8));
    }
    quick.until("the quick one to go on", PATIENCE, |tally| tally.promoted > 10_000);
    stopped.signal(Signal::SIGCONT);

    let tallies = scene.end(&readers, beginning);
    assert!(tallies[1].missed > 0, "it was to be too slow: {:?}", tallies[1]);
}

#[test]
fn while_the_daemon_is_stopped_verdicts_go_on_and_every_lost_event_is_counted() {
    let network = network();
    let Scene { gate, reach, mut flood } = Scene::new(&network);
    let spare = Flood::new(&network.client, "cli0", [10, 77, 0, 1], [6101, 5017], 1);
    let scene = Scene { gate, reach, flood: spare };
    let (daemon, is_over) = (scene.daemon(), AtomicBool::new(false));
    let quick = scene.reader();
    let readers = [&daemon, &quick];
    let beginning = scene.begin(&readers);
    let lost_before = scene.gate.count(Counter::EventLost);

    thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let (began, mut sent) = (Instant::now(), 0_u64);
            while !is_over.load(Ordering::Relaxed) {
                sent += u64::from(flood.send(100));
                thread::sleep(Duration::from_millis(2));
            }
            (sent, began.elapsed())
        });
        daemon.signal(Signal::SIGSTOP);
        assert!(!scene.reach.is_open(host(3), HIDDEN), "a stranger got in");
        assert!(scene.reach.is_open(host(5), HIDDEN), "the holder of a grant was kept out");
        scene.reach.knock(host(4), &[6303, 5204]);
        scene.reach.until_open(host(4), HIDDEN);
        poll("the ring to run over", PATIENCE, || {
            (scene.gate.count(Counter::EventLost) > lost_before + 5000).then_some(())
        });
        daemon.signal(Signal::SIGCONT);
        let told = daemon.until("the loss to be told", PATIENCE, |tally| tally.overrun > 0);
        is_over.store(true, Ordering::Relaxed);
        let (sent, time) = storm.join().expect("the storm goes well");
        println!("{sent} sequences in {time:?}; told while it went on: {told:?}");
    });

    let tallies = scene.end(&readers, beginning);
    let lost = scene.gate.count(Counter::EventLost) - lost_before;
    assert_eq!(tallies[0].overrun, lost, "the daemon told of another number than the kernel's");
}

#[test]
fn a_pipe_that_closes_early_ends_it_well() {
    let network = network();
    let mut scene = Scene::new(&network);
    let _daemon = scene.daemon();
    let status = tempfile::NamedTempFile::new().unwrap();
    for verb in ["events --json", "events"] {
        let line = format!(
            "{{ {} {verb} --pin-dir {}; echo $? > {}; }} | head -1",
            xdp_knock().display(),
            scene.gate.pins().path().display(),
            status.path().display()
        );
        fs::write(status.path(), "").unwrap();
        let mut shell = network.server.bounded("sh");
        let shell = shell.args(["-c", &line]);
        let finished = thread::scope(|scope| {
            let head = scope.spawn(|| program::run(shell));
            poll("the pipe to end", PATIENCE, || {
                scene.flood.send(20);
                thread::sleep(Duration::from_millis(20));
                head.is_finished().then_some(())
            });
            head.join().expect("it ends")
        });

        assert_eq!(finished.stdout.lines().count(), 1, "{finished}");
        assert_eq!(fs::read_to_string(status.path()).unwrap().trim(), "0", "{finished}");
        assert!(
            !finished.stderr.contains("panicked") && !finished.stderr.contains("roken pipe"),
            "{finished}"
        );
    }
}

#[test]
fn colour_is_for_terminals_and_for_those_who_want_it() {
    let network = network();
    let mut scene = Scene::new(&network);
    let _daemon = scene.daemon();
    let events = format!("{} events --pin-dir {}", xdp_knock().display(), scene.gate.pins().path().display());
    let terminal = format!("script -qec '{events}' /dev/null");
    for (line, is_coloured) in
        [(terminal.clone(), true), (format!("NO_COLOR=1 {terminal}"), false), (events, false)]
    {
        let mut shell = network.server.bounded("sh");
        let shell = shell.env("TERM", "xterm").env_remove("NO_COLOR").args([
            "-c",
            &format!("timeout 3 {line}").replace("timeout 3 NO_COLOR=1", "NO_COLOR=1 timeout 3"),
        ]);
        let finished: Finished = thread::scope(|scope| {
            let shown = scope.spawn(|| program::run(shell));
            while !shown.is_finished() {
                scene.flood.send(5);
                thread::sleep(Duration::from_millis(50));
            }
            shown.join().expect("it ends")
        });

        assert!(finished.stdout.contains("promoted"), "{line}: {finished}");
        assert_eq!(finished.stdout.contains('\u{1b}'), is_coloured, "{line}: {finished}");
    }
}

#[test]
fn without_a_daemon_readers_serve_one_another_and_make_way_for_one() {
    let network = network();
    let mut scene = Scene::new(&network);
    let _ = scene.gate.run("attach", &[]).succeeded();
    let (first, second) = (scene.reader(), scene.reader());
    let alone = scene.begin(&[&first, &second]);
    for _ in 0..10 {
        scene.flood.send(50);
        thread::sleep(Duration::from_millis(10));
    }
    scene.end(&[&first, &second], alone);

    let daemon = scene.daemon();
    let readers = [&daemon, &first, &second];
    daemon.until("the daemon to read", PATIENCE, |_| {
        scene.reach.knock(host(5), &[6303, 5204]);
        thread::sleep(Duration::from_millis(20));
        daemon.tally().markers > 0
    });
    let seen = [first.tally().markers, second.tally().markers];
    for (reader, before) in [&first, &second].into_iter().zip(seen) {
        poll("a reader to go on under the daemon", PATIENCE, || {
            scene.reach.knock(host(5), &[6303, 5204]);
            thread::sleep(Duration::from_millis(20));
            (reader.tally().markers > before + 1).then_some(())
        });
    }
    let served = scene.begin(&readers);
    scene.flood.send(100);
    scene.end(&readers, served);

    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let seen = [first.tally().markers, second.tally().markers];
    for (reader, before) in [&first, &second].into_iter().zip(seen) {
        poll("a reader to go on after the daemon", PATIENCE, || {
            scene.reach.knock(host(5), &[6303, 5204]);
            thread::sleep(Duration::from_millis(20));
            (reader.tally().markers > before + 1).then_some(())
        });
    }
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused_and_the_first_goes_on() {
    let network = network();
    let scene = Scene::new(&network);
    let mut daemon = scene.daemon();
    let before = scene.gate.one_in_force();

    for (verb, args) in [("run", &["--persist"][..]), ("attach", &[][..])] {
        let refused = scene.gate.run(verb, args);
        assert_eq!(refused.status, Some(1), "{refused}");
        let pins = scene.gate.pins().path().display().to_string();
        assert!(refused.stderr.contains(&pins) && refused.stderr.contains("another xdp-knock"), "{refused}");
    }

    assert_eq!(scene.gate.one_in_force(), before);
    assert!(daemon.is_running());
    let beginning = scene.begin(&[&daemon]);
    scene.reach.knock(host(4), &[6303, 5204]);
    scene.end(&[&daemon], beginning);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

/// The resident memory of a process, in KiB.
fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[test]
fn the_daemon_s_memory_does_not_grow_with_events() {
    let wanted: u64 = std::env::var("KNOCK_EVENTS")
        .map_or(2_000_000, |text| text.parse().expect("KNOCK_EVENTS is a number"));
    let network = network();
    let mut scene = Scene::new(&network);
    let daemon = scene.daemon();
    let beginning = scene.begin(&[&daemon]);
    let (start, began) = (beginning.1[0], Instant::now());
    let mut warm_kib = 0;
    let mut most_kib = 0;

    loop {
        scene.flood.send(2000);
        let come = daemon.tally().since(start).kernel;
        if come > wanted / 10 {
            let now_kib = resident_kib(daemon.id());
            warm_kib = if warm_kib == 0 { now_kib } else { warm_kib };
            most_kib = most_kib.max(now_kib);
        }
        if come >= wanted {
            break;
        }
        // No faster than it is read, but for what the ring holds.
        let sent = scene.produced() - beginning.0;
        while sent > daemon.tally().since(start).accounted() + 12_000 {
            thread::sleep(Duration::from_millis(1));
            if began.elapsed() > Duration::from_secs(1200) {
                panic!("it does not get on: {:?} of {sent}", daemon.tally());
            }
        }
    }
    let (seconds, tally) = (began.elapsed().as_secs_f64(), daemon.tally().since(start));

    println!(
        "{} events read in {seconds:.0} s ({:.0} a second), {tally:?}; memory {warm_kib} KiB at a tenth, {most_kib} KiB at most",
        tally.kernel,
        tally.kernel as f64 / seconds
    );
    assert!(most_kib <= warm_kib + 5 * 1024, "it grew by {} KiB", most_kib - warm_kib);
    scene.end(&[&daemon], beginning);
}
