//! What becomes of the gate when one system call of `attach` or of `reload` fails, once, at any place: it is in force, or the
//! program says what was refused and all is as it was before.
//!
//! `KNOCK_FAULTS` says how many places are tried for each call (`all`: every one), `KNOCK_SEED` which.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use knock_tests::{
    hosts::{friend, network, server, stranger},
    instance::{InForce, Instance, door, guard, tree},
    netns::Network,
    program::{self, Finished},
    random::Random,
    reach::Reach,
};

/// Hidden by every configuration here.
const HIDDEN: u16 = 7000;
/// Hidden by every other configuration of a reload.
const SOMETIMES: u16 = 7001;

/// Calls that reach the kernel's programs and maps, its interfaces and its files, and an error that each is known to give.
const CALLS: [(&str, &str); 20] = [
    ("bpf", "ENOMEM"),
    ("socket", "EMFILE"),
    ("bind", "ENOBUFS"),
    ("sendto", "ENOBUFS"),
    ("sendmsg", "ENOBUFS"),
    ("recvfrom", "ENOBUFS"),
    ("recvmsg", "ENOBUFS"),
    ("ioctl", "EIO"),
    ("openat", "EMFILE"),
    ("write", "ENOSPC"),
    ("statx", "EACCES"),
    ("statfs", "EIO"),
    ("readlink", "EACCES"),
    ("getdents64", "EIO"),
    ("mkdir", "EACCES"),
    ("chmod", "EPERM"),
    ("flock", "ENOLCK"),
    ("unlink", "EPERM"),
    ("rmdir", "EBUSY"),
    // Last: most of its many places are the kernel's types, read in small pieces.
    ("read", "EIO"),
];

/// One call that fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static str,
    error: &'static str,
    /// Which of the process's calls of this name it is, from 1 on.
    place: usize,
}

/// How a process ended that met a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    DoneAnyway,
}

fn reach(network: &Network) -> Reach<'_> {
    Reach::new(network, server(), &[HIDDEN, SOMETIMES])
}

fn one_door() -> String {
    guard(&[first_door()])
}

fn two_doors() -> String {
    guard(&[first_door(), door("second", &["udp/7001"], &["udp/6303", "udp/5204"], "open_for = \"1h\"")])
}

fn first_door() -> String {
    door("first", &["udp/7000"], &["udp/6101", "udp/5017"], "open_for = \"1h\"")
}

/// Runs a verb under strace, which is told what to do by `options`. Mounts of its own keep the machine's as they are,
/// should a fault lead the program to make one: it did.
fn traced(gate: &Instance<'_>, verb: &str, options: &[String]) -> Finished {
    let mut command = gate.namespace.bounded("unshare");
    command
        .args(["--mount", "strace", "-f"])
        .args(options)
        .arg("--")
        .arg(program::xdp_knock())
        .args(gate.words(verb, &[]));
    program::run(&mut command)
}

fn with_fault(gate: &Instance<'_>, verb: &str, Fault { call, error, place }: Fault) -> Finished {
    let options = [
        "-o".to_owned(),
        "/dev/null".to_owned(),
        format!("--trace={call}"),
        format!("--inject={call}:error={error}:when={place}"),
    ];
    traced(gate, verb, &options)
}

/// Runs a verb without a fault; returns how often it made each call.
fn counted(gate: &Instance<'_>, verb: &str) -> BTreeMap<&'static str, usize> {
    let folder = tempfile::tempdir().expect("a folder for the trace");
    let trace = folder.path().join("trace");
    let names: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
    let options = ["-o".to_owned(), trace.display().to_string(), format!("--trace={}", names.join(","))];
    let _ = traced(gate, verb, &options).succeeded();
    let text = fs::read_to_string(&trace).expect("strace writes it");
    // Lines are `PID call(...`.
    let made: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.trim_start().split_once('(')?.0))
        .collect();
    names.into_iter().map(|call| (call, made.iter().filter(|one| **one == call).count())).collect()
}

/// The first place, the last, and some of those between.
fn sample(places: usize, random: &mut Random) -> BTreeSet<usize> {
    let wanted = env::var("KNOCK_FAULTS").unwrap_or_else(|_| "2".to_owned());
    if wanted == "all" {
        return (1..=places).collect();
    }
    let wanted: usize =
        wanted.parse().unwrap_or_else(|_| panic!("KNOCK_FAULTS={wanted}: neither a number nor `all`"));
    let mut sample: BTreeSet<usize> =
        [1, places].into_iter().filter(|place| (1..=places).contains(place)).collect();
    while sample.len() < wanted.min(places) {
        sample.insert(1 + random.below(places));
    }
    sample
}

/// Tries the places of every call; panics at the end with all that went wrong.
fn try_all(verb: &str, places: &BTreeMap<&'static str, usize>, mut meet: impl FnMut(Fault) -> End) {
    let seed = Random::seed("KNOCK_SEED");
    println!("{verb}: KNOCK_SEED={seed}");
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut wrong = Vec::new();
    for (call, error) in CALLS {
        let count = places[call];
        let (mut refused, mut done) = (0, 0);
        let sample = sample(count, &mut random);
        for &place in &sample {
            let fault = Fault { call, error, place };
            match catch_unwind(AssertUnwindSafe(|| meet(fault))) {
                Ok(End::Refused) => refused += 1,
                Ok(End::DoneAnyway) => done += 1,
                Err(_) => wrong.push(format!("{call}:error={error}:when={place}")),
            }
        }
        println!(
            "{verb}: {call} {error}: points {count}, tried {}, refused {refused}, done anyway {done}",
            sample.len()
        );
    }
    println!("{verb}: wrong {}, in {:.0?}", wrong.len(), started.elapsed());
    assert!(wrong.is_empty(), "{verb}: a forbidden outcome at {wrong:#?}");
}

/// Tells by the exit status; a refusal has to say why, and a panic is none.
fn end_of(finished: &Finished) -> End {
    if finished.is_success() {
        return End::DoneAnyway;
    }
    assert!(finished.status.is_some_and(|status| status != 101 && status != 124), "{finished}");
    // The words may be the dynamic linker's.
    assert!(!finished.stderr.trim().is_empty(), "refused without a word: {finished}");
    End::Refused
}

fn detach(gate: &Instance<'_>) {
    let _ = gate.run("detach", &["--force"]).succeeded();
    gate.assert_nothing("after a detach");
}

#[test]
fn attach_with_a_fault_is_in_force_or_refused_with_nothing_left_attached() {
    let network = network();
    let reach = reach(&network);
    let places = {
        let gate = Instance::new(&network.server, &["srv0"], &one_door());
        counted(&gate, "attach")
    };
    // The kernel lets go of what a pin held a while after the pin is gone.
    reach.until_open(stranger(), HIDDEN);

    try_all("attach", &places, |fault| {
        let gate = Instance::new(&network.server, &["srv0"], &one_door());
        let finished = with_fault(&gate, "attach", fault);
        let end = end_of(&finished);
        if end == End::Refused {
            assert_eq!(gate.carried("srv0"), None, "{fault:?}: attached all the same: {finished}");
            let linked = gate.pins().linked().unwrap_or_else(|error| panic!("{error:#}"));
            assert!(linked.is_empty(), "{fault:?}: {:?}: {finished}", tree(gate.pins().path()));
            let _ = gate.run("attach", &[]).succeeded();
        }
        assert_eq!(gate.one_in_force().doors, ["first"], "{fault:?}: {finished}");
        assert!(!reach.is_open(stranger(), HIDDEN), "{fault:?}: a stranger comes in: {finished}");
        detach(&gate);
        end
    });
}

/// A gate that is in force, with a friend who may pass it.
fn gate_with_friend<'a>(network: &'a Network, reach: &Reach<'_>) -> Instance<'a> {
    let gate = Instance::new(&network.server, &["srv0"], &one_door());
    let _ = gate.run("attach", &[]).succeeded();
    reach.knock(friend(), &[6101, 5017]);
    reach.until_open(friend(), HIDDEN);
    gate
}

/// Gives the gate the configuration that is not in force; returns the names of its doors.
fn turn(gate: &Instance<'_>, now: &InForce) -> Vec<String> {
    let (text, doors) = if now.doors.len() == 1 {
        (two_doors(), vec!["first".to_owned(), "second".to_owned()])
    } else {
        (one_door(), vec!["first".to_owned()])
    };
    gate.configure(text.as_bytes());
    doors
}

fn meet_in_reload(gate: &Instance<'_>, reach: &Reach<'_>, fault: Fault) -> End {
    let was = gate.one_in_force();
    let wanted = turn(gate, &was);
    let finished = with_fault(gate, "reload", fault);
    let end = end_of(&finished);
    let now = gate.one_in_force();
    match end {
        End::Refused => assert_eq!(now, was, "{fault:?}: {finished}"),
        End::DoneAnyway => {
            assert_eq!(now.doors, wanted, "{fault:?}: {finished}");
            assert_ne!(now.generation, was.generation, "{fault:?}: {finished}");
        }
    }
    assert!(!reach.is_open(stranger(), HIDDEN), "{fault:?}: a stranger comes in: {finished}");
    assert_eq!(reach.is_open(stranger(), SOMETIMES), now.doors.len() == 1, "{fault:?}: {finished}");
    assert!(reach.is_open(friend(), HIDDEN), "{fault:?}: the grant was lost: {finished}");
    end
}

#[test]
fn reload_with_a_fault_brings_the_new_gate_or_leaves_the_old_one_with_its_grants() {
    let network = network();
    let reach = reach(&network);
    let mut gate = gate_with_friend(&network, &reach);
    let _ = turn(&gate, &gate.one_in_force());
    let places = counted(&gate, "reload");

    try_all("reload", &places, |fault| {
        let met = catch_unwind(AssertUnwindSafe(|| meet_in_reload(&gate, &reach, fault)));
        met.unwrap_or_else(|reason| {
            // The next fault meets a sound gate again.
            let _ = gate.run("detach", &["--force"]);
            gate = gate_with_friend(&network, &reach);
            std::panic::resume_unwind(reason)
        })
    });

    let wanted = turn(&gate, &gate.one_in_force());
    let _ = gate.run("reload", &[]).succeeded();
    assert_eq!(gate.one_in_force().doors, wanted, "after all faults");
    detach(&gate);
}
