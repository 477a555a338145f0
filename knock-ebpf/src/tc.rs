//! The TC programs: what leaves is remembered; and the same decisions as at XDP for interfaces that cannot have them there.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{bpf_skb_load_bytes, bpf_skb_pull_data},
    macros::classifier,
    programs::TcContext,
};
use knock_common::{
    abi::ABI_VERSION,
    frame::{Frame, MAX_OFFSET},
    parse::{self, Header},
    spa::packet::{LENGTH, WORDS},
    talk,
    verdict::Verdict,
};

use crate::{confirm, constants, conversations, frame, maps, program, spa};

/// Bytes that are read at most: link header, two tags, the longest chain of headers that is common.
const HEADERS_LEN: u32 = 192;
/// `PACKET_HOST` (`linux/if_packet.h`): to this host alone.
const TO_HOST: u32 = 0;

/// Remembers what leaves by an interface with Ethernet headers.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    depart(&ctx, true)
}

/// Remembers what leaves by an interface without link headers.
#[classifier]
pub fn tc_egress_ip(ctx: TcContext) -> i32 {
    depart(&ctx, false)
}

/// Judges what comes in by an interface with Ethernet headers.
#[classifier]
pub fn tc_knock(ctx: TcContext) -> i32 {
    arrive(&ctx, true)
}

/// Judges what comes in by an interface without link headers.
#[classifier]
pub fn tc_knock_ip(ctx: TcContext) -> i32 {
    arrive(&ctx, false)
}

#[inline(always)]
fn arrive(ctx: &TcContext, has_link: bool) -> i32 {
    keep_about();
    if confirm::is_overdue() {
        confirm::roll_back_tc(ctx, ctx_interface(ctx), false);
        return TC_ACT_UNSPEC;
    }
    let frame = TcFrame::new(ctx);
    let outcome = program::judge(&frame, header(ctx, &frame, has_link), || {
        let sifted = if spa::is_in_use() { sift_tc(ctx.skb.skb) } else { spa::NO_PACKET };
        if program::passes_by(sifted) {
            return program::PASSED_BY;
        }
        let found = visit_tc(ctx.skb.skb);
        if found != 0 {
            return found;
        }
        spa::receive(sifted);
        consider_tc(ctx.skb.skb)
    });
    maps::count_number(outcome.counter());
    if outcome.is_passed() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Does [`spa::sift`], as at XDP.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sift_tc(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    let frame = TcFrame { ctx: &ctx };
    spa::sift(&frame, || ctx_interface(&ctx), |at, place| frame.copy_datagram(at, place))
}

/// Does [`program::fill`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn visit_tc(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    program::fill(&TcFrame { ctx: &ctx }, ctx_interface(&ctx))
}

/// Does [`program::receive`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn consider_tc(skb: *mut __sk_buff) -> u32 {
    program::receive(skb.cast())
}

/// Never drops: what a host sends is its own affair.
#[inline(always)]
fn depart(ctx: &TcContext, has_link: bool) -> i32 {
    keep_about();
    if confirm::is_overdue() {
        confirm::roll_back_tc(ctx, ctx_interface(ctx), true);
        return TC_ACT_UNSPEC;
    }
    let frame = TcFrame::new(ctx);
    let Ok(header) = header(ctx, &frame, has_link) else { return TC_ACT_UNSPEC };
    let Some(room) = maps::departure() else { return TC_ACT_UNSPEC };
    // SAFETY: the room is this CPU's own, and no other reference to it is alive.
    let room = unsafe { &mut *room };
    room.header = header;
    room.is_own = is_own(ctx);
    depart_packet(ctx.skb.skb);
    TC_ACT_UNSPEC
}

/// Goes on with the outgoing packet whose header is in its room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn depart_packet(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    let Some(room) = maps::departure() else { return 0 };
    // SAFETY: the room is this CPU's own; the caller's reference rests while this one is in use.
    let room = unsafe { &mut *room };
    let Header { ip_at, at, len, .. } = room.header;
    let header = Header { ip_at: ip_at & MAX_OFFSET, at: at & MAX_OFFSET, len: len & 0xffff, ..room.header };
    let frame = TcFrame { ctx: &ctx };
    let Ok(segment) = header.segment(&frame) else { return 0 };
    let Some(part) = talk::outgoing(&frame, &segment, &mut room.flow) else { return 0 };
    room.part = part;
    conversations::departure(skb)
}

/// As in the XDP program.
#[inline(always)]
fn keep_about() {
    if constants::settings().abi() != ABI_VERSION {
        maps::touch_about();
    }
}

#[inline(always)]
fn ctx_interface(ctx: &TcContext) -> u32 {
    // SAFETY: a field of the context of this run.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Returns whether a socket sent the packet: of the host, or of a guest that is bridged past it. What is forwarded has none.
#[inline(always)]
fn is_own(ctx: &TcContext) -> bool {
    // SAFETY: a field of the context of this run.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    !socket.is_null()
}

#[inline(always)]
fn header(ctx: &TcContext, frame: &TcFrame<'_>, has_link: bool) -> Result<Header, Verdict> {
    if has_link {
        return parse::header(frame);
    }
    // SAFETY: a field of the context of this run.
    let protocol = unsafe { (*ctx.skb.skb).protocol };
    // SAFETY: as above.
    let kind = unsafe { (*ctx.skb.skb).pkt_type };
    let [high, low, ..] = protocol.to_ne_bytes();
    parse::header_at(frame, u16::from_be_bytes([high, low]), 0, kind != TO_HOST)
}

/// The packet of a TC program.
pub struct TcFrame<'a> {
    ctx: &'a TcContext,
}

impl<'a> TcFrame<'a> {
    /// Returns the frame of this run, its headers in one piece.
    #[inline(always)]
    fn new(ctx: &'a TcContext) -> Self {
        let wanted = if ctx.len() < HEADERS_LEN { ctx.len() } else { HEADERS_LEN };
        if ctx.data_end() - ctx.data() < wanted as usize {
            // What fails here is cut short to the parser.
            // SAFETY: the context is the one of this run.
            let _ = unsafe { bpf_skb_pull_data(ctx.skb.skb, wanted) };
        }
        Self { ctx }
    }

    /// Puts the datagram at an offset into its place; returns whether it is all there, in one piece or several.
    #[inline(always)]
    fn copy_datagram(&self, at: usize, place: &mut [u64; WORDS]) -> bool {
        if frame::copy_datagram(self.ctx.data(), self.ctx.data_end(), at, place) {
            return true;
        }
        let skb = self.ctx.skb.skb.cast();
        // SAFETY: the place has more than `LENGTH` bytes; the helper checks the offset.
        unsafe { bpf_skb_load_bytes(skb, at as u32, place.as_mut_ptr().cast(), LENGTH as u32) == 0 }
    }
}

impl Frame for TcFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        frame::read(self.ctx.data(), self.ctx.data_end(), at)
    }

    #[inline(always)]
    fn is_at_least(&self, len: usize) -> bool {
        self.ctx.len() as usize >= len
    }

    #[inline(always)]
    fn blur(&self, at: usize) -> usize {
        maps::blur(at as u64) as usize & MAX_OFFSET
    }
}
