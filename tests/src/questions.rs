//! A host that asks, as of a name server: each question by UDP from a port of its own, and each answer a while later. Also
//! whether a single one is answered.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    netns::Namespace,
    storm::{Pace, Thread},
};

/// How long the answerer thinks.
const THINKS: Duration = Duration::from_millis(20);
/// A question that has no answer after so long has none.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Most questions asked at once.
const BURST: u64 = 16;

/// Somebody who answers every question by its own words.
#[derive(Debug)]
pub struct Answerer {
    address: SocketAddr,
    thread: Thread,
}

impl Answerer {
    /// Answers at an address of a namespace.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.within(|| UdpSocket::bind(address)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time limit");
        let thread = Thread::start(None, move |is_over| {
            let (mut words, mut waiting) = ([0; 64], VecDeque::new());
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut words) {
                    waiting.push_back((Instant::now() + THINKS, words[..length].to_vec(), from));
                }
                while waiting.front().is_some_and(|(due, _, _)| *due <= Instant::now()) {
                    let Some((_, words, from)) = waiting.pop_front() else { break };
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&words, from);
                }
            }
        });
        Self { address, thread }
    }

    /// Returns whether a question from a host is answered within a time.
    pub fn answers(&self, from: &Namespace, source: IpAddr, patience: Duration) -> bool {
        let question = Question::ask(from, source, self.address);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if question.is_answered() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Stops answering.
    pub fn stop(self) {
        self.thread.end();
    }
}

/// One question under way.
#[derive(Debug)]
struct Question {
    asked: Instant,
    socket: UdpSocket,
}

impl Question {
    fn ask(from: &Namespace, source: IpAddr, to: SocketAddr) -> Self {
        let socket = from.within(|| UdpSocket::bind((source, 0))).expect("an address of the host");
        Self::by(socket, to)
    }

    fn by(socket: UdpSocket, to: SocketAddr) -> Self {
        socket.set_nonblocking(true).expect("a socket of our own");
        socket.send_to(b"question", to).expect("a way");
        Self { asked: Instant::now(), socket }
    }

    fn is_answered(&self) -> bool {
        let mut words = [0; 64];
        self.socket.recv(&mut words).is_ok_and(|length| &words[..length] == b"question")
    }
}

/// Questions of a host at a rate.
#[derive(Debug)]
pub struct Questions {
    asked: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    thread: Thread,
}

impl Questions {
    /// Begins to ask from an address of a host, so many a second.
    pub fn start(host: &Namespace, source: IpAddr, answerer: &Answerer, per_s: u64) -> Self {
        let (asked, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, missed, to) = (Arc::clone(&asked), Arc::clone(&lost), answerer.address);
        let thread = Thread::start(Some(host), move |is_over| {
            let (mut pace, mut waiting) = (Pace::new(per_s), Vec::new());
            while !is_over.load(Ordering::Relaxed) || !waiting.is_empty() {
                let due = if is_over.load(Ordering::Relaxed) { 0 } else { pace.due(BURST) };
                for _ in 0..due {
                    let socket = UdpSocket::bind((source, 0)).expect("an address of the host");
                    waiting.push(Question::by(socket, to));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                waiting.retain(|question| {
                    let is_late = question.asked.elapsed() > LOST_AFTER;
                    let is_answered = question.is_answered();
                    missed.fetch_add(u64::from(is_late && !is_answered), Ordering::Relaxed);
                    !is_answered && !is_late
                });
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { asked, lost, thread }
    }

    /// Asks no more; returns how many were asked and how many of them were not answered.
    pub fn stop(self) -> (u64, u64) {
        self.thread.end();
        (self.asked.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}
