//! The real program with doors whose sequence changes, on the test clock and with a wall time of the test's own.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use aya::maps::{Array, MapData};
use knock_common::{
    abi::{GrantKey, Proto, StepRule, mapped},
    door::door_id,
    event::Event,
    names,
    rotate::{Ports, RotatingStep, Rotation},
    spa::{abi::WallClock, key::SpaKey},
};
use knock_user::{loader::Options, state_file::packets::Start, wire::Wire};

use crate::{
    kernel::{Kernel, compile},
    packet::{SYN, TCP, UDP, V4, tcp, udp},
};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Length of a time step.
pub const PERIOD: u64 = 30 * SECOND;
/// Boot time at the start of each test.
pub const START: u64 = 1000 * SECOND;
/// The name of the door.
pub const DOOR: &str = "vpn";
/// Where its ports lie.
pub const PORTS: Ports = Ports { first: 20_000, last: 30_000 };
const SECRET: [u8; 32] = [0x42; 32];

/// The program, and the time step that a test begins in.
pub struct Book {
    /// The program and its maps.
    pub kernel: Kernel,
    /// The time step at [`START`].
    pub step: u64,
    wall: Array<MapData, Wire<WallClock>>,
    now_ns: u64,
}

/// Writes the secret of the door into a folder; returns a configuration with the door, and what is `more` in it.
pub fn config(folder: &Path, more: &str) -> String {
    config_every(folder, "30s", more)
}

/// The same with a length of its time steps.
pub fn config_every(folder: &Path, every: &str, more: &str) -> String {
    let secret = folder.join("vpn.secret");
    private(&secret, &SECRET.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    format!(
        "[xdp]\nmode = \"guard\"\n[[door]]\nname = \"{DOOR}\"\nopens = [\"tcp/22\"]\nopen_for = \"10s\"\n{more}\n\
         rotate = {{ secret_file = \"{}\", steps = 4, every = \"{every}\", ports = \"20000-30000\" }}\n",
        secret.display()
    )
}

/// Returns a configuration whose door has these lines for a list.
pub fn list_config(folder: &Path, lines: &str) -> String {
    let list = folder.join("vpn.list");
    private(&list, lines);
    format!(
        "[xdp]\nmode = \"guard\"\n[[door]]\nname = \"{DOOR}\"\nopens = [\"tcp/22\"]\nopen_for = \"10s\"\n\
         list = {{ file = \"{}\" }}\n",
        list.display()
    )
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("a writable folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

impl Book {
    /// Loads a configuration, with a state of its own or the one of a folder. Its first time step is this machine's when it is
    /// loaded, since the loader goes by that; the clock then goes as the test says.
    pub fn load(config: &str, state: Option<&Path>) -> Self {
        Self::load_as(config, state, Start::default())
    }

    /// The same where it is not known what was used before.
    pub fn load_without_memory(config: &str, state: Option<&Path>) -> Self {
        Self::load_as(config, state, Start { is_whole: false, ..Start::default() })
    }

    fn load_as(config: &str, state: Option<&Path>, start: Start) -> Self {
        let generation = compile(config);
        let options = Options { test_clock: true, state, start, ..Options::default() };
        let mut kernel = Kernel::load_with(&generation, &options);
        let wall = kernel.take(names::SPA_CLOCK);
        let unix_ns = knock_user::clock::unix_ns();
        let step = unix_ns / PERIOD;
        let mut book = Self { kernel, step, wall, now_ns: START };
        book.tell_wall(step * PERIOD - START);
        book.set_now(START);
        book
    }

    /// Has the kernel know the wall time: Unix time at boot.
    pub fn tell_wall(&mut self, offset_ns: u64) {
        let clock = WallClock { offset_ns, seen_ns: self.now_ns, since_ns: 0 };
        self.wall.set(0, Wire(clock), 0).expect("an array");
    }

    /// Sets the boot time.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.kernel.maps.set_now_ns(now_ns);
    }

    /// Does what the daemon does each second: tells the time, and lays in what is to come. The wall clock has gone so many time
    /// steps since the first.
    pub fn look_at_clock(&mut self, steps: i64) {
        let unix_ns = self.step.wrapping_add_signed(steps) * PERIOD;
        self.tell_wall(unix_ns - self.now_ns);
        self.kernel.lay_pages(unix_ns);
    }

    /// Goes to the beginning of a time step, counted from the first.
    pub fn go_to(&mut self, steps: u64) {
        self.set_now(START + steps * PERIOD);
    }

    /// Knocks at the steps of a sequence, in order.
    pub fn knock(&mut self, source: [u8; 4], steps: &[StepRule]) {
        for step in steps {
            self.kernel.run(&frame(source, step));
        }
    }

    /// Returns whether a source reaches the hidden service.
    pub fn is_open(&mut self, source: [u8; 4]) -> bool {
        self.kernel.run(&crate::kernel::syn(source, 22)) == knock_common::verdict::Action::Pass
    }

    /// Returns how a source's grant came about.
    pub fn via(&self, source: [u8; 4]) -> Option<u32> {
        let key = GrantKey { source: mapped(source), door: door_id(DOOR.as_bytes()) };
        self.kernel.maps.all_grants().get(&key).map(|grant| grant.via)
    }

    /// Takes the events out.
    pub fn events(&mut self) -> Vec<Event> {
        self.kernel.maps.take_events()
    }
}

/// Returns the sequence of a time step.
pub fn sequence(time_step: u64) -> Vec<StepRule> {
    let mut steps = [RotatingStep { proto: Proto::Tcp, port: 0 }; 4];
    assert!(rotation().fill(time_step, PORTS, &mut steps));
    steps.iter().map(|step| rule(step.proto, step.port)).collect()
}

fn rotation() -> Rotation {
    Rotation::new(&SpaKey::new(&SECRET), door_id(DOOR.as_bytes()))
}

/// Returns the step of a port.
pub fn rule(proto: Proto, port: u16) -> StepRule {
    StepRule { proto: proto.bit(), conditions: 0, port, size: 0, id: 0 }
}

/// Returns the knock that is a step of TCP or UDP.
pub fn frame(source: [u8; 4], step: &StepRule) -> Vec<u8> {
    if step.proto == Proto::Tcp.bit() {
        return V4 { source, ..V4::new(TCP) }.frame(&tcp(step.port, SYN));
    }
    V4 { source, ..V4::new(UDP) }.frame(&udp(step.port, 0))
}
