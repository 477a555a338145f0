//! The `[state]` table: where grants and bans are kept across a reboot.

use std::path::{Path, PathBuf};

use super::{problem::Findings, section::Section, spelling::STATE_KEYS, table};

const DEFAULT: &str = "/var/lib/xdp-knock/grants.json";

/// The file; none when the table is absent.
pub(super) fn read(root: &Section<'_, '_>, found: &mut Findings) -> Option<PathBuf> {
    let (value, table) = table(root, "state", found)?;
    let section = Section::new("[state]".to_owned(), value.span(), table);
    section.refuse_unknown(STATE_KEYS, found);
    if !section.has("file") {
        return Some(DEFAULT.into());
    }
    let text = section.text("file", found)?;
    let path = Path::new(*text.get_ref());
    // `file_name` passes over a slash at the end, which only a folder can have.
    let shown = text.get_ref();
    let names_a_file = path.file_name().is_some() && !shown.ends_with('/') && !shown.contains('\0');
    if !path.is_absolute() || !names_a_file {
        let message = format!("[state]: `file` is \"{shown}\"");
        found.error(
            text.span(),
            message,
            format!("it must be the absolute path of a file, as \"{DEFAULT}\""),
        );
        return None;
    }
    Some(path.to_owned())
}
