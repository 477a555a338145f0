//! What is counted. Numbers are never reused: metrics and tools key on them.

/// One counter; the first 32 are verdicts, of which each packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// Verdict: not IP.
    NotIp = 0,
    /// Verdict: concerns no door.
    Unrelated = 1,
    /// Verdict: from an `allow` prefix.
    Allowed = 2,
    /// Verdict: to a hidden service, with a grant.
    Granted = 3,
    /// Verdict: to a hidden service, without a grant.
    Hidden = 4,
    /// Verdict: a knock at a port that is not hidden.
    Knock = 5,
    /// Verdict: a fragment that is not the first.
    LaterFragment = 6,
    /// Verdict: shorter than its Ethernet or VLAN headers say.
    LinkCut = 7,
    /// Verdict: more than two VLAN tags.
    VlanDepth = 8,
    /// Verdict: IPv4 or IPv6 header cut short, or its version, header length, total length or checksum wrong.
    BadIp = 9,
    /// Verdict: IPv6 with a v4-mapped source.
    MappedSource = 10,
    /// Verdict: IPv6 extension headers too many, cut short or out of place.
    BadExtension = 11,
    /// Verdict: a fragment that would overwrite part of an L4 header.
    FragmentOverlap = 12,
    /// Verdict: L4 header cut short, or its lengths wrong.
    BadTransport = 13,
    /// Verdict: to a public service, in deny mode.
    Public = 14,
    /// Verdict: neighbour discovery or group membership: what an interface lives by, in deny mode.
    Control = 15,
    /// Verdict: to a hidden service, without a grant, in a live session.
    Session = 16,
    /// Verdict: answers the host's own traffic, in deny mode.
    Reply = 17,
    /// Verdict: not addressed to the host, in deny mode.
    Forwarded = 18,
    /// Verdict: to nothing that is open, in deny mode.
    Denied = 19,
    /// Verdict: a later fragment whose first one did not pass, in deny mode.
    StrayFragment = 20,
    /// An attempt began.
    AttemptStarted = 32,
    /// A later step was accepted.
    AttemptAdvanced = 33,
    /// A wrong knock ended an attempt.
    AttemptReset = 34,
    /// A knock came after the step or total timeout.
    AttemptTimedOut = 35,
    /// A duplicate of an accepted knock was ignored.
    AttemptDuplicate = 36,
    /// A first step was refused: the door's budget of new attempts is spent.
    AttemptOverBudget = 37,
    /// A first step was refused: the source has all its slots in use.
    AttemptNoSlot = 38,
    /// Two CPUs had knocks of one source at once; its attempts are void.
    AttemptContended = 39,
    /// The kernel refused an entry in an attempt map.
    AttemptNotStored = 40,
    /// A sequence was completed and its grant given.
    Promoted = 41,
    /// A sequence was completed by a source that held the grant already.
    GrantRefreshed = 42,
    /// A promotion was refused: no room for the grant.
    GrantTableFull = 43,
    /// A packet to a hidden service came with a grant that has expired.
    GrantExpired = 44,
    /// An event was left out by the cap on what strangers can cause.
    EventCapped = 45,
    /// An event was lost: the ring buffer had no room.
    EventLost = 46,
    /// A banned source knocked: the knock was not judged.
    KnockBanned = 47,
    /// A packet was left to the previous program: the generation was not confirmed in time.
    RolledBack = 48,
    /// A conversation with a hidden service began to be remembered.
    SessionNoted = 49,
    /// One was not remembered: its source has all its slots in use, or the kernel refused an entry.
    SessionNotStored = 50,
    /// A conversation of the host's own began to be remembered.
    ReplyNoted = 51,
    /// One was not remembered: the kernel refused an entry.
    ReplyNotStored = 52,
    /// A packet to a closed-looking port was answered.
    Answered = 53,
    /// One was not: its source, or all sources together, had their share of answers.
    AnswerCapped = 54,
    /// A sequence was completed that had been used before: nothing opened.
    SequenceSpent = 55,
}

/// Entries of the counter map.
pub const COUNTERS: usize = 64;

/// Number, name and meaning of a counter.
pub type Entry = (Counter, &'static str, &'static str);

/// All counters in order.
pub const ALL: [Entry; 45] = [
    (Counter::NotIp, "not_ip", "not IP: passed"),
    (Counter::Unrelated, "unrelated", "concerns no door: passed"),
    (Counter::Allowed, "allowed", "from an allow prefix: passed"),
    (Counter::Granted, "granted", "to a hidden service, with a grant: passed"),
    (Counter::Hidden, "hidden", "to a hidden service, without a grant: dropped"),
    (Counter::Knock, "knock", "a knock at a port that is not hidden: passed, in deny mode dropped"),
    (Counter::LaterFragment, "later_fragment", "fragment that is not the first: passed"),
    (Counter::LinkCut, "link_cut", "cut short in Ethernet or VLAN: dropped"),
    (Counter::VlanDepth, "vlan_depth", "more than two VLAN tags: dropped"),
    (Counter::BadIp, "bad_ip", "malformed IP header: dropped"),
    (Counter::MappedSource, "mapped_source", "IPv6 with a v4-mapped source: dropped"),
    (Counter::BadExtension, "bad_extension", "malformed IPv6 extension headers: dropped"),
    (Counter::FragmentOverlap, "fragment_overlap", "fragment over an L4 header: dropped"),
    (Counter::BadTransport, "bad_transport", "malformed TCP, UDP or ICMP header: dropped"),
    (Counter::Public, "public", "to a public service, in deny mode: passed"),
    (Counter::Control, "control", "neighbour discovery and groups, in deny mode: passed"),
    (Counter::Session, "session", "to a hidden service, in a live session: passed"),
    (Counter::Reply, "reply", "answers the host's own traffic, in deny mode: passed"),
    (Counter::Forwarded, "forwarded", "not addressed to the host, in deny mode: passed"),
    (Counter::Denied, "denied", "to nothing that is open, in deny mode: dropped"),
    (Counter::StrayFragment, "stray_fragment", "fragment whose first did not pass, in deny mode: dropped"),
    (Counter::AttemptStarted, "attempt_started", "first steps accepted"),
    (Counter::AttemptAdvanced, "attempt_advanced", "later steps accepted"),
    (Counter::AttemptReset, "attempt_reset", "attempts ended by a wrong knock"),
    (Counter::AttemptTimedOut, "attempt_timed_out", "attempts found timed out"),
    (Counter::AttemptDuplicate, "attempt_duplicate", "duplicates of accepted knocks ignored"),
    (Counter::AttemptOverBudget, "attempt_over_budget", "first steps refused by a door's budget"),
    (Counter::AttemptNoSlot, "attempt_no_slot", "first steps refused: the source's slots are all in use"),
    (Counter::AttemptContended, "attempt_contended", "knocks of one source at once on two CPUs"),
    (Counter::AttemptNotStored, "attempt_not_stored", "attempts the kernel had no entry for"),
    (Counter::Promoted, "promoted", "sequences completed"),
    (Counter::GrantRefreshed, "grant_refreshed", "sequences completed while granted"),
    (Counter::GrantTableFull, "grant_table_full", "promotions refused: no room"),
    (Counter::GrantExpired, "grant_expired", "packets that came with an expired grant"),
    (Counter::EventCapped, "event_capped", "events left out by the cap"),
    (Counter::EventLost, "event_lost", "events lost: ring buffer full"),
    (Counter::KnockBanned, "knock_banned", "knocks of banned sources, not judged"),
    (Counter::RolledBack, "rolled_back", "packets judged by the previous program: not confirmed in time"),
    (Counter::SessionNoted, "session_noted", "sessions that began to be remembered"),
    (Counter::SessionNotStored, "session_not_stored", "sessions there was no room for"),
    (Counter::ReplyNoted, "reply_noted", "conversations of the host that began to be remembered"),
    (Counter::ReplyNotStored, "reply_not_stored", "conversations of the host the kernel had no entry for"),
    (Counter::Answered, "answered", "packets answered as a closed port does"),
    (Counter::AnswerCapped, "answer_capped", "packets not answered: too many of them"),
    (Counter::SequenceSpent, "sequence_spent", "sequences completed that had been used before: refused"),
];
