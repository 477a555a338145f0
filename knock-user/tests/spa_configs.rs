//! What is wrong with keys whose files are there: told at its place, with the number and what to do.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use knock_user::config::{Config, ConfigError, ReadError};
use tempfile::TempDir;

/// Makes secrets 0, 1, 2, ... in a folder.
fn folder(secrets: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..secrets {
        write(&folder.path().join(number.to_string()), &format!("{number:064x}"));
    }
    folder
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("our own folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

fn read(folder: &TempDir, text: &str) -> Result<Config, ConfigError> {
    let path = folder.path().join("config.toml");
    write(&path, text);
    match Config::read(&path) {
        Ok((config, _)) => Ok(config),
        Err(ReadError::Bad(error)) => Err(error),
        Err(ReadError::Io { source, .. }) => panic!("{source}"),
    }
}

/// `keys` keys on three lines each, `doors` doors that each has all of them, on four.
fn text(keys: usize, doors: usize, more: &str) -> String {
    let mut text = "[spa]\nidentity = \"box\"\n".to_owned();
    for key in 0..keys {
        write!(text, "[[key]]\nname = \"k{key}\"\nsecret_file = \"{key}\"\n").expect("a string");
    }
    text += more;
    let names: Vec<String> = (0..keys).map(|key| format!("k{key}")).collect();
    for door in 0..doors {
        write!(
            text,
            "[[door]]\nname = \"d{door}\"\nopens = [\"tcp/{}\"]\nspa = {{ listen = \"udp/62201\", keys = {names:?} }}\n",
            door + 1
        )
        .expect("a string");
    }
    text
}

fn assert_refused(read: Result<Config, ConfigError>, place: (usize, usize), message: &str, help: &str) {
    let error = read.expect_err("it was to be refused");
    let [problem] = error.problems() else { panic!("more than one: {error}") };
    assert_eq!((problem.line(), problem.column()), (Some(place.0), Some(place.1)), "{error}");
    assert!(problem.message().contains(message) && problem.advice().contains(help), "{error}");
}

#[test]
fn as_many_secrets_as_there_is_room_for_and_no_more() {
    let folder = folder(1025);

    assert_eq!(read(&folder, &text(1024, 1, "")).map(|config| config.keys.len()).expect("good"), 1024);
    // Each key has three lines behind the two of the server; its name stands on the second, behind `name = `.
    let place = (2 + 3 * 1024 + 2, 8);
    assert_refused(read(&folder, &text(1025, 1, "")), place, "1025 secrets are too many", "at most 1024");
}

#[test]
fn pairs_are_counted_by_the_secrets_that_keys_have() {
    let folder = folder(65);

    assert!(read(&folder, &text(64, 64, "")).is_ok(), "4096 pairs of keys with one secret");
    let place = (2 + 3 * 64 + 1 + 4 * 63 + 4, 7);
    let more = "old_secret_file = \"64\"\n";
    assert_refused(
        read(&folder, &text(64, 64, more)),
        place,
        "4160 pairs of a door and a secret are too many",
        "at most 4096",
    );
}

#[test]
fn a_secret_that_is_there_twice_is_told_of_with_the_line_of_the_first() {
    let folder = folder(2);
    write(&folder.path().join("copy"), &format!("{:064x}", 0));
    let own = "old_secret_file = \"copy\"\n";

    assert_refused(
        read(&folder, &text(1, 1, own)),
        (6, 19),
        "key \"k0\": this secret (id ",
        "that of line 5",
    );
    assert_refused(
        read(&folder, &text(2, 1, own)),
        (9, 19),
        "key \"k1\": this secret (id ",
        "that of line 5",
    );
    assert!(read(&folder, &text(1, 1, "old_secret_file = \"1\"\n")).is_ok());
}
