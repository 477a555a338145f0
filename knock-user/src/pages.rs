//! Doors whose sequence changes, in the kernel's terms: their books, and the pages in them.

use std::{fmt, ops::Range};

use knock_common::{
    abi::{DoorRule, Proto, StepRule},
    door::door_id,
    pages::{AHEAD_NS, Book, LANES, NO_PAGE, Page},
    rotate::{Rotation, time_step},
    spa::abi::KeyId,
};

use crate::{
    config::{Config, Door, list::Line, rotate::Rotate},
    generation::{nanoseconds, step_rule},
    rotating::{PortRange, Shape},
};

/// The books of a generation.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Each with its place.
    pub volumes: Vec<Volume>,
}

/// One door's book.
#[derive(Clone)]
pub struct Volume {
    /// Door number of its first lane.
    pub base: u8,
    /// The rule that a page is, but for its number and its steps.
    rule: DoorRule,
    /// Where its pages begin in the map of pages.
    first: u32,
    /// Entries that it has there.
    count: u32,
    contents: Contents,
}

#[derive(Clone)]
enum Contents {
    Rotating { rotation: Rotation, shape: Shape },
    List(Vec<(KeyId, Vec<StepRule>)>),
}

impl fmt::Debug for Volume {
    /// Leaves out what the sequences are made of: debug output ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} pages>", self.count)
    }
}

/// A page and its sequence, with its place in the map of pages.
pub struct Entry {
    /// The place.
    pub place: u32,
    /// The page.
    pub page: Page,
    /// The sequence, as the rule of a door.
    pub rule: DoorRule,
}

/// What a door of the configuration takes of the books: its lanes, by their numbers.
#[must_use]
pub fn lanes(config: &Config) -> Vec<(usize, Range<u8>)> {
    let ways = config.doors.iter().enumerate().flat_map(|(number, door)| {
        let ways = usize::from(door.rotate.is_some()) + usize::from(!door.list.is_empty());
        std::iter::repeat_n(number, ways)
    });
    let first = u8::try_from(config.doors.len()).unwrap_or(u8::MAX);
    let starts = (0_u8..).map(|way| first.saturating_add(way.saturating_mul(LANES as u8)));
    ways.zip(starts).map(|(door, start)| (door, start..start.saturating_add(LANES as u8))).collect()
}

impl Pages {
    /// Compiles what a configuration says; `rule` is a door's without a sequence.
    #[must_use]
    pub fn of(config: &Config, rule: impl Fn(&Door) -> DoorRule) -> Self {
        let ways = config.doors.iter().flat_map(|door| {
            let rotating = door.rotate.as_ref().map(|rotate| (door, rotating(door, rotate)));
            let list = (!door.list.is_empty()).then(|| (door, list(door, &door.list)));
            rotating.into_iter().chain(list)
        });
        let mut first = 0;
        let mut volumes = Vec::new();
        for ((door, contents), (number, lanes)) in ways.zip(lanes(config)) {
            let count = contents.count();
            let rule = DoorRule { prefixes: u8::try_from(number).unwrap_or(0), ..rule(door) };
            volumes.push(Volume { base: lanes.start, rule: contents.onto(rule), first, count, contents });
            first += count;
        }
        Self { volumes }
    }

    /// Returns how many pages there are in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.volumes.iter().map(|volume| volume.count).sum()
    }

    /// Returns the rules of the lanes, in the order of their numbers.
    pub fn lane_rules(&self) -> impl Iterator<Item = DoorRule> {
        self.volumes.iter().flat_map(|volume| std::iter::repeat_n(volume.rule, LANES as usize))
    }

    /// Returns the floors that claims raise.
    #[must_use]
    pub fn floors(&self) -> Vec<KeyId> {
        self.volumes.iter().flat_map(|volume| volume.floors(0)).map(|(floor, _)| floor).collect()
    }
}

impl Volume {
    /// Returns the floors that claims raise, with what they are to be at least where it is not known what was used: at
    /// `unix_ns`, a time step that may have been used before somebody lost the floors is used up.
    #[must_use]
    pub fn floors(&self, unix_ns: u64) -> Vec<(KeyId, u64)> {
        match &self.contents {
            Contents::Rotating { rotation, shape } => {
                let period_ns = nanoseconds(shape.every);
                let newest = time_step(unix_ns, period_ns).unwrap_or(0).saturating_add(1);
                vec![(rotation.floor(), newest.saturating_mul(period_ns))]
            }
            Contents::List(lines) => lines.iter().map(|(floor, _)| (*floor, 0)).collect(),
        }
    }

    /// Returns its lanes: door numbers with what the kernel is to know of them. `is_used` tells of a floor whether it has
    /// been raised.
    #[must_use]
    pub fn books(&self, is_used: impl Fn(&KeyId) -> bool) -> Vec<(u32, Book)> {
        let (period_ns, next) = match &self.contents {
            Contents::Rotating { shape, .. } => (nanoseconds(shape.every), 0),
            Contents::List(lines) => {
                let used = lines.iter().rposition(|(floor, _)| is_used(floor));
                (0, used.map_or(0, |last| last as u64 + 1))
            }
        };
        let base = u32::from(self.base);
        let book = Book { period_ns, next, first: self.first, count: self.count, lane: 0, base };
        (0..).zip(base..).take(LANES as usize).map(|(lane, number)| (number, Book { lane, ..book })).collect()
    }

    /// Returns the numbers of the pages that are to be there at a time.
    #[must_use]
    pub fn wanted(&self, unix_ns: u64) -> Range<u64> {
        let first = match &self.contents {
            Contents::Rotating { shape, .. } => {
                Book { period_ns: nanoseconds(shape.every), ..Book::default() }.first_live(unix_ns)
            }
            Contents::List(_) => 0,
        };
        first..first + u64::from(self.count)
    }

    /// Returns a page with its sequence.
    #[must_use]
    pub fn entry(&self, number: u64) -> Entry {
        let book = Book { first: self.first, count: self.count, ..Book::default() };
        let (floor, counter, steps) = self.contents.page(number);
        let mut rule = DoorRule { page: number as u32, ..self.rule };
        rule.step_count = u8::try_from(steps.len()).unwrap_or(0);
        for (place, step) in rule.steps.iter_mut().zip(&steps) {
            *place = *step;
        }
        // Without steps nothing leads to it.
        let number = if steps.is_empty() { NO_PAGE } else { number };
        let place = book.place(number).unwrap_or(self.first);
        Entry { place, page: Page { number, floor, counter }, rule }
    }

    /// Returns the first steps of all its sequences, and in which lane each may be first; `None` for any port of a range of
    /// TCP and UDP.
    #[must_use]
    pub fn first_steps(&self) -> FirstSteps {
        match &self.contents {
            Contents::Rotating { shape, .. } => FirstSteps::Range(shape.ports),
            Contents::List(lines) => {
                let firsts = (0_u64..).zip(lines).filter_map(|(number, (_, steps))| {
                    let lane = u8::try_from(number % LANES).unwrap_or(0);
                    Some((self.base + lane, *steps.first()?))
                });
                FirstSteps::Each(firsts.collect())
            }
        }
    }
}

/// Where the sequences of a book may begin.
pub enum FirstSteps {
    /// At any of these ports, by TCP and UDP, in every lane.
    Range(PortRange),
    /// At these steps, in the lane of the number.
    Each(Vec<(u8, StepRule)>),
}

impl Contents {
    fn count(&self) -> u32 {
        match self {
            // The live ones beside those to come.
            Self::Rotating { shape, .. } => {
                u32::try_from(AHEAD_NS / nanoseconds(shape.every).max(1) + LANES + 1).unwrap_or(u32::MAX)
            }
            Self::List(lines) => u32::try_from(lines.len()).unwrap_or(u32::MAX),
        }
    }

    /// Makes a door's rule that of its pages.
    fn onto(&self, rule: DoorRule) -> DoorRule {
        let (flag, protos) = match self {
            Self::Rotating { .. } => (DoorRule::ROTATES, Proto::Tcp.bit() | Proto::Udp.bit()),
            Self::List(lines) => {
                let steps = lines.iter().flat_map(|(_, steps)| steps);
                (DoorRule::LISTED, steps.fold(0, |protos, step| protos | step.proto))
            }
        };
        DoorRule { flags: rule.flags | flag, protos, ..rule }
    }

    /// Returns the floor of a page, what it is raised to, and the steps; none for a page that there is not.
    fn page(&self, number: u64) -> (KeyId, u64, Vec<StepRule>) {
        match self {
            Self::Rotating { rotation, shape } => {
                let steps = shape.sequence(rotation, number).unwrap_or_default();
                let steps = steps.into_iter().map(step_rule).collect();
                (rotation.floor(), number.saturating_mul(nanoseconds(shape.every)), steps)
            }
            Self::List(lines) => {
                let line = usize::try_from(number).ok().and_then(|number| lines.get(number));
                line.map_or(([0; 8], 0, Vec::new()), |(floor, steps)| (*floor, 1, steps.clone()))
            }
        }
    }
}

fn rotating(door: &Door, rotate: &Rotate) -> Contents {
    Contents::Rotating {
        rotation: Rotation::new(&rotate.secret.0, door_id(door.name.as_bytes())),
        shape: rotate.shape,
    }
}

/// A line is used once whatever becomes of the file around it: its floor is known by the door and the steps.
fn list(door: &Door, lines: &[Line]) -> Contents {
    let line = |line: &Line| {
        let words: Vec<String> = line.steps.iter().map(ToString::to_string).collect();
        let floor = door_id(format!("list {} {}", door.name, words.join(" ")).as_bytes()).to_be_bytes();
        (floor, line.steps.iter().map(|step| step_rule(*step)).collect())
    };
    Contents::List(lines.iter().map(line).collect())
}
