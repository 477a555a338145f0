//! The conversations of one source with hidden services, in the slots of one record.
//!
//! A slot is claimed by compare-and-swap on its time, filled, and given its time last; a claimed slot is neither found nor
//! free. One that still goes on is never taken, so a source with all slots in use begins no other conversation.

use crate::{
    abi::{FlowKey, MAX_SESSIONS, Session, Sessions},
    flow,
};

/// The time of a slot that some CPU is filling.
pub const CLAIMED: u64 = u64::MAX;

impl Session {
    /// Returns whether the slot holds this conversation, and it still goes on.
    // Not inlined, as is the next: the verifier then goes on with one state a slot.
    #[must_use]
    #[inline(never)]
    pub fn is_of(&self, flow: &FlowKey, now_ns: u64, udp_idle_ns: u64) -> bool {
        self.seen_ns != CLAIMED
            && self.flow.is(flow)
            && flow::is_live(self.stage, self.seen_ns, now_ns, udp_idle_ns)
    }

    /// Returns whether the slot may be taken.
    #[must_use]
    #[inline(never)]
    pub const fn is_free(&self, now_ns: u64, udp_idle_ns: u64) -> bool {
        self.seen_ns != CLAIMED && !flow::is_live(self.stage, self.seen_ns, now_ns, udp_idle_ns)
    }
}

impl Sessions {
    /// Returns the slot of a conversation that still goes on; [`MAX_SESSIONS`] if there is none.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, flow: &FlowKey, now_ns: u64, udp_idle_ns: u64) -> usize {
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.is_of(flow, now_ns, udp_idle_ns) {
                return number;
            }
        }
        MAX_SESSIONS
    }

    /// Returns a slot that may be taken; [`MAX_SESSIONS`] if there is none.
    #[must_use]
    #[inline(always)]
    pub fn find_free(&self, now_ns: u64, udp_idle_ns: u64) -> usize {
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.is_free(now_ns, udp_idle_ns) {
                return number;
            }
        }
        MAX_SESSIONS
    }
}
