//! One source of events, any number of readers: each gets every line, or an exact count of those it was too slow for.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use crate::events::{Line, Name};

/// Lines that wait for one reader before it counts as too slow.
const WAITING: usize = 4096;

/// All readers.
#[derive(Debug, Default)]
pub struct Hub {
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    lines: Sender<Arc<Line>>,
    owed: Owed,
}

/// What a reader was too slow for and is still to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owed {
    missed: u64,
    capped: u64,
    overrun: u64,
}

impl Owed {
    /// Adds a line. One that tells of losses is no event: what it counts is told later.
    fn add(&mut self, line: &Line) {
        if line.event != Name::Lost {
            self.missed += 1;
        }
        self.capped += line.capped.unwrap_or(0);
        self.overrun += line.overrun.unwrap_or(0);
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }

    fn line(self) -> Line {
        let count = |count| (count > 0).then_some(count);
        Line {
            missed: count(self.missed),
            capped: count(self.capped),
            overrun: count(self.overrun),
            ..Line::new(Timestamp::now(), Name::Lost)
        }
    }
}

impl Hub {
    /// Adds a reader, who gets every line from now on.
    pub fn subscribe(&mut self) -> Receiver<Arc<Line>> {
        let (lines, receiver) = channel(WAITING);
        self.readers.push(Reader { lines, owed: Owed::default() });
        receiver
    }

    /// Gives a line to every reader; never waits for any.
    pub fn publish(&mut self, line: Line) {
        let line = Arc::new(line);
        self.readers.retain_mut(|reader| reader.give(&line));
    }

    /// Tells readers that have room again what they missed.
    pub fn catch_up(&mut self) {
        self.readers.retain_mut(Reader::tell_owed);
    }
}

impl Reader {
    /// Returns whether there still is a reader.
    fn give(&mut self, line: &Arc<Line>) -> bool {
        if !self.tell_owed() {
            return false;
        }
        if !self.owed.is_nothing() {
            self.owed.add(line);
            return true;
        }
        match self.lines.try_send(Arc::clone(line)) {
            Ok(()) => true,
            Err(TrySendError::Full(line)) => {
                self.owed.add(&line);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    fn tell_owed(&mut self) -> bool {
        // Room for the count and for a good many lines after it: else a reader that is a little too slow would read of
        // nothing but what it missed.
        if self.owed.is_nothing() || self.lines.capacity() < WAITING / 2 {
            return !self.lines.is_closed();
        }
        match self.lines.try_send(Arc::new(self.owed.line())) {
            Ok(()) => {
                self.owed = Owed::default();
                true
            }
            Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u8) -> Line {
        Line { step: Some(number), ..Line::new(Timestamp::UNIX_EPOCH, Name::Step) }
    }

    fn drain(reader: &mut Receiver<Arc<Line>>) -> (u64, u64) {
        let (mut lines, mut missed) = (0, 0);
        while let Ok(line) = reader.try_recv() {
            match line.missed {
                Some(count) => missed += count,
                None => lines += 1,
            }
        }
        (lines, missed)
    }

    #[test]
    fn every_reader_gets_every_line_in_order() {
        let mut hub = Hub::default();
        let mut readers = [hub.subscribe(), hub.subscribe()];

        for number in 0..100 {
            hub.publish(step(number));
        }

        for reader in &mut readers {
            let steps: Vec<_> = std::iter::from_fn(|| reader.try_recv().ok()?.step).collect();
            assert_eq!(steps, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_slow_reader_learns_exactly_how_many_it_missed_and_holds_up_nobody() {
        let mut hub = Hub::default();
        let (mut slow, mut quick) = (hub.subscribe(), hub.subscribe());
        let (mut got, mut missed, mut quick_got) = (0, 0, 0);

        for round in 0..50_u64 {
            for _ in 0..1000 {
                hub.publish(step(1));
            }
            quick_got += drain(&mut quick).0;
            if round % 10 == 9 {
                let (lines, count) = drain(&mut slow);
                got += lines;
                missed += count;
            }
        }
        hub.catch_up();
        let (lines, count) = drain(&mut slow);

        assert_eq!((quick_got, got + lines + missed + count), (50_000, 50_000));
        assert!(missed + count > 0, "it was to be too slow");
    }

    #[test]
    fn what_a_line_tells_of_losses_is_told_later_to_a_reader_that_missed_it() {
        let mut hub = Hub::default();
        let mut slow = hub.subscribe();
        let lost =
            Line { capped: Some(7), overrun: Some(20), ..Line::new(Timestamp::UNIX_EPOCH, Name::Lost) };
        for _ in 0..WAITING + 5 {
            hub.publish(step(1));
        }
        hub.publish(lost.clone());
        hub.publish(lost);

        while slow.try_recv().is_ok() {}
        hub.catch_up();

        let told = slow.try_recv().expect("a line that tells");
        assert_eq!((told.missed, told.capped, told.overrun), (Some(5), Some(14), Some(40)));
    }

    #[test]
    fn a_reader_that_left_is_forgotten() {
        let mut hub = Hub::default();
        drop(hub.subscribe());

        hub.publish(step(1));

        assert!(hub.readers.is_empty());
    }
}
