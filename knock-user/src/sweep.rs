//! Forgetting grants of doors that are no more. The kernel finds a grant by the name of its door alone.

use anyhow::Result;
use knock_common::{
    abi::{Grant, GrantKey},
    names,
};

use crate::{
    about::About,
    pins::{self, Pins},
    state,
    table::Table,
};

/// Forgets the grants of doors that a generation does not have; returns how many there were.
///
/// # Errors
/// When the map cannot be read or changed.
pub fn forget_strangers(pins: &Pins, about: &About) -> Result<usize> {
    let path = pins.state().join(names::GRANTS);
    if !pins::is_there(&path)? {
        return Ok(0);
    }
    state::check(pins)?;
    let grants: Table<GrantKey, Grant> = Table::open(&path)?;
    let is_stranger = |key: &GrantKey| about.door_name(key.door).is_none();
    let mut count = 0;
    for (key, _) in grants.entries()?.into_iter().filter(|(key, _)| is_stranger(key)) {
        count += usize::from(grants.take(&key)?.is_some());
    }
    Ok(count)
}
