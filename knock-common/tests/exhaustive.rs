//! Every string of packets up to a length, through the machine and through an oracle that reads the whole history:
//! after each packet they agree on whether a door opened and on how far the source has got.

use std::time::Instant;

use knock_common::{
    abi::{DoorRule, StepRule},
    machine::Knock,
};

#[path = "../../tests/src/gate.rs"]
mod gate;
mod oracle;
mod source;

use gate::{Door, Gate, SECOND, STEP_TIMEOUT, TOTAL_TIMEOUT, echo, tcp, udp};
use oracle::{History, Packet, Secret};
use source::{Source, packet};

/// Length of the strings: 8 makes 2,015,538 of them for each sequence.
const LENGTH: usize = if cfg!(debug_assertions) { 6 } else { 8 };
/// Between two packets; far inside the window in which UDP and ICMP packets count as copies.
const PAUSE: u64 = SECOND / 100;

#[derive(Clone, Copy, Debug)]
enum Symbol {
    /// The step that the source is to send next.
    Next,
    /// The first step.
    First,
    /// The latest packet, bit for bit.
    Repeat,
    /// A step of the sequence that it is not the turn of.
    Other,
    /// A port that is no step.
    Wrong,
    /// Nothing, for as long as [`Times::wait`].
    Wait,
}

const ALPHABET: [Symbol; 6] =
    [Symbol::Next, Symbol::First, Symbol::Repeat, Symbol::Other, Symbol::Wrong, Symbol::Wait];

/// How long a wait is, and how long the door waits.
#[derive(Clone, Copy)]
struct Times {
    wait: u64,
    step_timeout: u64,
    total_timeout: u64,
}

/// One wait is too long.
const LONG_WAIT: Times =
    Times { wait: STEP_TIMEOUT + 1, step_timeout: STEP_TIMEOUT, total_timeout: TOTAL_TIMEOUT };
/// One wait only ends the window of copies, two in a row are too long, and so are three in all.
const SHORT_WAIT: Times = Times { wait: SECOND, step_timeout: 3 * SECOND / 2, total_timeout: 5 * SECOND / 2 };

/// One sequence, and what has been sent to it so far.
struct Walk {
    gate: Gate,
    secret: Secret,
    history: History,
    wait: u64,
    spoken: Vec<Symbol>,
    strings: u64,
    promotions: u64,
}

impl Walk {
    fn new(steps: &[StepRule], times: Times) -> Self {
        let Times { wait, step_timeout: step_timeout_ns, total_timeout: total_timeout_ns } = times;
        let mut door = Door::of(steps);
        door.rule = DoorRule { step_timeout_ns, total_timeout_ns, ..door.rule };
        Self {
            gate: Gate::new(vec![door], &[]),
            secret: Secret { steps: steps.to_vec(), step_timeout_ns, total_timeout_ns },
            history: History::default(),
            wait,
            spoken: vec![],
            strings: 0,
            promotions: 0,
        }
    }

    /// Tries all strings that begin with what has been spoken.
    fn explore(&mut self, source: &Source, now_ns: u64) {
        if self.spoken.len() == LENGTH {
            return;
        }
        for symbol in ALPHABET {
            self.spoken.push(symbol);
            self.strings += 1;
            let mut source = source.clone();
            match self.knock(symbol) {
                Some(knock) => {
                    self.history.push(&self.secret, Packet { knock, at_ns: now_ns + PAUSE });
                    self.compare(&mut source, &knock, now_ns + PAUSE);
                    self.explore(&source, now_ns + PAUSE);
                    self.history.pop();
                }
                None => self.explore(&source, now_ns + self.wait),
            }
            self.spoken.pop();
        }
    }

    /// The packet that a symbol stands for here; none for a wait, and for a repeat of nothing.
    fn knock(&self, symbol: Symbol) -> Option<Knock> {
        let steps = &self.secret.steps;
        let number = u16::try_from(self.spoken.len()).expect("a short string");
        let next = self.history.progress(&self.secret) % steps.len();
        match symbol {
            Symbol::Next => Some(packet(&steps[next], number)),
            Symbol::First => Some(packet(&steps[0], number)),
            Symbol::Repeat => self.history.last().map(|packet| packet.knock),
            Symbol::Other => Some(packet(&steps[(next + 1) % steps.len()], number)),
            Symbol::Wrong => Some(packet(&wrong(&steps[next]), number)),
            Symbol::Wait => None,
        }
    }

    fn compare(&mut self, source: &mut Source, knock: &Knock, now_ns: u64) {
        let is_promoted = source.send(&self.gate, knock, now_ns).promoted == 1;
        let steps: Vec<u8> =
            source.attempts.slots.iter().map(|slot| slot.step).filter(|step| *step != 0).collect();
        let progress = self.history.progress(&self.secret);
        let is_alike = steps.len() <= 1 && usize::from(steps.first().copied().unwrap_or(0)) == progress;
        assert!(
            is_alike && is_promoted == self.history.is_promotion(&self.secret),
            "{:?}\nafter {:?}: machine at {steps:?}, opened {is_promoted}; oracle at {progress}",
            self.secret.steps,
            self.spoken
        );
        self.promotions += u64::from(is_promoted);
    }
}

/// No step of any sequence here, by the protocol of one.
fn wrong(step: &StepRule) -> StepRule {
    if step.port == 0 { echo(1) } else { StepRule { port: 9, ..*step } }
}

/// Walks the first 1 to 5 steps of a sequence.
fn explore_all(name: &str, times: Times, steps: [StepRule; 5]) {
    let begin = Instant::now();
    let (mut strings, mut promotions) = (0, 0);
    for count in 1..=steps.len() {
        let mut walk = Walk::new(&steps[..count], times);
        walk.explore(&Source::new(), SECOND);
        assert!(walk.promotions > 0 || count > LENGTH, "{name}: nothing opens a sequence of {count}");
        strings += walk.strings;
        promotions += walk.promotions;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name}: {strings} strings up to length {LENGTH}, {promotions} promotions, {seconds:.1} s");
    let each = (1..=LENGTH).map(|length| 6_u64.pow(u32::try_from(length).expect("short"))).sum::<u64>();
    assert_eq!(strings, 5 * each);
}

#[test]
fn a_sequence_over_tcp_opens_exactly_when_the_oracle_says_so() {
    explore_all("tcp", LONG_WAIT, [tcp(7001), tcp(7102), tcp(7203), tcp(7304), tcp(7405)]);
}

#[test]
fn a_sequence_with_a_port_twice_in_a_row_opens_exactly_when_the_oracle_says_so() {
    explore_all("tcp twice", LONG_WAIT, [tcp(7001), tcp(7001), tcp(7102), tcp(7102), tcp(7001)]);
}

#[test]
fn a_sequence_over_udp_opens_exactly_when_the_oracle_says_so() {
    explore_all("udp", LONG_WAIT, [udp(7001), udp(7102), udp(7203), udp(7001), udp(7405)]);
}

#[test]
fn a_mixed_sequence_opens_exactly_when_the_oracle_says_so() {
    explore_all("mixed", LONG_WAIT, [tcp(7001), udp(7001), echo(56), tcp(7001), echo(172)]);
}

#[test]
fn short_and_long_waits_open_exactly_when_the_oracle_says_so() {
    explore_all("udp, short waits", SHORT_WAIT, [udp(7001), udp(7102), udp(7001), udp(7001), udp(7405)]);
    explore_all("mixed, short waits", SHORT_WAIT, [tcp(7001), udp(7001), echo(56), tcp(7001), echo(172)]);
}
