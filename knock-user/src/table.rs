//! A hash map of the kernel as the verbs and the daemon use it: typed, opened by its pin, entries taken out in one step.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, MapError, MapInfo};
use bytemuck::Pod;

use crate::wire::Wire;

/// Number of the command in `enum bpf_cmd` (`uapi/linux/bpf.h`); for hash maps since Linux 5.14. The library has it for
/// queues only.
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
/// Store only what is not there (`uapi/linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;

/// A pinned hash map from `K` to `V`.
#[derive(Debug)]
pub struct Table<K: Pod, V: Pod> {
    map: aya::maps::HashMap<MapData, Wire<K>, Wire<V>>,
    /// The same map once more, for the descriptor.
    data: MapData,
    capacity: u32,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// When there is no such pin, or it is a map of another kind or with entries of another size.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = || format!("opening the pin {}", path.display());
        let map = Map::from_map_data(MapData::from_pin(path).with_context(opened)?).with_context(opened)?;
        Ok(Self {
            map: map.try_into().with_context(opened)?,
            data: MapData::from_pin(path).with_context(opened)?,
            capacity: MapInfo::from_pin(path).with_context(opened)?.max_entries(),
        })
    }

    /// Returns how many entries it can hold.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns every entry; one that is removed while the map is gone through may be missing.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let read = self.map.iter().map(|entry| entry.map(|(Wire(key), Wire(value))| (key, value)));
        read.collect::<Result<_, _>>().context("reading the entries of a map")
    }

    /// Returns one entry.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        match self.map.get(&Wire(*key), 0) {
            Ok(Wire(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading an entry of a map"),
        }
    }

    /// Stores an entry, whether or not there is one.
    ///
    /// # Errors
    /// When the map is full.
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        self.map.insert(Wire(*key), Wire(*value), 0).context("storing an entry of a map")
    }

    /// Takes an entry out in one step; returns the value that it had at that moment.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self, key: &K) -> Result<Option<V>> {
        take(&self.data, key).context("taking an entry out of a map")
    }

    /// Takes out every entry that has ended. One that the kernel refreshes meanwhile lives on.
    ///
    /// # Errors
    /// When the map cannot be read or changed.
    pub fn take_ended(&mut self, has_ended: impl Fn(&V) -> bool) -> Result<Vec<(K, V)>> {
        let mut ended = Vec::new();
        for (key, _) in self.entries()?.into_iter().filter(|(_, value)| has_ended(value)) {
            let Some(value) = self.take(&key)? else { continue };
            if has_ended(&value) {
                ended.push((key, value));
                continue;
            }
            // What the kernel has put in its place since is newer, and stays.
            let _ = self.map.insert(Wire(key), Wire(value), BPF_NOEXIST);
        }
        Ok(ended)
    }
}

/// The part of `union bpf_attr` that commands on map elements read (`uapi/linux/bpf.h`), native byte order.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads and removes an entry; the caller's types have the sizes of the map's entries, checked when it was opened.
fn take<K: Pod, V: Pod>(map: &MapData, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zeroed();
    let mut attr = ElementAttr {
        map_fd: u32::try_from(map.fd().as_fd().as_raw_fd()).map_err(io::Error::other)?,
        _pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel reads it and lives through the call; `key` and `value` have the sizes of the
    // map's entries, which `Table::open` had the library check; any bytes are a valid `V`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_AND_DELETE_ELEM,
            std::ptr::from_mut(&mut attr),
            size_of::<ElementAttr>(),
        )
    };
    if result == 0 {
        return Ok(Some(value));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        error => Err(error),
    }
}
