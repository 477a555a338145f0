//! A host behind a gate that denies, told by both ways: whether it is answered when it asks, and whether it is reached by
//! strangers.

use std::{net::SocketAddr, time::Duration};

use crate::{
    hosts::{friend, server, stranger},
    instance::Instance,
    netns::Network,
    outgoing::{Outgoing, outgoing},
    program::Finished,
    questions::Answerer,
    reach::{OPEN, Reach},
    scene::{denying, guarded},
};

/// Neither public nor behind a door.
pub const UNNAMED: u16 = 7007;
/// Public in [`deny_less`] alone.
pub const PUBLIC: u16 = 7100;
/// Time enough for an answer, where one comes, on a machine that does not do everything else first.
pub const AT_ONCE: Duration = Duration::from_millis(500);
/// Time enough on any machine.
pub const IN_TIME: Duration = Duration::from_secs(10);

/// In deny mode, with one public port.
pub fn deny() -> String {
    denying(&format!("public = [\"udp/{OPEN}\"]"), &["tcp/22"])
}

/// As [`deny`], and more that is public.
pub fn deny_less() -> String {
    denying(&format!("public = [\"udp/{OPEN}\", \"udp/{PUBLIC}\"]"), &["tcp/22"])
}

/// Needs no notes: nothing outlives its grant.
pub fn guard() -> String {
    guarded("", "sessions = \"cut\"")
}

/// Needs notes, of what services behind the host accept.
pub fn guard_that_keeps() -> String {
    guarded("", "sessions = \"keep\"")
}

/// A host, who can ask and be asked.
#[derive(Debug)]
pub struct Site<'a> {
    /// The host and those around it.
    pub network: &'a Network,
    /// Whom it asks.
    pub answerer: Answerer,
    /// Who reaches which of its services.
    pub reach: Reach<'a>,
}

impl<'a> Site<'a> {
    /// Sets both up, and shows that all come where there is no gate.
    pub fn new(network: &'a Network) -> Self {
        let answerer = Answerer::start(&network.client, SocketAddr::new(friend(), 5300));
        let site = Self { network, answerer, reach: Reach::new(network, server(), &[UNNAMED, PUBLIC]) };
        site.assert_open("without a gate");
        site
    }

    /// Names a gate of the host.
    pub fn gate(&self, config: &str) -> Instance<'a> {
        Instance::new(&self.network.server, &["srv0"], config)
    }

    /// Returns whether an answer to the host comes within a time.
    pub fn is_answered(&self, patience: Duration) -> bool {
        self.answerer.answers(&self.network.server, server(), patience)
    }

    /// Returns whether a stranger reaches what is not public.
    pub fn is_let_in(&self) -> bool {
        self.reach.is_open(stranger(), UNNAMED)
    }

    /// Panics unless answers come and strangers do not.
    pub fn assert_denies(&self, when: &str) {
        assert!(self.is_answered(IN_TIME), "{when}: no answer comes");
        assert!(!self.is_let_in(), "{when}: a stranger is let in");
    }

    /// Panics unless all come.
    pub fn assert_open(&self, when: &str) {
        assert!(self.is_answered(IN_TIME), "{when}: no answer comes");
        assert!(self.is_let_in(), "{when}: a stranger is not let in");
    }
}

/// Panics unless a program went well.
pub fn succeed(finished: Finished) {
    let _ = finished.succeeded();
}

/// Returns the program for outgoing packets on `srv0`; panics unless there is one, and it alone.
pub fn attached(gate: &Instance<'_>) -> Outgoing {
    outgoing(gate, "srv0").expect("a program for outgoing packets")
}

/// Panics if there is a program for outgoing packets on `srv0`.
pub fn assert_none(gate: &Instance<'_>, when: &str) {
    assert_eq!(outgoing(gate, "srv0"), None, "{when}");
}
