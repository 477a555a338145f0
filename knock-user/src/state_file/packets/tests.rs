//! What a file is worth to the gate that begins with it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const ID: KeyId = [0xaa, 0x32, 0x14, 0x5b, 0x69, 0x3e, 0xc6, 0xc0];
const WINDOW: Duration = Duration::from_secs(30);

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The file of a gate of this run of the machine that may still judge, with one floor.
fn judging() -> Saved {
    let floors = BTreeMap::from([(hex(&ID), 7)]);
    Saved { boot: "this".to_owned(), floors, ..Saved::empty(at("2026-01-02T03:04:05Z")) }
}

fn after_boot(seconds: u64) -> Moment {
    Moment { ns: seconds * 1_000_000_000, wall: at("2026-01-02T03:05:00Z") }
}

#[test]
fn what_a_file_does_not_know_was_made_before_its_gate_or_the_machine_ended_and_at_most_a_window_ahead() {
    for (ended_since, boot, up_s, gap_s) in [
        // It may have ended a moment ago.
        (None, "this", 10, 30),
        // It ended with the machine's run before, 10 seconds ago or earlier.
        (None, "other", 10, 20),
        (None, "other", 3600, 0),
        // Nobody knows which run this is.
        (None, "", 3600, 30),
        // It ended in order: it knows what was made since.
        (Some("2026-01-02T03:00:00Z"), "this", 10, 0),
        (Some("2026-01-02T03:00:00Z"), "other", 10, 0),
        (Some("2026-01-02T03:05:12Z"), "this", 3600, 12),
        // The clock was set back since.
        (Some("2026-01-03T03:05:12Z"), "this", 3600, 30),
    ] {
        let saved = Saved { ended_since: ended_since.map(at), ..judging() };

        let gap = saved.gap(WINDOW, after_boot(up_s), boot);

        assert_eq!(gap.as_secs(), gap_s, "{ended_since:?} {boot} {up_s}");
    }
    let unsaid = Saved { boot: String::new(), ..judging() };
    assert_eq!(unsaid.gap(WINDOW, after_boot(3600), "this"), WINDOW, "of an older version");
}

#[test]
fn floors_are_taken_from_a_file_of_the_future_and_of_no_secret_from_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    let write = |saved: &Saved| saved.write(&path).expect("written");
    assert_eq!(of_file(&path).expect("no file is no error"), None);

    write(&Saved { saved: at("2999-01-01T00:00:00Z"), ..judging() });

    assert!(Saved::read(&path, at("2026-01-02T03:05:00Z")).is_err(), "its grants are not");
    let (_, floors) = of_file(&path).expect("readable").expect("a file");
    assert_eq!(floors, BTreeMap::from([(ID, 7)]));
    for id in ["", "aa", "zz32145b693ec6c0", "+a32145b693ec6c0"] {
        write(&Saved { floors: BTreeMap::from([(id.to_owned(), 7)]), ..judging() });
        assert!(format!("{:#}", of_file(&path).expect_err(id)).contains("remove it"));
    }
}

#[test]
fn a_file_is_marked_before_its_gate_judges_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    let ended = Saved { ended_since: Some(at("2026-01-02T03:00:00Z")), ..judging() };
    ended.write(&path).expect("written");

    Saved::begin(&path, at("2026-01-02T03:05:00Z")).expect("marked");

    let (begun, _) = of_file(&path).expect("readable").expect("a file");
    assert_eq!(begun, Saved { boot: boot(), ended_since: None, ..ended });
    assert_eq!(begun.gap(WINDOW, after_boot(3600), &boot()), WINDOW);
}

#[test]
fn a_file_that_cannot_be_read_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    judging().write(&path).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("ours");
    let before = fs::read(&path).expect("readable");

    let forgotten = Saved::forget(&path, None, at("2026-01-02T03:05:00Z")).expect_err("refused");

    assert!(format!("{forgotten:#}").contains("stays as it is"), "{forgotten:#}");
    assert!(Saved::begin(&path, at("2026-01-02T03:05:00Z")).is_err());
    assert_eq!(fs::read(&path).expect("readable"), before);
}
