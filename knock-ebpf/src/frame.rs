//! The packet in kernel memory: the only place that touches packet pointers.

use aya_ebpf::{helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use knock_common::frame::{Frame, MAX_OFFSET};

use crate::maps;

/// Returns the bytes at an offset of a packet that lies between two addresses of this run; `None` past its end.
#[inline(always)]
pub fn read<const N: usize>(data: usize, data_end: usize, at: usize) -> Option<[u8; N]> {
    let start = data + at;
    if start + N > data_end {
        return None;
    }
    // SAFETY: `[start, start + N)` lies before `data_end`, compared above; `[u8; N]` has alignment 1.
    Some(unsafe { (start as *const [u8; N]).read_unaligned() })
}

/// The linear part of the frame that a program run was given.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    /// Returns the frame of this run.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Returns the index of the interface that the frame came in on.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        read(self.ctx.data(), self.ctx.data_end(), at)
    }

    #[inline(always)]
    fn is_at_least(&self, len: usize) -> bool {
        if self.ctx.data_end() - self.ctx.data() >= len {
            return true;
        }
        // Only a frame in several buffers, or one that lies about its length, pays for the call.
        // SAFETY: the context is the one this run was given.
        let total = unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) };
        total >= len as u64
    }

    #[inline(always)]
    fn blur(&self, at: usize) -> usize {
        maps::blur(at as u64) as usize & MAX_OFFSET
    }
}
