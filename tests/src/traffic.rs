//! Traffic that goes for the doors of a configuration: right knocks, wrong ones, copies, noise, and jumps in time.
//!
//! It looks at the model's attempts, grants and bans to find the next right step and the edges of timeouts, so that long
//! sequences are completed and every `<=` is met on both sides.

use knock_common::{
    abi::{Address, Attempt, Proto, StepRule, mapped},
    decide::Tables as _,
    machine::{DUPLICATE_UNITS, UNIT_SHIFT},
};

use crate::{
    dialogue::Dialogue,
    model::Model,
    packet::{ACK, ECE, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, URG, icmp, tcp, udp, v6_address},
    random::Random,
    shape::{self, Route},
};

const MILLISECOND: u64 = 1_000_000;
/// Copies come from this many frames back at most.
const REMEMBERED: usize = 48;

/// Sources: v4 strangers, an allowed one, one outside every `from`; the same for v6.
pub const SOURCES: [Address; 12] = [
    mapped([198, 51, 100, 1]),
    mapped([198, 51, 100, 2]),
    mapped([198, 51, 100, 3]),
    mapped([198, 51, 100, 129]),
    mapped([203, 0, 113, 200]),
    mapped([192, 0, 2, 5]),
    v6_address(0, 1),
    v6_address(0, 2),
    v6_address(0, 3),
    v6_address(0, 200),
    v6_address(0x10, 1),
    v6_address(0x0a, 5),
];

/// Destinations: two of each family.
const DESTINATIONS: [Address; 4] =
    [mapped([203, 0, 113, 1]), mapped([203, 0, 113, 2]), v6_address(1, 1), v6_address(1, 2)];

/// A source of frames.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Its randomness.
    pub random: Random,
    /// Steps of all doors, first steps twice as often.
    steps: Vec<StepRule>,
    /// Ports worth trying.
    ports: Vec<(Proto, u16)>,
    copies: Vec<Vec<u8>>,
    dialogue: Dialogue,
    burst: Burst,
}

/// A run of frames of one source.
#[derive(Clone, Copy, Debug)]
struct Burst {
    route: Route,
    /// Frames left.
    left: usize,
    /// One frame in so many is not the next right step.
    noise: usize,
    /// One frame in so many comes after an edge of time.
    jumps: usize,
    /// Only datagrams to one port, each from another: more conversations than a source may have.
    is_swarm: bool,
}

impl Traffic {
    /// Returns the traffic of a seed for the configuration of a model.
    #[must_use]
    pub fn new(seed: u64, model: &Model) -> Self {
        let generation = &model.tables.generation;
        let rules = generation.doors.iter();
        let mut steps: Vec<StepRule> = rules
            .clone()
            .flat_map(|rule| rule.steps.iter().filter(|step| step.proto != 0))
            .copied()
            .collect();
        steps.extend(rules.map(|rule| rule.steps[0]));
        let route = Route { source: SOURCES[0], destination: DESTINATIONS[0] };
        Self {
            random: Random::new(seed),
            ports: ports(&steps),
            steps,
            copies: Vec::new(),
            dialogue: Dialogue::default(),
            burst: Burst { route, left: 0, noise: 1, jumps: 1, is_swarm: false },
        }
    }

    /// Returns the time of the next frame.
    pub fn next_ns(&mut self, model: &Model) -> u64 {
        if self.burst.left == 0 {
            self.begin_burst();
        }
        self.burst.left -= 1;
        let now_ns = model.tables.now_ns;
        if self.random.once_in(self.burst.jumps) {
            return self.edge_ns(model).unwrap_or(now_ns + MILLISECOND);
        }
        now_ns + *self.random.pick(&[0, 0, 0, 1, MILLISECOND, MILLISECOND])
    }

    /// Returns the next frame.
    pub fn next_frame(&mut self, model: &Model) -> Vec<u8> {
        let frame = self.fresh_frame(model);
        if self.copies.len() < REMEMBERED {
            self.copies.push(frame.clone());
        } else {
            let at = self.random.below(REMEMBERED);
            self.copies[at].clone_from(&frame);
        }
        frame
    }

    /// Returns a frame that leaves before the next one comes, if there is one.
    pub fn next_departure(&mut self, model: &Model) -> Option<Vec<u8>> {
        let leaves = model.tables.is_deny() && self.random.once_in(8);
        leaves.then(|| self.dialogue.question(&mut self.random, self.burst.route))
    }

    fn begin_burst(&mut self) {
        let source = *self.random.pick(&SOURCES);
        let of_family: Vec<Address> =
            DESTINATIONS.into_iter().filter(|d| d.starts_with(&source[..2])).collect();
        self.burst = Burst {
            route: Route { source, destination: *self.random.pick(&of_family) },
            left: 1 + self.random.below(80),
            noise: *self.random.pick(&[1, 1, 2, 4, 20, 1000]),
            jumps: *self.random.pick(&[4, 30, 200, 10_000]),
            is_swarm: self.random.once_in(40),
        };
    }

    fn fresh_frame(&mut self, model: &Model) -> Vec<u8> {
        let (route, kind) = (self.burst.route, self.random.below(20));
        if self.burst.is_swarm {
            let mut segment = udp(51_820, 5);
            segment[0..2].copy_from_slice(&self.random.word().to_be_bytes());
            return shape::plain(route, UDP, &segment);
        }
        if !self.random.once_in(self.burst.noise) {
            let step = self.right_step(model);
            return self.knock(route, step);
        }
        match kind {
            0..=3 if !self.copies.is_empty() => {
                let at = self.random.below(self.copies.len());
                self.copies[at].clone()
            }
            4..=5 => {
                let step = *self.random.pick(&self.steps);
                self.knock(route, step)
            }
            6..=8 => self.strange(model),
            9..=10 => {
                let frame = if self.random.once_in(2) { self.strange(model) } else { self.visit() };
                shape::damage(&mut self.random, frame)
            }
            11..=14 if !self.dialogue.is_empty() => self.dialogue.talk(&mut self.random, &SOURCES),
            _ => self.visit(),
        }
    }

    /// Returns the next step of an attempt of the burst's source, or a step to begin with.
    fn right_step(&mut self, model: &Model) -> StepRule {
        let slots = self.slots(model);
        if !slots.is_empty() && !self.random.once_in(8) {
            let slot = *self.random.pick(&slots);
            let rule = model.tables.sequence(slot.door, model.tables.now_ns);
            let step = rule.and_then(|rule| rule.steps.get(usize::from(slot.step)));
            if let Some(step) = step.filter(|step| step.proto != 0) {
                return *step;
            }
        }
        let doors = &model.tables.generation.doors;
        let door = self.random.below(doors.len());
        let number = u8::try_from(door).expect("few doors");
        model.tables.sequence(number, model.tables.now_ns).unwrap_or(&doors[door]).steps[0]
    }

    fn slots(&self, model: &Model) -> Vec<Attempt> {
        let record = model.attempts(&self.burst.route.source);
        record.iter().flat_map(|record| record.slots).filter(|slot| slot.step != 0).collect()
    }

    /// Returns a frame that is this step.
    fn knock(&mut self, route: Route, step: StepRule) -> Vec<u8> {
        let (proto, segment) = self.segment(route, step);
        shape::plain(route, proto, &segment)
    }

    fn segment(&mut self, route: Route, step: StepRule) -> (u8, Vec<u8>) {
        let random = &mut self.random;
        // Of 16 bits, so that copies of one step by chance occur too.
        let tag = random.word() & *random.pick(&[0x0001, 0xffff]);
        match step.proto {
            1 => {
                let mut segment = tcp(step.port, SYN);
                segment[4..6].copy_from_slice(&tag.to_be_bytes());
                (TCP, segment)
            }
            2 => {
                let mut segment = udp(step.port, *random.pick(&[0, 0, 5]));
                segment[0..2].copy_from_slice(&tag.to_be_bytes());
                (UDP, segment)
            }
            _ => {
                let is = |condition| step.conditions & condition != 0;
                let size = if is(StepRule::SIZE) { step.size } else { *random.pick(&[0, 56, 172]) };
                let id = if is(StepRule::ID) { step.id } else { *random.pick(&[7, tag]) };
                let (kind, proto) = if route.is_v4() { (8, ICMP) } else { (128, ICMPV6) };
                let mut segment = icmp(kind, 0, usize::from(size));
                segment[4..6].copy_from_slice(&id.to_be_bytes());
                segment[6..8].copy_from_slice(&tag.to_be_bytes());
                (proto, segment)
            }
        }
    }

    /// Returns a frame to some port, step, hidden, public or none of these, with any flags.
    fn visit(&mut self) -> Vec<u8> {
        let route = self.burst.route;
        let (proto, segment) = self.any_segment();
        shape::plain(route, proto, &segment)
    }

    fn any_segment(&mut self) -> (u8, Vec<u8>) {
        let route = self.burst.route;
        let (proto, port) = *self.random.pick(&self.ports);
        let port = if self.random.once_in(10) { self.random.word() } else { port };
        let step = StepRule { proto: proto.bit(), conditions: 0, port, size: 0, id: 0 };
        let (number, mut segment) = self.segment(route, step);
        let random = &mut self.random;
        match proto {
            Proto::Tcp if random.once_in(3) => {
                segment[13] =
                    *random.pick(&[ACK, SYN | ACK, RST, FIN, SYN | FIN, SYN | ECE, SYN | URG, 0, 0xff]);
            }
            Proto::Tcp if random.once_in(9) => segment[12] = *random.pick(&[0x40, 0x60, 0xf0, 0x00]),
            Proto::Udp if random.once_in(9) => {
                segment[4..6].copy_from_slice(&random.pick(&[0_u16, 7, 8, 9, 14, 0xffff]).to_be_bytes());
            }
            Proto::Icmp if random.once_in(3) => {
                segment[0] = *random.pick(&[0, 3, 8, 11, 128, 129, 135]);
                segment[1] = *random.pick(&[0, 0, 1]);
            }
            Proto::Tcp | Proto::Udp | Proto::Icmp => {}
        }
        if random.once_in(20) {
            segment.truncate(random.below(segment.len() + 1));
        }
        (if random.once_in(40) { random.byte() } else { number }, segment)
    }

    fn strange(&mut self, model: &Model) -> Vec<u8> {
        let route = self.burst.route;
        let (proto, segment) = if self.random.once_in(2) {
            let step = self.right_step(model);
            self.segment(route, step)
        } else {
            self.any_segment()
        };
        shape::strange(&mut self.random, route, proto, &segment)
    }

    /// Returns a time at, just before or just after something that ends.
    fn edge_ns(&mut self, model: &Model) -> Option<u64> {
        let now_ns = model.tables.now_ns;
        let slots = self.slots(model);
        let slot = if slots.is_empty() { None } else { Some(*self.random.pick(&slots)) };
        let rule = slot.map(|slot| &model.tables.generation.doors[usize::from(slot.door)]);
        let mut ends: Vec<u64> = model
            .tables
            .grants
            .values()
            .map(|grant| grant.until_ns)
            .filter(|until| *until >= now_ns)
            .collect();
        ends.sort_unstable();
        ends.truncate(3);
        ends.extend(model.tables.bans.values().map(|ban| ban.until_ns));
        ends.retain(|end| (now_ns..u64::MAX).contains(end));
        if let (Some(slot), Some(rule)) = (slot, rule) {
            ends.extend([slot.last_ns + rule.step_timeout_ns, slot.last_ns + rule.step_timeout_ns]);
            ends.push(slot.started_ns + rule.total_timeout_ns);
            ends.push(slot.last_ns + (u64::from(DUPLICATE_UNITS) << UNIT_SHIFT));
            ends.push(((slot.last_ns >> UNIT_SHIFT) + u64::from(DUPLICATE_UNITS) + 1) << UNIT_SHIFT);
        }
        ends.extend(self.dialogue.edge_ns(&mut self.random, &model.tables.replies));
        ends.push(now_ns + 1000 * MILLISECOND);
        ends.push(((now_ns >> 30) + 1) << 30);
        let end = *self.random.pick(&ends);
        let edge = (end - 1) + u64::try_from(self.random.below(3)).expect("small");
        // The clock may stand still or step back a little from one CPU to another, but not far.
        (edge + MILLISECOND >= now_ns).then_some(edge)
    }
}

/// Returns the ports of the steps, their neighbours, and some that every configuration treats in a way of its own.
fn ports(steps: &[StepRule]) -> Vec<(Proto, u16)> {
    let proto = |step: &StepRule| if step.proto == Proto::Tcp.bit() { Proto::Tcp } else { Proto::Udp };
    let with_port = steps.iter().filter(|step| step.port != 0);
    let near = with_port.flat_map(|step| [(proto(step), step.port), (proto(step), step.port + 1)]);
    let hidden = [22, 22, 22, 8443, 9000, 9005, 9010, 9011].map(|port| (Proto::Tcp, port));
    let others = [80, 443, 0, 65_535].map(|port| (Proto::Tcp, port));
    let datagrams = [51_820, 51_820, 53, 123, 32_767, 32_768, 60_999, 61_000].map(|port| (Proto::Udp, port));
    near.chain(hidden).chain(others).chain(datagrams).chain([(Proto::Icmp, 0); 4]).collect()
}
