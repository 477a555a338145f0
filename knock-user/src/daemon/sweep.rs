//! The daemon's tick: what has ended is taken out and told of, and what was lost is counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use knock_common::{
    abi::{Grant, Ledger},
    counter::Counter,
};

use super::Daemon;
use crate::{
    bans::Bans,
    clock,
    events::{Line, Name},
    generation::address,
    state::State,
};

/// How often the daemon looks around. The kernel's verdict never waits for it.
pub const TICK: Duration = Duration::from_millis(250);

/// Going through full tables takes a while; so much of the time, at most, is spent on it: one part in this many.
const SCAN_SHARE: u32 = 50;

impl Daemon {
    /// Takes out what has ended, tells of it, and of events that were lost.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub(super) fn sweep(&mut self) -> Result<()> {
        let started = Instant::now();
        if started >= self.next_scan {
            self.take_ended()?;
            self.next_scan = started + started.elapsed() * SCAN_SHARE;
        }
        if let Some(line) = losses(&mut self.state)? {
            self.publish(line);
        }
        Ok(())
    }

    fn take_ended(&mut self) -> Result<()> {
        let now_ns = clock::now_ns();
        for (key, grant) in self.state.grants.take_ended(|grant: &Grant| grant.until_ns < now_ns)? {
            let door = self.door_names.get(&key.door).cloned();
            self.publish(Line {
                source: Some(address(&key.source)),
                door,
                ..Line::new(clock::wall(grant.until_ns), Name::Expired)
            });
        }
        let pins = self.service.held.pins.clone();
        let ended = match Bans::try_hold(&pins, &mut self.state)? {
            Some(mut bans) => bans.take_ended(now_ns)?,
            // Somebody is changing them: the next tick does.
            None => Vec::new(),
        };
        for (source, ban) in ended {
            self.publish(Line {
                source: Some(address(&source)),
                detail: Some("its time is over".to_owned()),
                ..Line::new(clock::wall(ban.until_ns), Name::Unbanned)
            });
        }
        Ok(())
    }
}

/// Returns the line that tells what was lost since readers were last told, by whatever process, if anything was.
///
/// # Errors
/// When the counters cannot be read.
pub fn losses(state: &mut State) -> Result<Option<Line>> {
    let capped = untold(state, Ledger::ToldCapped, Counter::EventCapped)?;
    let overrun = untold(state, Ledger::ToldLost, Counter::EventLost)?;
    if (capped, overrun) == (0, 0) {
        return Ok(None);
    }
    Ok(Some(Line { capped: Some(capped), overrun: Some(overrun), ..Line::new(Timestamp::now(), Name::Lost) }))
}

fn untold(state: &mut State, told: Ledger, counter: Counter) -> Result<u64> {
    let now = state.count(counter)?;
    let before = state.noted(told)?;
    if now != before {
        state.note(told, now)?;
    }
    Ok(now.saturating_sub(before))
}
