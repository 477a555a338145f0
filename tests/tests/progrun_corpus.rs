//! The packet corpus through the program in the kernel: every packet, whole and cut at every length.

use std::path::PathBuf;

use knock_common::{
    abi::{Grant, GrantKey, mapped},
    counter::{self, Counter},
    door::door_id,
    verdict::{Action, Mode, Verdict},
};
use knock_tests::{
    corpus::{self, ENDING, EXPIRED, Entry, GRANTED, GRANTED6, NOW_NS},
    gate::SECOND,
    kernel::{Kernel, compile},
    model::Model,
};
use knock_user::{generation::Generation, wire::Wire};

/// Shortest frame that a test run takes.
const SHORTEST: usize = 14;

/// The configuration in words of `tests/corpus/README.md`.
const CONFIG: &str = r#"
[xdp]
mode = "guard"
allow = ["192.0.2.0/24", "2001:db8:a::/48"]
public = ["tcp/80", "tcp/443"]
[[door]]
name = "ssh"
opens = ["tcp/22", "tcp/9000-9010", "udp/51820"]
knock = ["tcp/7001", "udp/7002", "icmp/echo?size=56"]
step_timeout = "5s"
total_timeout = "15s"
open_for = "30s"
allow_weak = true
"#;

/// The program and its model, with the grants of the corpus and no attempts.
struct Gates {
    kernel: Kernel,
    model: Model,
    counted: Vec<u64>,
}

impl Gates {
    fn new(mode: Mode) -> Self {
        let mut generation: Generation = compile(CONFIG);
        generation.settings.mode = mode.number();
        let mut kernel = Kernel::load(&generation);
        let mut model = Model::new(generation, 0);
        kernel.maps.set_now_ns(NOW_NS);
        model.tables.now_ns = NOW_NS;
        let ends = [
            (mapped(GRANTED), NOW_NS + 30 * SECOND),
            (GRANTED6, NOW_NS + 30 * SECOND),
            (mapped(ENDING), NOW_NS),
            (mapped(EXPIRED), NOW_NS - 1),
        ];
        for (source, until_ns) in ends {
            let key = GrantKey { source, door: door_id(b"ssh") };
            let grant = Grant { until_ns, since_ns: NOW_NS - 40 * SECOND, via: 1, generation: 1 };
            kernel.maps.grants.insert(Wire(key), Wire(grant), 0).expect("room");
            model.tables.grants.insert(key, grant);
        }
        Self { counted: vec![0; verdicts().count()], kernel, model }
    }

    /// Runs a frame through both; returns the verdict and the action if they agree.
    fn judge(&mut self, name: &str, frame: &[u8]) -> (Verdict, Action) {
        let (verdict, expected) = self.model.run(frame);
        let action = self.kernel.run(frame);
        assert_eq!(action, expected, "{name}, {} bytes, {verdict:?}", frame.len());
        let counted: Vec<u64> = verdicts().map(|counter| self.kernel.maps.count(counter)).collect();
        for ((counter, now), before) in verdicts().zip(&counted).zip(&self.counted) {
            let moved = u64::from(counter == verdict.counter());
            assert_eq!(
                now - before,
                moved,
                "{name}, {} bytes, {verdict:?}: counter {counter:?}",
                frame.len()
            );
        }
        self.counted = counted;
        self.forget_attempts();
        (verdict, action)
    }

    /// Each packet is judged for itself: a sequence that packets happen to make opens nothing.
    fn forget_attempts(&mut self) {
        for (source, _) in self.model.first.drain() {
            self.kernel.maps.first.remove(&Wire(source)).expect("the record that the model has");
        }
        assert!(self.model.later.is_empty());
    }
}

fn verdicts() -> impl Iterator<Item = Counter> {
    counter::ALL.into_iter().map(|(counter, ..)| counter).filter(|counter| (*counter as u32) < 32)
}

fn entries() -> Vec<Entry> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let all = corpus::load(&folder);
    let (long, short): (Vec<_>, Vec<_>) = all.into_iter().partition(|entry| entry.frame.len() >= SHORTEST);
    println!("{} packets; {} are too short for a test run", long.len(), short.len());
    long
}

#[test]
fn every_packet_of_the_corpus_gets_its_verdict_in_the_kernel() {
    for mode in [Mode::Guard, Mode::Observe] {
        let mut gates = Gates::new(mode);
        for entry in entries() {
            let (verdict, action) = gates.judge(&entry.name, &entry.frame);
            assert_eq!(verdict, entry.verdict, "{}", entry.name);
            assert_eq!(action, entry.verdict.action(mode), "{}", entry.name);
        }
    }
}

#[test]
fn a_cut_packet_gets_the_same_verdict_in_the_kernel_as_on_the_host() {
    for mode in [Mode::Guard, Mode::Observe] {
        let (mut gates, mut cuts) = (Gates::new(mode), 0);
        for entry in entries() {
            for len in SHORTEST..entry.frame.len() {
                let (verdict, action) = gates.judge(&entry.name, &entry.frame[..len]);
                let is_let_in =
                    mode == Mode::Guard && entry.verdict == Verdict::Hidden && action == Action::Pass;
                assert!(!is_let_in, "{} cut at {len} passes as {verdict:?}", entry.name);
                cuts += 1;
            }
        }
        println!("{mode:?}: {cuts} cuts");
    }
}
