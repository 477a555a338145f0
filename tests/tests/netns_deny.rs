//! Deny mode shows nothing to the internet, and takes nothing from the box: what it fetches, asks and is told works with
//! real programs, first without a gate and then behind one.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

use knock_tests::{
    daemon::{Daemon, Gate},
    internet::{BIG, Internet, NAMED, NAMES, NARROW},
    netns::{Family, Namespace, add_addresses, address},
    program::{poll, run},
    scene::denying,
    service::{Echo, Proto},
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// A service that is neither public nor behind a door.
const UNNAMED: u16 = 7007;
/// A port that the box hands on to another.
const TRANSLATED: u16 = 7008;
const PATIENCE: Duration = Duration::from_secs(30);

fn gate(host: &Namespace, config: &str) -> Daemon {
    Gate::new(host, &["srv0"]).config(config).start()
}

/// Does something without a gate, then behind one that lets nobody in.
fn as_without_a_gate(internet: &Internet, act: impl Fn(&Internet)) {
    let unnamed = Echo::start_dual(internet.host(), Proto::Tcp, UNNAMED);
    let reaches = |family| unnamed.answers(&internet.far, internet.host_address(family));
    assert!(FAMILIES.into_iter().all(reaches), "the far host does not reach the box");
    act(internet);

    let _gate = gate(internet.host(), &denying("", &["tcp/22"]));

    act(internet);
    assert!(!FAMILIES.into_iter().any(reaches), "the box shows a service that is not public");
}

fn bounded(namespace: &Namespace, program: &str, args: &[&str]) -> Command {
    let mut command = namespace.bounded(program);
    command.args(args);
    command
}

fn url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("http://[{address}]/big") } else { format!("http://{address}/big") }
}

fn fetches(from: &Namespace, server: IpAddr) {
    let args = ["-gsS", "--max-time", "10", "-o", "/dev/null", "-w", "%{size_download}", &url(server)];
    let said = run(&mut bounded(from, "curl", &args)).succeeded();
    assert_eq!(said, BIG.to_string());
}

fn resolves(from: &Namespace, server: IpAddr, options: &[&str]) {
    let server = format!("@{server}");
    let args = [&["+short", "+tries=2", "+time=2", &server, NAMES[0]], options].concat();
    let said = run(&mut bounded(from, "dig", &args)).succeeded();
    assert_eq!(said.trim(), NAMED);
}

fn pings(from: &Namespace, server: IpAddr, size: &str) {
    let args = ["-nq", "-c2", "-i0.2", "-W3", "-s", size, &server.to_string()];
    let said = run(&mut bounded(from, "ping", &args)).succeeded();
    assert!(said.contains(" 0% packet loss"), "{said}");
}

#[test]
fn a_box_that_shows_nothing_fetches_from_the_web() {
    as_without_a_gate(&Internet::new().with_web(), |internet| {
        for family in FAMILIES {
            fetches(internet.host(), internet.far_address(family));
        }
    });
}

#[test]
fn a_box_that_shows_nothing_asks_for_names_over_udp_and_tcp() {
    as_without_a_gate(&Internet::new().with_names(), |internet| {
        for family in FAMILIES {
            resolves(internet.host(), internet.far_address(family), &["+notcp"]);
            resolves(internet.host(), internet.far_address(family), &["+tcp"]);
        }
    });
}

/// The answer's later fragments carry no ports.
#[test]
fn an_answer_in_fragments_comes_whole() {
    as_without_a_gate(&Internet::new().with_names(), |internet| {
        for family in FAMILIES {
            let server = format!("@{}", internet.far_address(family));
            let args = ["+short", "+notcp", "+ignore", "+bufsize=4096", "+time=2", &server, NAMES[1], "TXT"];
            let said = run(&mut bounded(internet.host(), "dig", &args)).succeeded();
            assert!(said.len() > 3000, "{family:?}: {said}");
            pings(internet.host(), internet.far_address(family), "4000");
        }
    });
}

#[test]
fn a_box_that_shows_nothing_asks_for_the_time() {
    as_without_a_gate(&Internet::new().with_time(), |internet| {
        for family in FAMILIES {
            let server = internet.far_address(family).to_string();
            let said = run(&mut bounded(internet.host(), "ntpdig", &["-t", "3", &server])).succeeded();
            assert!(said.contains(&server), "{said}");
        }
    });
}

#[test]
fn a_box_that_shows_nothing_pings() {
    as_without_a_gate(&Internet::new(), |internet| {
        for family in FAMILIES {
            pings(internet.host(), internet.far_address(family), "56");
        }
    });
}

/// Each hop answers with an ICMP error about a packet of the box's, the last with another.
#[test]
fn a_box_that_shows_nothing_traces_routes() {
    as_without_a_gate(&Internet::new(), |internet| {
        for family in FAMILIES {
            let (option, far) = match family {
                Family::V4 => ("-4", internet.far_address(family)),
                Family::V6 => ("-6", internet.far_address(family)),
            };
            let router = address(family, 0, 2).to_string();
            for method in ["-U", "-I"] {
                let args = [option, method, "-n", "-q1", "-w2", "-m4", &far.to_string()];
                let said = run(&mut bounded(internet.host(), "traceroute", &args)).succeeded();
                let hops: Vec<_> = said.lines().skip(1).collect();
                let is_as_it_should = matches!(hops[..], [first, last]
                    if first.contains(&router) && last.contains(&far.to_string()));
                assert!(is_as_it_should, "{method}: {said}");
            }
        }
    });
}

#[test]
fn a_box_that_shows_nothing_learns_how_narrow_its_way_is() {
    let internet = Internet::narrow();
    let _sink = Echo::start_dual(&internet.far, Proto::Tcp, 9009);
    as_without_a_gate(&internet, |internet| {
        for (family, option) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let (host, far) = (internet.host(), internet.far_address(family));
            for flush in ["ip -4 route flush cache", "ip -6 route flush cache"] {
                host.run(flush);
            }
            let route = || host.run(&format!("ip {option} route get {far}"));
            assert!(!route().contains("mtu"), "{}", route());
            let args = [option, "-n", "-c2", "-i0.2", "-W2", "-Mdo", "-s1400", &far.to_string()];
            // The first is answered with an error, the second is not even sent: status 1.
            let said = run(&mut bounded(host, "ping", &args));
            let word = if family == Family::V4 { "Frag needed" } else { "Packet too big" };
            assert!(said.stdout.contains(word), "{said}");
            assert!(route().contains(&format!("mtu {NARROW}")), "{}", route());

            host.run(&format!("ip {option} route flush cache"));
            let target = format!("TCP{}:{}", &option[1..], SocketAddr::new(far, 9009));
            let line = format!("head -c 300000 /dev/zero | socat -t5 - {target} | wc -c");
            let echoed = run(&mut bounded(host, "sh", &["-c", &line])).succeeded();
            assert_eq!(echoed.trim(), "300000", "{family:?}");
            assert!(route().contains(&format!("mtu {NARROW}")), "{}", route());
        }
    });
}

#[test]
fn a_box_that_shows_nothing_is_told_its_ipv6_address() {
    as_without_a_gate(&Internet::new().with_leases(), |internet| {
        let host = internet.host();
        host.run("sysctl -qw net.ipv6.conf.srv0.accept_ra=2 net.ipv6.conf.srv0.autoconf=1");
        host.run("ip link set srv0 down");
        host.run("ip link set srv0 up");
        poll("an address by router advertisement", PATIENCE, || {
            let addresses = host.run("ip -6 address show dev srv0 scope global dynamic -tentative");
            addresses.contains("inet6 fd77:").then_some(())
        });
        host.run("ip link set srv0 down");
        host.run("ip link set srv0 up");
        // What was taken away with the link.
        add_addresses(host, "srv0", 0, 1);
        for (option, gateway) in [("-4", "10.77.0.2"), ("-6", "fd77::2")] {
            host.run(&format!("ip {option} route replace default via {gateway}"));
        }
    });
}

#[test]
fn a_box_that_shows_nothing_leases_an_ipv4_address() {
    leases("-4", "leased 10.77.0.");
}

#[test]
fn a_box_that_shows_nothing_leases_an_ipv6_address() {
    leases("-6", "REPLY6 received");
}

/// Its socket has another port than the packets on the wire, so that it is not found by their answers.
#[test]
fn what_the_box_itself_sends_is_answered_though_it_is_translated_on_its_way() {
    let internet = Internet::new();
    let far = Echo::start_dual(&internet.far, Proto::Tcp, UNNAMED).reached_at(TRANSLATED);
    internet.host().run("nft add table inet nat");
    internet.host().run("nft add chain inet nat out { type nat hook output priority -100 ; }");
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let to = SocketAddr::new(internet.far_address(family), UNNAMED);
        internet.host().run(&format!("nft add rule inet nat out tcp dport {TRANSLATED} dnat {word} to {to}"));
    }
    as_without_a_gate(&internet, |internet| {
        for family in FAMILIES {
            assert!(far.answers(internet.host(), internet.far_address(family)), "{family:?}");
        }
    });
}

/// dhcpcd keeps leases and its process by the name of the interface, for the whole machine: here in folders of its own.
fn leases(option: &str, word: &str) {
    let alone = r#"mount -t tmpfs own /run && mount -t tmpfs own /var/lib/dhcpcd && exec dhcpcd "$@""#;
    as_without_a_gate(&Internet::new().with_leases(), |internet| {
        let args = [option, "-1", "-B", "-d", "-t30", "--noarp", "-c/bin/true", "-f/dev/null", "srv0"];
        let mut unshare = bounded(internet.host(), "unshare", &["--mount", "sh", "-c", alone, "dhcpcd"]);
        let finished = run(unshare.args(args));
        assert!(finished.stderr.contains(word) || finished.stdout.contains(word), "{finished}");
    });
}

#[test]
fn a_host_behind_the_box_goes_out_by_the_box_s_address() {
    let internet = Internet::new().with_web().with_names();
    let lan = internet.with_lan();
    internet.masquerade();
    as_without_a_gate(&internet, |internet| {
        for family in FAMILIES {
            let far = internet.far_address(family);
            fetches(&lan, far);
            resolves(&lan, far, &["+notcp"]);
            pings(&lan, far, "56");
        }
    });
}

#[test]
fn a_host_behind_the_box_has_its_own_address_unless_forwarding_is_denied() {
    let internet = Internet::new().with_web().with_names();
    let lan = internet.with_lan();
    internet.route_to_lan();
    let inside = Echo::start_dual(&lan, Proto::Tcp, UNNAMED);
    let reaches = || FAMILIES.map(|family| inside.answers(&internet.far, internet.lan_address(family)));
    let goes_out = || {
        for family in FAMILIES {
            fetches(&lan, internet.far_address(family));
            resolves(&lan, internet.far_address(family), &["+notcp"]);
            pings(&lan, internet.far_address(family), "56");
        }
    };
    goes_out();
    assert_eq!(reaches(), [true; 2]);

    let passing = gate(internet.host(), &denying("", &["tcp/22"]));
    goes_out();
    assert_eq!(reaches(), [true; 2], "forwarded traffic passes unless denied");
    let _ = passing.stop();

    let _denying = gate(internet.host(), &denying("forward = \"deny\"", &["tcp/22"]));
    goes_out();
    assert_eq!(reaches(), [false; 2]);
}
