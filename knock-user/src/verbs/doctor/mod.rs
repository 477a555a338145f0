//! `doctor`: what keeps the gate from working here, or from working well, and what to do about each.

mod clocks;
mod finding;
mod gate;
mod interfaces;
mod kernel;
mod rights;

use anyhow::Result;
use nix::unistd::geteuid;
use serde::Serialize;

pub use finding::{Finding, Level};

use super::show;
use crate::{
    devices,
    pins::Pins,
    report::{VERSION, sight::Sight},
};

/// Looks for what keeps the gate from working here.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// An interface to look at; may be given more than once. Without it those of the gate in force, or all with addresses
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub v: u32,
    /// Whether nothing fails.
    pub ok: bool,
    /// What was found, in the order in which it is best mended.
    pub findings: Vec<Finding>,
}

/// Looks and prints what was found; returns whether nothing fails.
///
/// # Errors
/// When the interfaces cannot be listed or nothing be printed.
pub fn run(args: &Args, pins: &Pins) -> Result<bool> {
    let findings = examine(args, pins)?;
    let ok = findings.iter().all(|finding| finding.level != Level::Fail);
    let report = Report { v: VERSION, ok, findings };
    show::facts(&report, args.json, |report| report.findings.iter().map(Finding::line).collect())?;
    Ok(report.ok)
}

fn examine(args: &Args, pins: &Pins) -> Result<Vec<Finding>> {
    let is_root = geteuid().is_root();
    let devices = devices::all()?;
    let mut findings = rights::look(pins, is_root);
    findings.extend(kernel::look(is_root));
    findings.extend(clocks::look());
    // Pins that cannot be read are a finding of their own, and nothing is known of the gate then.
    let sight = if is_root { Sight::of_root(pins) } else { Ok(Sight::default()) };
    let sight = sight.unwrap_or_else(|error| {
        findings.push(Finding::fail("gate", format!("{error:#}"), "xdp-knock detach --force"));
        Sight::default()
    });
    findings.extend(interfaces::look(&args.iface, &sight, &devices, is_root)?);
    findings.extend(if is_root { gate::look(pins, &sight, &devices) } else { gate::unseen(pins) });
    Ok(findings)
}
