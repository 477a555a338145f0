//! A box on the internet: the server behind the gate, the router it hangs on, and a far host with the services that every
//! box needs.
//!
//! The box is the `server` of a [`Network`] and the router its `client`, so the gate belongs on `srv0`. The far host is
//! host 1 of link 9.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    netns::{Family, Namespace, Network, add_addresses, address, join},
    program::{describe, poll},
};

/// Bytes of `/big` on the far host's web server.
pub const BIG: usize = 3_000_000;
/// The packet size of the narrow way, in bytes: what IPv6 needs, and some.
pub const NARROW: u32 = 1300;
/// A name that the far host's name server knows, and one with more to say than fits a frame.
pub const NAMES: [&str; 2] = ["small.test", "big.test"];
/// The address of the first.
pub const NAMED: &str = "192.0.2.77";

const FAR: u8 = 9;
const LAN: u8 = 5;
/// Strings of the long answer, of 250 bytes each.
const LONG_ANSWER: usize = 12;
/// From 1900, where NTP begins, to 1970 (RFC 5905, section 6).
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// The box, its router and the far host.
#[derive(Debug)]
pub struct Internet {
    /// Ends the services before the namespaces go.
    services: Vec<Service>,
    clock: Option<Clock>,
    folder: TempDir,
    /// The box and its router.
    pub network: Network,
    /// The far host.
    pub far: Namespace,
}

impl Internet {
    /// Sets it up, with full-sized packets all the way.
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    /// Sets it up with a way that is too narrow for a full-sized packet between the router and the far host, who
    /// does not say so when a connection begins.
    pub fn narrow() -> Self {
        let internet = Self::with_mtu(NARROW);
        for (family, gateway) in
            [("-4", internet.router_of_far(Family::V4)), ("-6", internet.router_of_far(Family::V6))]
        {
            internet.far.run(&format!("ip {family} route replace default via {gateway} advmss 1400"));
        }
        internet
    }

    fn with_mtu(mtu: u32) -> Self {
        let (network, far) = (Network::new(), Namespace::new("far"));
        join((&network.client, "rt1"), (&far, "far0"), mtu);
        add_addresses(&network.client, "rt1", FAR, 2);
        add_addresses(&far, "far0", FAR, 1);
        let router = &network.client;
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        // Else traceroute and the like meet the limit on errors of one router.
        router.run("sysctl -qw net.ipv4.icmp_ratemask=0 net.ipv6.icmp.ratelimit=0");
        let internet = Self {
            services: Vec::new(),
            clock: None,
            folder: tempfile::tempdir().expect("a folder for the web server"),
            network,
            far,
        };
        for family in [Family::V4, Family::V6] {
            let option = if family == Family::V4 { "-4" } else { "-6" };
            let (far_gateway, gateway) = (internet.router_of_far(family), address(family, 0, 2));
            internet.far.run(&format!("ip {option} route add default via {far_gateway}"));
            internet.network.server.run(&format!("ip {option} route add default via {gateway}"));
        }
        internet
    }

    fn router_of_far(&self, family: Family) -> IpAddr {
        address(family, FAR, 2)
    }

    /// The box.
    pub fn host(&self) -> &Namespace {
        &self.network.server
    }

    /// The router.
    pub fn router(&self) -> &Namespace {
        &self.network.client
    }

    /// An address of the box.
    pub fn host_address(&self, family: Family) -> IpAddr {
        address(family, 0, 1)
    }

    /// An address of the far host.
    pub fn far_address(&self, family: Family) -> IpAddr {
        address(family, FAR, 1)
    }

    /// Starts a web server on the far host.
    #[must_use]
    pub fn with_web(mut self) -> Self {
        fs::write(self.folder.path().join("big"), vec![b'x'; BIG]).expect("a writable folder");
        let mut httpd = self.far.command("busybox");
        httpd.args(["httpd", "-f", "-p", "[::]:80", "-h"]).arg(self.folder.path());
        self.serve(httpd, "ss -Hltn", ":80 ");
        self
    }

    /// Starts a name server on the far host.
    #[must_use]
    pub fn with_names(mut self) -> Self {
        let mut dnsmasq = self.far.command("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
        dnsmasq.args(["--no-resolv", "--no-hosts", "--log-facility=-", "--edns-packet-max=4096"]);
        dnsmasq.arg(format!("--address=/{}/{NAMED}", NAMES[0]));
        let long: Vec<_> = (0..LONG_ANSWER).map(|number| format!("{number:0250}")).collect();
        dnsmasq.arg(format!("--txt-record={},{}", NAMES[1], long.join(",")));
        self.serve(dnsmasq, "ss -Hlun", ":53 ");
        self
    }

    /// Starts a server of leases and router advertisements on the router, on the box's link.
    #[must_use]
    pub fn with_leases(mut self) -> Self {
        let leases = self.folder.path().join("leases");
        let mut dnsmasq = self.network.client.command("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
        dnsmasq.args(["--port=0", "--no-ping", "--log-facility=-", "--log-dhcp", "--bind-interfaces"]);
        dnsmasq.args(["--interface=cli0", "--enable-ra", "--ra-param=cli0,4"]);
        dnsmasq.args([
            "--dhcp-range=10.77.0.100,10.77.0.199,5m",
            "--dhcp-range=fd77::100,fd77::1ff,slaac,64,5m",
        ]);
        dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
        self.serve(dnsmasq, "ss -Hlun", ":67 ");
        self
    }

    /// Starts a time server on the far host.
    #[must_use]
    pub fn with_time(mut self) -> Self {
        self.clock = Some(Clock::start(&self.far));
        self
    }

    /// Puts a host behind the box, which hides it behind its own address.
    pub fn with_lan(&self) -> Namespace {
        let lan = Namespace::new("lan");
        let host = self.host();
        join((host, "lan0"), (&lan, "in0"), 1500);
        add_addresses(host, "lan0", LAN, 1);
        add_addresses(&lan, "in0", LAN, 2);
        host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            lan.run(&format!("ip {option} route add default via {}", address(family, LAN, 1)));
        }
        lan
    }

    /// Hides what is behind the box behind the box's own address.
    pub fn masquerade(&self) {
        let host = self.host();
        host.run("nft add table inet nat");
        host.run("nft add chain inet nat post { type nat hook postrouting priority srcnat ; }");
        host.run("nft add rule inet nat post oifname srv0 masquerade");
    }

    /// Lets the router know the way to what is behind the box.
    pub fn route_to_lan(&self) {
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let (net, bits) = (address(family, LAN, 0), if family == Family::V4 { 24 } else { 64 });
            let host = self.host_address(family);
            self.router().run(&format!("ip {option} route add {net}/{bits} via {host}"));
        }
    }

    /// The address of the host behind the box.
    pub fn lan_address(&self, family: Family) -> IpAddr {
        address(family, LAN, 2)
    }

    fn serve(&mut self, command: Command, list: &str, listening: &str) {
        let inside = if listening == ":67 " { &self.network.client } else { &self.far };
        let mut service = Service::start(command);
        poll(&service.line.clone(), Duration::from_secs(10), || {
            service.assert_running();
            inside.run(list).contains(listening).then_some(())
        });
        self.services.push(service);
    }
}

impl Default for Internet {
    fn default() -> Self {
        Self::new()
    }
}

/// A program that serves until it is dropped.
#[derive(Debug)]
struct Service {
    child: Child,
    line: String,
}

impl Service {
    fn start(mut command: Command) -> Self {
        let line = describe(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        Self { child, line }
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("our own child");
        assert!(ended.is_none(), "`{}` ended: {ended:?}", self.line);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A time server: every query is answered with this machine's time (RFC 5905, section 14).
#[derive(Debug)]
struct Clock {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn start(namespace: &Namespace) -> Self {
        let socket = namespace.within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 123))).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut query = [0; 68];
            while !over.load(Ordering::Relaxed) {
                let Ok((48.., from)) = socket.recv_from(&mut query) else { continue };
                // Whoever asked may be gone.
                let _ = socket.send_to(&answer(&query), from);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // A panic of it shows in what was not answered.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// RFC 5905, section 7.3: version 4, mode 4, stratum 1, and the client's own time where it looks for it.
fn answer(query: &[u8; 68]) -> [u8; 48] {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    let time = ((now.as_secs() + NTP_TO_UNIX_S) << 32 | fraction).to_be_bytes();
    let mut answer = [0; 48];
    answer[..4].copy_from_slice(&[0x24, 1, 6, 0xec]);
    answer[12..16].copy_from_slice(b"LOCL");
    answer[24..32].copy_from_slice(&query[40..48]);
    for at in [16, 32, 40] {
        answer[at..at + 8].copy_from_slice(&time);
    }
    answer
}
