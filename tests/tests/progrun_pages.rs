//! Doors whose sequence changes, against the real program: each sequence opens once, in its time.

use std::{sync::Barrier, thread};

use knock_common::{
    abi::{Proto, StepRule},
    counter::Counter,
    event::{Kind, Via},
};
use knock_tests::{
    bpffs::BpfFs,
    kernel::run,
    pages::{Book, PERIOD, START, config, frame, list_config, rule, sequence},
};

const CLIENT: [u8; 4] = [203, 0, 113, 9];
const OTHER: [u8; 4] = [198, 51, 100, 7];

fn rotating() -> Book {
    let folder = tempfile::tempdir().expect("a folder");
    Book::load(&config(folder.path(), ""), None)
}

#[test]
fn the_sequence_of_a_time_step_and_of_its_neighbours_opens_and_no_other() {
    for (ahead, is_live) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let mut book = rotating();
        // So that a step two before was laid in, too.
        book.go_to(2);
        let steps = sequence((book.step + 2).wrapping_add_signed(ahead));

        book.knock(CLIENT, &steps);

        assert_eq!(book.is_open(CLIENT), is_live, "{ahead} steps ahead");
        assert!(!book.is_open(OTHER));
        assert_eq!(book.via(CLIENT), is_live.then_some(Via::Rotating as u32));
    }
}

#[test]
fn a_sequence_that_was_used_opens_to_nobody_and_the_next_one_does() {
    let mut book = rotating();
    book.knock(CLIENT, &sequence(book.step));
    assert!(book.is_open(CLIENT));
    book.events();

    for steps in [sequence(book.step), sequence(book.step - 1)] {
        book.knock(OTHER, &steps);
        assert!(!book.is_open(OTHER));
    }

    let spent: Vec<_> = book.events().into_iter().filter(|event| event.kind == Kind::Spent as u8).collect();
    assert_eq!(spent.len(), 2);
    assert_eq!(spent[0].via, Via::Rotating as u8);
    assert_eq!(book.kernel.maps.count(Counter::SequenceSpent), 2);
    book.go_to(1);
    book.knock(OTHER, &sequence(book.step));
    assert!(!book.is_open(OTHER), "the one of before, which is live still");
    book.knock(OTHER, &sequence(book.step + 1));
    assert!(book.is_open(OTHER));
}

#[test]
fn an_attempt_ends_with_its_time_step() {
    for (moment, is_open) in [(2 * PERIOD - 1, true), (2 * PERIOD, false)] {
        let mut book = rotating();
        let steps = sequence(book.step);
        book.set_now(START + 2 * PERIOD - 1_000_000);
        book.knock(CLIENT, &steps[..3]);

        book.set_now(START + moment);
        book.knock(CLIENT, &steps[3..]);

        assert_eq!(book.is_open(CLIENT), is_open, "at {moment}");
    }
}

#[test]
fn the_sequence_that_takes_the_place_of_another_does_not_go_on_with_its_attempt() {
    let mut book = rotating();
    book.set_now(START + 2 * PERIOD - 1_000_000);
    book.knock(CLIENT, &sequence(book.step)[..3]);

    book.go_to(2);
    book.knock(CLIENT, &sequence(book.step + 3)[3..]);

    assert!(!book.is_open(CLIENT));
}

#[test]
fn a_wrong_knock_ends_an_attempt_and_one_begun_anew_succeeds() {
    let mut book = rotating();
    let steps = sequence(book.step);
    let wrong = rule(Proto::Udp, 19_999);

    book.knock(CLIENT, &[&steps[..3], &[wrong], &steps[3..]].concat());

    assert!(!book.is_open(CLIENT));
    book.knock(CLIENT, &steps);
    assert!(book.is_open(CLIENT));
}

#[test]
fn a_scan_of_every_port_neither_opens_nor_uses_up_a_sequence() {
    let mut book = rotating();
    let all = |proto| (1..=u16::MAX).map(move |port| rule(proto, port));
    for proto in [Proto::Tcp, Proto::Udp] {
        for step in all(proto) {
            book.kernel.run(&frame(OTHER, &step));
        }
        for step in all(proto).rev() {
            book.kernel.run(&frame(OTHER, &step));
        }
    }

    assert!(!book.is_open(OTHER));
    assert_eq!((book.kernel.maps.count(Counter::Promoted), book.kernel.maps.all_grants().len()), (0, 0));
    book.knock(CLIENT, &sequence(book.step));
    assert!(book.is_open(CLIENT));
}

#[test]
fn what_is_right_looks_like_what_is_wrong() {
    let mut book = rotating();
    let steps = sequence(book.step);
    let fate = book.kernel.run(&frame(OTHER, &rule(Proto::Tcp, 19_999)));

    for step in &steps {
        assert_eq!(book.kernel.run(&frame(CLIENT, step)), fate);
    }
    assert!(book.is_open(CLIENT));
}

#[test]
fn without_a_wall_time_nothing_opens_and_the_time_told_it_does() {
    let mut book = rotating();
    let late = 13 * 3600 / 30;
    book.go_to(late);

    book.knock(CLIENT, &sequence(book.step + late));
    assert!(!book.is_open(CLIENT), "nobody has told the time for 13 hours");

    // The same time step, by a clock that was set back: still laid in, though boot time went on.
    book.tell_wall((book.step - late) * PERIOD - START);
    book.knock(CLIENT, &sequence(book.step));
    assert!(book.is_open(CLIENT));
}

#[test]
fn what_the_daemon_lays_in_opens_for_twelve_hours_and_no_longer() {
    const HOUR: u64 = 3600 / 30;
    let mut book = rotating();
    for hours in [5, 10, 15] {
        book.go_to(hours * HOUR);
        book.look_at_clock(i64::try_from(hours * HOUR).expect("few"));
    }
    for (hours, is_open) in [(26, true), (28, false)] {
        book.go_to(hours * HOUR);
        // Told the time, but laid in nothing: as if the daemon had just come and not got further.
        book.tell_wall(book.step * PERIOD - START);
        let steps = sequence(book.step + hours * HOUR);

        book.knock(CLIENT, &steps);

        assert_eq!(book.is_open(CLIENT), is_open, "after {hours} hours");
    }
}

#[test]
fn a_clock_that_is_set_elsewhere_has_its_sequences_laid_in() {
    const DAY: i64 = 24 * 3600 / 30;
    for steps in [DAY, -DAY, 1440, -1440, -1] {
        let mut book = rotating();
        book.look_at_clock(steps);
        let now = book.step.wrapping_add_signed(steps);

        book.knock(OTHER, &sequence(now.wrapping_add(3)));
        assert!(!book.is_open(OTHER));
        book.knock(CLIENT, &sequence(now));

        assert!(book.is_open(CLIENT), "{steps} time steps");
    }
}

#[test]
fn a_clock_that_goes_back_brings_no_used_sequence_back() {
    let mut book = rotating();
    book.go_to(5);
    let steps = sequence(book.step + 5);
    book.knock(CLIENT, &steps);
    assert!(book.is_open(CLIENT));
    // Ten minutes later the clock is set back to the time of the use.
    book.set_now(START + 25 * PERIOD);
    book.tell_wall((book.step + 5) * PERIOD - (START + 25 * PERIOD));

    for step in 4..=5 {
        book.knock(OTHER, &sequence(book.step + step));
    }

    assert!(!book.is_open(OTHER));
    book.knock(OTHER, &sequence(book.step + 6));
    assert!(book.is_open(OTHER), "its neighbour was never used");
}

#[test]
fn where_the_use_is_not_known_what_may_have_been_used_opens_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = BpfFs::new();
    let mut book = Book::load_without_memory(&config(folder.path(), ""), Some(state.path()));
    for step in [0, 1] {
        book.knock(CLIENT, &sequence(book.step + step));
        assert!(!book.is_open(CLIENT), "{step} steps ahead, at a start with no memory");
    }
    // The loader may have been at work when the time step ended.
    book.go_to(3);
    book.knock(CLIENT, &sequence(book.step + 3));
    assert!(book.is_open(CLIENT));

    // A reload with the same state remembers.
    let mut after = Book::load_without_memory(&config(folder.path(), ""), Some(state.path()));
    let used = book.step + 3;
    after.go_to(used - after.step);
    after.knock(OTHER, &sequence(used));
    assert!(!after.is_open(OTHER));
    after.knock(OTHER, &sequence(used + 1));
    assert!(after.is_open(OTHER));
}

#[test]
fn of_two_sources_that_complete_it_at_the_same_instant_one_is_let_in() {
    const ROUNDS: u64 = 300;
    let mut book = rotating();
    for round in 0..ROUNDS {
        book.go_to(round);
        book.tell_wall(book.step * PERIOD - START);
        let steps = sequence(book.step + round);
        for source in [CLIENT, OTHER] {
            book.knock(source, &steps[..3]);
        }
        let (barrier, program) = (Barrier::new(2), book.kernel.parts().0);
        thread::scope(|scope| {
            for source in [CLIENT, OTHER] {
                let (barrier, last) = (&barrier, frame(source, &steps[3]));
                scope.spawn(move || {
                    barrier.wait();
                    run(program, &last);
                });
            }
        });
    }

    let maps = &book.kernel.maps;
    assert_eq!((maps.count(Counter::Promoted), maps.count(Counter::SequenceSpent)), (2 * ROUNDS, ROUNDS));
}

#[test]
fn a_door_s_sources_hold_for_its_rotating_sequence_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut book = Book::load(&config(folder.path(), "from = [\"203.0.113.0/24\"]"), None);

    book.knock(OTHER, &sequence(book.step));
    assert!(!book.is_open(OTHER));

    book.knock(CLIENT, &sequence(book.step));
    assert!(book.is_open(CLIENT));
}

const LINES: [[u16; 3]; 5] =
    [[7001, 8002, 9003], [7101, 8102, 9103], [7201, 8202, 9203], [7301, 8302, 9303], [7401, 8402, 9403]];

fn list(lines: &[[u16; 3]]) -> String {
    lines.iter().map(|[a, b, c]| format!("tcp/{a} udp/{b} tcp/{c}\n")).collect()
}

fn line(number: usize) -> Vec<StepRule> {
    let [a, b, c] = LINES[number];
    vec![rule(Proto::Tcp, a), rule(Proto::Udp, b), rule(Proto::Tcp, c)]
}

/// Returns whether a line opens the door now, for a source of its own.
fn opens(book: &mut Book, number: usize, source: u8) -> bool {
    let source = [192, 0, 2, source];
    book.knock(source, &line(number));
    book.is_open(source)
}

#[test]
fn each_line_of_a_list_opens_once_and_up_to_three_ahead() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut book = Book::load(&list_config(folder.path(), &list(&LINES)), None);

    let opened: Vec<bool> = [3, 0, 0, 3, 1, 2, 4, 4]
        .into_iter()
        .zip(1..)
        .map(|(number, source)| opens(&mut book, number, source))
        .collect();

    // The fourth is too far ahead at first; the second and the third were passed over.
    assert_eq!(opened, [false, true, false, true, false, false, true, false]);
    assert_eq!(book.via([192, 0, 2, 2]), Some(Via::List as u32));
}

#[test]
fn a_used_line_stays_used_whatever_becomes_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = BpfFs::new();
    let mut book = Book::load(&list_config(folder.path(), &list(&LINES[..3])), Some(state.path()));
    assert!(opens(&mut book, 1, 1));

    // In another order, with another line before.
    let lines = [LINES[4], LINES[1], LINES[2]];
    let mut after = Book::load(&list_config(folder.path(), &list(&lines)), Some(state.path()));

    assert!(!opens(&mut after, 1, 2));
    assert!(!opens(&mut after, 4, 3), "it stands before one that was used");
    assert!(opens(&mut after, 2, 4));
}
