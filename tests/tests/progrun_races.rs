//! Two CPUs with knocks of one source at once: a door never opens out of order, and a grant is one grant.
//!
//! The program runs on the real clock, as the age of a record tells one use of its memory from the next.

use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::Xdp;
use knock_common::{
    abi::{GrantKey, mapped},
    counter::Counter,
    door::door_id,
    event::Kind,
};
use knock_tests::{
    kernel::{Kernel, Maps, compile, run},
    packet::{SYN, TCP, V4, tcp},
    random::Random,
};
use knock_user::wire::Wire;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

const SOURCE: [u8; 4] = [198, 51, 100, 1];
const STEPS: [u16; 4] = [7101, 9032, 1200, 5124];
const KEY: GrantKey = GrantKey { source: mapped(SOURCE), door: door_id(b"ssh") };
/// Bounds of each race.
const MOST_TIME: Duration = Duration::from_secs(20);
const SEQUENCES: u32 = if cfg!(debug_assertions) { 20_000 } else { 300_000 };
const ROUNDS: u32 = if cfg!(debug_assertions) { 5000 } else { 60_000 };

fn kernel(knock: &str) -> Kernel {
    let mut generation = compile(&format!(
        "[xdp]\nmode = \"guard\"\n[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nknock = {knock}\nallow_weak = true\n"
    ));
    generation.doors[0].new_attempts = u32::MAX;
    generation.settings.events = 0;
    Kernel::load_live(&generation)
}

const FOUR: &str = r#"["tcp/7101", "tcp/9032", "tcp/1200", "tcp/5124"]"#;
const ONE: &str = r#"["tcp/7101"]"#;

/// Returns a knock that no other has the sequence number of.
fn syn(port: u16, number: u32) -> Vec<u8> {
    let mut segment = tcp(port, SYN);
    segment[4..8].copy_from_slice(&number.to_be_bytes());
    V4 { source: SOURCE, ..V4::new(TCP) }.frame(&segment)
}

/// Returns two CPUs of those that the tests may use.
fn cpus() -> [usize; 2] {
    let all = sched_getaffinity(Pid::from_raw(0)).expect("an affinity");
    let mut usable = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    [(); 2].map(|()| usable.next().expect("two CPUs, or there is no race to test"))
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU that there is");
    sched_setaffinity(Pid::from_raw(0), &set).expect("a CPU that the tests may use");
}

/// One sequence: after its first step's run, before its last one's, and whether it opened the door.
struct Sequence {
    from: Instant,
    to: Instant,
    opened: bool,
}

/// Sends whole sequences until they or the time are used up; the grant is taken away after each.
fn send_sequences(program: &Xdp, maps: &mut Maps) -> Vec<Sequence> {
    let began = Instant::now();
    let mut sequences = Vec::new();
    for number in 0..SEQUENCES {
        if began.elapsed() > MOST_TIME {
            break;
        }
        run(program, &syn(STEPS[0], number));
        let from = Instant::now();
        run(program, &syn(STEPS[1], number));
        run(program, &syn(STEPS[2], number));
        let to = Instant::now();
        run(program, &syn(STEPS[3], number));
        let opened = maps.grants.remove(&Wire(KEY)).is_ok();
        sequences.push(Sequence { from, to, opened });
    }
    sequences
}

/// Sends wrong knocks at random distances until told to stop, or for too long; returns when each began and ended.
fn send_wrong_knocks(program: &Xdp, stop: &AtomicBool, random: &mut Random) -> Vec<[Instant; 2]> {
    let (began, mut runs) = (Instant::now(), Vec::new());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) || began.elapsed() > 2 * MOST_TIME {
            break;
        }
        let frame = syn(4444, number);
        let from = Instant::now();
        run(program, &frame);
        runs.push([from, Instant::now()]);
        let pause = Duration::from_nanos(u64::try_from(random.below(60_000)).expect("small"));
        wait(pause);
    }
    runs
}

/// Waits without giving up the CPU.
fn wait(pause: Duration) {
    let began = Instant::now();
    while began.elapsed() < pause {
        hint::spin_loop();
    }
}

#[test]
fn a_wrong_knock_of_another_cpu_between_two_steps_keeps_the_door_shut() {
    let mut kernel = kernel(FOUR);
    let (stop, [one, other]) = (AtomicBool::new(false), cpus());
    let mut random = Random::new(Random::seed("KNOCK_RACE_SEED"));
    let (program, maps) = kernel.parts();
    let (sequences, wrong) = thread::scope(|scope| {
        let wrong = scope.spawn(|| {
            pin(other);
            send_wrong_knocks(program, &stop, &mut random)
        });
        let sequences = scope.spawn(|| {
            pin(one);
            let sequences = send_sequences(program, maps);
            stop.store(true, Ordering::Relaxed);
            sequences
        });
        (sequences.join().expect("sequences"), wrong.join().expect("wrong knocks"))
    });

    // Runs of one CPU follow one another, so of those that began inside a sequence the first also ends first.
    let is_crossed = |sequence: &Sequence| {
        let next = wrong.partition_point(|[from, _]| *from <= sequence.from);
        wrong.get(next).is_some_and(|[_, end]| *end < sequence.to)
    };
    let crossed = sequences.iter().filter(|sequence| is_crossed(sequence)).count();
    let violations = sequences.iter().filter(|sequence| sequence.opened && is_crossed(sequence)).count();
    let opened = sequences.iter().filter(|sequence| sequence.opened).count();
    println!(
        "{} sequences, {} wrong knocks, {opened} promotions, {crossed} crossed, {} contended, {violations} violations",
        sequences.len(),
        wrong.len(),
        kernel.maps.count(Counter::AttemptContended)
    );
    assert_eq!(violations, 0, "a door opened although a wrong knock lay between its steps");
    assert_eq!(kernel.maps.count(Counter::Promoted), opened as u64);
    assert!(opened > 0 && crossed > 0, "the race tested nothing");
}

/// Runs `act` on two CPUs, round by round, both beginning each round at once; after each, `check` alone.
///
/// `act` is given the round and which of the two CPUs it is on.
fn race(kernel: &mut Kernel, act: impl Fn(&Xdp, u32, u32) + Sync, mut check: impl FnMut(&mut Maps)) -> u32 {
    let (began, [one, other]) = (Instant::now(), cpus());
    let rounds = Rounds::default();
    let (program, maps) = kernel.parts();
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(other);
            for round in 0.. {
                if !rounds.meet(2 * round + 1) {
                    return;
                }
                act(program, round, 1);
                rounds.meet(2 * round + 2);
            }
        });
        let _end = End(&rounds);
        pin(one);
        for round in 0..ROUNDS {
            if began.elapsed() > MOST_TIME {
                return round;
            }
            rounds.meet(2 * round + 1);
            act(program, round, 0);
            rounds.meet(2 * round + 2);
            check(maps);
        }
        ROUNDS
    })
}

/// Where two threads wait for each other.
#[derive(Default)]
struct Rounds {
    arrivals: AtomicU64,
    is_over: AtomicBool,
}

impl Rounds {
    /// Waits until both have come to this meeting; returns whether there is one.
    fn meet(&self, meeting: u32) -> bool {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        while self.arrivals.load(Ordering::Acquire) < 2 * u64::from(meeting) {
            if self.is_over.load(Ordering::Acquire) {
                return false;
            }
            hint::spin_loop();
        }
        true
    }
}

/// Lets the other thread go when this one is done, also by a failed check.
struct End<'a>(&'a Rounds);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

#[test]
fn the_same_sequence_on_two_cpus_opens_the_door_once_or_not_at_all() {
    let mut kernel = kernel(FOUR);
    let mut promoted = 0;
    let send = |program: &Xdp, round: u32, cpu: u32| {
        // The copy lags by anything from nothing to more than the whole sequence.
        wait(Duration::from_micros(u64::from(cpu * (round % 48))));
        for step in STEPS {
            run(program, &syn(step, round));
        }
    };

    let rounds = race(&mut kernel, send, |maps| {
        let now = maps.count(Counter::Promoted);
        assert!(now - promoted <= 1, "one sequence and its copy promoted twice");
        promoted = now;
        assert_eq!(maps.all_grants().len() as u64, promoted.min(1));
    });

    println!(
        "{rounds} rounds, {promoted} promotions, {} contended",
        kernel.maps.count(Counter::AttemptContended)
    );
    assert!(promoted > 0, "the race tested nothing");
    assert_eq!(kernel.maps.count(Counter::GrantRefreshed), promoted - 1);
}

#[test]
fn promotions_on_two_cpus_at_once_make_one_grant() {
    let mut kernel = kernel(ONE);
    let send = |program: &Xdp, round: u32, cpu: u32| {
        run(program, &syn(STEPS[0], 2 * round + cpu));
    };
    let (mut promoted, mut both) = (0, 0);

    let rounds = race(&mut kernel, send, |maps| {
        let now = maps.count(Counter::Promoted);
        both += u32::from(now - promoted == 2);
        let grants = maps.all_grants();
        assert_eq!(grants.len(), usize::from(now > promoted), "{} promotions", now - promoted);
        promoted = now;
        if grants.contains_key(&KEY) {
            maps.grants.remove(&Wire(KEY)).expect("the grant that is there");
        }
    });

    let events = kernel.maps.take_events();
    let told = events.iter().filter(|event| event.kind == Kind::Promoted as u8).count() as u64;
    let lost = kernel.maps.count(Counter::EventLost);
    println!(
        "{rounds} rounds, {promoted} promotions, both at once in {both} rounds, {} refreshed, {} contended",
        kernel.maps.count(Counter::GrantRefreshed),
        kernel.maps.count(Counter::AttemptContended)
    );
    assert!(both > 0, "the race tested nothing");
    assert_eq!(told + lost, promoted, "promotions told and lost");
    assert_eq!(kernel.maps.count(Counter::GrantTableFull), 0);
}
