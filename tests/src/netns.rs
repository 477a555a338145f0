//! Network namespaces and the veth links between them. All are gone when dropped, also by a panic.
//!
//! Link `N` joins `srvN` in the server's namespace and `cliN` in the client's, with the addresses `10.77.N.0/24` and
//! `fd77:N::/64`: host 1 is the server, every other host is the client.

use std::{
    fs::File,
    net::IpAddr,
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::{program, vlan::Trunk};

/// A name that no other test, and no other run of the tests, uses at the same time.
pub fn unique(role: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("kt-{}-{}-{role}", id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace in which only `lo` is up.
    pub fn new(role: &str) -> Self {
        let name = unique(role);
        let made = program::run(Command::new("ip").args(["netns", "add", &name]));
        assert!(made.is_success(), "this tier needs root and network namespaces: {made}");
        let namespace = Self { name };
        namespace.run("ip link set lo up");
        // Replies may leave by another link than the one the question came by.
        namespace.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
        // A router whose link-local address is not there yet forwards nothing to a neighbour it does not know.
        namespace.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        namespace
    }

    /// The file that holds the namespace.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Does something inside, on a thread of its own. Sockets made there stay inside.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        let entered = move || {
            enter(&path);
            act()
        };
        thread::scope(|scope| scope.spawn(entered).join()).expect("what is done inside goes well")
    }

    /// A program to be run inside. `ip netns exec` would hide the bpffs behind a fresh /sys; nsenter does not.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// A program to be run inside for a minute at most.
    pub fn bounded(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command("timeout");
        command.args(["--kill-after=1", "60"]).arg(program);
        command
    }

    /// Runs a command line inside, split at blanks; panics unless it succeeds. Returns its output.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        program::run(self.command(program).args(words)).succeeded()
    }
}

/// Takes the calling thread, and no other, into a namespace, by its file.
pub fn enter(path: &str) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("cannot enter {path}: {error}"));
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let gone = program::run(Command::new("ip").args(["netns", "delete", &self.name]));
        if !gone.is_success() {
            eprintln!("{gone}");
        }
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The address of a host on a link.
pub fn address(family: Family, link: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 77, link, host]),
        Family::V6 => IpAddr::from([0xfd77, u16::from(link), 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

/// A server and a client, each in a namespace of its own.
#[derive(Debug)]
pub struct Network {
    /// Ends the VLANs before the namespaces go.
    trunks: Vec<Trunk>,
    /// Where the gate and the hidden services are.
    pub server: Namespace,
    /// Where the knocks come from.
    pub client: Namespace,
}

impl Network {
    /// Makes both, joined by link 0, over which the client is host 2.
    pub fn new() -> Self {
        let network = Self::without_links();
        network.add_link(0, 1500);
        network
    }

    /// Makes both, not joined.
    pub fn without_links() -> Self {
        Self { trunks: Vec::new(), server: Namespace::new("server"), client: Namespace::new("client") }
    }

    /// Joins both by a link.
    pub fn add_link(&self, link: u8, mtu: u32) {
        let (server, client) = (format!("srv{link}"), format!("cli{link}"));
        self.add_pair(&server, &client, mtu);
        self.address(&server, &client, link);
    }

    /// Joins both by a link that carries nothing but VLAN 5. The gate belongs on `srvN`; the addresses are on
    /// `srvN.5` and `cliN.5`.
    pub fn add_vlan_link(&mut self, link: u8) {
        let (server, client) = (format!("srv{link}"), format!("cli{link}"));
        self.add_pair(&server, &client, 1504);
        self.trunks.push(Trunk::new(&self.server, &server, 5));
        self.trunks.push(Trunk::new(&self.client, &client, 5));
        self.address(&format!("{server}.5"), &format!("{client}.5"), link);
    }

    /// Lets what the client sends over a link, named by its own device, come from one of its hosts.
    pub fn be_host(&self, device: &str, link: u8, host: u8) {
        self.add_host(device, link, host);
        let (v4, v6) = (address(Family::V4, link, host), address(Family::V6, link, host));
        self.client.run(&format!("ip route replace 10.77.{link}.0/24 dev {device} src {v4}"));
        self.client.run(&format!("ip -6 route replace fd77:{link:x}::/64 dev {device} metric 256 src {v6}"));
    }

    /// Gives the client another host's addresses on a link, used only by what asks for them.
    pub fn add_host(&self, device: &str, link: u8, host: u8) {
        add_addresses(&self.client, device, link, host);
    }

    fn add_pair(&self, server: &str, client: &str, mtu: u32) {
        join((&self.server, server), (&self.client, client), mtu);
    }

    fn address(&self, server: &str, client: &str, link: u8) {
        add_addresses(&self.server, server, link, 1);
        self.be_host(client, link, 2);
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// Joins two namespaces by a pair of veth devices, and brings both up.
pub fn join((left, left_device): (&Namespace, &str), (right, right_device): (&Namespace, &str), mtu: u32) {
    let (there, here) = (&left.name, &right.name);
    let pair = format!(
        "link add {left_device} netns {there} mtu {mtu} type veth peer name {right_device} netns {here} mtu {mtu}"
    );
    let _ = program::run(Command::new("ip").args(pair.split_whitespace())).succeeded();
    up(left, left_device);
    up(right, right_device);
}

/// Brings a veth device up that puts on the wire what a network card would: whole checksums and no super-packets.
pub(crate) fn up(namespace: &Namespace, device: &str) {
    namespace.run(&format!("ethtool -K {device} tx off tso off gso off gro off txvlan off rxvlan off"));
    namespace.run(&format!("ip link set {device} up"));
}

/// Gives a device the addresses of a host on a link.
pub fn add_addresses(namespace: &Namespace, device: &str, link: u8, host: u8) {
    let (v4, v6) = (address(Family::V4, link, host), address(Family::V6, link, host));
    namespace.run(&format!("ip address replace {v4}/24 dev {device}"));
    namespace.run(&format!("ip address replace {v6}/64 dev {device} nodad"));
}

/// Puts a host behind the client of link 0 by a link of its own, on which it is host 2, and hides it behind that client's IPv4
/// address.
pub fn masquerade(router: &Namespace, inside: &Namespace, link: u8) {
    join((router, "lan0"), (inside, "in0"), 1500);
    add_addresses(router, "lan0", link, 1);
    add_addresses(inside, "in0", link, 2);
    router.run("sysctl -qw net.ipv4.ip_forward=1");
    inside.run(&format!("ip route add default via {}", address(Family::V4, link, 1)));
    router.run("nft add table inet nat");
    router.run("nft add chain inet nat post { type nat hook postrouting priority srcnat ; }");
    router.run("nft add rule inet nat post oifname cli0 masquerade");
}
