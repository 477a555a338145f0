//! One source that knocks: its record, and packets that no two of are alike unless sent again on purpose.

use bytemuck::Zeroable as _;
use knock_common::{
    abi::{Address, Attempts, Proto, StepRule, mapped},
    claim,
    decide::{Tables as _, Visit},
    machine::{self, Change, Knock, Occasion},
};

use crate::gate::Gate;

/// Who knocks.
pub const SOURCE: Address = mapped([203, 0, 113, 9]);
/// Where.
pub const HOST: Address = mapped([198, 51, 100, 1]);

/// A source's attempts, judged by the pure machine as the kernel program would.
#[derive(Clone)]
pub struct Source {
    /// The record.
    pub attempts: Attempts,
}

impl Source {
    /// Returns a source without attempts.
    pub fn new() -> Self {
        let mut attempts = Attempts::zeroed();
        attempts.reset_to(&[0; 16], claim::fresh(1), 1, 1);
        Self { attempts }
    }

    /// Sends a knock at a time; returns what it did.
    pub fn send(&mut self, gate: &Gate, knock: &Knock, now_ns: u64) -> Change {
        let role = gate.role(knock.proto, knock.port);
        let visit = Visit { knock: Some(*knock), role, source: SOURCE, destination: HOST, ..Visit::NONE };
        self.send_visit(gate, &visit, now_ns)
    }

    /// Sends a knock from and to any address.
    pub fn send_visit(&mut self, gate: &Gate, visit: &Visit, now_ns: u64) -> Change {
        let knock = visit.knock.expect("a visit with a knock");
        let mut occasion = Occasion { now_ns, starts: 0, destination: visit.destination, knock };
        occasion.note(visit, gate);
        let mut change = Change::NONE;
        machine::advance(&mut self.attempts, &mut occasion, gate, &mut change);
        change
    }
}

/// Returns a packet that is this step, unlike any other with another `number`.
pub fn packet(step: &StepRule, number: u16) -> Knock {
    let (proto, tag) = match step.proto {
        1 => (Proto::Tcp, 0x1000_0000 + u32::from(number)),
        2 => (Proto::Udp, 0),
        _ => (Proto::Icmp, u32::from(number)),
    };
    let is_id = step.conditions & StepRule::ID != 0;
    let source_port = if is_id { step.id } else { 20_000 + number };
    Knock { proto, port: step.port, source_port, tag, size: step.size }
}
