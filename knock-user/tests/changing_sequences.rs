//! Configurations of doors whose sequence changes: what they mean, and what is wrong with them, with files beside them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use knock_user::{
    config::{Config, Warning},
    generation::{DEFAULT_EPHEMERAL, Generation},
};
use tempfile::TempDir;

const SECRET: &str = "4242424242424242424242424242424242424242424242424242424242424242";
const HEAD: &str = "[[door]]\nname = \"vpn\"\nopens = [\"udp/51820\"]\n";

fn folder(list: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    private(&folder.path().join("vpn.secret"), SECRET);
    private(&folder.path().join("vpn.list"), list);
    folder
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("a writable folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

fn rotate(steps: u8, ports: &str) -> String {
    format!(
        "{HEAD}rotate = {{ secret_file = \"vpn.secret\", steps = {steps}, every = \"30s\", ports = \"{ports}\" }}\n"
    )
}

fn read(folder: &TempDir, text: &str) -> Result<(Config, Vec<String>), String> {
    let path = folder.path().join("x.toml");
    private(&path, text);
    let words = |warnings: Vec<Warning>| warnings.iter().map(|one| one.message().to_owned()).collect();
    Config::read(&path)
        .map(|(config, warnings)| (config, words(warnings)))
        .map_err(|error| error.as_bad().map_or_else(|| error.to_string(), |bad| bad.for_stderr()))
}

fn refused(folder: &TempDir, text: &str) -> String {
    read(folder, text).expect_err(text)
}

#[test]
fn a_rotating_sequence_is_read_and_its_secret_is_in_no_debug_output() {
    let folder = folder("");

    let (config, warnings) = read(&folder, &rotate(4, "10000-32767")).expect("a good one");

    assert_eq!(warnings, Vec::<String>::new());
    let rotate = config.doors[0].rotate.as_ref().expect("it has one");
    let shape = rotate.shape;
    assert_eq!((shape.steps, shape.every.as_secs(), shape.ports.range()), (4, 30, 10_000..=32_767));
    assert!((57.0..58.0).contains(&rotate.bits()), "{}", rotate.bits());
    assert!(config.doors[0].knock.is_empty());
    let generation = Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).expect("few doors");
    let shown = format!("{config:?}{generation:?}");
    assert!(!shown.contains(SECRET) && !shown.contains("66, 66, 66"), "{shown}");
}

#[test]
fn a_range_that_takes_in_a_service_is_refused_and_one_beside_it_is_not() {
    let folder = folder("");
    let public = "[xdp]\npublic = [\"tcp/20500\"]\n";

    let hidden = refused(&folder, &rotate(4, "40000-60000"));
    assert!(hidden.contains("udp/51820") && hidden.contains("choose a range without it"), "{hidden}");
    let open = refused(&folder, &format!("{public}{}", rotate(4, "20000-30000")));
    assert!(open.contains("tcp/20500") && open.contains("is public"), "{open}");
    assert!(read(&folder, &format!("{public}{}", rotate(4, "20501-30000"))).is_ok());
}

#[test]
fn a_sequence_that_can_be_guessed_is_refused_unless_it_may_be_weak() {
    let folder = folder("");

    let weak = refused(&folder, &rotate(3, "20000-20100"));
    assert!(weak.contains("20 bits"), "{weak}");

    assert!(read(&folder, &(rotate(3, "20000-20100") + "allow_weak = true\n")).is_ok());
    let (_, warnings) = read(&folder, &rotate(3, "10000-30000")).expect("43 bits");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn what_the_client_could_not_follow_is_refused_on_the_server_too() {
    let folder = folder("");
    let weak = |text: String| text + "allow_weak = true\n";

    let few = refused(&folder, &weak(rotate(4, "20000-20002")));
    assert!(few.contains("fewer ports than there are steps"), "{few}");
    assert!(read(&folder, &weak(rotate(4, "20000-20003"))).is_ok());
    let part = refused(&folder, &rotate(4, "10000-32767").replace("30s", "30s 500ms"));
    assert!(part.contains("whole seconds"), "{part}");
}

#[test]
fn ports_of_the_host_s_own_traffic_are_warned_about_but_in_deny_mode() {
    let folder = folder("");
    let text = rotate(4, "20000-50000");

    let (_, warnings) = read(&folder, &text).expect("allowed");
    assert!(warnings.iter().any(|one| one.contains("ephemeral")), "{warnings:?}");

    let deny = format!("[xdp]\nmode = \"deny\"\nallow = [\"192.0.2.0/24\"]\n{text}");
    assert_eq!(read(&folder, &deny).expect("allowed").1, Vec::<String>::new());
}

const LIST: &str = "{HEAD}list = { file = \"vpn.list\" }\n";

fn list() -> String {
    LIST.replace("{HEAD}", HEAD)
}

#[test]
fn a_list_is_read_and_each_of_its_lines_judged_as_a_sequence() {
    let good = folder("# ours\ntcp/7001 udp/8002 tcp/9003\ntcp/7101 udp/8102 tcp/9103\n");

    let (config, warnings) = read(&good, &list()).expect("a good one");

    assert_eq!((config.doors[0].list.len(), warnings), (2, vec![]));
    assert!(!format!("{config:?}").contains("7001"));
    for (lines, word) in [
        ("tcp/7001 udp/8002\n", "vpn.list line 1"),
        ("tcp/7001 udp/8002 tcp/9003\n\ntcp/7001 tcp/7002 tcp/7003 tcp/7004\n", "vpn.list line 3"),
        ("tcp/7001 udp/51820 tcp/9003\n", "hides"),
        ("tcp/7001 udp/8002 tcp/9003\ntcp/7001 udp/8002 tcp/9003 udp/3\n", "begins with"),
        ("tcp/7001 udp/8002 tcp/0\n", "line 1 is no sequence"),
    ] {
        let refused = refused(&folder(lines), &list());

        assert!(refused.contains(word) && refused.contains(":4:"), "{lines}: {refused}");
    }
}

#[test]
fn files_of_secrets_are_the_owner_s_alone() {
    for file in ["vpn.secret", "vpn.list"] {
        let folder = folder("tcp/7001 udp/8002 tcp/9003\n");
        let text = if file == "vpn.list" { list() } else { rotate(4, "10000-32767") };
        assert!(read(&folder, &text).is_ok());
        fs::set_permissions(folder.path().join(file), fs::Permissions::from_mode(0o644)).expect("ours");

        let refused = refused(&folder, &text);

        assert!(refused.contains("chmod 600"), "{refused}");
    }
}

#[test]
fn a_door_that_changes_takes_three_more_of_the_kernel_s_doors() {
    let folder = folder("");
    let fixed = |number: u16| {
        format!(
            "[[door]]\nname = \"d{number}\"\nopens = [\"tcp/22\"]\nknock = [\"tcp/{}\", \"udp/2000\", \"tcp/7121\"]\n",
            40_000 + number
        )
    };
    let with = |doors: u16| rotate(4, "10000-32767") + &(0..doors).map(fixed).collect::<String>();

    let (config, _) = read(&folder, &with(60)).expect("64 in all");
    assert_eq!(Generation::compile(&config, 1, &DEFAULT_EPHEMERAL).expect("few sets").doors.len(), 64);

    let refused = refused(&folder, &with(61));
    assert!(refused.contains("65 doors are too many") && refused.contains("three more"), "{refused}");
}
