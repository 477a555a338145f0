//! The text as a strict reader takes it, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::report::{Confirm, Door, Generation, Interface, Table, Uncovered};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn interface(name: &str, state: InterfaceState, attach: Option<&str>) -> Interface {
    Interface {
        name: name.to_owned(),
        index: Some(2),
        state,
        attach: attach.map(str::to_owned),
        mode: Some("guard".to_owned()),
        generation: Some(7),
        program: Some(42),
        egress: None,
    }
}

fn door(name: &str, grants: usize) -> Door {
    Door {
        name: name.to_owned(),
        opens: vec!["tcp/22".to_owned()],
        ways: vec!["sequence".to_owned()],
        steps: 4,
        open_for_s: 30.0,
        sessions: "keep".to_owned(),
        grants,
    }
}

fn status() -> Status {
    // Each counter has a value of its own, so that none can stand in for another.
    let counters = counter::ALL.iter().map(|(counter, name, _)| (*name, 1000 + *counter as u64)).collect();
    Status {
        v: 1,
        protected: true,
        problems: Vec::new(),
        warnings: Vec::new(),
        pin_dir: "/sys/fs/bpf/xdp-knock".to_owned(),
        daemon: Some(1),
        generation: Some(Generation {
            number: 7,
            mode: "guard".to_owned(),
            hide_as: "filtered".to_owned(),
            forward: None,
            config: None,
            loaded: at("2026-01-02T03:04:05Z"),
        }),
        confirm: None,
        interfaces: vec![
            interface("eth0", InterfaceState::Attached, Some("native")),
            interface("wg\"0\\", InterfaceState::Absent, None),
        ],
        uncovered: vec![Uncovered { name: "eth1".to_owned(), addresses: Vec::new() }],
        doors: vec![door("ssh", 3), door("vpn", 0)],
        tables: vec![
            Table { name: "grants", entries: 3, capacity: 65_536 },
            Table { name: "bans", entries: 1, capacity: 4096 },
        ],
        counters,
    }
}

fn process() -> Process {
    Process { is_reload_good: true, reloaded: at("2026-01-02T03:04:05Z"), hooks_skipped: 5 }
}

/// Reads OpenMetrics text as its specification has it, and returns each sample with its value.
fn read(text: &str) -> BTreeMap<String, f64> {
    let lines = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    let mut samples = BTreeMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [what, name, value] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if name != family {
                assert!(seen.insert(name.to_owned()), "the family {name} stands in two places");
                (family, kind) = (name.to_owned(), String::new());
            }
            match what {
                "HELP" => assert!(!value.is_empty(), "{line}"),
                "TYPE" => value.clone_into(&mut kind),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                other => panic!("{other}: {line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            "gauge" => "",
            other => panic!("the type of {line} is {other:?}"),
        };
        let name = sample.split('{').next().unwrap_or_default();
        assert_eq!(name, format!("{family}{suffix}"), "{line}");
        if let Some(labels) = sample.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            check_labels(labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(line));
        }
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} stands twice");
    }
    samples
}

/// `name="value",name="value"`, with `\\`, `\"` and `\n` in values.
fn check_labels(labels: &str) {
    let mut rest = labels;
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{labels}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{labels}");
        assert!(names.insert(name), "{name} stands twice in {labels}");
        let mut escaped = false;
        let end = value.find(|c: char| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        rest = &value[end.unwrap_or_else(|| panic!("{labels}")) + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[test]
fn the_text_holds_to_the_specification_and_says_how_the_gate_is() {
    let text = encode(&status(), &process());
    let samples = read(&text);

    for (sample, value) in [
        ("knock_packets_total{verdict=\"hidden\"}", 1004.0),
        ("knock_packets_total{verdict=\"bad_transport\"}", 1013.0),
        ("knock_attempts_total{result=\"started\"}", 1032.0),
        ("knock_attempts_total{result=\"not_stored\"}", 1040.0),
        ("knock_attempts_total{result=\"banned\"}", 1047.0),
        ("knock_promotions_total{result=\"granted\"}", 1041.0),
        ("knock_promotions_total{result=\"table_full\"}", 1043.0),
        ("knock_expired_grant_packets_total", 1044.0),
        ("knock_events_capped_total", 1045.0),
        ("knock_events_lost_total", 1046.0),
        ("knock_rolled_back_packets_total", 1048.0),
        ("knock_grants{door=\"ssh\"}", 3.0),
        ("knock_grants{door=\"vpn\"}", 0.0),
        ("knock_map_entries{map=\"bans\"}", 1.0),
        ("knock_map_capacity{map=\"grants\"}", 65_536.0),
        ("knock_attached{iface=\"eth0\",mode=\"native\"}", 1.0),
        ("knock_attached{iface=\"wg\\\"0\\\\\",mode=\"none\"}", 0.0),
        ("knock_uncovered_interfaces", 1.0),
        ("knock_enforcing", 1.0),
        ("knock_generation", 7.0),
        ("knock_confirm_pending", 0.0),
        ("knock_config_reload_success", 1.0),
        ("knock_config_reload_timestamp_seconds", 1_767_323_045.0),
        ("knock_hooks_skipped_total", 5.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in\n{text}");
    }
    let build =
        format!("knock_build_info{{version=\"{}\",abi=\"{ABI_VERSION}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(samples.get(&build), Some(&1.0), "{text}");
}

#[test]
fn what_is_wrong_shows() {
    let bad = Status {
        protected: false,
        generation: None,
        confirm: Some(Confirm { deadline: at("2026-01-02T03:05:05Z"), remaining_s: 60 }),
        interfaces: vec![interface("eth0", InterfaceState::Dead, None)],
        doors: Vec::new(),
        tables: Vec::new(),
        counters: BTreeMap::new(),
        ..status()
    };

    let samples = read(&encode(&bad, &Process { is_reload_good: false, ..process() }));

    for (sample, value) in [
        ("knock_enforcing", 0.0),
        ("knock_attached{iface=\"eth0\",mode=\"none\"}", 0.0),
        ("knock_generation", 0.0),
        ("knock_confirm_pending", 1.0),
        ("knock_config_reload_success", 0.0),
        ("knock_packets_total{verdict=\"hidden\"}", 0.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
}

#[test]
fn every_counter_of_the_kernel_is_shown_once() {
    let samples = read(&encode(&status(), &process()));

    for (counter, name, _) in counter::ALL {
        let value = 1000.0 + f64::from(counter as u32);
        let shown = samples.values().filter(|sample| **sample == value).count();
        assert_eq!(shown, 1, "{name}");
    }
}

#[test]
fn every_metric_that_is_documented_or_shipped_for_is_there() {
    let samples = read(&encode(&status(), &process()));
    let there: BTreeSet<&str> = samples.keys().filter_map(|sample| sample.split('{').next()).collect();
    let manual = include_str!("../../../docs/operations.md");

    for (file, text) in [
        ("docs/operations.md", manual),
        ("docs/deploy/alerts.yml", include_str!("../../../docs/deploy/alerts.yml")),
        ("docs/deploy/grafana.json", include_str!("../../../docs/deploy/grafana.json")),
    ] {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("knock_")).collect();
        assert!(used.len() > 5, "{file} names {used:?}");
        assert!(used.is_subset(&there), "{file}: {:?}", used.difference(&there).collect::<Vec<_>>());
    }
    let undocumented: Vec<_> = there.iter().filter(|name| !manual.contains(&format!("`{name}`"))).collect();
    assert!(undocumented.is_empty(), "not in docs/operations.md: {undocumented:?}");
}
