//! Several doors at one port: what they say of a source together.

use knock_common::{
    abi::{Address, Proto, mapped},
    decide::{Access, Decision, Found, Tables as _, Visit, decide},
    machine::Knock,
    verdict::Verdict,
};

#[path = "../../tests/src/gate.rs"]
#[expect(dead_code, reason = "the doors' sequences do not matter here")]
mod gate;

use gate::{Door, Gate, Permit, Prefix, tcp};

const SOURCE: Address = mapped([203, 0, 113, 9]);
const WEST: Address = mapped([198, 51, 100, 1]);
const EAST: Address = mapped([198, 51, 101, 1]);
const NOW_NS: u64 = 1000;

/// Two doors that hide port 22: door 0 in the west, door 1 in the east.
fn two_sides() -> Gate {
    let side = |first: u16, address: Address| {
        let mut door = Door::of(&[tcp(first), tcp(9000)]);
        door.opens = vec![(Proto::Tcp, 22..=22)];
        door.to = vec![Prefix { address, bits: 120 }];
        door
    };
    let mut gate = Gate::new(vec![side(7001, WEST), side(7102, EAST)], &[]);
    gate.now_ns = NOW_NS;
    gate
}

fn to_port_22(gate: &Gate, destination: Address) -> (Decision, Access) {
    let visit =
        Visit { role: gate.role(Proto::Tcp, 22), knock: None, source: SOURCE, destination, ..Visit::NONE };
    let mut access = Access { is_hidden: true, is_granted: true, is_expired: true, found: Found::Socket };
    (decide(&visit, gate, &mut access), access)
}

fn verdict(gate: &Gate, destination: Address) -> Verdict {
    to_port_22(gate, destination).0.verdict
}

fn permit(door: u8, until_ns: u64) -> Permit {
    Permit { source: SOURCE, door, until_ns }
}

#[test]
fn a_port_is_hidden_only_where_one_of_its_doors_is() {
    let gate = two_sides();
    assert_eq!(verdict(&gate, WEST), Verdict::Hidden);
    assert_eq!(verdict(&gate, EAST), Verdict::Hidden);
    assert_eq!(verdict(&gate, mapped([198, 51, 102, 1])), Verdict::Unrelated);
}

#[test]
fn a_grant_counts_where_its_door_is_and_nowhere_else() {
    let mut gate = two_sides();
    gate.grants = vec![permit(1, NOW_NS)];
    assert_eq!(verdict(&gate, EAST), Verdict::Granted);
    assert_eq!(verdict(&gate, WEST), Verdict::Hidden);
}

#[test]
fn a_live_grant_for_one_door_passes_beside_an_expired_one_for_another() {
    let mut gate = two_sides();
    for door in &mut gate.doors {
        door.to = vec![];
    }
    let mut gate = Gate::new(gate.doors, &[]);
    gate.now_ns = NOW_NS;
    gate.grants = vec![permit(0, NOW_NS - 1)];
    let (decision, access) = to_port_22(&gate, WEST);
    assert_eq!(decision.verdict, Verdict::Hidden);
    assert!(access.is_expired && !access.is_granted);

    gate.grants.push(permit(1, NOW_NS));
    let (decision, access) = to_port_22(&gate, WEST);
    assert_eq!(decision.verdict, Verdict::Granted);
    assert!(access.is_granted);
}

/// The decision on a knock at a port; 22 is hidden, 7001 is a step, 80 is neither.
fn knock_at(gate: &Gate, port: u16) -> Decision {
    let knock = Knock { proto: Proto::Tcp, port, source_port: 40_000, tag: 1, size: 0 };
    let role = gate.role(Proto::Tcp, port);
    let visit = Visit { role, knock: Some(knock), source: SOURCE, destination: WEST, ..Visit::NONE };
    decide(&visit, gate, &mut Access::default())
}

#[test]
fn a_ban_leaves_every_verdict_as_it_is_and_no_knock_judged() {
    for port in [22, 7001, 80] {
        let mut gate = two_sides();
        let free = knock_at(&gate, port);
        assert!(free.is_judged && !free.is_banned, "port {port}");

        gate.bans = vec![(SOURCE, NOW_NS)];

        assert_eq!(
            knock_at(&gate, port),
            Decision { is_judged: false, is_banned: true, ..free },
            "port {port}"
        );
    }
}

#[test]
fn a_ban_holds_for_its_source_to_its_last_instant_and_while_bans_are_asked_for() {
    let judged = |bans: &[(Address, u64)], are_bans_in_use| {
        let mut gate = two_sides();
        gate.bans = bans.to_vec();
        gate.are_bans_in_use = are_bans_in_use;
        knock_at(&gate, 7001).is_judged
    };
    assert!(!judged(&[(SOURCE, NOW_NS)], true));
    assert!(!judged(&[(SOURCE, u64::MAX)], true));

    assert!(judged(&[(SOURCE, NOW_NS - 1)], true));
    assert!(judged(&[(SOURCE, u64::MAX)], false));
    assert!(judged(&[(EAST, u64::MAX)], true));
}

#[test]
fn grants_and_allow_prefixes_come_before_a_ban() {
    let mut gate = two_sides();
    gate.bans = vec![(SOURCE, u64::MAX)];
    gate.grants = vec![permit(0, NOW_NS)];
    let granted = knock_at(&gate, 22);
    assert_eq!((granted.verdict, granted.is_banned), (Verdict::Granted, false));

    gate.allow = vec![Prefix { address: SOURCE, bits: 128 }];
    let allowed = knock_at(&gate, 7001);
    assert_eq!((allowed.verdict, allowed.is_banned), (Verdict::Allowed, false));
}

#[test]
fn a_packet_of_a_banned_source_that_is_no_knock_is_not_counted_as_one() {
    let mut gate = two_sides();
    gate.bans = vec![(SOURCE, u64::MAX)];
    let (decision, _) = to_port_22(&gate, WEST);
    assert_eq!(decision, Decision { verdict: Verdict::Hidden, is_judged: false, is_banned: false });
}

#[test]
fn a_prefix_of_everything_in_one_family_lists_no_address_of_the_other() {
    let allowed = |prefix: Prefix| {
        let mut gate = two_sides();
        gate.allow = vec![prefix];
        verdict(&gate, WEST)
    };
    assert_eq!(allowed(Prefix { address: mapped([0; 4]), bits: 96 }), Verdict::Allowed);
    assert_eq!(allowed(Prefix { address: [0; 16], bits: 0 }), Verdict::Hidden);
}
