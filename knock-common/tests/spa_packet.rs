//! Packets of single packet authorization: the vectors of `docs/spa.md`, and what is refused.

use knock_common::{
    abi::{Address, mapped},
    door::door_id,
    spa::{
        abi::{KeyId, KeyRule, Right, ServerRule, WallClock},
        key::SpaKey,
        packet::{COVERED, Datagram, LENGTH, Request},
        sha256::Work,
        verdict::{CLOCK_TRUST_NS, REFUSALS, Refusal, Server, beneficiary, check_time, open_for_ns, wall_ns},
    },
};

#[path = "../../tests/src/random.rs"]
#[expect(dead_code, reason = "bytes and bits are all that is drawn here")]
mod random;

use random::Random;

const SECOND: u64 = 1_000_000_000;
const SENDER: Address = mapped([203, 0, 113, 9]);
const OTHER: Address = mapped([198, 51, 100, 7]);

fn key() -> SpaKey {
    SpaKey::new(&std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn request() -> Request {
    Request {
        seconds: 3600,
        door: door_id(b"ssh"),
        counter: 1_767_323_045_678_000_000,
        server: door_id(b"box"),
        source: Some(SENDER),
    }
}

fn is_accepted(bytes: [u8; LENGTH], id: KeyId, rule: &KeyRule) -> bool {
    let datagram = Datagram::new(bytes);
    let mut work = Work { state: [0; 8], words: [0; 16] };
    datagram.is_known()
        && datagram.key_id() == id
        && datagram.passes(rule)
        && datagram.is_authentic(rule, &mut work)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_vectors_of_the_documentation_hold() {
    // Made apart from this code too: python's hmac and a SipHash after the paper gave the same bytes.
    let whoever = Request { seconds: 0, counter: request().counter + 1, source: None, ..request() };
    let gate = key().gate().map(u64::to_le_bytes).concat();
    let vectors = [
        ("key id", hex(&key().id()), "aa32145b693ec6c0"),
        ("gate key", hex(&gate), "962c9a9b1d281647c158a7d0e45b966c"),
        (
            "packet that names its source",
            hex(Datagram::seal(&request(), &key()).bytes()),
            "010000000e10aa32145b693ec6c0825d7f195cfee6f11886caf244ffa780004d2e191349e4f2\
             00000000000000000000ffffcb007109ab709fcd4582a8c1adf581c49651dde48d59f9c13853f2d8",
        ),
        (
            "packet for whoever sends it",
            hex(Datagram::seal(&whoever, &key()).bytes()),
            "010100000000aa32145b693ec6c0825d7f195cfee6f11886caf244ffa781004d2e191349e4f2\
             000000000000000000000000000000004a7278c44f7eebaa8f345c4f44dd75fc59f1e85cabb81caa",
        ),
    ];
    let page = include_str!("../../docs/spa.md");

    for (what, made, expected) in vectors {
        println!("{what}: {made}");
        assert_eq!(made, expected, "{what}");
        assert!(page.contains(expected), "docs/spa.md lacks the {what}");
    }
}

#[test]
fn what_is_sealed_is_accepted_and_says_the_same() {
    let mut random = Random::new(5);
    for _ in 0..1000 {
        let named = random.once_in(2).then(|| std::array::from_fn(|_| random.byte()));
        let (seconds, door) = (u32::from(random.word()), random.bits());
        let request = Request { seconds, door, counter: random.bits(), server: random.bits(), source: named };
        let sealed = Datagram::seal(&request, &key());

        assert!(is_accepted(*sealed.bytes(), key().id(), &key().rule()), "{request:?}");
        assert_eq!(sealed.request(), request);
    }
}

#[test]
fn each_bit_of_500_valid_packets_counts() {
    let mut random = Random::new(7);
    for _ in 0..500 {
        let key = SpaKey::new(&std::array::from_fn(|_| random.byte()));
        let request = Request { counter: random.bits(), door: random.bits(), ..request() };
        let bytes = *Datagram::seal(&request, &key).bytes();
        let (id, rule) = (key.id(), key.rule());
        assert!(is_accepted(bytes, id, &rule));
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);

            assert!(!is_accepted(flipped, id, &rule), "bit {bit} of {}", hex(&bytes));
        }
    }
}

#[test]
fn the_code_alone_refuses_what_a_broken_gate_would_pass() {
    let rule = key().rule();
    let bytes = *Datagram::seal(&request(), &key()).bytes();
    let mut work = Work { state: [0; 8], words: [0; 16] };
    for bit in (0..COVERED * 8).chain(62 * 8..LENGTH * 8) {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);

        assert!(!Datagram::new(flipped).is_authentic(&rule, &mut work), "bit {bit}");
    }
    assert!(Datagram::new(bytes).is_authentic(&rule, &mut work));
}

#[test]
fn another_secret_refuses_it_even_under_the_same_id() {
    let bytes = *Datagram::seal(&request(), &key()).bytes();
    let other = SpaKey::new(&[9; 32]).rule();
    let mut work = Work { state: [0; 8], words: [0; 16] };

    assert!(!Datagram::new(bytes).passes(&other));
    assert!(!Datagram::new(bytes).is_authentic(&other, &mut work));
}

#[test]
fn sub_keys_differ_from_each_other_and_from_the_secret() {
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let key = SpaKey::new(&secret);
    let gate = key.gate().map(u64::to_le_bytes).concat();

    assert_ne!(key.id()[..], gate[..8]);
    assert_ne!(key.id()[..], secret[..8]);
    assert_ne!(gate[..], secret[..16]);
}

fn server() -> Server {
    let clock = WallClock { offset_ns: 1_767_323_000 * SECOND, seen_ns: 40 * SECOND, since_ns: 0 };
    let rule = ServerRule { identity: door_id(b"box"), window_ns: 30 * SECOND };
    Server { rule, clock, now_ns: 45 * SECOND }
}

fn rule(flags: u8) -> KeyRule {
    KeyRule { flags, ..key().rule() }
}

#[test]
fn it_lets_in_the_source_it_names_if_it_comes_from_there() {
    let named = |source| Request { source, ..request() };
    let asked = |request: &Request, flags| beneficiary(request, &rule(flags), &server(), &SENDER);
    let (any, other) = (KeyRule::ANY_SOURCE, KeyRule::OTHER_SOURCE);

    assert_eq!(asked(&named(Some(SENDER)), 0), Ok(SENDER));
    assert_eq!(asked(&named(Some(OTHER)), 0), Err(Refusal::WrongSource));
    assert_eq!(asked(&named(Some(OTHER)), any), Err(Refusal::WrongSource));
    assert_eq!(asked(&named(Some(OTHER)), other), Ok(OTHER));
    assert_eq!(asked(&named(None), 0), Err(Refusal::WrongSource));
    assert_eq!(asked(&named(None), other), Err(Refusal::WrongSource));
    assert_eq!(asked(&named(None), any), Ok(SENDER));
}

#[test]
fn a_packet_for_another_server_is_refused() {
    let elsewhere = Request { server: door_id(b"other"), ..request() };

    assert_eq!(beneficiary(&elsewhere, &rule(0), &server(), &SENDER), Err(Refusal::OtherServer));
}

#[test]
fn the_window_has_sharp_edges_on_both_sides() {
    let now = wall_ns(&server().clock, server().now_ns).unwrap();
    assert_eq!(now, 1_767_323_045 * SECOND);
    let window = server().rule.window_ns;
    for (counter, expected) in [
        (0, Err(Refusal::Stale)),
        (now - window - 1, Err(Refusal::Stale)),
        (now - window, Ok(())),
        (now, Ok(())),
        (now + window, Ok(())),
        (now + window + 1, Err(Refusal::Future)),
        (u64::MAX, Err(Refusal::Future)),
    ] {
        assert_eq!(check_time(counter, &server()), expected, "counter {counter}");
    }
}

#[test]
fn what_is_older_than_the_floors_is_refused_however_the_wall_clock_is_set() {
    for step in [0, 3600 * SECOND] {
        let clock = WallClock { since_ns: 30 * SECOND, ..server().clock };
        let clock = WallClock { offset_ns: clock.offset_ns + step, ..clock };
        let since = clock.offset_ns + 30 * SECOND;
        let at = |counter| check_time(counter, &Server { clock, ..server() });

        assert_eq!((at(since - 1), at(since)), (Err(Refusal::Stale), Ok(())));
    }
}

#[test]
fn without_a_wall_clock_of_late_nothing_is_accepted() {
    let counter = request().counter;
    let seen = |seen_ns, now_ns| {
        let clock = WallClock { seen_ns, ..server().clock };
        let rule = ServerRule { window_ns: u64::MAX, ..server().rule };
        check_time(counter, &Server { rule, clock, now_ns })
    };

    assert_eq!(seen(0, 45 * SECOND), Err(Refusal::NoClock));
    assert_eq!(seen(SECOND, SECOND + CLOCK_TRUST_NS), Ok(()));
    assert_eq!(seen(SECOND, SECOND + CLOCK_TRUST_NS + 1), Err(Refusal::NoClock));
}

#[test]
fn a_packet_gets_the_time_it_wants_up_to_its_right() {
    let right = Right { open_for_ns: 30 * SECOND, longest_ns: 60 * SECOND, port: 1, door: 0, _pad: [0; 5] };
    let wants = |seconds| open_for_ns(&Request { seconds, ..request() }, &right);

    assert_eq!([wants(0), wants(1), wants(60)].map(|ns| ns / SECOND), [30, 1, 60]);
    assert_eq!([wants(61), wants(u32::MAX)].map(|ns| ns / SECOND), [60, 60]);
    assert_eq!(
        open_for_ns(&request(), &Right { open_for_ns: u64::MAX, longest_ns: u64::MAX, ..right }),
        3600 * SECOND
    );
}

#[test]
fn refusals_are_found_by_their_numbers() {
    for (index, refusal) in REFUSALS.into_iter().enumerate() {
        assert_eq!(usize::from(refusal.number()), index + 1);
        assert_eq!(Refusal::from_number(refusal.number()), Some(refusal));
    }
    assert_eq!(Refusal::from_number(0), None);
}
