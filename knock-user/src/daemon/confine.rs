//! The last thing before serving: what the daemon does not need any more, it gives up.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use caps::Capability;

use super::Service;
use crate::{
    config::{Config, Hooks},
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
    let has_hooks = !hooks.is_empty();
    let mut needed = privilege::needed(runner.switches_user());
    for file in read_again(service) {
        if !privilege::is_read_by_privilege(file)? {
            continue;
        }
        needed.insert(Capability::CAP_DAC_READ_SEARCH);
        say!(
            "xdp-knock: WARNING: {} is not root's, or its folder is closed to root: to read it again at a reload, the daemon keeps the right to read every file; run: chown root {0}, and keep it where root may look, as in /etc/xdp-knock",
            file.display()
        );
    }
    let hold = if has_hooks { Hold::OffForHooks } else { hold_files(service) };
    privilege::keep_only(&needed, !has_hooks).context("giving up privileges")?;
    if hold != Hold::Full {
        say!("xdp-knock: {hold}");
    }
    Ok(runner)
}

/// What a reload reads: the configuration and the secrets that it names.
fn read_again(service: &Service) -> impl Iterator<Item = &Path> {
    let config = &service.plan.config;
    let keys = config.keys.iter().flat_map(|key| &key.files);
    let rotating = config.doors.iter().filter_map(|door| Some(&door.rotate.as_ref()?.file));
    let lists = config.doors.iter().filter_map(|door| door.list_file.as_ref());
    service.plan.file.iter().chain(keys).chain(rotating).chain(lists).map(PathBuf::as_path)
}

/// A kernel that does not hold files back is no reason not to serve.
fn hold_files(service: &Service) -> Hold {
    let pins = service.held.pins.path();
    let state = service.installed.about.state.as_deref().and_then(Path::parent);
    if let Some(Err(error)) = state.map(std::fs::create_dir_all) {
        say!("xdp-knock: WARNING: making the folder of the state file: {error}");
    }
    let writable: Vec<&Path> = [Some(pins), state, Some(Address::folder())]
        .into_iter()
        .flatten()
        .filter(|path| path.exists())
        .collect();
    // The folder of pins goes with the gate.
    let cleared: Vec<&Path> = pins.parent().into_iter().collect();
    sandbox::hold(&writable, &cleared).unwrap_or_else(|error| {
        say!("xdp-knock: WARNING: {error:#}");
        Hold::None
    })
}

/// What a reload cannot change, since a daemon that serves has given up what it would take: hooks, and where metrics are served.
#[derive(Clone, Debug)]
pub struct Fixed {
    hooks: Hooks,
    metrics: Option<SocketAddr>,
}

impl Fixed {
    /// Returns what is in force from the start.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { hooks: config.hooks.clone(), metrics: config.metrics }
    }

    /// Returns, in words, what a configuration would have otherwise.
    #[must_use]
    pub fn waiting(&self, config: &Config) -> Option<String> {
        let tables = [(self.hooks != config.hooks, "[hooks]"), (self.metrics != config.metrics, "[metrics]")];
        let changed: Vec<&str> = tables.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        (!changed.is_empty())
            .then(|| format!("{}: as before until the daemon is started again", changed.join(" and ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tables: &str) -> Config {
        let door = "[[door]]\nname = \"d\"\nopens = [\"tcp/22\"]\nknock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\"]";
        Config::parse("x.toml", &format!("{tables}\n{door}")).expect("a good configuration").0
    }

    #[test]
    fn what_waits_for_a_start_is_named() {
        let fixed = Fixed::of(&config("[metrics]"));

        assert_eq!(fixed.waiting(&config("[metrics]\n[xdp]\nmode = \"guard\"")), None);
        let words = |tables| fixed.waiting(&config(tables)).unwrap_or_default();
        assert!(words("").starts_with("[metrics]: as before"), "{}", words(""));
        let both = "[metrics]\nlisten = \"[::1]:9477\"\n[hooks]\non_ban = [\"/bin/true\"]";
        assert!(words(both).starts_with("[hooks] and [metrics]: as before"), "{}", words(both));
    }
}
