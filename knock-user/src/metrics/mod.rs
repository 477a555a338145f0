//! The gate's state as OpenMetrics text. No source address is ever a label: strangers choose those.

mod serve;

use jiff::Timestamp;
use knock_common::{
    abi::ABI_VERSION,
    counter::{self, Counter},
};
use prometheus_client::{
    encoding::text::encode as encode_text,
    metrics::{counter::Counter as CounterMetric, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

pub use self::serve::{CONTENT_TYPE, Page, serve};
use crate::{
    report::{InterfaceState, Status},
    state,
};

/// Names and values of a metric's labels.
type Labels = Vec<(&'static str, String)>;

/// What only the daemon knows, beside the state of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Whether the latest reload, or the start, brought in the configuration that was asked for.
    pub is_reload_good: bool,
    /// When a configuration was last brought in.
    pub reloaded: Timestamp,
    /// Hooks that were not run for want of room, since the start.
    pub hooks_skipped: u64,
}

/// Returns the state as OpenMetrics text, `# EOF` included.
#[must_use]
pub fn encode(status: &Status, process: &Process) -> String {
    let mut sheet = Sheet(Registry::with_prefix("knock"));
    sheet.count_packets(status);
    sheet.show_gate(status);
    sheet.show_tables(status);
    sheet.show_process(process);
    let mut text = String::new();
    encode_text(&mut text, &sheet.0).expect("a string takes any text");
    text
}

/// Where a counter of the kernel is shown.
enum Place {
    /// One of the verdicts, of which each packet gets exactly one.
    Verdict,
    /// What became of a knock that could be a step.
    Attempt(&'static str),
    /// What became of a completed sequence.
    Promotion(&'static str),
    /// What became of a conversation that was to be remembered.
    Flow(&'static str),
    /// What became of a packet to a port that looks closed.
    Answer(&'static str),
    /// A metric of its own.
    Own(&'static str),
}

fn place(counter: Counter) -> Place {
    match counter {
        Counter::NotIp
        | Counter::Unrelated
        | Counter::Allowed
        | Counter::Granted
        | Counter::Hidden
        | Counter::Knock
        | Counter::LaterFragment
        | Counter::LinkCut
        | Counter::VlanDepth
        | Counter::BadIp
        | Counter::MappedSource
        | Counter::BadExtension
        | Counter::FragmentOverlap
        | Counter::BadTransport
        | Counter::Public
        | Counter::Control
        | Counter::Session
        | Counter::Reply
        | Counter::Forwarded
        | Counter::Denied
        | Counter::StrayFragment => Place::Verdict,
        Counter::AttemptStarted => Place::Attempt("started"),
        Counter::AttemptAdvanced => Place::Attempt("advanced"),
        Counter::AttemptReset => Place::Attempt("reset"),
        Counter::AttemptTimedOut => Place::Attempt("timed_out"),
        Counter::AttemptDuplicate => Place::Attempt("duplicate"),
        Counter::AttemptOverBudget => Place::Attempt("over_budget"),
        Counter::AttemptNoSlot => Place::Attempt("no_slot"),
        Counter::AttemptContended => Place::Attempt("contended"),
        Counter::AttemptNotStored => Place::Attempt("not_stored"),
        Counter::KnockBanned => Place::Attempt("banned"),
        Counter::Promoted => Place::Promotion("granted"),
        Counter::GrantRefreshed => Place::Promotion("refreshed"),
        Counter::GrantTableFull => Place::Promotion("table_full"),
        Counter::SequenceSpent => Place::Promotion("spent"),
        Counter::GrantExpired => Place::Own("expired_grant_packets"),
        Counter::EventCapped => Place::Own("events_capped"),
        Counter::EventLost => Place::Own("events_lost"),
        Counter::RolledBack => Place::Own("rolled_back_packets"),
        Counter::SessionNoted => Place::Flow("session_noted"),
        Counter::SessionNotStored => Place::Flow("session_not_stored"),
        Counter::ReplyNoted => Place::Flow("reply_noted"),
        Counter::ReplyNotStored => Place::Flow("reply_not_stored"),
        Counter::Answered => Place::Answer("sent"),
        Counter::AnswerCapped => Place::Answer("capped"),
    }
}

/// The metrics of one scrape.
struct Sheet(Registry);

impl Sheet {
    fn count_packets(&mut self, status: &Status) {
        let [mut packets, mut attempts, mut promotions, mut flows, mut answers] = [const { Vec::new() }; 5];
        for (counter, name, meaning) in counter::ALL {
            let value = status.counters.get(name).copied().unwrap_or_default();
            match place(counter) {
                Place::Verdict => packets.push((vec![("verdict", name.to_owned())], value)),
                Place::Attempt(result) => attempts.push((vec![("result", result.to_owned())], value)),
                Place::Promotion(result) => promotions.push((vec![("result", result.to_owned())], value)),
                Place::Flow(result) => flows.push((vec![("result", result.to_owned())], value)),
                Place::Answer(result) => answers.push((vec![("result", result.to_owned())], value)),
                Place::Own(own) => self.counter(own, meaning, value),
            }
        }
        let spa = state::packet_counters().map(|(name, result)| {
            (vec![("result", result.to_owned())], status.counters.get(name).copied().unwrap_or_default())
        });
        self.counters("spa_packets", "single packets, by what became of them", spa);
        self.counters("packets", "packets by verdict", packets);
        self.counters("attempts", "knocks that could be a step, by what became of them", attempts);
        self.counters("promotions", "sequences completed, by what came of it", promotions);
        self.counters("flows", "conversations that were to be remembered, by what became of it", flows);
        self.counters("answers", "packets to ports that look closed, by what became of the answer", answers);
    }

    fn show_gate(&mut self, status: &Status) {
        let enforcing = i64::from(status.protected);
        self.gauge("enforcing", "1 if every interface to guard is guarded, in a mode that drops", enforcing);
        let attached = status.interfaces.iter().map(|interface| {
            let is_attached = interface.state == InterfaceState::Attached;
            let mode = interface.attach.clone().unwrap_or_else(|| "none".to_owned());
            (vec![("iface", interface.name.clone()), ("mode", mode)], i64::from(is_attached))
        });
        self.gauges("attached", "1 if the gate judges the packets of the interface", attached);
        let uncovered = amount(status.uncovered.len());
        self.gauge("uncovered_interfaces", "interfaces with addresses that carry no gate", uncovered);
        let generation = status.generation.as_ref().map_or(0, |generation| generation.number);
        self.gauge("generation", "number of the configuration in force", generation.into());
        let pending = i64::from(status.confirm.is_some());
        self.gauge("confirm_pending", "1 if the gate goes back unless it is confirmed", pending);
        let grants = status.doors.iter().map(|door| (vec![("door", door.name.clone())], amount(door.grants)));
        self.gauges("grants", "sources that may pass the door now", grants);
    }

    fn show_tables(&mut self, status: &Status) {
        let labels = |name: &str| vec![("map", name.to_owned())];
        let entries = status.tables.iter().map(|table| (labels(table.name), amount(table.entries)));
        self.gauges("map_entries", "entries of the table", entries);
        let capacities = status.tables.iter().map(|table| (labels(table.name), amount(table.capacity)));
        self.gauges("map_capacity", "entries that the table can hold", capacities);
    }

    fn show_process(&mut self, process: &Process) {
        let is_good = i64::from(process.is_reload_good);
        self.gauge("config_reload_success", "1 if the latest reload was taken", is_good);
        let reloaded: Gauge = Gauge::default();
        reloaded.set(process.reloaded.as_second());
        let meaning = "when a configuration was last brought in, in Unix time";
        self.0.register_with_unit("config_reload_timestamp", meaning, Unit::Seconds, reloaded);
        self.counter("hooks_skipped", "hooks that were not run for want of room", process.hooks_skipped);
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("abi", ABI_VERSION.to_string())];
        self.0.register("build", "the program that serves this", Info::new(build));
    }

    fn counter(&mut self, name: &str, meaning: &str, value: u64) {
        let counter: CounterMetric = CounterMetric::default();
        counter.inc_by(value);
        self.0.register(name, meaning, counter);
    }

    fn gauge(&mut self, name: &str, meaning: &str, value: i64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        self.0.register(name, meaning, gauge);
    }

    fn counters(&mut self, name: &str, meaning: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family: Family<Labels, CounterMetric> = Family::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, meaning, family);
    }

    fn gauges(&mut self, name: &str, meaning: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
        let family: Family<Labels, Gauge> = Family::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, meaning, family);
    }
}

fn amount(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
