//! Every packet of the corpus gets its verdict, and no cut of it passes as anything but the whole does.

use std::{collections::HashSet, env, fs, path::PathBuf};

use knock_common::{
    decide::{self, Access, Visit},
    parse::parse,
    verdict::{Action, Mode, Verdict},
};

#[path = "../../tests/src/corpus.rs"]
mod corpus;
#[path = "../../tests/src/gate.rs"]
mod gate;
#[path = "../../tests/src/packet.rs"]
mod packet;
#[path = "../../tests/src/specimens/mod.rs"]
mod specimens;

use corpus::Entry;
use gate::Gate;
use specimens::{FILES, Table};

/// Set to write the corpus anew from the table in `tests/src/specimens`.
const WRITE: &str = "KNOCK_WRITE_CORPUS";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

/// As the kernel program goes from a frame to its verdict.
fn verdict(frame: &[u8], gate: &Gate) -> Verdict {
    let mut visit = Visit::NONE;
    let classified = parse(frame).and_then(|segment| decide::classify(frame, &segment, gate, &mut visit));
    match classified {
        Ok(()) => decide::decide(&visit, gate, &mut Access::default()).verdict,
        Err(verdict) => verdict,
    }
}

fn differing(entries: &[Entry], found: impl Fn(&Entry) -> Vec<String>) -> String {
    entries.iter().flat_map(found).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_corpus_on_disk_is_the_one_in_the_table() {
    for (file, title, fill) in FILES {
        let mut table = Table::default();
        fill(&mut table);
        let (path, text) = (folder().join(file).with_extension("txt"), corpus::text(title, &table.entries));
        if env::var_os(WRITE).is_some() {
            fs::write(&path, &text).expect("a writable folder");
        }
        let on_disk = fs::read_to_string(&path).expect("a readable file");
        assert!(on_disk == text, "{file}.txt is not what the table says: run this test with {WRITE}=1");
        assert_eq!(corpus::parse(&text), table.entries);
    }
}

#[test]
fn the_corpus_has_at_least_four_hundred_packets_with_names_and_bytes_of_their_own() {
    let entries = corpus::load(&folder());
    let names: HashSet<_> = entries.iter().map(|entry| &entry.name).collect();
    let frames: HashSet<_> = entries.iter().map(|entry| &entry.frame).collect();
    println!("{} packets, {} different frames", entries.len(), frames.len());

    assert!(frames.len() >= 400, "only {} different frames", frames.len());
    assert_eq!(names.len(), entries.len());
}

#[test]
fn every_packet_gets_its_verdict() {
    let (entries, gate) = (corpus::load(&folder()), corpus::gate());
    let wrong = differing(&entries, |entry| {
        let found = verdict(&entry.frame, &gate);
        (found != entry.verdict)
            .then(|| format!("{}: {found:?}, not {:?}", entry.name, entry.verdict))
            .into_iter()
            .collect()
    });
    assert!(wrong.is_empty(), "{wrong}");
}

/// So a cut of a packet to a hidden service is dropped, whatever is left of it: there is no exception.
#[test]
fn a_cut_packet_is_dropped_in_guard_mode_or_passes_for_what_the_whole_passes_for() {
    let (entries, gate) = (corpus::load(&folder()), corpus::gate());
    let cuts: usize = entries.iter().map(|entry| entry.frame.len()).sum();
    let wrong = differing(&entries, |entry| {
        let cuts = (0..entry.frame.len()).map(|len| (len, verdict(&entry.frame[..len], &gate)));
        let passing =
            cuts.filter(|(_, cut)| cut.action(Mode::Guard) == Action::Pass && *cut != entry.verdict);
        passing.map(|(len, cut)| format!("{} cut at {len}: {cut:?}", entry.name)).collect()
    });
    println!("{} packets, {cuts} cuts", entries.len());
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_is_dropped_in_observe_mode() {
    for entry in corpus::load(&folder()) {
        assert_eq!(entry.verdict.action(Mode::Observe), Action::Pass, "{}", entry.name);
    }
}
