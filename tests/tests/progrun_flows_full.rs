//! Full tables of conversations: strangers write nothing into them, and what speaks now and then stays.

#[expect(dead_code, reason = "how long a conversation rests does not matter here")]
mod flows;

use flows::{HIDDEN, Host, REMOTE, SECOND, START_NS, flow, incoming, outgoing};
use knock_common::{
    abi::{FlowKey, REPLIES_ENTRIES, SESSIONS_ENTRIES, mapped},
    counter::Counter,
};
use knock_tests::packet::UDP;

/// Conversations of others for each that a table has room for.
const TIMES: usize = 4;
/// Of theirs, from one packet of a conversation to its next.
const EVERY: u32 = 1000;

/// The same conversation of another one.
fn other(flow: &FlowKey, number: u32) -> FlowKey {
    let [_, b, c, d] = number.to_be_bytes();
    FlowKey { remote: mapped([10 + b, c, d, 1]), ..*flow }
}

#[test]
fn strangers_write_no_conversation_however_many_they_are() {
    let (tunnel, dns) = (flow(UDP, REMOTE, HIDDEN), flow(UDP, 53, REMOTE));
    let mut host = Host::new("deny");
    host.grant(tunnel.remote);
    assert!(host.gets(&incoming(&tunnel)));
    host.sends(&outgoing(&dns));
    host.set_now_ns(START_NS + 2 * SECOND);

    for number in 0..u32::try_from(TIMES * SESSIONS_ENTRIES).expect("32 bits") {
        assert!(!host.gets(&incoming(&other(&tunnel, number))));
        assert!(!host.gets(&incoming(&other(&dns, number))));
    }

    assert_eq!(host.count(Counter::SessionNoted), 1);
    assert_eq!(host.count(Counter::ReplyNoted), 1);
    assert!(host.gets(&incoming(&tunnel)) && host.gets(&incoming(&dns)));
}

#[test]
fn a_session_that_speaks_outlives_a_flood_of_others_with_grants() {
    let tunnel = flow(UDP, REMOTE, HIDDEN);
    let quiet = FlowKey { remote: mapped([198, 51, 100, 1]), ..tunnel };
    let mut host = Host::new("guard");
    for flow in [tunnel, quiet] {
        host.grant(flow.remote);
        assert!(host.gets(&incoming(&flow)));
    }
    let flood = u32::try_from(TIMES * SESSIONS_ENTRIES).expect("32 bits");
    for number in 0..flood {
        host.set_now_ns(START_NS + 2 * SECOND + u64::from(number));
        let other = other(&tunnel, number);
        host.grant(other.remote);
        assert!(host.gets(&incoming(&other)));
        assert!(number % EVERY != 0 || host.gets(&incoming(&tunnel)), "cut after {number} others");
    }

    assert!(host.gets(&incoming(&tunnel)));
    println!("of a flood of {flood}, one that rested is kept: {}", host.gets(&incoming(&quiet)));
    // The table makes room: the counter of what found none stays, and that of what was noted tells of the flood.
    assert_eq!(host.count(Counter::SessionNotStored), 0);
    assert_eq!(host.count(Counter::SessionNoted), u64::from(flood) + 2);
}

#[test]
fn an_answer_is_let_in_through_a_flood_of_the_host_s_own_questions() {
    let dns = flow(UDP, 53, REMOTE);
    let quiet = FlowKey { remote: mapped([198, 51, 100, 1]), ..dns };
    let mut host = Host::new("deny");
    host.sends(&outgoing(&dns));
    host.sends(&outgoing(&quiet));
    let flood = u32::try_from(TIMES * REPLIES_ENTRIES).expect("32 bits");
    for number in 0..flood {
        let other = other(&dns, number);
        host.sends(&outgoing(&other));
        assert!(number % EVERY != 0 || host.gets(&incoming(&dns)), "cut after {number} others");
        assert!(number % EVERY != 1 || host.gets(&incoming(&other)), "{number} is not answered");
    }

    assert!(host.gets(&incoming(&dns)));
    println!("of a flood of {flood}, one that rested is kept: {}", host.gets(&incoming(&quiet)));
    assert_eq!(host.count(Counter::ReplyNotStored), 0);
    assert_eq!(host.count(Counter::ReplyNoted), u64::from(flood) + 2);
}
