//! `confirm`: keep a gate that was brought in with `--confirm`.

use anyhow::Result;

use crate::{
    install::{self, warn_of},
    pins::Pins,
    rollback, survey,
};

/// Keeps the gate.
///
/// # Errors
/// When nothing awaits it, or it comes too late.
pub fn run(pins: &Pins) -> Result<()> {
    let links = survey::links(pins)?;
    if !rollback::confirm(&links, pins)? {
        anyhow::bail!("nothing awaits a confirmation: the gate in force stays as it is");
    }
    // A daemon sees it by itself and tidies up; where there is none, it is done here.
    if let (false, Some(about)) = (pins.is_held(), survey::current(&links)) {
        warn_of(install::settle(pins, about));
    }
    say!("xdp-knock: confirmed: the gate stays in force");
    Ok(())
}
