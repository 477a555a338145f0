//! `kill -9` at random moments, while a stranger probes a hidden port without a pause and a client who was granted it uses
//! it: the gate outlives every process that serves it. `KNOCK_KILLS` says how often (200), `KNOCK_SEED` brings a run back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use knock_common::counter::Counter;
use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Network, address},
    process::Process,
    program::poll,
    random::Random,
    reach::Reach,
    storm::{Service, Steady, Storm},
};
use knock_user::{
    rollback::{self, Standing},
    survey,
};
use nix::sys::signal::Signal;

const HIDDEN: u16 = 7000;
const FRIEND: [u8; 4] = [10, 77, 0, 2];
/// Probes a second over a link of the stranger's own, and over the client's.
const PROBES_PER_S: [u64; 2] = [20_000, 500];
const DATAGRAMS_PER_S: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What was under way when the process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Start,
    Attach,
    Idle,
    ReloadBySignal,
    ReloadByVerb,
    ReloadVerb,
    ReloadAlone,
    Stop,
    Confirm,
}

const MOMENTS: [Moment; 9] = [
    Moment::Start,
    Moment::Attach,
    Moment::Idle,
    Moment::ReloadBySignal,
    Moment::ReloadByVerb,
    Moment::ReloadVerb,
    Moment::ReloadAlone,
    Moment::Stop,
    Moment::Confirm,
];

/// One of two configurations that hide the same port behind a door of the same name, but of another number, sequence and
/// neighbourhood.
fn config(number: usize) -> String {
    let longest = "open_for = \"1h\"";
    let other = |name, port, knock| door(name, &[port], &[knock, "udp/5204"], longest);
    guard(&if number.is_multiple_of(2) {
        vec![
            door("main", &["udp/7000"], &["udp/6101", "udp/5017"], longest),
            other("web", "tcp/8443", "udp/6303"),
        ]
    } else {
        vec![
            other("mail", "tcp/993", "udp/6307"),
            other("web", "udp/7100", "udp/6303"),
            door("main", &["udp/7000", "tcp/22"], &["udp/6505", "udp/5011", "udp/6401"], longest),
        ]
    })
}

fn at(link: u8, host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address(Family::V4, link, host), port)
}

/// Two links, the second the stranger's own: what a flood makes of a device's queue is not the gate's doing.
fn network() -> Network {
    let network = Network::new();
    network.add_link(1, 1500);
    network.add_host("cli0", 0, 3);
    network.add_host("cli1", 1, 3);
    network
}

fn storms(network: &Network) -> [Storm; 2] {
    [
        Storm::start(&network.client, at(1, 3, 0), at(1, 1, HIDDEN), PROBES_PER_S[0]),
        Storm::start(&network.client, at(0, 3, 0), at(0, 1, HIDDEN), PROBES_PER_S[1]),
    ]
}

/// The gate and whoever serves it at the moment.
struct Run<'a> {
    gate: &'a Instance<'a>,
    daemon: Option<Process>,
    random: Random,
    start: Duration,
    configs: usize,
}

impl Run<'_> {
    /// Kills something, at a random time after the beginning of a moment.
    fn kill(&mut self, moment: Moment) {
        match moment {
            Moment::Start => {
                self.end_daemon();
                let starting = self.gate.start(&["--persist"]);
                self.pause(self.start);
                starting.kill();
            }
            Moment::Attach => {
                self.end_daemon();
                self.kill_verb("attach", &[], self.start);
            }
            Moment::Idle => {
                self.need_daemon();
                self.pause(Duration::from_millis(100));
                self.end_daemon();
            }
            Moment::ReloadBySignal => {
                self.need_daemon().signal(Signal::SIGHUP);
                self.pause(self.start);
                self.end_daemon();
            }
            Moment::ReloadByVerb => {
                self.need_daemon();
                let verb = Process::spawn(self.gate.command("reload", &[]));
                self.pause(self.start);
                self.end_daemon();
                verb.kill();
            }
            Moment::ReloadVerb => {
                self.need_daemon();
                self.kill_verb("reload", &[], self.start);
            }
            Moment::ReloadAlone => {
                self.end_daemon();
                self.kill_verb("reload", &[], self.start);
            }
            Moment::Stop => {
                self.need_daemon().signal(Signal::SIGTERM);
                self.pause(Duration::from_millis(30));
                self.end_daemon();
            }
            Moment::Confirm => self.confirm(),
        }
    }

    fn confirm(&mut self) {
        self.kill_verb("reload", &["--confirm", "1h"], self.start * 2);
        self.kill_verb("confirm", &[], Duration::from_millis(20));
        // A daemon that was asked to reload goes on when the verb is killed: first it, then the look at what it left.
        self.end_daemon();
        let links = survey::links(&self.gate.pins()).unwrap_or_else(|error| panic!("{error:#}"));
        let awaits = |link| matches!(rollback::standing(link), Ok(Standing::Awaited(_)));
        if links.iter().any(awaits) {
            let _ = self.gate.run("confirm", &[]).succeeded();
        }
    }

    /// Starts a verb and kills it.
    fn kill_verb(&mut self, verb: &str, args: &[&str], within: Duration) {
        let process = Process::spawn(self.gate.command(verb, args));
        self.pause(within);
        process.kill();
    }

    /// Waits for a random part of a time: what is under way then is what gets killed.
    fn pause(&mut self, within: Duration) {
        let micros = usize::try_from(within.as_micros()).expect("seconds");
        thread::sleep(Duration::from_micros(self.random.below(micros.max(1)) as u64));
    }

    /// Returns the daemon, started if there is none: it takes over what is pinned. The next configuration is put in place.
    fn need_daemon(&mut self) -> &Process {
        if self.daemon.is_none() {
            let before = self.gate.in_force().into_values().map(|one| one.generation).max();
            self.daemon = Some(self.gate.serve(&["--persist"]));
            let now = self.gate.one_in_force().generation;
            assert!(Some(now) > before, "generation {now} after {before:?}: the gate was not taken over");
        }
        self.configs += 1;
        self.gate.configure(config(self.configs).as_bytes());
        self.daemon.as_ref().expect("just started")
    }

    fn end_daemon(&mut self) {
        self.daemon.take().into_iter().for_each(Process::kill);
        self.configs += 1;
        self.gate.configure(config(self.configs).as_bytes());
    }
}

fn kills() -> usize {
    std::env::var("KNOCK_KILLS").map_or(200, |text| text.parse().expect("KNOCK_KILLS is a number"))
}

#[test]
fn killed_at_any_moment_the_gate_lets_no_probe_in_and_loses_no_grant() {
    let seed = Random::seed("KNOCK_SEED");
    println!("KNOCK_SEED={seed} KNOCK_KILLS={}", kills());
    let network = network();
    let gate = Instance::new(&network.server, &["srv0", "srv1"], &config(0));
    let service = Service::start(&network.server, HIDDEN);
    let reach = Reach::new(&network, address(Family::V4, 0, 1), &[]);
    let began = Instant::now();
    let daemon = gate.serve(&["--persist"]);
    let start = began.elapsed().mul_f32(1.2);
    reach.knock(IpAddr::from(FRIEND), &[6101, 5017]);
    let until_ns = poll("the grant", PATIENCE, || gate.grant_until_ns(FRIEND, "main"));
    let storms = storms(&network);
    let steady = Steady::start(
        &network.client,
        SocketAddr::from((FRIEND, 0)),
        at(0, 1, HIDDEN),
        DATAGRAMS_PER_S,
        &service,
    );
    let hidden_before = gate.count(Counter::Hidden);
    let stormy = Instant::now();

    let mut run = Run { gate: &gate, daemon: Some(daemon), random: Random::new(seed), start, configs: 0 };
    let mut table = BTreeMap::new();
    for number in 0..kills() {
        let moment = *run.random.pick(&MOMENTS);
        run.kill(moment);
        *table.entry(moment).or_insert(0) += 1;
        let in_force = gate.in_force();
        assert_eq!(in_force.len(), 2, "kill {number}, {moment:?}: {in_force:?}");
        assert_eq!(gate.grant_until_ns(FRIEND, "main"), Some(until_ns), "kill {number}, {moment:?}");
        let lost = (service.probes(), steady.so_far().1);
        assert_eq!(lost, (0, 0), "probes in and datagrams lost after kill {number}, {moment:?}");
    }
    run.end_daemon();
    let last = gate.serve(&["--persist"]);
    gate.one_in_force();

    let (sent, lost) = steady.stop();
    let judged = gate.count(Counter::Hidden) - hidden_before;
    let (seconds, probes) = (stormy.elapsed().as_secs_f64(), storms.map(Storm::stop));
    let probed: u64 = probes.iter().map(|(sent, _)| sent).sum();
    println!(
        "{} kills in {seconds:.0} s at {table:?}; a start takes {:.0} ms",
        kills(),
        start.as_secs_f64() * 1000.0 / 1.2
    );
    println!(
        "probes: {probed} sent, {judged} dropped as hidden ({:.0} a second), {} delivered",
        judged as f64 / seconds,
        service.probes()
    );
    println!("client: {sent} datagrams sent, {lost} lost");
    assert_eq!((service.probes(), lost), (0, 0), "probes delivered, datagrams lost");
    assert!(judged > 0 && sent > 0, "there was no traffic");
    last.kill();
    service.stop();
}

/// The passing twin: what delivers a probe to the same socket, so that none delivered means something.
#[test]
fn without_its_pins_the_gate_is_gone_and_probes_come_in() {
    let network = network();
    let gate = Instance::new(&network.server, &["srv0", "srv1"], &config(0));
    let service = Service::start(&network.server, HIDDEN);
    let _storms = storms(&network);
    let come_in = |why: &str| {
        let before = service.probes();
        poll(&format!("probes to come in {why}"), PATIENCE, || (service.probes() > before).then_some(()));
    };
    come_in("before there is a gate");

    let daemon = gate.serve(&[]);
    daemon.signal(Signal::SIGTERM);
    come_in("after a clean stop without --persist");
    drop(daemon);

    let daemon = gate.serve(&["--persist"]);
    std::fs::remove_dir_all(gate.pins().path()).expect("pins of our own");
    daemon.kill();
    come_in("without pins");
}
