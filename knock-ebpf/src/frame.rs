//! The packet in kernel memory: the only place that touches packet pointers.

use core::arch::asm;

use aya_ebpf::{
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use knock_common::{
    frame::{Frame, MAX_OFFSET},
    spa::packet::{LENGTH, WORDS},
};

use crate::maps;

/// Loads a number of a datagram at once, which the kernel allows at any offset and the compiler at none that may be unaligned.
macro_rules! load {
    ($size:literal, $start:ident, $at:literal) => {{
        let number: u64;
        // SAFETY: what is loaded lies within the datagram, which lies before `data_end`, compared by the caller.
        unsafe {
            asm!(
                concat!("{number} = *(", $size, " *)({start} + ", $at, ")"),
                number = out(reg) number,
                start = in(reg) $start,
                options(readonly, nostack),
            );
        }
        number
    }};
}

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

/// Puts the datagram at an offset of such a packet into its place; returns whether it is all there.
#[inline(always)]
pub fn copy_datagram(data: usize, data_end: usize, at: usize, place: &mut [u64; WORDS]) -> bool {
    let start = data + at;
    if start + LENGTH > data_end {
        return false;
    }
    let half: u64 = load!("u32", start, 72);
    let quarter: u64 = load!("u16", start, 76);
    *place = [
        load!("u64", start, 0),
        load!("u64", start, 8),
        load!("u64", start, 16),
        load!("u64", start, 24),
        load!("u64", start, 32),
        load!("u64", start, 40),
        load!("u64", start, 48),
        load!("u64", start, 56),
        load!("u64", start, 64),
        half | quarter << 32,
    ];
    true
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

    /// Puts the datagram at an offset into its place; returns whether it is all there, in one piece or several.
    #[inline(always)]
    pub fn copy_datagram(&self, at: usize, place: &mut [u64; WORDS]) -> bool {
        if copy_datagram(self.ctx.data(), self.ctx.data_end(), at, place) {
            return true;
        }
        // SAFETY: the place has more than `LENGTH` bytes; the helper checks the offset.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, at as u32, place.as_mut_ptr().cast(), LENGTH as u32) == 0 }
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
