//! Where the profile is, and what it says of a host.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::config::hosts::{Host, Hosts, ReadError};

/// Where a profile is looked for, below the folder of the user's configuration.
const FILE: &str = "xdp-knock/hosts.toml";

/// The profile, as far as there is one.
pub(super) struct Profile {
    /// Where it is, or would be; `None` where the user has no folder.
    path: Option<PathBuf>,
    hosts: Hosts,
}

impl Profile {
    /// Reads the file that is named, or the user's own if there is one; `warn` is given what is doubtful about it.
    pub(super) fn read(named: Option<&Path>, warn: &mut dyn FnMut(&str)) -> Result<Self, ReadError> {
        let path = named.map(Path::to_owned).or_else(own);
        let Some(file) = path.as_deref().filter(|file| named.is_some() || file.exists()) else {
            return Ok(Self { path, hosts: Hosts::default() });
        };
        let (hosts, warnings) = Hosts::read(file)?;
        warnings.iter().for_each(|warning| warn(&warning.plain()));
        Ok(Self { path, hosts })
    }

    /// Returns what it says of a host.
    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.0.get(name)
    }

    /// Says that a host is not in it, and what is.
    pub(super) fn lacks(&self, name: &str) -> String {
        let Some(path) = &self.path else {
            return format!("there is no profile with a host `{name}`: name one with --profile");
        };
        if !path.exists() {
            return format!("there is no profile {} with a host `{name}`", path.display());
        }
        let path = path.display();
        let names: Vec<&str> = self.hosts.0.keys().map(String::as_str).collect();
        if names.is_empty() {
            return format!("{path} has no host `{name}`");
        }
        format!("{path} has no host `{name}`, only {}", names.join(", "))
    }
}

fn own() -> Option<PathBuf> {
    below(env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME"))
}

/// The XDG Base Directory Specification: a relative path is to be ignored, and `.config` at home is what there is else.
fn below(config_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let folder = config_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".config")))?;
    Some(folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_where_the_user_s_configuration_is() {
        let found = |config_home: Option<&str>, home: Option<&str>| {
            below(config_home.map(OsString::from), home.map(OsString::from))
        };
        let at = |path: &str| Some(PathBuf::from(path));

        assert_eq!(found(Some("/c"), Some("/h")), at("/c/xdp-knock/hosts.toml"));
        for unset in [None, Some(""), Some("relative")] {
            assert_eq!(found(unset, Some("/h")), at("/h/.config/xdp-knock/hosts.toml"));
            assert_eq!(found(unset, None), None);
        }
    }
}
