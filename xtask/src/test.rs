//! `cargo xtask test` and `check`: runs the tiers and counts what they report.

use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::tier::{Tier, no_stray_tests};
use crate::{command, run, setup};

/// Where tests find the finished binary.
const BINARY_VAR: &str = "KNOCK_BIN";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Takes in what a command reported; one that fails without naming a test is a failed test itself.
    fn record(&mut self, outcome: (Self, Result<()>)) {
        let (tally, result) = outcome;
        self.add(tally);
        if let Err(error) = result {
            self.failed += u32::from(tally.failed == 0);
            println!("xtask: {error:#}");
        }
    }
}

/// Runs the named tiers, or all. Its last line is `N passed, N failed`, and nothing comes after.
pub fn test(root: &Path, named: &[Tier]) -> Result<ExitCode> {
    let tiers: Vec<_> =
        Tier::ALL.into_iter().filter(|tier| named.is_empty() || named.contains(tier)).collect();
    setup::ensure(root, &tiers)?;

    let mut total = Tally::default();
    let mut summary = Vec::new();
    for tier in tiers {
        println!("\n== {}", tier.headline());
        let start = Instant::now();
        let tally = run_tier(root, tier);
        let Tally { passed, failed } = tally;
        let name = format!("{tier:?}").to_lowercase();
        summary.push(format!("{name:<8} {passed:>5} passed {failed:>3} failed {:>7.1?}", start.elapsed()));
        total.add(tally);
    }
    println!("\n== summary\n{}", summary.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Formatting and lints, stopping at the first that fails.
pub fn check(root: &Path) -> Result<()> {
    checks(root).iter_mut().try_for_each(command::run)
}

/// knock-ebpf is left out of what builds for the host: there it is only a stub, under the name of our binary.
fn checks(root: &Path) -> [Command; 2] {
    let (mut format, mut lint) = (command::cargo(root), command::cargo(root));
    format.args(["fmt", "--all", "--check"]);
    lint.args(["clippy", "--workspace", "--exclude", "knock-ebpf", "--all-targets", "--", "-D", "warnings"]);
    [format, lint]
}

fn run_tier(root: &Path, tier: Tier) -> Tally {
    let mut tally = Tally::default();
    let result =
        if tier == Tier::Unit { unit(root, &mut tally) } else { integration(root, tier, &mut tally) };
    tally.record((Tally::default(), result));
    tally
}

fn unit(root: &Path, tally: &mut Tally) -> Result<()> {
    for mut check in checks(root) {
        tally.record((Tally::default(), command::run(&mut check)));
    }
    let mut tests = command::cargo(root);
    tests.args([
        "test",
        "--workspace",
        "--exclude",
        "knock-tests",
        "--exclude",
        "knock-ebpf",
        "--no-fail-fast",
    ]);
    tally.record(counted(&mut tests));
    no_stray_tests(root)
}

fn integration(root: &Path, tier: Tier, tally: &mut Tally) -> Result<()> {
    let names = tier.tests(root)?;
    let binary = run::build(root)?;
    let cargo_test = |names: &[String]| {
        let mut cargo = command::cargo(root);
        cargo.args(["test", "--release", "--package", "knock-tests"]).env(BINARY_VAR, &binary);
        cargo.args(names.iter().flat_map(|name| ["--test", name]));
        cargo
    };
    // Built as the caller, so that root owns nothing in the target folder.
    command::run(cargo_test(&names).arg("--no-run"))?;
    for name in names {
        let mut cargo = cargo_test(&[name]);
        if tier.needs_root() && !command::is_root() {
            cargo.args(["--config", r#"target."cfg(all())".runner = ["sudo", "-E"]"#]);
        }
        tally.record(counted(cargo.args(["--", "--nocapture"])));
    }
    Ok(())
}

/// Runs a `cargo test`, passing its output on and adding up what its test binaries report.
fn counted(command: &mut Command) -> (Tally, Result<()>) {
    let mut tally = Tally::default();
    let result = stream(command, |line| tally.add(reported(line).unwrap_or_default()));
    if result.is_ok() && tally == Tally::default() {
        let line = command::line(command);
        return (tally, Err(anyhow!("`{line}` ran no test at all")));
    }
    (tally, result)
}

fn stream(command: &mut Command, mut seen: impl FnMut(&str)) -> Result<()> {
    let line = command::line(command);
    println!("$ {line}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let output = child.stdout.take().context("the child has no output")?;
    for text in BufReader::new(output).split(b'\n') {
        let text = text.with_context(|| format!("cannot read the output of `{line}`"))?;
        let text = String::from_utf8_lossy(&text);
        writeln!(stdout(), "{text}")?;
        seen(&text);
    }
    let status = child.wait().with_context(|| format!("lost `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Reads `test result: ok. 3 passed; 1 failed; ...`.
fn reported(line: &str) -> Option<Tally> {
    let (_, counts) = line.split_once("test result: ")?;
    let (_, counts) = counts.split_once(". ")?;
    let count = |what| counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
    Some(Tally { passed: count(" passed")?, failed: count(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_wherever_they_stand_in_a_line() {
        let line =
            "some output test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out";
        assert_eq!(reported(line), Some(Tally { passed: 3, failed: 1 }));
        assert_eq!(reported("test result_is_kept ... ok"), None);
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_counts_as_one() {
        let mut tally = Tally::default();
        tally.record((Tally { passed: 5, failed: 0 }, Err(anyhow!("does not compile"))));
        assert_eq!(tally, Tally { passed: 5, failed: 1 });
    }

    #[test]
    fn a_failed_test_is_not_counted_twice() {
        let mut tally = Tally::default();
        tally.record((Tally { passed: 5, failed: 2 }, Err(anyhow!("exit status: 101"))));
        assert_eq!(tally, Tally { passed: 5, failed: 2 });
    }
}
