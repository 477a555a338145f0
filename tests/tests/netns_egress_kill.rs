//! A start or a reload that fails, or is killed at any moment, leaves no gate that denies without its notes of what the
//! host sends.
//!
//! `KNOCK_KILLS` says how many kills (60), and `KNOCK_SEED` brings those of a run back.

use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant},
};

use knock_tests::{
    hosts::network,
    instance::Instance,
    outgoing::{carried, outgoing},
    process::Process,
    random::Random,
    site::{IN_TIME, Site, assert_none, attached, deny, deny_less, guard, succeed},
};
use nix::sys::signal::Signal;

const NONE: [u32; 0] = [];

#[test]
fn a_start_that_fails_leaves_none_and_a_reload_that_fails_leaves_the_one_before() {
    let network = network();
    network.add_link(1, 1500);
    let site = Site::new(&network);
    let elsewhere = Instance::new(&network.server, &["srv1"], &guard());
    succeed(elsewhere.run("attach", &[]));
    let both = Instance::new(&network.server, &["srv0", "srv1"], &deny());

    let refused = both.run("attach", &[]);
    assert!(!refused.is_success() && refused.stderr.contains("srv1"), "{refused}");
    assert_none(&both, "after a start that failed");
    assert_eq!(carried(&network.server, "srv1"), NONE, "after a start that failed");
    assert!(!both.pins().path().exists(), "pins are left");
    site.assert_open("after a start that failed");

    let two = |config: &str, interfaces: &str| {
        config.replace("[xdp]", &format!("[xdp]\ninterfaces = {interfaces}")).into_bytes()
    };
    for config in [deny(), guard()] {
        let gate = Instance::new(&network.server, &[], "");
        gate.configure(&two(&config, "[\"srv0\"]"));
        succeed(gate.run("attach", &[]));
        let before = (outgoing(&gate, "srv0"), gate.in_force());
        gate.configure(&two(&deny_less(), "[\"srv0\", \"srv1\"]"));
        let refused = gate.run("reload", &[]);
        assert!(!refused.is_success() && refused.stderr.contains("srv1"), "{refused}");
        assert_eq!((outgoing(&gate, "srv0"), gate.in_force()), before, "after a reload that failed");
        assert_eq!(carried(&network.server, "srv1"), NONE, "after a reload that failed");
        if config == deny() {
            site.assert_denies("after a reload that failed");
        }
        succeed(gate.run("detach", &[]));
        gate.assert_nothing("after a detach");
    }
}

/// What was under way when the process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Attach,
    AttachAnew,
    Reload,
    ReloadByDaemon,
    ToGuardAndBack,
    Detach,
    Start,
    Stop,
}

const MOMENTS: [Moment; 8] = [
    Moment::Attach,
    Moment::AttachAnew,
    Moment::Reload,
    Moment::ReloadByDaemon,
    Moment::ToGuardAndBack,
    Moment::Detach,
    Moment::Start,
    Moment::Stop,
];

/// A gate whose processes are killed.
struct Victim<'a> {
    gate: Instance<'a>,
    random: Random,
    start: Duration,
}

impl Victim<'_> {
    /// Kills something at a random moment; returns whether a gate in deny mode must be in force all the same.
    fn kill(&mut self, moment: Moment) -> bool {
        match moment {
            Moment::Attach => {
                self.kill_verb("attach");
                true
            }
            Moment::AttachAnew => {
                succeed(self.gate.run("detach", &[]));
                self.kill_verb("attach");
                false
            }
            Moment::Reload => {
                self.kill_verb("reload");
                true
            }
            Moment::ReloadByDaemon => {
                let daemon = self.gate.serve(&["--persist"]);
                daemon.signal(Signal::SIGHUP);
                self.pause(self.start);
                daemon.kill();
                true
            }
            Moment::ToGuardAndBack => {
                self.gate.configure(guard().as_bytes());
                self.kill_verb("reload");
                self.gate.configure(deny().as_bytes());
                // From guard mode or from deny mode, with notes or without.
                self.kill_verb("reload");
                false
            }
            Moment::Detach => {
                self.kill_verb("detach");
                false
            }
            Moment::Start => {
                let daemon = self.gate.start(&["--persist"]);
                self.pause(self.start);
                daemon.kill();
                true
            }
            Moment::Stop => {
                let daemon = self.gate.serve(&[]);
                daemon.signal(Signal::SIGTERM);
                self.pause(Duration::from_millis(30));
                daemon.kill();
                false
            }
        }
    }

    fn kill_verb(&mut self, verb: &str) {
        let process = Process::spawn(self.gate.command(verb, &[]));
        // A detach is over soon.
        self.pause(if verb == "detach" { Duration::from_millis(30) } else { self.start });
        process.kill();
    }

    /// Waits for a random part of a time.
    fn pause(&mut self, within: Duration) {
        let micros = usize::try_from(within.as_micros()).expect("seconds");
        thread::sleep(Duration::from_micros(self.random.below(micros.max(1)) as u64));
    }
}

#[test]
fn killed_at_any_moment_a_gate_that_denies_lets_answers_in_and_no_stranger() {
    let seed = Random::seed("KNOCK_SEED");
    let kills = env::var("KNOCK_KILLS").map_or(60, |text| text.parse().expect("KNOCK_KILLS is a number"));
    println!("KNOCK_SEED={seed} KNOCK_KILLS={kills}");
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let began = Instant::now();
    succeed(gate.run("attach", &[]));
    let mut victim = Victim { gate, random: Random::new(seed), start: began.elapsed().mul_f32(1.2) };
    let mut table: BTreeMap<Moment, (usize, usize)> = BTreeMap::new();
    for number in 0..kills {
        let moment = *victim.random.pick(&MOMENTS);
        let when = format!("kill {number}, {moment:?}");
        let must_deny = victim.kill(moment);
        let lets_in = site.is_let_in();
        assert!(site.is_answered(IN_TIME), "{when}: no answer comes");
        assert!(!(must_deny && lets_in), "{when}: a stranger is let in");
        let (count, open) = table.entry(moment).or_default();
        (*count, *open) = (*count + 1, *open + usize::from(lets_in));

        succeed(victim.gate.run("attach", &[]));
        let _ = attached(&victim.gate);
        site.assert_denies(&format!("{when}: after the next start"));
        assert_eq!(victim.gate.run("status", &[]).status, Some(0), "{when}");
    }
    println!("{kills} kills; of each how many, and how many left no gate that denies: {table:?}");
    succeed(victim.gate.run("detach", &[]));
    victim.gate.assert_nothing("after a detach");
    assert_none(&victim.gate, "after a detach");
}
