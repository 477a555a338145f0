//! Whether what `[hooks]` names is on this machine: advice for `check`, since a hook that cannot run is only noticed
//! when it should have.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::User;

use super::Hooks;

/// One sentence for each program or user that will not do.
pub(super) fn doubts(hooks: &Hooks) -> Vec<String> {
    let mut doubts: Vec<String> = hooks
        .commands()
        .filter_map(|(key, argv)| {
            Some(format!("[hooks]: `{key}`: {}: {}", argv.program().display(), unusable(argv.program())?))
        })
        .collect();
    if !hooks.is_empty() && !matches!(User::from_name(&hooks.user), Ok(Some(_))) {
        let user = &hooks.user;
        doubts.push(format!(
            "[hooks]: `user`: there is no user {user} on this machine; make one: useradd --system {user}"
        ));
    }
    doubts
}

fn unusable(program: &Path) -> Option<String> {
    let file = match fs::metadata(program) {
        Ok(file) => file,
        Err(error) => return Some(format!("{error}; install it, or name another")),
    };
    if !file.is_file() || file.mode() & 0o111 == 0 {
        return Some("not a program; run: chmod a+x, or name another".to_owned());
    }
    let shown = format!("{:04o}", file.mode() & 0o7777);
    (file.mode() & 0o022 != 0)
        .then(|| format!("mode {shown} lets others than its owner change it; run: chmod go-w"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Config;

    fn doubts_about(program: &Path, user: &str) -> Vec<String> {
        let text = format!("[hooks]\non_ban = [{:?}]\nuser = \"{user}\"\n", program.display().to_string());
        let door = "[[door]]\nname = \"d\"\nopens = [\"tcp/22\"]\nknock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\"]";
        let (config, _) = Config::parse("x.toml", &format!("{text}{door}")).expect("a good configuration");
        doubts(&config.hooks)
    }

    #[test]
    fn each_way_to_be_of_no_use_has_its_own_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("tell");
        for (mode, expected) in [
            (None, Some("No such file")),
            (Some(0o644), Some("not a program")),
            (Some(0o775), Some("mode 0775 lets others than its owner change it")),
            (Some(0o757), Some("mode 0757 lets others")),
            (Some(0o755), None),
        ] {
            if let Some(mode) = mode {
                fs::write(&program, "").expect("a file");
                fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("our own");
            }
            let shown = doubts_about(&program, "root");
            let fits = match expected {
                Some(expected) => shown.len() == 1 && shown[0].contains(expected),
                None => shown.is_empty(),
            };
            assert!(fits, "{mode:?}: {shown:?}");
        }
    }

    #[test]
    fn a_user_that_is_not_there_is_told_of() {
        let shown = doubts_about(Path::new("/bin/sh"), "no-such-user");

        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].contains("there is no user no-such-user"), "{shown:?}");
    }
}
