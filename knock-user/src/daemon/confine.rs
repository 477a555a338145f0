//! The last thing before serving: what the daemon does not need any more, it gives up.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Service;
use crate::{
    control::Address,
    hooks::Runner,
    privilege,
    sandbox::{self, Hold},
};

/// Gives up privileges and files; returns the runner of hooks, made while their user could still be looked up.
///
/// # Errors
/// When there is no such user, or the kernel refuses.
pub fn confine(service: &Service) -> Result<Runner> {
    let hooks = &service.plan.config.hooks;
    let runner = Runner::new(hooks)?;
    let has_hooks = hooks.on_promote.is_some() || hooks.on_expire.is_some() || hooks.on_ban.is_some();
    let hold = if has_hooks { Hold::OffForHooks } else { hold_files(service) };
    privilege::keep_only(&privilege::needed(has_hooks && runner.switches_user()), !has_hooks)
        .context("giving up privileges")?;
    if hold != Hold::Full {
        say!("xdp-knock: {hold}");
    }
    Ok(runner)
}

/// A kernel that does not hold files back is no reason not to serve.
fn hold_files(service: &Service) -> Hold {
    // The folder of pins is made and removed in the one above it.
    let pins = service.held.pins.path().parent();
    let state = service.installed.about.state.as_deref().and_then(Path::parent);
    if let Some(Err(error)) = state.map(std::fs::create_dir_all) {
        say!("xdp-knock: WARNING: making the folder of the state file: {error}");
    }
    let folders: Vec<&Path> =
        [pins, state, Some(Address::folder())].into_iter().flatten().filter(|path| path.exists()).collect();
    sandbox::hold(&folders).unwrap_or_else(|error| {
        say!("xdp-knock: WARNING: {error:#}");
        Hold::None
    })
}
