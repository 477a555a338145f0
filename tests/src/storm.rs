//! Traffic at a rate, and real sockets that count what they receive: probes of strangers, which must not arrive, and a
//! client's numbered datagrams, which must.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::{Namespace, enter};

/// What a stranger's probe says.
const PROBE: &[u8; 5] = b"probe";
/// First byte of a client's datagram; its number follows.
const NUMBERED: u8 = b'#';
/// Longest wait of a thread that is to end soon.
const BEAT: Duration = Duration::from_millis(20);
/// A client's datagrams under way at once at most: far fewer than a veth device has room for.
const UNDER_WAY: u64 = 32;
/// A datagram that has not come after so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Most probes sent at once, so that a sender that fell behind does not fill the device.
const BURST: u64 = 128;

/// A real UDP service that counts.
#[derive(Debug)]
pub struct Service {
    seen: Arc<Seen>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Seen {
    probes: AtomicU64,
    numbered: AtomicU64,
}

impl Service {
    /// Listens on a port of a namespace.
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let socket = namespace.within(|| UdpSocket::bind(("0.0.0.0", port))).expect("a free port");
        setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &(8 << 20)).expect("root may have large buffers");
        socket.set_read_timeout(Some(BEAT)).expect("a time limit");
        let seen = Arc::new(Seen::default());
        let kept = Arc::clone(&seen);
        let thread = Thread::start(None, move |is_over| {
            let mut buffer = [0; 64];
            while !is_over.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                match &buffer[..length] {
                    [NUMBERED, ..] => kept.numbered.fetch_add(1, Ordering::Relaxed),
                    _ => kept.probes.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        Self { seen, thread }
    }

    /// Returns how many probes of strangers have come.
    pub fn probes(&self) -> u64 {
        self.seen.probes.load(Ordering::Relaxed)
    }

    /// Returns how many numbered datagrams have come.
    pub fn numbered(&self) -> u64 {
        self.seen.numbered.load(Ordering::Relaxed)
    }

    /// Stops listening.
    pub fn stop(self) {
        self.thread.end();
    }
}

/// A stranger who probes a port without an end.
#[derive(Debug)]
pub struct Storm {
    sent: Arc<AtomicU64>,
    started: Instant,
    thread: Thread,
}

impl Storm {
    /// Begins to send probes from an address, so many a second.
    pub fn start(namespace: &Namespace, source: SocketAddr, to: SocketAddr, per_s: u64) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let started = Instant::now();
        let thread = Thread::start(Some(namespace), move |is_over| {
            let socket = UdpSocket::bind(source).expect("an address of the namespace");
            let mut pace = Pace::new(per_s);
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..pace.due(BURST) {
                    // No way to the server for a moment, as while an interface is made anew: not sent.
                    count.fetch_add(u64::from(socket.send_to(PROBE, to).is_ok()), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { sent, started, thread }
    }

    /// Returns how many were sent, and in how long.
    pub fn sent(&self) -> (u64, Duration) {
        (self.sent.load(Ordering::Relaxed), self.started.elapsed())
    }

    /// Ends it; returns as [`Self::sent`].
    pub fn stop(self) -> (u64, Duration) {
        let sent = self.sent();
        self.thread.end();
        sent
    }
}

/// A client who sends numbered datagrams to a service, and waits for none.
#[derive(Debug)]
pub struct Steady {
    sent: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    thread: Thread,
    seen: Arc<Seen>,
    before: u64,
}

impl Steady {
    /// Begins to send from an address, so many a second, while all but a few have come.
    pub fn start(
        namespace: &Namespace,
        source: SocketAddr,
        to: SocketAddr,
        per_s: u64,
        service: &Service,
    ) -> Self {
        let (sent, late) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let before = service.numbered();
        let (count, missed, seen) = (Arc::clone(&sent), Arc::clone(&late), Arc::clone(&service.seen));
        let thread = Thread::start(Some(namespace), move |is_over| {
            let socket = UdpSocket::bind(source).expect("an address of the namespace");
            let mut pace = Pace::new(per_s);
            let (mut number, mut given_up, mut times) = (0_u64, 0_u64, VecDeque::new());
            while !is_over.load(Ordering::Relaxed) {
                let come = seen.numbered.load(Ordering::Relaxed) - before;
                let under_way = number.saturating_sub(come + given_up);
                while times.len() as u64 > under_way {
                    times.pop_front();
                }
                if times.front().is_some_and(|time: &Instant| time.elapsed() > LOST_AFTER) {
                    given_up += under_way;
                    missed.store(given_up, Ordering::Relaxed);
                    times.clear();
                    continue;
                }
                for _ in 0..pace.due(UNDER_WAY.saturating_sub(under_way)) {
                    let mut datagram = [NUMBERED; 9];
                    datagram[1..].copy_from_slice(&number.to_be_bytes());
                    if socket.send_to(&datagram, to).is_ok() {
                        number += 1;
                        times.push_back(Instant::now());
                    }
                }
                count.store(number, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { sent, late, thread, seen: Arc::clone(&service.seen), before }
    }

    /// Returns how many were sent, and how many of them are taken for lost so far.
    pub fn so_far(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed))
    }

    /// Ends it; returns how many were sent and how many never came.
    pub fn stop(self) -> (u64, u64) {
        self.thread.end();
        let sent = self.sent.load(Ordering::Relaxed);
        let deadline = Instant::now() + LOST_AFTER;
        let lost = || sent - (self.seen.numbered.load(Ordering::Relaxed) - self.before).min(sent);
        while lost() > 0 && Instant::now() < deadline {
            thread::sleep(BEAT);
        }
        (sent, lost())
    }
}

/// How many are due by now, to keep a rate.
#[derive(Debug)]
pub(crate) struct Pace {
    per_s: u64,
    since: Instant,
    given: u64,
}

impl Pace {
    pub(crate) fn new(per_s: u64) -> Self {
        Self { per_s, since: Instant::now(), given: 0 }
    }

    /// Returns how many to send now; what is beyond `most` is let go.
    pub(crate) fn due(&mut self, most: u64) -> u64 {
        let ought = u64::try_from(self.since.elapsed().as_micros()).expect("years") * self.per_s / 1_000_000;
        let due = (ought - self.given).min(most);
        self.given = ought;
        due
    }
}

/// A thread that ends when told to, or dropped.
#[derive(Debug)]
pub(crate) struct Thread {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    pub(crate) fn start(inside: Option<&Namespace>, act: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, path) = (Arc::clone(&is_over), inside.map(Namespace::path));
        let thread = thread::spawn(move || {
            path.iter().for_each(|path| enter(path));
            act(&over);
        });
        Self { is_over, thread: Some(thread) }
    }

    pub(crate) fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "a thread of the test panicked");
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
