//! Every way to be wrong that we know of, each with the place and the words it must be told with.
//! The cases are data: `bad-configs/cases.txt`, whose head explains the form.

use std::fmt::Write as _;

use knock_user::config::{Config, ConfigError, Problem};

const CASES: &str = include_str!("bad-configs/cases.txt");

const DOOR: &str = "[[door]]\nname = \"good\"\nopens = [\"tcp/22\"]\nknock = [\"tcp/20011\", \"tcp/5017\", \"udp/1490\", \"tcp/7121\"]\n";

struct Case {
    title: &'static str,
    expected: Vec<&'static str>,
    config: String,
}

fn cases() -> Vec<Case> {
    CASES.split("\n=== ").skip(1).map(case).collect()
}

fn case(text: &'static str) -> Case {
    let (head, config) = text.split_once("\n---\n").unwrap_or_else(|| panic!("no --- in {text}"));
    let mut lines = head.lines();
    let title = lines.next().expect("a title");
    Case { title, expected: lines.collect(), config: config.lines().map(expand).collect() }
}

/// The line itself, or what its placeholder stands for.
fn expand(line: &str) -> String {
    let number = || line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
    match line.split(' ').next() {
        Some("%door") => DOOR.to_owned(),
        Some("%prefixes") => (0..4097).map(|i| format!("\"10.{}.{}.0/24\",\n", i / 256, i % 256)).collect(),
        Some("%doors") => doors(number(), |_| 4000),
        Some("%distinct") => doors(number(), |i| 4000 + i),
        _ => format!("{line}\n"),
    }
}

fn doors(count: u16, first: impl Fn(u16) -> u16) -> String {
    let mut text = String::new();
    for i in 0..count {
        let (first, second) = (first(i), 9 * i + 5000);
        let knock = format!("[\"tcp/{first}\", \"tcp/{second}\", \"udp/2000\", \"tcp/7121\"]");
        write!(text, "[[door]]\nname = \"d{i}\"\nopens = [\"tcp/22\"]\nknock = {knock}\n").expect("a string");
    }
    text
}

fn fits(problem: &Problem, expected: &str) -> bool {
    let parts: Vec<_> = expected.splitn(3, " | ").collect();
    let [place, message, help] = parts[..] else { panic!("not PLACE | MESSAGE | HELP: {expected}") };
    let at = format!("{}:{}", problem.line().unwrap_or(0), problem.column().unwrap_or(0));
    at == place && problem.message().contains(message) && problem.advice().contains(help)
}

fn refused(case: &Case) -> Option<ConfigError> {
    Config::parse("bad.toml", &case.config).err()
}

#[test]
fn each_bad_config_is_refused_at_its_place_with_what_is_allowed() {
    let mut wrong = String::new();
    for case in cases() {
        let Some(error) = refused(&case) else {
            write!(wrong, "\n=== {}\nwas taken\n", case.title).expect("a string");
            continue;
        };
        let problems = error.problems();
        let all_fit = problems.len() == case.expected.len()
            && problems.iter().zip(&case.expected).all(|(problem, expected)| fits(problem, expected));
        if !all_fit {
            let expected = case.expected.join("\n");
            write!(wrong, "\n=== {}\nexpected\n{expected}\ngot\n{error}\n", case.title).expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn there_are_enough_cases_and_each_is_its_own() {
    let mut titles: Vec<_> = cases().iter().map(|case| case.title).collect();
    let count = titles.len();
    titles.sort_unstable();
    titles.dedup();

    assert_eq!(titles.len(), count, "two cases have one title");
    assert!(count >= 70, "{count} cases");
}

#[test]
fn both_forms_show_the_value_and_the_place() {
    let text = format!("[xdp]\nmode = \"gaurd\"\n{DOOR}");
    let error = Config::parse("x.toml", &text).expect_err("a wrong mode");

    assert_eq!(
        error.to_string(),
        "x.toml:2:8: [xdp]: `mode` is \"gaurd\"; did you mean \"guard\"? it must be one of: observe, guard, deny"
    );
    let pretty = error.pretty();
    for part in ["x.toml:2:8", "mode = \"gaurd\"", "here", "did you mean \"guard\"?"] {
        assert!(pretty.contains(part), "no {part} in\n{pretty}");
    }
}
