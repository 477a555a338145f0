//! The file as it is written and read, and what is not taken for one.

use std::os::unix::fs::PermissionsExt as _;

use knock_common::abi::{BANS_ENTRIES, GRANTS_ENTRIES};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn saved() -> Saved {
    let (since, expires) = (at("2026-01-02T03:00:00Z"), Some(at("2026-01-02T04:00:00Z")));
    let source = "203.0.113.9".parse().expect("an address");
    Saved {
        v: VERSION,
        saved: at("2026-01-02T03:04:05Z"),
        boot: "this".to_owned(),
        ended_since: None,
        grants: vec![SavedGrant {
            source,
            door: "ssh".to_owned(),
            via: "sequence".to_owned(),
            since,
            expires,
        }],
        bans: vec![SavedBan { source, since, expires: None }],
        floors: BTreeMap::from([("aa32145b693ec6c0".to_owned(), 1_767_323_045_678_000_000)]),
    }
}

fn refusal(path: &Path, now: &str) -> String {
    format!("{:#}", Saved::read(path, at(now)).expect_err("it was to be refused"))
}

const LATER: &str = "2026-01-02T03:05:00Z";

#[test]
fn what_was_written_is_read_by_root_alone_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/grants.json");

    saved().write(&path).expect("written");
    saved().write(&path).expect("written again");

    assert_eq!(Saved::read(&path, at(LATER)).expect("read"), Some(saved()));
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    let beside = fs::read_dir(path.parent().expect("a folder")).expect("readable").count();
    assert_eq!(beside, 1);
}

#[test]
fn a_gate_that_was_taken_off_leaves_which_packets_were_accepted_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    saved().write(&path).expect("written");

    Saved::forget(&path, None, at(LATER)).expect("written");

    let left = Saved::read(&path, at(LATER)).expect("read").expect("a file");
    assert_eq!((left.grants, left.bans, left.floors), (vec![], vec![], saved().floors));
}

#[test]
fn no_file_is_no_error() {
    assert_eq!(Saved::read(Path::new("/no/such/file"), at(LATER)).expect("fine"), None);
}

#[test]
fn a_file_that_others_may_write_or_that_is_damaged_or_of_the_future_restores_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    saved().write(&path).expect("written");

    assert!(refusal(&path, "1970-01-01T00:00:10Z").contains("the clock says 1970"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("ours");
    assert!(refusal(&path, LATER).contains("may be written by others"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    let text = fs::read_to_string(&path).expect("readable");
    fs::write(&path, &text[..text.len() / 2]).expect("ours");
    assert!(refusal(&path, LATER).contains("damaged"));
    fs::write(&path, text.replace("\"v\": 1", "\"v\": 2")).expect("ours");
    assert!(refusal(&path, LATER).contains("version 2"));
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");

    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(refusal(&pipe, LATER)));
    let refused = told.recv_timeout(std::time::Duration::from_secs(10)).expect("an answer, and soon");
    assert!(refused.contains("is not a file"), "{refused}");
    assert!(refusal(folder.path(), LATER).contains("is not a file"));
}

#[test]
fn what_a_killed_writer_left_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");
    saved().write(&path).expect("written");
    for name in [".grants.json.a1B2c3.new", ".grants.json.bak", "grants.json.new", ".other.json.a1B2c3.new"] {
        fs::write(folder.path().join(name), "").expect("ours");
    }

    clear_leavings(&path);

    let mut left: Vec<_> = fs::read_dir(folder.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    left.sort();
    assert_eq!(left, [".grants.json.bak", ".other.json.a1B2c3.new", "grants.json", "grants.json.new"]);
    // The names are those of files that are being written.
    let written =
        tempfile::Builder::new().prefix(&beginning(&path)).suffix(ENDING).tempfile_in(folder.path());
    let written = written.expect("a file").into_temp_path().keep().expect("kept");
    clear_leavings(&path);
    assert!(!written.exists());
}

#[test]
fn full_tables_with_the_longest_entries_can_be_read_again() {
    let mut full = saved();
    full.grants[0].source = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address");
    full.grants[0].door = "d".repeat(31);
    full.grants[0].since = at("2026-01-02T03:00:00.123456789Z");
    full.grants[0].expires = Some(at("2026-01-02T04:00:00.123456789Z"));
    let SavedGrant { source, since, expires, .. } = full.grants[0];
    full.grants = vec![full.grants[0].clone(); GRANTS_ENTRIES];
    full.bans = vec![SavedBan { source, since, expires }; BANS_ENTRIES];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grants.json");

    full.write(&path).expect("written");

    println!("{} bytes", fs::metadata(&path).expect("a file").len());
    assert_eq!(Saved::read(&path, at(LATER)).expect("it is not too large"), Some(full));
}
