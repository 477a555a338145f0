//! A generation that has to be confirmed: past its deadline the program that was there before judges again, whether or not
//! a process lives that could bring it back.

use aya_ebpf::{
    bindings::xdp_action,
    programs::{TcContext, XdpContext},
};
use knock_common::{abi::CONFIRMED, counter::Counter};

use crate::{clock, constants, maps};

/// Returns whether the generation had to be confirmed and was not in time.
#[inline(always)]
pub fn is_overdue() -> bool {
    // Constant once loaded: without a confirmation the verifier never sees the rest.
    if constants::settings().confirm() == 0 {
        return false;
    }
    let deadline_ns = maps::confirm_word();
    deadline_ns != CONFIRMED && clock::now_ns() > deadline_ns
}

/// Leaves the packet to the program that was on the interface before; passes it if there was none.
#[inline(always)]
pub fn roll_back(ctx: &XdpContext) -> u32 {
    maps::count(Counter::RolledBack);
    maps::call_previous(ctx);
    xdp_action::XDP_PASS
}

/// Leaves the packet of a TC program to the one that was there before; returns if there was none.
#[inline(always)]
pub fn roll_back_tc(ctx: &TcContext, interface: u32, is_egress: bool) {
    if !is_egress {
        maps::count(Counter::RolledBack);
    }
    maps::call_previous_tc(ctx, interface, is_egress);
}
