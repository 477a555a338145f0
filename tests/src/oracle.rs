//! What gets past a gate, by the kernel's own firewall behind it, which reads headers with code of its own, and by real
//! services on the hidden ports.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv6Addr, TcpListener, UdpSocket},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    netns::Namespace,
    packet::{IPV4, IPV6, TCP, UDP},
};

/// Longest wait of a thread that is to end soon.
const BEAT: Duration = Duration::from_millis(20);

/// What has come to a host, and left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// TCP segments to the hidden port that came out of the gate.
    pub hidden_tcp: u64,
    /// Datagrams to the hidden port that did.
    pub hidden_udp: u64,
    /// Segments and datagrams to the hidden ports that the stack took, put together from fragments where they came in such.
    pub delivered: u64,
    /// TCP segments and datagrams to any port of the host's that the stack took.
    pub taken: u64,
    /// Packets from the hidden ports.
    pub answers: u64,
    /// Packets out, but for neighbour discovery and reports of group membership.
    pub out: u64,
    /// Connections that the real service accepted.
    pub accepted: u64,
    /// Datagrams that the real service received.
    pub received: u64,
}

/// Watches a host and serves the hidden ports until it is dropped.
#[derive(Debug)]
pub struct Oracle<'a> {
    host: &'a Namespace,
    accepted: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<'a> Oracle<'a> {
    /// Begins to watch what comes by a device; `hidden` is the TCP and UDP port.
    pub fn new(host: &'a Namespace, device: &str, hidden: u16) -> Self {
        firewall(host, device, hidden);
        let (accepted, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let any = (Ipv6Addr::UNSPECIFIED, hidden);
        let (tcp, udp) = host.within(|| (TcpListener::bind(any), UdpSocket::bind(any)));
        let (tcp, udp) = (tcp.expect("a free port"), udp.expect("a free port"));
        tcp.set_nonblocking(true).expect("a listener of our own");
        udp.set_read_timeout(Some(BEAT)).expect("a time limit");
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&accepted));
        let accepts = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok(_) => _ = count.fetch_add(1, Ordering::Relaxed),
                    Err(_) => thread::sleep(BEAT),
                }
            }
        });
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&received));
        let receives = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if udp.recv(&mut [0; 2048]).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { host, accepted, received, is_over, threads: vec![accepts, receives] }
    }

    /// Returns what has come and gone so far.
    pub fn tally(&self) -> Tally {
        let text = self.host.run("nft list counters");
        let mut counters = BTreeMap::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if word == "counter" {
                let name = words.next().expect("a counter has a name");
                let packets = words.by_ref().skip_while(|word| *word != "packets").nth(1);
                counters.insert(name, packets.expect("a counter counts packets").parse().expect("a number"));
            }
        }
        Tally {
            hidden_tcp: counters["hidden_tcp"],
            hidden_udp: counters["hidden_udp"],
            delivered: counters["delivered"],
            taken: counters["taken"],
            answers: counters["answers"],
            out: counters["out"],
            accepted: self.accepted.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Oracle<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic shows in what was not counted.
            let _ = thread.join();
        }
    }
}

/// The first table reads frames as they come from the gate, single tags taken off (`skb_vlan_untag`); of those with two, it
/// knows the plain ones. A later fragment has no ports, though its bytes may look like them. Connection tracking is on, so that the second counts datagrams that are put together again.
fn firewall(host: &Namespace, device: &str, hidden: u16) {
    let define =
        |names: &[&str]| names.iter().map(|name| format!("counter {name} {{}}\n")).collect::<String>();
    let (ingress, stack) =
        (define(&["hidden_tcp", "hidden_udp"]), define(&["taken", "delivered", "answers", "out"]));
    // Bits from the inner tag: its type, then the start of a header without options that is not of a later fragment, the
    // protocol, and the destination port.
    let plain = [
        format!("@nh,16,16 {IPV4} @nh,32,8 0x45 @nh,80,16 & 0x1fff == 0 @nh,104,8 PROTO @nh,208,16 {hidden}"),
        format!("@nh,16,16 {IPV6} @nh,80,8 PROTO @nh,368,16 {hidden}"),
    ];
    let twice: String = [(TCP, "hidden_tcp"), (UDP, "hidden_udp")]
        .into_iter()
        .flat_map(|(proto, name)| {
            plain.iter().map(move |inner| {
                let inner = inner.replace("PROTO", &proto.to_string());
                format!("meta protocol {{ vlan, 8021ad }} {inner} counter name {name}\n")
            })
        })
        .collect();
    let rules = format!(
        "table netdev before {{\n{ingress}\
         chain ingress {{ type filter hook ingress device {device} priority 0;\n\
         ip frag-off & 0x1fff != 0 accept\nfrag frag-off != 0 accept\n\
         tcp dport {hidden} counter name hidden_tcp\nudp dport {hidden} counter name hidden_udp\n{twice}}}\n}}\n\
         table inet oracle {{\n{stack}\
         chain before {{ type filter hook prerouting priority raw; ct state new accept; }}\n\
         chain input {{ type filter hook input priority filter; meta l4proto {{ tcp, udp }} counter name taken\n\
         tcp dport {hidden} counter name delivered\nudp dport {hidden} counter name delivered\n}}\n\
         chain output {{ type filter hook output priority filter;\n\
         icmpv6 type {{ 130, 131, 132, 133, 134, 135, 136, 137, 143 }} accept\n\
         meta l4proto igmp accept\n\
         tcp sport {hidden} counter name answers\nudp sport {hidden} counter name answers\ncounter name out\n}}\n}}\n"
    );
    let mut nft =
        host.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nsenter is installed");
    nft.stdin.take().expect("it was piped").write_all(rules.as_bytes()).expect("nft reads");
    let loaded = nft.wait().expect("our own child");
    assert!(loaded.success(), "nft refuses:\n{rules}");
}
