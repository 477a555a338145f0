//! The entry point: parse, decide, judge the knock, act.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use knock_common::{
    abi::{ABI_VERSION, List},
    counter::Counter,
    decide::{self, Decision},
    frame::{Frame, MAX_OFFSET},
    parse::{self, Header},
    verdict::{Action, Mode, Verdict},
};

use crate::{
    answer, attempts, confirm, constants,
    conversations::{self, Arrival},
    frame::XdpFrame,
    maps::{self, Maps},
    spa,
};

/// Judges one frame; `frags`, so that jumbo MTUs attach natively.
#[xdp(frags)]
pub fn xdp_knock(ctx: XdpContext) -> u32 {
    if constants::settings().abi() != ABI_VERSION {
        // Never taken, as the loader patches the version in. It keeps the map among those that the kernel lists for the
        // program, which is where user space looks for it.
        maps::touch_about();
    }
    if confirm::is_overdue() {
        return confirm::roll_back(&ctx);
    }
    let frame = XdpFrame::new(&ctx);
    let outcome = judge(&frame, parse::header(&frame), || {
        let sifted = if spa::is_in_use() { sift(ctx.ctx) } else { spa::NO_PACKET };
        if passes_by(sifted) {
            return PASSED_BY;
        }
        let found = visit(ctx.ctx);
        if found != 0 {
            return found;
        }
        spa::receive(sifted);
        consider(ctx.ctx)
    });
    maps::count_number(outcome.counter());
    trace(&ctx, outcome.counter());
    if outcome.is_passed() {
        return xdp_action::XDP_PASS;
    }
    if outcome.is_answered() { answer::refuse(&ctx) } else { xdp_action::XDP_DROP }
}

/// Traces a verdict by the number of its counter; nothing is left of it unless traces were asked for.
// Not inlined: its buffers would count against the stack of every path below the entry point.
#[inline(never)]
fn trace(ctx: &XdpContext, verdict: u32) {
    debug!(ctx, "verdict {}", verdict);
}

/// What came of a packet, in one number, since global functions return no more: its counter, whether it passes, whether it is
/// answered as a closed port does, and what is to follow.
#[derive(Clone, Copy)]
pub struct Outcome(u32);

impl Outcome {
    const PASSED: u32 = 0x100;
    const ANSWERED: u32 = 0x200;
    const JUDGED: u32 = 0x400;
    const REMEMBERED: u32 = 0x800;
    const KEPT: u32 = 0x1000;

    #[inline(always)]
    fn of(verdict: Verdict) -> Self {
        let passed = match verdict.action(Mode::from_number(constants::settings().mode())) {
            Action::Pass => Self::PASSED,
            Action::Drop if answer::is_due(verdict) => Self::ANSWERED,
            Action::Drop => 0,
        };
        Self(verdict.counter() as u32 | passed)
    }

    /// Returns the number of the verdict's counter.
    #[inline(always)]
    pub fn counter(self) -> u32 {
        self.0 & 0xff
    }

    /// Returns whether the packet passes.
    #[inline(always)]
    pub fn is_passed(self) -> bool {
        self.0 & Self::PASSED != 0
    }

    /// Returns whether it is answered instead.
    #[inline(always)]
    fn is_answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }
}

/// Judges one packet, given where its layers are. Most pass by; `consider` goes on with the rest.
// What goes on goes through memory: the verifier would else follow the rest once for each way to parse a packet.
#[inline(always)]
pub fn judge<F: Frame>(
    frame: &F,
    header: Result<Header, Verdict>,
    consider: impl FnOnce() -> u32,
) -> Outcome {
    let header = match header {
        Ok(header) => header,
        Err(verdict) => return Outcome::of(verdict),
    };
    let passed_by = header.segment(frame).and_then(|segment| decide::pass_by(&segment, &maps::NO_PACKET));
    if let Err(verdict) = passed_by {
        return Outcome::of(verdict);
    }
    let Some(scratch) = maps::scratch() else { return Outcome::of(Verdict::BadIp) };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    unsafe { (*scratch).header = header };
    let outcome = Outcome(consider());
    follow(outcome);
    outcome
}

/// The outcome of what passes by.
pub const PASSED_BY: u32 = Counter::Unrelated as u32 | Outcome::PASSED;

/// Returns whether a packet that [`spa::sift`] went through passes by as well: its port is neither hidden nor public, so that only
/// a list of sources, or deny mode, could say more of it. The stack sees to its checksum.
#[inline(always)]
pub fn passes_by(sifted: u32) -> bool {
    let is_deny = constants::settings().mode() == Mode::Deny.number();
    sifted == spa::REFUSED && !is_deny && constants::settings().lists() & List::Allow.bit() == 0
}

/// Does [`spa::sift`].
// Exported, as are those below, which makes them global functions to the verifier: gone through once, by themselves, and
// not once more for each state in which they may be called (kernel commit 51c39bb1d5d1). Three at the level of the entry
// point, not one: the stacks of all functions in a chain of calls are added up.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sift(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    spa::sift(&frame, || frame.interface(), |at, place| frame.copy_datagram(at, place))
}

/// Does [`fill`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn visit(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    fill(&frame, frame.interface())
}

/// Does [`receive`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn consider(ctx: *mut xdp_md) -> u32 {
    receive(ctx.cast())
}

/// Fills in the visit of the packet whose header is in the working room; returns 0, or its outcome if it is none.
#[inline(always)]
pub fn fill<F: Frame>(frame: &F, interface: u32) -> u32 {
    let Some(scratch) = maps::scratch() else { return Outcome::of(Verdict::BadIp).0 };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let scratch = unsafe { &mut *scratch };
    let header = bounded(&scratch.header);
    scratch.scene.interface = interface;
    let filled = header
        .segment(frame)
        .and_then(|segment| decide::fill(frame, &segment, &maps::NO_PACKET, &mut scratch.visit));
    if spa::is_in_use() && scratch.is_packet {
        // Neither a step nor a wrong knock, so that a flood of them costs no look-up of attempts.
        scratch.visit.knock = None;
    }
    match filled {
        Ok(()) => 0,
        Err(verdict) => Outcome::of(verdict).0,
    }
}

/// Returns the header, which comes out of memory, within the bounds that the verifier is to know.
#[inline(always)]
pub fn bounded(header: &Header) -> Header {
    let Header { ip_at, at, len, .. } = *header;
    Header { ip_at: ip_at & MAX_OFFSET, at: at & MAX_OFFSET, len: len & 0xffff, ..*header }
}

/// Decides on the visit in the working room; returns the outcome.
#[inline(always)]
pub fn receive(ctx: *mut c_void) -> u32 {
    let Some(scratch) = maps::scratch() else { return Outcome::of(Verdict::BadIp).0 };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let scratch = unsafe { &mut *scratch };
    let maps = Maps::<false>::of_run(ctx, scratch.scene.interface);
    let Decision { verdict, is_judged, is_banned } =
        decide::decide(&scratch.visit, &maps, &mut scratch.access);
    if scratch.access.is_expired && !scratch.access.is_granted {
        maps::count(Counter::GrantExpired);
    }
    if is_banned {
        maps::count(Counter::KnockBanned);
    }
    let Outcome(outcome) = Outcome::of(verdict);
    outcome
        | if is_judged { Outcome::JUDGED } else { 0 }
        | match conversations::of_arrival(scratch, verdict, outcome & Outcome::PASSED != 0) {
            Arrival::Forgotten => 0,
            Arrival::Remembered => Outcome::REMEMBERED,
            Arrival::Kept => Outcome::REMEMBERED | Outcome::KEPT,
        }
}

/// Does what follows from an outcome.
// At the level of the entry point: the stacks of all functions in a chain of calls are added up.
#[inline(always)]
fn follow(Outcome(outcome): Outcome) {
    if outcome & Outcome::JUDGED != 0 {
        judge_knock();
    }
    if outcome & Outcome::REMEMBERED != 0 {
        conversations::arrival(outcome & Outcome::KEPT);
    }
}

/// Judges the knock of the visit in the working room.
// Exported, which makes it a global function to the verifier: gone through once, by itself, and not once more for each
// state in which it may be called (kernel commit 51c39bb1d5d1).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_knock() -> u32 {
    let Some(scratch) = maps::scratch() else { return 0 };
    // SAFETY: the working room is this CPU's own; the caller's reference rests while this one is in use.
    attempts::knock(unsafe { &mut *scratch });
    0
}
