//! The answer of a closed port, made of the packet it answers: its place in memory, its link header, its quote.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use knock_common::{
    abi::{ANSWER_BUDGET, LABEL_SECRET, LINK_PARTIAL, Settings},
    answer::{
        self, BURST, BURST_OF_ALL, INTERVAL_OF_ALL_NS, Question, RESET_V4_LEN, RESET_V6_LEN, Sender,
        UNREACHABLE_V4_LEN, UNREACHABLE_V6_LEN,
    },
    counter::Counter,
    frame::{Frame as _, MAX_OFFSET},
    verdict::Verdict,
};

use crate::{
    atomic, clock,
    constants::settings,
    frame::XdpFrame,
    maps::{self, Draft},
};

/// What [`sum_up`] returns for bytes that are not all there.
const NO_SUM: u64 = u64::MAX;
/// What a global function returns once it has done what it is for.
const DONE: u32 = 1;

/// Returns whether a packet that is dropped is to be answered, if it can be.
#[inline(always)]
pub fn is_due(verdict: Verdict) -> bool {
    // Constant once loaded: where hidden ports keep silent the verifier never sees the rest.
    settings().flags() & Settings::CLOSED != 0 && verdict.asks_for_a_port()
}

/// Turns the packet into the answer to it, if it gets one; returns what becomes of it.
#[inline(always)]
pub fn refuse(ctx: &XdpContext) -> u32 {
    answer_packet(ctx.ctx)
}

// Exported, as are those below: global functions to the verifier, gone through once each, and each with a stack of its
// own, since one for all of them would be longer than the kernel allows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_packet(ctx: *mut xdp_md) -> u32 {
    let is_due = ask(ctx) == DONE && check(ctx) == DONE;
    let Some(draft) = maps::draft().filter(|_| is_due) else { return xdp_action::XDP_DROP };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let is_tcp = unsafe { (*draft).question.is_tcp };
    let is_answered = if is_tcp { reset(ctx) } else { unreachable(ctx) };
    if is_answered != DONE {
        return xdp_action::XDP_DROP;
    }
    maps::count(Counter::Answered);
    xdp_action::XDP_TX
}

/// Puts what the packet asks into the working room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask(ctx: *mut xdp_md) -> u32 {
    done(read_question(&XdpContext::new(ctx)))
}

#[inline(always)]
fn read_question(ctx: &XdpContext) -> Option<()> {
    // What lies in several buffers can be neither summed nor cut here.
    if len(ctx) != (ctx.data_end() - ctx.data()) as u64 {
        return None;
    }
    let draft = maps::draft()?;
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let question = unsafe { &mut (*draft).question };
    question.read(&XdpFrame::new(ctx))
}

/// Checks that the packet is to this host, and whole.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check(ctx: *mut xdp_md) -> u32 {
    done(check_packet(&XdpContext::new(ctx)))
}

#[inline(always)]
fn check_packet(ctx: &XdpContext) -> Option<()> {
    let frame = XdpFrame::new(ctx);
    let link = maps::link(frame.interface())?;
    let [a, b, c, d, e, f] = frame.read(0)?;
    // Another host's: an interface that listens to everything sees them too.
    if u64::from_be_bytes([0, 0, a, b, c, d, e, f]) != link & !LINK_PARTIAL {
        return None;
    }
    let draft = maps::draft()?;
    // SAFETY: the working room is this CPU's own, and no reference to it is alive that writes.
    let question = unsafe { &(*draft).question };
    let header_sum = sum(ctx, question.ip_at, question.header_len)?;
    let packet_sum = sum(ctx, question.at, question.len)?;
    question.is_intact(header_sum, packet_sum, link & LINK_PARTIAL != 0).then_some(())
}

/// Makes the packet a RST.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reset(ctx: *mut xdp_md) -> u32 {
    done(make_reset(&XdpContext::new(ctx)))
}

#[inline(always)]
fn make_reset(ctx: &XdpContext) -> Option<()> {
    let draft = maps::draft()?;
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let Draft { question, head } = unsafe { &mut *draft };
    question.write_reset(&sender(question), head);
    swap(ctx, 0)?;
    let ip_at = question.ip_at & MAX_OFFSET;
    if question.is_v6 {
        write::<RESET_V6_LEN>(ctx, ip_at, head.first_chunk()?)?;
        cut(ctx, ip_at + RESET_V6_LEN)
    } else {
        write::<RESET_V4_LEN>(ctx, ip_at, head.first_chunk()?)?;
        cut(ctx, ip_at + RESET_V4_LEN)
    }
}

/// Puts the headers of a port unreachable in front of the packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unreachable(ctx: *mut xdp_md) -> u32 {
    done(make_unreachable(&XdpContext::new(ctx)))
}

#[inline(always)]
fn make_unreachable(ctx: &XdpContext) -> Option<()> {
    let draft = maps::draft()?;
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let Draft { question, head } = unsafe { &mut *draft };
    if !admit(question) {
        maps::count(Counter::AnswerCapped);
        return None;
    }
    let (ip_at, quoted) = (question.ip_at & MAX_OFFSET, question.quoted());
    let quote_sum = sum(ctx, ip_at, quoted)?;
    question.write_unreachable(&sender(question), quote_sum, head);
    if question.is_v6 {
        make_room(ctx, ip_at, UNREACHABLE_V6_LEN)?;
        write::<UNREACHABLE_V6_LEN>(ctx, ip_at, head.first_chunk()?)?;
        cut(ctx, ip_at + UNREACHABLE_V6_LEN + quoted)
    } else {
        make_room(ctx, ip_at, UNREACHABLE_V4_LEN)?;
        write::<UNREACHABLE_V4_LEN>(ctx, ip_at, head.first_chunk()?)?;
        cut(ctx, ip_at + UNREACHABLE_V4_LEN + quoted)
    }
}

#[inline(always)]
fn done(outcome: Option<()>) -> u32 {
    if outcome.is_some() { DONE } else { 0 }
}

#[inline(always)]
fn sender(question: &Question) -> Sender {
    Sender {
        ttl: settings().ttl(),
        hop_limit: settings().hop_limit(),
        // SAFETY: the helper takes no argument and has no precondition.
        id: unsafe { bpf_get_prandom_u32() } as u16,
        label: if settings().flags() & Settings::LABELS == 0 { 0 } else { question.label(secret()) },
    }
}

/// Returns a number that nobody outside knows, the same for the life of the generation.
#[inline(always)]
fn secret() -> u64 {
    let Some(word) = maps::budget(LABEL_SECRET) else { return 0 };
    // SAFETY: an array entry lives as long as the program and is one aligned word.
    let known = unsafe { core::ptr::read_volatile(word) };
    if known != 0 {
        return known;
    }
    // SAFETY: the helper takes no argument and has no precondition.
    let high = unsafe { bpf_get_prandom_u32() };
    // SAFETY: as above.
    let low = unsafe { bpf_get_prandom_u32() };
    // SAFETY: an aligned word in a map. Another CPU that was first has its way.
    let _ = unsafe { atomic::compare_and_swap(word, 0, u64::from(high) << 32 | u64::from(low)) };
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(word) }
}

/// Takes an ICMP error out of what the source may have, and out of what all may have together.
#[inline(always)]
fn admit(question: &Question) -> bool {
    let now_ns = clock::now_ns();
    let Some(all) = maps::budget(ANSWER_BUDGET) else { return false };
    // Asked before and taken after: a source that is refused takes nothing from the others.
    // SAFETY: an array entry lives as long as the program and is one aligned word.
    let seen = unsafe { core::ptr::read_volatile(all) };
    answer::admit(seen, now_ns, INTERVAL_OF_ALL_NS, BURST_OF_ALL).is_some()
        && admit_source(question, now_ns)
        && take(all, now_ns, INTERVAL_OF_ALL_NS, BURST_OF_ALL)
}

#[inline(always)]
fn admit_source(question: &Question, now_ns: u64) -> bool {
    let interval_ns = question.interval_ns();
    if let Some(word) = maps::answers(&question.source) {
        return take(word, now_ns, interval_ns, BURST);
    }
    let Some(first) = answer::admit(0, now_ns, interval_ns, BURST) else { return false };
    maps::insert_answers(&question.source, first).is_ok()
}

/// Takes one use out of a token bucket.
#[inline(always)]
fn take(word: *mut u64, now_ns: u64, interval_ns: u64, burst: u64) -> bool {
    // SAFETY: the kernel keeps a map entry's memory until this run ends; an aligned word.
    let seen = unsafe { core::ptr::read_volatile(word) };
    let Some(next) = answer::admit(seen, now_ns, interval_ns, burst) else { return false };
    // Another CPU that takes at the same instant leaves nothing for this packet: the limit may be met early, never passed.
    // SAFETY: as above.
    unsafe { atomic::compare_and_swap(word, seen, next) }
}

#[inline(always)]
fn sum(ctx: &XdpContext, at: usize, len: usize) -> Option<u32> {
    u32::try_from(sum_up(ctx.ctx, at as u64, len as u64)).ok()
}

// Exported for the same reason, and because its loops end in many ways.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sum_up(ctx: *mut xdp_md, at: u64, len: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    answer::sum(&XdpFrame::new(&ctx), at as usize & MAX_OFFSET, len as usize).map_or(NO_SUM, u64::from)
}

/// Exchanges the link-layer addresses, which are read at an offset and written to the front.
#[inline(always)]
fn swap(ctx: &XdpContext, from: usize) -> Option<()> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = XdpFrame::new(ctx).read(from)?;
    write(ctx, 0, &[g, h, i, j, k, l, a, b, c, d, e, f])
}

/// Lengthens the frame by so many bytes in front of its IP header, and turns its link header round.
#[inline(always)]
fn make_room(ctx: &XdpContext, ip_at: usize, room: usize) -> Option<()> {
    // SAFETY: the context is the one this run was given; no packet pointer lives on.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(room as i32)) } != 0 {
        return None;
    }
    swap(ctx, room)?;
    let frame = XdpFrame::new(ctx);
    // The type and up to two tags in front of it.
    match ip_at {
        14 => write(ctx, 12, &frame.read::<2>(room + 12)?),
        18 => write(ctx, 12, &frame.read::<6>(room + 12)?),
        _ => write(ctx, 12, &frame.read::<10>(room + 12)?),
    }
}

/// Writes bytes into the frame.
#[inline(always)]
fn write<const N: usize>(ctx: &XdpContext, at: usize, bytes: &[u8; N]) -> Option<()> {
    let start = ctx.data() + at;
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: `[start, start + N)` lies before `data_end`, compared above; `[u8; N]` has alignment 1.
    unsafe { (start as *mut [u8; N]).write_unaligned(*bytes) };
    Some(())
}

/// Returns how many bytes the frame has, in all its buffers.
#[inline(always)]
fn len(ctx: &XdpContext) -> u64 {
    // SAFETY: the context is the one this run was given.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// Shortens the frame to so many bytes.
#[inline(always)]
fn cut(ctx: &XdpContext, to: usize) -> Option<()> {
    // Asked, not computed: the compiler makes of the difference of two packet pointers what the verifier refuses.
    let delta = to as i64 - len(ctx) as i64;
    // SAFETY: the context is the one this run was given; no packet pointer lives on.
    (unsafe { bpf_xdp_adjust_tail(ctx.ctx, delta as i32) } == 0).then_some(())
}
