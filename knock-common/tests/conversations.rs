//! How far conversations come, how long they rest, and the slots that those with hidden services are kept in.

use knock_common::{
    abi::{Flow, FlowKey, MAX_SESSIONS, Session, Sessions, mapped},
    flow::{
        ANSWERED_NS, ASKED_NS, CLOSING_NS, ESTABLISHED_NS, OPENING_NS, REFRESH_NS,
        Stage::{self, Answered, Asked, Closing, Established, Granted, Opening},
        is_live, renewed,
    },
    session::CLAIMED,
    talk::Part,
};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000_000 * SECOND;
const UDP_IDLE: u64 = 900 * SECOND;
const STAGES: [Stage; 6] = [Asked, Answered, Opening, Established, Closing, Granted];
const TCP_PARTS: [Part; 4] = [Part::Begins, Part::Accepts, Part::Goes, Part::Ends];

fn flow(remote_port: u16) -> FlowKey {
    FlowKey {
        remote: mapped([203, 0, 113, 9]),
        local: mapped([203, 0, 113, 1]),
        remote_port,
        local_port: 51_820,
        proto: 17,
        _pad: [0; 3],
    }
}

#[test]
fn a_stage_is_its_number_and_no_other_number_is_one() {
    for stage in STAGES {
        assert_eq!(Stage::from_number(stage.number()), Some(stage));
    }
    for number in (0..=u8::MAX).filter(|number| STAGES.iter().all(|stage| stage.number() != *number)) {
        assert_eq!(Stage::from_number(number), None);
        assert!(!is_live(number, NOW, NOW, UDP_IDLE), "stage {number} goes on");
        assert_eq!(renewed(number, 0, NOW, Part::Goes, true), None);
    }
}

#[test]
fn tcp_opens_goes_on_and_closes_whichever_side_speaks() {
    let steps = [
        (Opening, [Opening, Opening, Established, Closing]),
        (Established, [Opening, Established, Established, Closing]),
        // What is left of a connection leads nowhere but to a new one between the same ports.
        (Closing, [Opening, Closing, Closing, Closing]),
    ];
    for (before, after) in steps {
        for (part, after) in TCP_PARTS.into_iter().zip(after) {
            for is_incoming in [true, false] {
                assert_eq!(before.after(part, is_incoming), after, "{before:?}, {part:?}");
            }
        }
    }
}

#[test]
fn only_what_comes_in_answers_what_was_asked() {
    for part in [Part::Datagram, Part::Asks, Part::Answers] {
        assert_eq!(Asked.after(part, false), Asked);
        assert_eq!(Asked.after(part, true), Answered);
        assert_eq!(Answered.after(part, false), Answered);
        assert_eq!(Answered.after(part, true), Answered);
        assert_eq!(Granted.after(part, true), Granted);
        assert_eq!(Granted.after(part, false), Granted);
    }
}

#[test]
fn each_stage_rests_as_long_as_is_said_and_no_instant_longer() {
    let said = [
        (Asked, 60, ASKED_NS),
        (Answered, 180, ANSWERED_NS),
        (Opening, 120, OPENING_NS),
        (Established, 5 * 24 * 3600, ESTABLISHED_NS),
        (Closing, 120, CLOSING_NS),
        (Granted, 900, UDP_IDLE),
    ];
    for (stage, seconds, idle_ns) in said {
        assert_eq!(idle_ns, seconds * SECOND, "{stage:?}");
        assert!(is_live(stage.number(), NOW, NOW + idle_ns, UDP_IDLE), "{stage:?}");
        assert!(!is_live(stage.number(), NOW, NOW + idle_ns + 1, UDP_IDLE), "{stage:?}");
    }
}

#[test]
fn a_conversation_of_a_moment_ahead_of_this_cpu_s_clock_goes_on() {
    assert!(is_live(Asked.number(), NOW + 5, NOW, 0));
    assert!(Flow::new(Asked, NOW).is_live(NOW + ASKED_NS));
    assert!(!Flow::new(Asked, NOW).is_live(NOW + ASKED_NS + 1));
    assert!(!Flow::new(Granted, NOW).is_live(NOW + 1), "a session is never looked for among the replies");
}

#[test]
fn what_is_seen_again_is_written_once_a_second_and_a_new_stage_at_once() {
    let again = |stage: Stage, after_ns, part| renewed(stage.number(), NOW, NOW + after_ns, part, true);

    assert_eq!(again(Granted, 0, Part::Datagram), None);
    assert_eq!(again(Granted, REFRESH_NS - 1, Part::Datagram), None);
    assert_eq!(again(Granted, REFRESH_NS, Part::Datagram), Some(Granted.number()));
    assert_eq!(again(Asked, 0, Part::Datagram), Some(Answered.number()));
    assert_eq!(again(Established, 0, Part::Goes), None);
    assert_eq!(again(Established, 0, Part::Ends), Some(Closing.number()));
    assert_eq!(REFRESH_NS, SECOND);
}

fn sessions() -> Sessions {
    Sessions { slots: [Session { seen_ns: 0, flow: flow(0), stage: 0, _pad: [0; 7] }; MAX_SESSIONS] }
}

fn session(remote_port: u16) -> Session {
    Session { seen_ns: NOW, flow: flow(remote_port), stage: Granted.number(), _pad: [0; 7] }
}

#[test]
fn a_conversation_is_found_in_its_slot_while_it_goes_on() {
    let mut sessions = sessions();
    assert_eq!(sessions.find(&flow(7), NOW, UDP_IDLE), MAX_SESSIONS);
    for number in [0, 5, MAX_SESSIONS - 1] {
        sessions.slots[number] = session(u16::try_from(number).expect("few slots"));
    }
    for number in [0, 5, MAX_SESSIONS - 1] {
        let flow = flow(u16::try_from(number).expect("few slots"));
        assert_eq!(sessions.find(&flow, NOW + UDP_IDLE, UDP_IDLE), number);
        assert_eq!(sessions.find(&flow, NOW + UDP_IDLE + 1, UDP_IDLE), MAX_SESSIONS);
    }
    assert_eq!(sessions.find(&flow(7), NOW, UDP_IDLE), MAX_SESSIONS);
}

#[test]
fn a_slot_that_some_cpu_is_filling_is_neither_found_nor_free() {
    let mut slot = session(5);
    assert!(slot.is_of(&flow(5), NOW, UDP_IDLE) && !slot.is_free(NOW, UDP_IDLE));
    slot.seen_ns = CLAIMED;
    assert!(!slot.is_of(&flow(5), NOW, UDP_IDLE) && !slot.is_free(NOW, UDP_IDLE));
    slot.stage = 0;
    assert!(!slot.is_free(NOW, UDP_IDLE));
}

#[test]
fn a_slot_is_free_once_its_conversation_is_over_and_no_instant_before() {
    let mut sessions = sessions();
    for (number, slot) in (0..).zip(&mut sessions.slots) {
        assert!(slot.is_free(NOW, UDP_IDLE));
        *slot = session(number);
    }
    sessions.slots[9].seen_ns = NOW - 1;

    assert_eq!(sessions.find_free(NOW, UDP_IDLE), MAX_SESSIONS);
    assert_eq!(sessions.find_free(NOW + UDP_IDLE - 1, UDP_IDLE), MAX_SESSIONS);
    assert_eq!(sessions.find_free(NOW + UDP_IDLE, UDP_IDLE), 9);
    assert_eq!(sessions.find_free(NOW + UDP_IDLE + 1, UDP_IDLE), 0);
}
