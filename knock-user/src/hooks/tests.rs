//! Real programs, run as the user who runs the tests.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use nix::{
    sys::stat::fstat,
    unistd::{User, geteuid},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::config::Config;

/// A folder in which hooks leave what they saw, and the runner of a hook that is a shell script.
struct Scene {
    runtime: Runtime,
    folder: TempDir,
    runner: Runner,
    reports: Receiver<String>,
}

impl Scene {
    /// `script` is run in place of a promotion hook, with `$0` as its folder; `settings` are more lines of `[hooks]`.
    fn new(script: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let command = ["/bin/sh", "-c", script, &folder.path().display().to_string(), "{door}", "{source}"];
        let hooks = hooks(&format!("on_promote = {command:?}\n{settings}"));
        let (sender, reports) = channel();
        let report = move |text| sender.send(text).expect("the test listens");
        let runner = Runner::reporting_to(&hooks, report).expect("the user exists");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, folder, runner, reports }
    }

    /// Tells of so many promotions, and waits for the end of their hooks.
    fn promote(&self, count: usize) {
        self.runtime.block_on(async {
            (0..count).for_each(|_| self.runner.tell(&promotion()));
            self.runner.shared.stop.closed().await;
        });
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        let path = self.file(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}: {:?}", self.reported()))
    }

    fn lines(&self, name: &str) -> Vec<String> {
        self.text(name).lines().map(str::to_owned).collect()
    }

    fn reported(&self) -> Vec<String> {
        self.reports.try_iter().collect()
    }
}

fn hooks(lines: &str) -> Hooks {
    let user = User::from_uid(geteuid()).expect("a list of users").expect("the one who runs this").name;
    let text = format!(
        "[hooks]\nuser = {user:?}\n{lines}\n[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\n\
         knock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\"]"
    );
    Config::parse("test.toml", &text).unwrap_or_else(|error| panic!("{error}")).0.hooks
}

fn promotion() -> Line {
    Line {
        source: Some("2001:db8::7".parse().expect("an address")),
        door: Some("ssh".to_owned()),
        via: Some("sequence".to_owned()),
        iface: Some("eth0".to_owned()),
        expires: Some("2026-01-02T03:04:35.678Z".parse().expect("a time")),
        ..Line::new("2026-01-02T03:04:05Z".parse().expect("a time"), Name::Promoted)
    }
}

#[test]
fn a_hook_sees_the_facts_and_nothing_else() {
    let scene = Scene::new(
        r#"tr '\0' '\n' < /proc/$$/environ > "$0/environment"; printf '%s\n' "$@" > "$0/arguments""#,
        "",
    );

    scene.promote(1);

    assert_eq!(scene.lines("arguments"), ["ssh", "2001:db8::7"]);
    let mut environment = scene.lines("environment");
    environment.sort();
    assert_eq!(
        environment,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "XDP_KNOCK_DOOR=ssh",
            "XDP_KNOCK_EVENT=promoted",
            "XDP_KNOCK_EXPIRES=2026-01-02T03:04:35.678Z",
            "XDP_KNOCK_IFACE=eth0",
            "XDP_KNOCK_SOURCE=2001:db8::7",
            "XDP_KNOCK_TIME=2026-01-02T03:04:05.000Z",
            "XDP_KNOCK_VIA=sequence",
        ]
    );
}

#[test]
fn a_hook_has_no_descriptor_of_the_daemon_not_even_one_that_is_inherited() {
    let scene = Scene::new(r#"ls -l /proc/$$/fd > "$0/open"; readlink /proc/$$/fd/0 > "$0/input""#, "");
    // Unlike std's, this one stays open across exec.
    let (kept, _other_end) = nix::unistd::pipe().expect("a pipe");
    let inode = fstat(&kept).expect("its facts").st_ino;

    scene.promote(1);

    let open = scene.text("open");
    assert!(open.contains("/dev/null") && !open.contains(&format!("pipe:[{inode}]")), "{open}");
    assert_eq!(scene.text("input"), "/dev/null\n");
}

#[test]
fn a_hook_has_a_session_of_its_own_in_the_root_folder() {
    let scene = Scene::new(
        r#"readlink /proc/$$/cwd > "$0/folder"; cut -d ' ' -f 1,5,6 /proc/$$/stat > "$0/groups""#,
        "",
    );

    scene.promote(1);

    assert_eq!(scene.text("folder"), "/\n");
    let groups = scene.text("groups");
    let [process, group, session] = groups.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{groups}")
    };
    assert_eq!((group, session), (process, process));
}

#[test]
fn no_shell_comes_between() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("{door}").display().to_string();
    let hooks = hooks(&format!("on_ban = {:?}", ["/bin/touch", &target]));
    let runner = Runner::new(&hooks).expect("the user exists");
    // No door can have such a name; a shell would make other files of it.
    let name = "a b; $(id) * > x";
    let banned = Line { door: Some(name.to_owned()), ..Line::new(promotion().time, Name::Banned) };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        runner.tell(&banned);
        runner.shared.stop.closed().await;
    });

    let made =
        fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("a file").file_name());
    assert_eq!(made.collect::<Vec<_>>(), [name]);
}

#[test]
fn each_kind_of_event_has_its_own_hook_or_none() {
    let hooks = hooks("on_promote = [\"/p\"]\non_expire = [\"/e\"]\non_ban = [\"/b\"]");

    for name in Name::ALL {
        let program = hook(&hooks, name).map(|argv| argv.program().to_owned());
        let expected = match name {
            Name::Promoted => Some("/p"),
            Name::Expired | Name::Revoked => Some("/e"),
            Name::Banned => Some("/b"),
            Name::Attached
            | Name::Detached
            | Name::Reloaded
            | Name::Step
            | Name::Reset
            | Name::Unbanned
            | Name::TableFull
            | Name::SpaRejected
            | Name::Spent
            | Name::Lost => None,
        };
        assert_eq!(program, expected.map(PathBuf::from), "{name:?}");
    }
}

#[test]
fn hooks_run_at_the_same_time_up_to_the_bound() {
    // Each waits until as many run as may: with fewer, none would end before its time.
    let script = r#": > "$0/running.$$"
        while [ "$(ls "$0" | grep -c running)" -lt 3 ] && [ ! -e "$0/met" ]; do sleep 0.01; done
        : > "$0/met"
        ls "$0" | grep -c running >> "$0/seen"
        sleep 0.05
        rm "$0/running.$$""#;
    let scene = Scene::new(script, "at_once = 3\ntimeout = \"10s\"");

    scene.promote(6);

    let seen = scene.lines("seen");
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|running| ["1", "2", "3"].contains(&running.as_str())), "{seen:?}");
    assert_eq!((scene.reported(), scene.runner.take_skipped()), (Vec::<String>::new(), 0));
}

#[test]
fn what_finds_no_room_is_skipped_and_counted_once() {
    let script = r#"while [ ! -e "$0/go" ]; do sleep 0.01; done; echo ran >> "$0/runs""#;
    let scene = Scene::new(script, "at_once = 2\ntimeout = \"1m\"");

    scene.runtime.block_on(async {
        (0..2 + QUEUE + 5).for_each(|_| scene.runner.tell(&promotion()));
    });
    assert_eq!((scene.runner.take_skipped(), scene.runner.take_skipped()), (5, 0));
    fs::write(scene.file("go"), "").expect("a file");
    scene.promote(0);

    assert_eq!(scene.lines("runs").len(), 2 + QUEUE);
    // There is room again.
    scene.promote(1);
    assert_eq!((scene.lines("runs").len(), scene.runner.take_skipped()), (2 + QUEUE + 1, 0));
}

/// Whether a process is there and no zombie, which may stay for as long as nobody waits for it.
fn is_alive(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_its_children() {
    let script = r#"sleep 1000 & echo $! > "$0/child"; echo $$ > "$0/leader"; wait"#;
    let scene = Scene::new(script, "timeout = \"500ms\"");

    scene.promote(1);

    assert_eq!(scene.reported(), ["hook /bin/sh (door ssh) took more than 500ms: killed"]);
    let (leader, child) = (scene.text("leader"), scene.text("child"));
    assert!(!is_alive(&leader));
    // A signal is delivered when its process runs next.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(&child) {
        assert!(Instant::now() < deadline, "the child of a killed hook runs on");
        std::thread::yield_now();
    }
}

#[test]
fn what_goes_wrong_is_told_without_the_arguments() {
    let scene = Scene::new("exit 3", "");
    scene.promote(1);
    assert_eq!(scene.reported(), ["hook /bin/sh (door ssh) failed: exit status: 3"]);

    let hooks = hooks("on_promote = [\"/no/such/program\", \"--password=hunter2\"]");
    let (sender, reports) = channel();
    let runner = Runner::reporting_to(&hooks, move |text| sender.send(text).expect("the test listens"));
    let runner = runner.expect("the user exists");
    scene.runtime.block_on(async {
        runner.tell(&promotion());
        runner.shared.stop.closed().await;
    });
    let told: Vec<_> = reports.try_iter().collect();
    assert_eq!(
        told,
        ["hook /no/such/program (door ssh) cannot be run: No such file or directory (os error 2)"]
    );
}

#[test]
fn at_the_end_those_that_run_have_a_moment_and_those_that_wait_are_skipped() {
    let script = r#"while [ ! -e "$0/go" ]; do sleep 0.01; done; echo ran >> "$0/runs""#;
    let scene = Scene::new(script, "at_once = 1\ntimeout = \"1m\"");

    scene.runtime.block_on(async {
        (0..4).for_each(|_| scene.runner.tell(&promotion()));
        fs::write(scene.file("go"), "").expect("a file");
        scene.runner.finish(Duration::from_secs(60)).await;
    });
    assert_eq!((scene.lines("runs").len(), scene.runner.take_skipped()), (1, 3));
    scene.promote(1);
    assert_eq!(scene.runner.take_skipped(), 1, "nothing is begun after the end");
}

#[test]
fn at_the_end_those_that_do_not_end_in_time_are_killed() {
    let scene = Scene::new(r#"echo $$ > "$0/leader"; sleep 1000"#, "timeout = \"10m\"");

    scene.runtime.block_on(async {
        scene.runner.tell(&promotion());
        while !scene.file("leader").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        scene.runner.finish(Duration::ZERO).await;
    });

    assert_eq!(scene.reported(), ["hook /bin/sh (door ssh) ran while the daemon stopped: killed"]);
    assert!(!is_alive(&scene.text("leader")));
}

#[test]
fn a_user_that_does_not_exist_is_an_error_with_the_name() {
    let unknown = Hooks { user: "no-such-user".to_owned(), ..hooks("on_ban = [\"/bin/true\"]") };

    let error = Runner::new(&unknown).expect_err("no such user");
    assert!(error.to_string().contains("no user no-such-user"), "{error}");
    // Without a hook nobody asks for the user.
    assert!(Runner::new(&Hooks { user: "no-such-user".to_owned(), ..Hooks::default() }).is_ok());
}
