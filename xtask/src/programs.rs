//! The stock programs that tests run against, and the Debian packages that hold them.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

use crate::toolchain::{Facts, Step, apt_install, apt_update};

/// (program, package, what a test does with it)
const PROGRAMS: [(&str, &str, &str); 26] = [
    ("knockd", "knockd", "the stock daemon and client that people migrate from"),
    ("nmap", "nmap", "scans that must find nothing"),
    ("nc.openbsd", "netcat-openbsd", "knocks and services over TCP and UDP"),
    ("sshd", "openssh-server", "a hidden service; Debian may start it on port 22 of this machine"),
    ("ssh", "openssh-client", "a session that must outlive its grant"),
    ("curl", "curl", "a hidden web service, and metrics"),
    ("ping", "iputils-ping", "ICMP knocks"),
    ("ip", "iproute2", "namespaces and links"),
    ("sysctl", "procps", "settings of namespaces"),
    ("ethtool", "ethtool", "offloads and driver facts"),
    ("tcpdump", "tcpdump", "captures for `explain`"),
    ("systemd-analyze", "systemd", "the unit's restrictions, measured and under a live systemd"),
    ("unshare", "util-linux", "a machine of its own for that systemd"),
    ("logger", "bsdutils", "a hook that leaves a trace in the journal"),
    ("socat", "socat", "services with chosen source ports"),
    ("openssl", "openssl", "the codes of the shell client of docs/spa-client.sh"),
    ("strace", "strace", "makes one system call fail, at a place of the test's choice"),
    (
        "faketime",
        "faketime",
        "a wall clock of the daemon's own, which a test may set; its library is used alone",
    ),
    ("nft", "nftables", "counts what got past the gate; hands ports on to a host behind it"),
    ("busybox", "busybox", "a web server on the far side"),
    ("dnsmasq", "dnsmasq-base", "names, leases and router advertisements from the far side"),
    ("dig", "bind9-dnsutils", "asks for names over UDP and TCP, from behind the gate"),
    ("dhcpcd", "dhcpcd-base", "leases an address from behind the gate"),
    ("ntpdig", "ntpsec-ntpdig", "asks for the time from behind the gate"),
    ("traceroute", "traceroute", "needs ICMP errors from all the way"),
    ("wireguard-go", "wireguard-go", "a tunnel that must outlive its grant"),
];

/// The steps that bring what is missing of the programs that netns tests use.
pub fn steps(facts: &Facts) -> Result<Vec<Step>> {
    // Daemons live in sbin, which is not in everybody's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let path = env::join_paths(folders)?;
    missing(facts.debian, |program| which::which_in(program, Some(&path), "/").is_ok())
}

fn missing(debian: bool, present: impl Fn(&str) -> bool) -> Result<Vec<Step>> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|(program, ..)| !present(program)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !debian {
        let names: Vec<_> = missing.iter().map(|(program, ..)| *program).collect();
        bail!("tests need these programs, install them by hand: {}", names.join(" "));
    }
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    let reasons: Vec<_> = missing.iter().map(|(program, _, why)| format!("{program}: {why}")).collect();
    let why = format!("programs that tests use\n      {}", reasons.join("\n      "));
    Ok(vec![apt_update(), Step::new(why, &apt_install(&packages), true)])
}

/// The step that brings `cargo fmt` and `cargo clippy`, which rustup's minimal profile leaves out.
pub fn lint_steps(facts: &Facts) -> Vec<Step> {
    let Some(cargo) = env::var_os("CARGO") else { return Vec::new() };
    let present = |name| Path::new(&cargo).with_file_name(name).exists();
    if !facts.rustup || (present("cargo-fmt") && present("cargo-clippy")) {
        return Vec::new();
    }
    vec![Step::new("for tests: formatting and lints", "rustup component add rustfmt clippy", false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_programs_are_installed_and_lists_are_fetched_first() {
        let steps = missing(true, |program| program != "nmap").unwrap();
        assert_eq!(steps[0], apt_update());
        assert_eq!(steps.len(), 2);
        assert!(steps[1].to_string().contains("install -y --no-install-recommends nmap"));
    }

    #[test]
    fn nothing_missing_is_no_step_at_all() {
        assert_eq!(missing(true, |_| true).unwrap(), []);
    }

    #[test]
    fn without_debian_the_missing_programs_are_named() {
        let error = missing(false, |program| program != "socat").unwrap_err();
        assert!(error.to_string().ends_with("by hand: socat"));
    }
}
