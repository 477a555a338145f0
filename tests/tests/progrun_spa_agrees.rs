//! Any single packet has the same fate in the kernel program as the pure core gives it, and for the same reason.

use std::collections::BTreeMap;

use knock_common::{
    abi::{Address, List, mapped},
    door::door_id,
    spa::{
        abi::{KeyRule, Right, ServerRule, WallClock},
        key::SpaKey,
        packet::{Datagram, LENGTH, Request},
        sha256::Work,
        verdict::{REFUSALS, Refusal, Server, beneficiary, check_time, open_for_ns},
    },
    verdict::Mode,
};
use knock_tests::{
    packet::{UDP, V4},
    random::Random,
    spa::{BOOT, KEY, OTHER_PORT, PORT, SECOND, SENDER, START, Spa, datagram},
};

const PACKETS: u64 = 4000;
const WINDOW: u64 = 30 * SECOND;
const HALF_A_DAY: u64 = 12 * 3600 * SECOND;
/// Who sends and who is asked for: within all prefixes, within those of the door alone, banned, and nowhere.
const SOURCES: [[u8; 4]; 4] = [SENDER, [198, 51, 100, 7], [203, 0, 113, 66], [192, 0, 2, 1]];
const BANNED: Address = mapped(SOURCES[2]);
const LISTS: [(List, u16, [u8; 5]); 3] = [
    (List::From, 0, [203, 0, 113, 0, 24]),
    (List::From, 0, [198, 51, 100, 0, 24]),
    (List::Key, KEY, [203, 0, 113, 0, 24]),
];

/// What the core knows of the gate.
struct Model {
    rule: KeyRule,
    has_lists: bool,
    banned_until_ns: u64,
    now_ns: u64,
    clock: WallClock,
    floor: u64,
}

impl Model {
    /// Returns whom a packet lets in and for how long.
    fn judge(
        &mut self,
        packet: &Datagram,
        sender: Address,
        port: u16,
        key: &SpaKey,
    ) -> Result<(Address, u64), Refusal> {
        if !packet.is_known() {
            return Err(Refusal::Malformed);
        }
        if packet.key_id() != key.id() {
            return Err(Refusal::UnknownKey);
        }
        if !packet.passes(&self.rule) {
            return Err(Refusal::BadGate);
        }
        if !packet.is_authentic(&self.rule, &mut Work { state: [0; 8], words: [0; 16] }) {
            return Err(Refusal::BadCode);
        }
        self.admit(&packet.request(), sender, port)
    }

    fn admit(&mut self, request: &Request, sender: Address, port: u16) -> Result<(Address, u64), Refusal> {
        let server = ServerRule { identity: door_id(b"box"), window_ns: WINDOW };
        let server = Server { rule: server, clock: self.clock, now_ns: self.now_ns };
        let source = beneficiary(request, &self.rule, &server, &sender)?;
        if [sender, source].contains(&BANNED) && self.now_ns <= self.banned_until_ns {
            return Err(Refusal::Banned);
        }
        let of_door = [sender, source].iter().all(|address| is_within(address, List::From));
        let is_within = !self.has_lists || (of_door && is_within(&source, List::Key));
        if request.door != door_id(b"ssh") || port != PORT || !is_within {
            return Err(Refusal::NotAllowed);
        }
        check_time(request.counter, &server)?;
        if request.counter <= self.floor {
            return Err(Refusal::Replayed);
        }
        self.floor = request.counter;
        let right =
            Right { open_for_ns: 30 * SECOND, longest_ns: 60 * SECOND, port: PORT, door: 0, _pad: [0; 5] };
        Ok((source, self.now_ns + open_for_ns(request, &right)))
    }
}

fn is_within(address: &Address, list: List) -> bool {
    let prefixes = LISTS.iter().filter(|(of, ..)| of.number() == list.number());
    prefixes.into_iter().any(|(_, _, [a, b, c, ..])| address[..15] == mapped([*a, *b, *c, 0])[..15])
}

#[test]
fn any_packet_has_the_fate_in_the_kernel_that_the_core_gives_it() {
    let seed = Random::seed("KNOCK_SPA_SEED");
    println!("KNOCK_SPA_SEED={seed}");
    let mut random = Random::new(seed);
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for (mode, flags, has_lists) in [
        (Mode::Guard, 0, false),
        (Mode::Guard, KeyRule::ANY_SOURCE | KeyRule::OTHER_SOURCE | KeyRule::FROM, true),
        (Mode::Deny, KeyRule::OTHER_SOURCE, false),
        (Mode::Deny, KeyRule::ANY_SOURCE | KeyRule::FROM, true),
    ] {
        let mut spa = Spa::load_listed(mode, flags, if has_lists { &LISTS } else { &[] });
        let banned_until_ns = START + 1000 * SECOND;
        spa.ban(BANNED, banned_until_ns);
        let mut model = Model {
            rule: KeyRule { flags, number: KEY, ..spa.key.rule() },
            has_lists,
            banned_until_ns,
            now_ns: START,
            clock: WallClock { offset_ns: BOOT, seen_ns: START, since_ns: 0 },
            floor: 0,
        };
        for _ in 0..PACKETS {
            pass_time(&mut random, &mut spa, &mut model);
            let packet = any_packet(&mut random, &spa, &model);
            let sender = SOURCES[random.below(4)];
            let port = if random.once_in(16) { OTHER_PORT } else { PORT };
            let expected = model.judge(&Datagram::new(packet), mapped(sender), port, &spa.key.clone());
            let before = counts(&spa);

            spa.send_frame(&V4 { source: sender, ..V4::new(UDP) }.frame(&datagram(port, &packet)));

            let number = expected.as_ref().err().map_or(0, |refusal| usize::from(refusal.number()));
            let mut after = before;
            after[number] += 1;
            assert_eq!(counts(&spa), after, "{expected:?} of {packet:02x?}");
            assert_eq!(spa.floor(), model.floor);
            if let Ok((source, until_ns)) = expected {
                assert!(spa.grant_until(source) >= Some(until_ns), "{source:?}");
            }
            *met.entry(expected.err().map_or("accepted", Refusal::name)).or_default() += 1;
        }
    }
    println!("{met:?}");
    assert_eq!(met.len(), 1 + REFUSALS.len(), "all of them occur");
}

/// Returns how many were accepted, and refused for each reason, by their numbers.
fn counts(spa: &Spa) -> [u64; 1 + REFUSALS.len()] {
    let mut counts = [spa.accepted(); 1 + REFUSALS.len()];
    for refusal in REFUSALS {
        counts[usize::from(refusal.number())] = spa.refused(refusal);
    }
    counts
}

/// Lets up to two seconds pass; the daemon mostly looks at the clock, and once in a while it is long dead.
fn pass_time(random: &mut Random, spa: &mut Spa, model: &mut Model) {
    model.now_ns += random.bits() % (2 * SECOND);
    if random.once_in(200) {
        model.now_ns += HALF_A_DAY;
    } else if !random.once_in(8) {
        model.clock.seen_ns = model.now_ns;
    }
    spa.set_now(model.now_ns);
    spa.look_at_clock(model.clock.seen_ns, BOOT);
}

/// A packet that is right more often than not in each field, so that all tests are reached.
fn any_packet(random: &mut Random, spa: &Spa, model: &Model) -> [u8; LENGTH] {
    let wall_ns = BOOT + model.now_ns;
    let counter = match random.below(8) {
        0 => wall_ns - WINDOW - random.bits() % 2,
        1 => wall_ns + WINDOW + random.bits() % 2,
        2 => model.floor,
        3 => random.bits(),
        _ => wall_ns,
    };
    let request = Request {
        seconds: u32::from(random.byte()),
        door: if random.once_in(16) { door_id(b"web") } else { door_id(b"ssh") },
        counter,
        server: if random.once_in(16) { random.bits() } else { door_id(b"box") },
        source: (!random.once_in(3)).then(|| mapped(SOURCES[random.below(4)])),
    };
    let stranger = SpaKey::new(&[1; 32]);
    let key = if random.once_in(16) { &stranger } else { &spa.key };
    let mut packet = *Datagram::seal(&request, key).bytes();
    if random.once_in(8) {
        packet[random.below(LENGTH)] ^= 1 << random.below(8);
    }
    packet
}
