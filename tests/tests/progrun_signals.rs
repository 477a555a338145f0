//! A load among processes that end, as hooks do: each end is a signal (SIGCHLD), and the verifier gives up at a pending one.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use knock_tests::{kernel::compile, scene::guarded};
use knock_user::loader::{Gate, Options};

const LOADS: usize = 8;

/// Starts processes that end at once, and waits for them.
fn start_and_end(is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let started = (0..4).map(|_| Command::new("true").spawn().expect("`true` is installed"));
        for mut child in started.collect::<Vec<_>>() {
            assert!(child.wait().expect("a child of ours").success());
        }
    }
}

#[test]
fn a_load_among_processes_that_end_is_not_given_up() {
    let generation = compile(&guarded("", ""));
    let options = Options::default();
    let is_over = AtomicBool::new(false);
    let refused = |load: fn(&_, &Options<'_>) -> anyhow::Result<Gate>| {
        (0..LOADS).filter(|_| load(&generation, &options).is_err()).count()
    };
    let (plain, undisturbed) = thread::scope(|scope| {
        let starters: Vec<_> = (0..2).map(|_| scope.spawn(|| start_and_end(&is_over))).collect();
        // Until one that nobody holds signals back from is given up: which thread gets a signal is the kernel's to say.
        let plain = (0..20).map(|_| refused(Gate::load)).find(|count| *count > 0).unwrap_or(0);
        let counts = (plain, refused(Gate::load_undisturbed));
        is_over.store(true, Ordering::Relaxed);
        starters.into_iter().for_each(|starter| starter.join().expect("children are started"));
        counts
    });
    println!(
        "of {LOADS} loads, {plain} were given up with signals let through, {undisturbed} with them held back"
    );
    assert_eq!(undisturbed, 0);
    assert!(plain > 0, "nothing disturbs a load here: the test shows nothing");
}
