//! The real program with doors that single packets open: its maps filled by hand, packet by packet.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::Xdp,
};
use knock_common::{
    abi::{Address, Grant, GrantKey, Settings, mapped},
    door::door_id,
    names,
    spa::{
        abi::{KeyId, KeyRule, Right, RightKey, ServerRule, WallClock},
        key::SpaKey,
        packet::{Datagram, Request},
        verdict::Refusal,
    },
    verdict::Action,
};
use knock_user::{
    loader::{Gate, Options},
    wire::Wire,
};

use crate::{
    kernel::{compile, run},
    packet::{UDP, V4, udp},
};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Unix time at boot.
pub const BOOT: u64 = 1_767_323_000 * SECOND;
/// Boot time at the start of each test.
pub const START: u64 = 1000 * SECOND;
/// The port that the door listens on.
pub const PORT: u16 = 62_201;
/// Who sends.
pub const SENDER: [u8; 4] = [203, 0, 113, 9];

const CONFIG: &str = r#"
[xdp]
mode = "guard"
[[door]]
name = "ssh"
allow_weak = true
opens = ["tcp/22"]
knock = ["udp/62201", "tcp/7101"]
[[door]]
name = "web"
allow_weak = true
opens = ["tcp/443"]
knock = ["tcp/7200", "tcp/8301"]
"#;

/// The program, its maps and one secret.
pub struct Spa {
    gate: Gate,
    clock: Array<MapData, u64>,
    wall: Array<MapData, Wire<WallClock>>,
    floors: HashMap<MapData, KeyId, u64>,
    counts: PerCpuArray<MapData, u64>,
    grants: HashMap<MapData, Wire<GrantKey>, Wire<Grant>>,
    /// The secret, which may open `ssh` for at most a minute.
    pub key: SpaKey,
}

impl Spa {
    /// Loads the program with a secret that has these flags of [`KeyRule`].
    pub fn load(flags: u8) -> Self {
        let mut generation = compile(CONFIG);
        generation.settings.flags |= Settings::SPA;
        let options = Options { test_clock: true, ..Options::default() };
        let mut gate = Gate::load(&generation, &options).unwrap_or_else(|error| panic!("{error:?}"));
        let ebpf = &mut gate.ebpf;
        let key = SpaKey::new(&[0x42; 32]);
        let mut keys: HashMap<_, KeyId, Wire<KeyRule>> = take(ebpf, names::SPA_KEYS);
        keys.insert(key.id(), Wire(KeyRule { flags, ..key.rule() }), 0).expect("room");
        let mut rights: HashMap<_, Wire<RightKey>, Wire<Right>> = take(ebpf, names::SPA_RIGHTS);
        let right =
            Right { open_for_ns: 30 * SECOND, longest_ns: 60 * SECOND, port: PORT, door: 0, _pad: [0; 5] };
        rights.insert(Wire(RightKey { key: key.id(), door: door_id(b"ssh") }), Wire(right), 0).expect("room");
        let mut server: Array<_, Wire<ServerRule>> = take(ebpf, names::SPA_SERVER);
        let rule = ServerRule { identity: door_id(b"box"), window_ns: 30 * SECOND };
        server.set(0, Wire(rule), 0).expect("an array");
        let mut spa = Self {
            clock: take(ebpf, names::TEST_CLOCK),
            wall: take(ebpf, names::SPA_CLOCK),
            floors: take(ebpf, names::SPA_FLOORS),
            counts: take(ebpf, names::SPA_COUNTS),
            grants: take(ebpf, names::GRANTS),
            gate,
            key,
        };
        spa.floors.insert(spa.key.id(), 0, 0).expect("room");
        spa.set_now(START);
        spa.look_at_clock(START, BOOT);
        spa
    }

    /// Sets the boot time.
    pub fn set_now(&mut self, now_ns: u64) {
        self.clock.set(0, now_ns, 0).expect("an array");
    }

    /// Tells the kernel of the wall clock, as the daemon does.
    pub fn look_at_clock(&mut self, seen_ns: u64, offset_ns: u64) {
        self.wall.set(0, Wire(WallClock { offset_ns, seen_ns }), 0).expect("an array");
    }

    /// What asks for `ssh`, now, for its sender by name.
    pub fn request(&self) -> Request {
        Request {
            seconds: 0,
            door: door_id(b"ssh"),
            counter: BOOT + START,
            server: door_id(b"box"),
            source: Some(mapped(SENDER)),
        }
    }

    /// The packet of a request.
    pub fn seal(&self, request: &Request) -> Vec<u8> {
        Datagram::seal(request, &self.key).bytes().to_vec()
    }

    /// Sends bytes to the port from an address; panics unless they pass, as anything to a closed port does in guard mode.
    pub fn send_from(&mut self, source: [u8; 4], payload: &[u8]) {
        let frame = frame(source, payload);
        assert_eq!(run(self.program(), &frame), Action::Pass);
    }

    /// Sends bytes to the port.
    pub fn send(&mut self, payload: &[u8]) {
        self.send_from(SENDER, payload);
    }

    /// Returns when the grant of an address for `ssh` ends.
    pub fn grant_until(&self, source: Address) -> Option<u64> {
        let key = Wire(GrantKey { source, door: door_id(b"ssh") });
        self.grants.get(&key, 0).ok().map(|grant| grant.0.until_ns)
    }

    /// Returns how many grants there are.
    pub fn grants(&self) -> usize {
        self.grants.keys().count()
    }

    /// Returns how many packets were accepted.
    pub fn accepted(&self) -> u64 {
        self.sum(0)
    }

    /// Returns how many were refused for a reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.sum(u32::from(refusal.number()))
    }

    /// Returns the highest counter that was accepted.
    pub fn floor(&self) -> u64 {
        self.floors.get(&self.key.id(), 0).expect("a floor")
    }

    /// Sets it.
    pub fn set_floor(&mut self, floor: u64) {
        self.floors.insert(self.key.id(), floor, 0).expect("room");
    }

    /// Returns the program.
    pub fn program(&mut self) -> &Xdp {
        self.gate.program().expect("the program")
    }

    fn sum(&self, number: u32) -> u64 {
        self.counts.get(&number, 0).expect("a counter").iter().sum()
    }
}

/// Returns the frame of bytes to the port.
pub fn frame(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(payload.len()).expect("a datagram");
    let mut datagram = udp(PORT, size);
    datagram.truncate(8);
    datagram.extend(payload);
    V4 { source, ..V4::new(UDP) }.frame(&datagram)
}

fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
    M::try_from(map).unwrap_or_else(|_| panic!("map {name} is of another kind"))
}
