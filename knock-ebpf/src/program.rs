//! The entry point: parse, decide, judge the knock, act.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use knock_common::{
    abi::{ABI_VERSION, Settings},
    counter::Counter,
    decide::{self, Decision},
    parse,
    spa::find::find,
    verdict::{Action, Mode, Verdict},
};

use crate::{
    attempts, confirm, constants,
    frame::XdpFrame,
    maps::{self, Maps, Scratch},
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
    let verdict = judge(&ctx);
    maps::count(verdict.counter());
    trace(&ctx, verdict.counter() as u32);
    match verdict.action(Mode::from_number(constants::settings().mode())) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// Traces a verdict by the number of its counter; nothing is left of it unless traces were asked for.
// Not inlined: its buffers would count against the stack of every path below the entry point.
#[inline(never)]
fn trace(ctx: &XdpContext, verdict: u32) {
    debug!(ctx, "verdict {}", verdict);
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Verdict {
    let frame = XdpFrame::new(ctx);
    let Some(scratch) = maps::scratch() else { return Verdict::BadIp };
    // SAFETY: the working room is this CPU's own, and no other reference to it is alive.
    let scratch = unsafe { &mut *scratch };
    let classified = parse::parse(&frame).and_then(|segment| {
        decide::classify(&frame, &segment, &Maps, &mut scratch.visit)?;
        Ok(segment)
    });
    match classified {
        Ok(segment) => {
            scratch.scene.interface = frame.interface();
            // Ahead of the doors' opinion of the source: a packet that proves itself needs none. What has its length never
            // knocks: it is neither a step nor a wrong knock, so that a flood of them costs no look-up of attempts.
            let may_be_packet =
                constants::settings().flags() & Settings::SPA != 0 && scratch.visit.knock.is_some();
            let packet_at = if may_be_packet { find(&frame, &segment) } else { None };
            if let Some(at) = packet_at {
                spa::receive(ctx, at, &scratch.scene, &scratch.visit);
            }
            let verdict = receive(scratch);
            if scratch.is_judged && packet_at.is_none() {
                judge_knock();
            }
            verdict
        }
        Err(verdict) => verdict,
    }
}

/// Decides on the visit in the working room.
// Not inlined, and given nothing that depends on how the packet was parsed: the verifier goes through it once, not
// once for each of the ways a packet can be parsed.
#[inline(never)]
fn receive(scratch: &mut Scratch) -> Verdict {
    let Decision { verdict, is_judged, is_banned } =
        decide::decide(&scratch.visit, &Maps, &mut scratch.access);
    if scratch.access.is_expired && !scratch.access.is_granted {
        maps::count(Counter::GrantExpired);
    }
    if is_banned {
        maps::count(Counter::KnockBanned);
    }
    scratch.is_judged = is_judged;
    verdict
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
