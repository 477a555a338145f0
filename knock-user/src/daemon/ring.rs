//! The kernel's event ring and the program's debug traces, as the daemon waits for them.

use std::{io, os::fd::AsRawFd};

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use knock_common::event::Event;
use tokio::io::unix::AsyncFd;

use crate::{loader::Gate, pins::Pins, state};

/// Events taken out of the ring at a time, so that a flood of them does not keep the daemon from everything else: fewer
/// than may wait for a reader, who is to have his turn before there are more.
const AT_ONCE: usize = 1024;

/// The reading end of the event ring. There is room for one reader.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Opens the pinned ring. Must be called inside the runtime.
    ///
    /// # Errors
    /// When it is not pinned or cannot be waited for.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(register(state::events(pins)?)?))
    }

    /// Waits for events and takes them out. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the ring cannot be waited for.
    pub async fn read(&mut self) -> Result<Vec<Event>> {
        // Readers have their turn: a full ring is always ready, and would keep them waiting until they count as too slow.
        tokio::task::yield_now().await;
        let mut guard = self.0.readable_mut().await?;
        let ring = guard.get_inner_mut();
        let mut events = Vec::new();
        while events.len() < AT_ONCE {
            let Some(item) = ring.next() else {
                guard.clear_ready();
                break;
            };
            // A record of another size is of another program: nothing to say about it.
            events.extend(bytemuck::try_pod_read_unaligned::<Event>(&item).ok());
        }
        Ok(events)
    }
}

/// The program's debug traces.
pub type Traces = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

/// Opens the program's trace buffer, where traces are wanted. Must be called inside the runtime.
///
/// # Errors
/// When the program has none.
pub fn traces(gate: &mut Gate, wanted: bool) -> Result<Option<Traces>> {
    static STDERR: crate::trace::ToStderr = crate::trace::ToStderr;
    if !wanted {
        return Ok(None);
    }
    let logger = EbpfLogger::init_with_logger(&mut gate.ebpf, &STDERR as &'static dyn log::Log)?;
    Ok(Some(register(logger)?))
}

/// Waits for traces and prints them; for ever where none are wanted.
///
/// # Errors
/// When the buffer cannot be waited for.
pub async fn flush(traces: Option<&mut Traces>) -> Result<()> {
    let Some(traces) = traces else { return std::future::pending().await };
    let mut guard = traces.readable_mut().await?;
    guard.get_inner_mut().flush();
    guard.clear_ready();
    Ok(())
}

fn register<T: AsRawFd>(ring: T) -> Result<AsyncFd<T>> {
    // SAFETY: only the two buffers of this file come here; each owns its descriptor and keeps it until it is dropped.
    let registered = unsafe { AsyncFd::register(ring) };
    registered.map_err(|error| io::Error::from(error).into())
}
