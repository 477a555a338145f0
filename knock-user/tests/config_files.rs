//! Reading and checking files: permissions, encodings, sizes, the verb `check`, and text that nobody planned.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use knock_user::config::{
    Config, ReadError,
    check::{self, Outcome},
};
use proptest::prelude::*;

const GOOD: &str = r#"[xdp]
interfaces = ["eth0"]
mode = "guard"
allow = ["192.0.2.0/24", "2001:db8::/32"]
public = ["tcp/80", "icmp/echo"]

[[door]]
name = "größer" # not allowed, so that cuts meet errors too
opens = ["tcp/22", "udp/9000-9010"]
knock = ["tcp/20011", "5017:udp", "icmp/echo?size=172&id=7", "tcp/7121"]
step_timeout = "5s"
total_timeout = "15s"
open_for = "1h30m"
from = ["0.0.0.0/0", "::/0"]
new_attempts_per_s = 0x10
allow_weak = false
"#;

struct Scratch {
    // Removed when dropped.
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(contents: &[u8], mode: u32) -> Scratch {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    fs::write(&path, contents).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    Scratch { _folder: folder, path }
}

fn good() -> String {
    GOOD.replace("größer", "ssh")
}

fn refusal(contents: &[u8], mode: u32) -> String {
    Config::read(&file(contents, mode).path).expect_err("a refusal").to_string()
}

#[test]
fn a_file_that_others_may_read_is_warned_about() {
    let (_, quiet) = Config::read(&file(good().as_bytes(), 0o600).path).expect("a good file");
    let (_, warnings) = Config::read(&file(good().as_bytes(), 0o644).path).expect("a good file");

    assert_eq!(quiet.len(), 0, "{quiet:?}");
    let shown = warnings.first().expect("a warning").plain();
    assert!(shown.contains("warning: mode 0644 lets every user") && shown.contains("chmod 600"), "{shown}");
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let shown = refusal(good().as_bytes(), 0o602);

    assert!(shown.contains("mode 0602 lets every user") && shown.contains("chmod 600"), "{shown}");
}

#[test]
fn what_is_no_text_is_refused_at_its_place() {
    let shown = refusal(b"[xdp]\nmode = \"\xff\"\n", 0o600);
    assert!(shown.contains("x.toml:2:9: a byte that is not UTF-8"), "{shown}");

    let shown = refusal(&vec![b'#'; (1 << 20) + 1], 0o600);
    assert!(shown.contains("larger than 1 MiB"), "{shown}");
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_wrong() {
    let missing = file(b"", 0o600).path.with_file_name("missing.toml");
    let error = Config::read(&missing).expect_err("no file");

    assert!(matches!(error, ReadError::Io { .. }));
    assert!(error.to_string().contains("missing.toml") && error.to_string().contains("xdp-knock init"));
    let folder = missing.parent().expect("a folder").parent().expect("its parent");
    assert!(matches!(Config::read(folder), Err(ReadError::Io { .. })));
}

#[test]
fn check_ends_with_the_status_of_what_it_found() {
    let outcome = |contents: &str, mode, strict| {
        let file = file(contents.as_bytes(), mode);
        check::run(&check::Args { file: file.path.clone(), json: false, strict }).expect("output")
    };

    assert_eq!(outcome(&good(), 0o600, false), Outcome::Good);
    assert_eq!(outcome(&good(), 0o644, false), Outcome::Good);
    assert_eq!(outcome(&good(), 0o644, true), Outcome::Bad);
    assert_eq!(outcome("mode = 3", 0o600, false), Outcome::Bad);
    let gone = check::Args { file: "no/such/file".into(), json: true, strict: false };
    assert_eq!(check::run(&gone).expect("output"), Outcome::Unreadable);
    let statuses = [Outcome::Good, Outcome::Bad, Outcome::Unreadable].map(Outcome::status);
    assert_eq!(statuses, [0, 78, 1]);
}

/// Reading must end, and whatever it finds must have a place in the text and both forms.
fn survives(text: &str) {
    let Err(error) = Config::parse("any", text) else { return };
    assert!(!error.problems().is_empty());
    assert!(!error.pretty().is_empty());
    assert_eq!(error.to_string().lines().count(), error.problems().len(), "one line each: {error}");
    for problem in error.problems() {
        assert!(problem.line().is_some_and(|line| line <= 1 + text.matches('\n').count()), "{problem:?}");
        assert!(!problem.advice().is_empty());
    }
}

#[test]
fn a_config_cut_at_any_byte_is_read_or_refused() {
    for end in 0..=GOOD.len() {
        survives(&String::from_utf8_lossy(&GOOD.as_bytes()[..end]));
        survives(&String::from_utf8_lossy(&GOOD.as_bytes()[end..]));
    }
}

/// Words of the language, a space between them, and line ends.
const WORDS: &str = r#"[xdp] [[door]] name opens knock step_timeout total_timeout from mode = = = "ssh" ["tcp/22"]
    ["udp/1","udp/1"] ["icmp/echo"] [ ] { } , " "10m" "1000y" -1 1e9 nan "guard" ''' \u0000 \ ß . true 2020-01-01"#;

/// Words of the language in any order: gets further than random characters do.
fn words() -> impl Strategy<Value = String> {
    let mut words: Vec<&str> = WORDS.split_whitespace().collect();
    words.extend(["\n", "\r\n", "\n", " ", "\u{feff}", "\0"]);
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        survives(&text);
    }

    #[test]
    fn any_words_of_the_language_are_read_or_refused(text in words()) {
        survives(&text);
    }

    #[test]
    fn any_value_in_any_place_is_read_or_refused(value in "\\PC{0,20}", key in 0..9_usize) {
        let keys = ["name", "opens", "knock", "step_timeout", "total_timeout", "open_for", "from", "mode", "allow"];
        let quoted = toml::Value::from(value).to_string();
        let key = keys[key];
        survives(&format!("[[door]]\n{key} = {quoted}\n[xdp]\n{key} = [{quoted}]\n"));
    }
}
