//! The gate as a service: its unit, its privileges, its metrics and what is shipped for them, its hooks and its state file.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use knock_tests::{
    client::ours,
    daemon::{Daemon, Gate},
    netns::Network,
    program::{self, poll, xdp_knock},
    scene::{STEPS, Scene, guarded},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy").join(name)
}

fn knock(scene: &Scene) {
    let sent = ours(&scene.network.client, scene.server(), &STEPS);
    assert!(sent.is_success(), "{sent}");
}

/// A configuration of the scene, with more tables behind it.
fn with(tables: &str) -> String {
    guarded("", "open_for = \"1h\"") + tables
}

#[test]
fn the_unit_is_hardened() {
    let unit = shipped("xdp-knock.service");
    let mut analyze = Command::new("systemd-analyze");
    let report = program::run(analyze.args(["security", "--offline=true", "--threshold=25"]).arg(&unit));

    println!("{}", report.stdout.lines().last().unwrap_or_default());
    assert!(report.is_success(), "an exposure of more than 2.5: {report}");
}

#[test]
fn every_metric_that_is_shipped_for_is_served() {
    let scene = Scene::new(&with("[metrics]\nlisten = \"127.0.0.1:9477\"\n"));
    let mut curl = scene.network.server.command("curl");
    let page = program::run(curl.args(["--silent", "--fail", "http://127.0.0.1:9477/metrics"])).succeeded();
    let served: BTreeSet<&str> =
        page.lines().filter(|line| !line.starts_with('#')).filter_map(metric).collect();

    for name in ["alerts.yml", "grafana.json"] {
        let text = fs::read_to_string(shipped(name)).expect("it is shipped");
        let used: BTreeSet<&str> = words(&text).filter(|word| word.starts_with("knock_")).collect();
        assert!(used.len() > 3, "{name} uses {used:?}");
        let missing: Vec<_> = used.difference(&served).collect();
        assert!(missing.is_empty(), "{name} uses {missing:?}, of {served:?}");
    }
    assert!(page.ends_with("# EOF\n") && !page.contains(&scene.server().to_string()), "{page}");
    let mut health = scene.network.server.command("curl");
    let health = program::run(health.args(["--silent", "--fail", "http://127.0.0.1:9477/healthz"]));
    assert!(health.is_success(), "{health}");
}

fn metric(line: &str) -> Option<&str> {
    words(line).next()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}

#[test]
fn a_daemon_keeps_three_capabilities_and_can_still_reload_and_stop() {
    let mut scene = Scene::new(&with(""));
    let status = fs::read_to_string(format!("/proc/{}/status", scene.daemon.id())).expect("it runs");
    // CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39): capabilities(7).
    let kept = format!("{:016x}", 1_u64 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{kept}")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapInh:\t0000000000000000"), "{status}");

    let reloaded = verb(&scene.network, scene.daemon.pins(), &["reload"]);

    assert!(reloaded.is_success(), "{reloaded}");
    scene.daemon.event("reloaded", |_| true);
    knock(&scene);
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.daemon.stop();
}

fn verb(network: &Network, pins: &Path, words: &[&str]) -> program::Finished {
    let mut command = network.server.bounded(xdp_knock());
    program::run(command.arg("--pin-dir").arg(pins).args(words))
}

#[test]
fn a_hook_runs_as_nobody_with_the_facts() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let told = folder.path().join("told");
    let script = format!("echo \"$(id -un) $XDP_KNOCK_EVENT $XDP_KNOCK_VIA $1 $2\" > {}", told.display());
    let hook = format!(
        "[hooks]\non_promote = [\"/bin/sh\", \"-c\", {script:?}, \"hook\", \"{{door}}\", \"{{source}}\"]\n"
    );
    let mut scene = Scene::new(&with(&hook));

    knock(&scene);
    scene.daemon.promotion(scene.host(2), "ssh");

    let text =
        poll("the hook", PATIENCE, || fs::read_to_string(&told).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(text.trim(), format!("nobody promoted sequence ssh {}", scene.host(2)));
}

/// A machine that starts anew has no pins; what it knew is in the file.
fn start_anew(network: &Network, config: &str) -> Daemon {
    Gate::new(&network.server, &["srv0"]).config(config).start()
}

#[test]
fn a_grant_outlives_a_reboot_but_not_a_detach_and_not_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("grants.json");
    let config = with(&format!("[state]\nfile = {file:?}\n"));
    let mut scene = Scene::new(&config);
    scene.assert_shut();
    knock(&scene);
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.assert_open();
    poll("the file", PATIENCE, || fs::read_to_string(&file).ok().filter(|text| text.contains("sequence")));

    let Scene { daemon, sshd, network } = scene;
    // The maps go with the machine.
    daemon.stop();
    let scene = Scene { daemon: start_anew(&network, &config), sshd, network };
    scene.daemon.diagnostics("restored grants: 1");
    scene.assert_open();

    let detached = verb(&scene.network, scene.daemon.pins(), &["detach"]);
    assert!(detached.is_success(), "{detached}");
    let Scene { daemon, sshd, network } = scene;
    drop(daemon);
    let scene = Scene { daemon: start_anew(&network, &config), sshd, network };
    scene.assert_shut();
}

#[test]
fn a_state_file_that_others_may_write_opens_nothing_and_a_full_disk_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("grants.json");
    let forged = format!(
        "{{\"v\":1,\"saved\":\"2026-01-01T00:00:00Z\",\"grants\":[{{\"source\":\"{}\",\"door\":\"ssh\",\"via\":\"sequence\",\"since\":\"2026-01-01T00:00:00Z\",\"expires\":null}}],\"bans\":[]}}",
        knock_tests::netns::address(knock_tests::netns::Family::V4, 0, 2)
    );
    fs::write(&file, forged).expect("ours");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    let config = with(&format!("[state]\nfile = {file:?}\n"));

    let scene = Scene::new(&config);

    scene.daemon.diagnostics("may be written by others");
    scene.assert_shut();
    let Scene { daemon, sshd, network } = scene;
    daemon.stop();
    // Its twin: the same file, of root's alone.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    let scene = Scene { daemon: start_anew(&network, &config), sshd, network };
    scene.daemon.diagnostics("restored grants: 1");
    scene.assert_open();
    drop(scene);

    let full = with("[state]\nfile = \"/proc/sys/kernel/no-room/grants.json\"\n");
    let mut scene = Scene::new(&full);
    knock(&scene);
    scene.daemon.promotion(scene.host(2), "ssh");
    scene.daemon.diagnostics("/proc/sys/kernel/no-room/grants.json");
    scene.assert_open();
}
