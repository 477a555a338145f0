//! The stock programs that knock, and ours. Each function sends one knock or one sequence and waits until it is sent.

use std::net::IpAddr;

use crate::{
    netns::Namespace,
    program::{self, Finished, run},
};

/// A way to send a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The stock client of knockd.
    Knock,
    /// OpenBSD's netcat.
    Nc,
    /// nmap, one for each step.
    Nmap,
    /// curl, at ports that never answer, so that it sends every SYN twice.
    Curl,
    /// Our own client.
    Ours,
}

impl Tool {
    /// Sends a sequence of steps, written as in a configuration. Where a program sends one step at a time, echo steps
    /// are ping's, and UDP steps netcat's if it has none.
    pub fn knock(self, from: &Namespace, to: IpAddr, steps: &[&str]) {
        match self {
            Self::Ours => {
                let sent = ours(from, to, steps);
                assert!(sent.is_success(), "{sent}");
            }
            Self::Knock => stock(from, to, steps),
            Self::Nc | Self::Nmap | Self::Curl => self.one_by_one(from, to, steps),
        }
    }

    fn one_by_one(self, from: &Namespace, to: IpAddr, steps: &[&str]) {
        for step in steps {
            if let Some(size) = step.strip_prefix("icmp/echo?size=") {
                ping(from, to, size);
            } else if let Some(port) = step.strip_prefix("udp/") {
                self.udp(from, to, port);
            } else {
                self.tcp(from, to, step.strip_prefix("tcp/").expect("a step is TCP, UDP or echo"));
            }
        }
    }

    fn tcp(self, from: &Namespace, to: IpAddr, port: &str) {
        match self {
            Self::Nmap => nmap(from, to, &["-sS", "-p", port]),
            Self::Curl => curl(from, to, port),
            Self::Nc | Self::Knock | Self::Ours => nc(from, to, port),
        }
    }

    fn udp(self, from: &Namespace, to: IpAddr, port: &str) {
        match self {
            Self::Nmap => nmap(from, to, &["-sU", "-p", port]),
            Self::Nc | Self::Knock | Self::Curl | Self::Ours => datagram(from, to, port),
        }
    }
}

/// `knock -d 100 HOST PORT:PROTO..`, the steps given as in a configuration.
pub fn stock(from: &Namespace, to: IpAddr, steps: &[&str]) {
    let stock_form = |step: &&str| {
        let (proto, port) = step.split_once('/').expect("a step is PROTO/PORT");
        format!("{port}:{proto}")
    };
    let mut knock = from.bounded("knock");
    knock.args(["-d", "100", &to.to_string()]).args(steps.iter().map(stock_form));
    let _ = run(&mut knock).succeeded();
}

/// `nc -z -w1 HOST PORT`: one SYN. Its status tells about the port, not about the knock.
pub fn nc(from: &Namespace, to: IpAddr, port: &str) {
    known_status(run(from.bounded("nc").args(["-z", "-w1", &to.to_string(), port])), &[0, 1]);
}

/// `printf x | nc -u -q0 -w1 HOST PORT`: one datagram of one byte.
pub fn datagram(from: &Namespace, to: IpAddr, port: &str) {
    let line = format!("printf x | nc -u -q0 -w1 {to} {port}");
    known_status(run(from.bounded("sh").args(["-c", &line])), &[0, 1]);
}

/// `ping -c1 -W1 -s SIZE HOST`; the echo must come back.
pub fn ping(from: &Namespace, to: IpAddr, size: &str) {
    let _ = run(from.bounded("ping").args(["-c1", "-W1", "-s", size, &to.to_string()])).succeeded();
}

/// nmap without retries, host discovery and names.
pub fn nmap(from: &Namespace, to: IpAddr, what: &[&str]) {
    let family = if to.is_ipv6() { "-6" } else { "-4" };
    let mut nmap = from.bounded("nmap");
    nmap.args([family, "-Pn", "-n", "--max-retries", "0"]).args(what).arg(to.to_string());
    let _ = run(&mut nmap).succeeded();
}

/// `curl --connect-timeout 1.3 http://HOST:PORT/`: where nothing answers, a SYN and its retransmission.
pub fn curl(from: &Namespace, to: IpAddr, port: &str) {
    let url = if to.is_ipv6() { format!("http://[{to}]:{port}/") } else { format!("http://{to}:{port}/") };
    known_status(run(from.bounded("curl").args(["-sS", "--connect-timeout", "1.3", &url])), &[7, 28]);
}

/// `xdp-knock knock HOST STEP..`
pub fn ours(from: &Namespace, to: IpAddr, words: &[&str]) -> Finished {
    run(from.bounded(program::xdp_knock()).args(["knock", &to.to_string()]).args(words))
}

fn known_status(finished: Finished, known: &[i32]) {
    assert!(finished.status.is_some_and(|status| known.contains(&status)), "{finished}");
}
