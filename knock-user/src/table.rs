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
/// Likewise; for hash maps since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Store only what is not there (`uapi/linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;
/// Entries read at a time: more than a bucket of the kernel's map ever holds.
const AT_ONCE: usize = 1024;

/// A map has no room for another entry.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the table is full: it holds {0} entries")]
pub struct Full(pub u32);

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

    /// Returns every entry, each once; one that comes or goes while the map is read may be missing.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.each_batch(|keys, values| entries.extend(keys.iter().copied().zip(values.iter().copied())))?;
        Ok(entries)
    }

    /// Returns how many entries there are, those that have ended and were not taken out among them.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.each_batch(|keys, _| count += keys.len())?;
        Ok(count)
    }

    /// Shows all entries, batch by batch. Going from key to key would begin anew whenever the kernel drops the key at hand,
    /// and so never come to an end in a table under a flood.
    fn each_batch(&self, mut see: impl FnMut(&[K], &[V])) -> Result<()> {
        let (mut keys, mut values) = (vec![K::zeroed(); AT_ONCE], vec![V::zeroed(); AT_ONCE]);
        let mut place = None;
        loop {
            let batch = read_batch(&self.data, place, &mut keys, &mut values);
            let (count, next) = batch.context("reading the entries of a map")?;
            see(keys.get(..count).unwrap_or_default(), values.get(..count).unwrap_or_default());
            if next.is_none() {
                return Ok(());
            }
            place = next;
        }
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
    /// [`Full`], or when the kernel refuses.
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        match self.map.insert(Wire(*key), Wire(*value), 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                Err(Full(self.capacity).into())
            }
            other => other.context("storing an entry of a map"),
        }
    }

    /// Stores an entry if there is none of its key; returns whether there was none.
    ///
    /// # Errors
    /// When the map is full.
    pub fn put_if_absent(&mut self, key: &K, value: &V) -> Result<bool> {
        match self.map.insert(Wire(*key), Wire(*value), BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(false)
            }
            Err(error) => Err(error).context("storing an entry of a map"),
        }
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

/// The part of `union bpf_attr` that commands on batches read (`uapi/linux/bpf.h`), native byte order.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads the batch of entries at a place that the kernel named, or the first; returns how many there are and the next
/// place, if any.
fn read_batch<K: Pod, V: Pod>(
    map: &MapData,
    place: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?,
        map_fd: u32::try_from(map.fd().as_fd().as_raw_fd()).map_err(io::Error::other)?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `attr` is laid out as the kernel reads and writes it; `keys` and `values` have room for `count` entries of the
    // map's sizes, which `Table::open` had the library check; any bytes are a valid `K` and `V`; a place of a hash map is 4
    // bytes; all of them live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            std::ptr::from_mut(&mut attr),
            size_of::<BatchAttr>(),
        )
    };
    let count = attr.count as usize;
    if result == 0 {
        return Ok((count, Some(next)));
    }
    match io::Error::last_os_error() {
        // The end; what came before it counts.
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
        error => Err(error),
    }
}
