//! The entry point: parse, decide, judge the knock, act.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use knock_common::{
    counter::Counter,
    decide::{self, Decision},
    parse,
    verdict::{Action, Mode, Verdict},
};

use crate::{attempts, frame::XdpFrame, maps};

/// Judges one frame; `frags`, so that jumbo MTUs attach natively.
#[xdp(frags)]
pub fn xdp_knock(ctx: XdpContext) -> u32 {
    let verdict = judge(&ctx);
    maps::count(verdict.counter());
    debug!(&ctx, "verdict {}", verdict.counter() as u32);
    match verdict.action(Mode::from_number(maps::settings().mode())) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Verdict {
    let frame = XdpFrame::new(ctx);
    let segment = match parse::parse(&frame) {
        Ok(segment) => segment,
        Err(verdict) => return verdict,
    };
    let Decision { verdict, is_grant_expired, knock } = decide::decide(&frame, &segment, &maps::Maps);
    if is_grant_expired {
        maps::count(Counter::GrantExpired);
    }
    if let Some(visit) = knock {
        attempts::knock(&visit, frame.interface());
    }
    verdict
}
