//! `cargo xtask setup`: says what is missing and why, then installs it.

use std::io::{IsTerminal as _, Write as _, stdin, stdout};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tier::Tier;
use crate::toolchain::{Decision, Facts, Places, Step, TOOLCHAIN_VAR, decide};
use crate::{command, programs};

#[derive(clap::Args)]
pub struct Options {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also install the programs that tests use
    #[arg(long)]
    tests: bool,
}

/// Prints the plan, and carries it out.
pub fn setup(root: &Path, options: &Options) -> Result<()> {
    let tiers: &[Tier] = if options.tests { &Tier::ALL } else { &[] };
    let steps = plan(&Places::of_workspace(root).facts(), tiers)?;
    if steps.is_empty() {
        println!("setup: nothing to do; {}", ready(root)?);
        return Ok(());
    }
    show(&steps);
    if options.dry_run {
        return Ok(());
    }
    if !options.yes && !agreed()? {
        bail!("nothing was installed: run the steps by hand, or `cargo xtask setup --yes`");
    }
    carry_out(root, &steps, tiers)?;
    println!("setup: done; {}\nnext: cargo xtask run -- --iface eth0", ready(root)?);
    Ok(())
}

/// The same on the way to something else: silent if nothing is missing.
pub fn ensure(root: &Path, tiers: &[Tier]) -> Result<()> {
    let steps = plan(&Places::of_workspace(root).facts(), tiers)?;
    if steps.is_empty() {
        return Ok(());
    }
    show(&steps);
    if !agreed()? {
        bail!("nothing was installed: run the steps by hand, or `cargo xtask setup --yes`");
    }
    carry_out(root, &steps, tiers)
}

fn plan(facts: &Facts, tiers: &[Tier]) -> Result<Vec<Step>> {
    let mut steps = match decide(facts)? {
        Decision::Install(steps) => steps,
        Decision::Stub | Decision::Prebuilt(_) | Decision::Build(..) => Vec::new(),
    };
    if tiers.contains(&Tier::Unit) {
        steps.extend(programs::lint_steps(facts));
    }
    if tiers.contains(&Tier::Netns) {
        steps.extend(programs::steps(facts)?);
    }
    Ok(merged(steps))
}

/// Compiler and test programs both want fresh package lists; once is enough.
fn merged(steps: Vec<Step>) -> Vec<Step> {
    let mut merged: Vec<Step> = Vec::new();
    for step in steps {
        if !merged.contains(&step) {
            merged.push(step);
        }
    }
    merged
}

fn show(steps: &[Step]) {
    println!("setup: what is missing, and why");
    for step in steps {
        println!("  {step}\n      {}", step.why);
    }
}

/// Asks the person at the terminal. Where there is none, the plan just printed has to do.
fn agreed() -> Result<bool> {
    if !stdin().is_terminal() {
        return Ok(true);
    }
    print!("go ahead? [Y/n] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

fn carry_out(root: &Path, steps: &[Step], tiers: &[Tier]) -> Result<()> {
    for step in steps {
        println!("setup: {step}");
        let (program, args) = step.argv.split_first().context("a step has no command")?;
        let mut command = if step.as_root { command::as_root(program) } else { Command::new(program) };
        command::run(command.args(args).current_dir(root)).with_context(|| {
            format!("setup stopped; {TOOLCHAIN_VAR}=distro, nightly or stable asks for another compiler")
        })?;
    }
    let left = plan(&Places::of_workspace(root).facts(), tiers)?;
    if let Some(step) = left.first() {
        bail!("setup did all it could, but still lacks {}: look at the output of `{step}`", step.why);
    }
    Ok(())
}

fn ready(root: &Path) -> Result<String> {
    Ok(match decide(&Places::of_workspace(root).facts())? {
        Decision::Stub => "the object is left empty, as asked".to_owned(),
        Decision::Prebuilt(path) => format!("the object is {}", path.display()),
        Decision::Build(compiler, linker) => {
            let (way, rustc) = (compiler.way.name(), compiler.rustc);
            format!("toolchain {way}: {} with {}", rustc.display(), linker.display())
        }
        Decision::Install(_) => bail!("the BPF toolchain is still incomplete"),
    })
}
