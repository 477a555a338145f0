//! The gate that is in force: its pins, its tables, its events, its daemon.

use std::{ops::RangeInclusive, time::Duration};

use super::Finding;
use crate::{
    about::About,
    config::Mode,
    control::{Address, Server},
    devices::Device,
    generation::host_ephemeral,
    pins::Pins,
    report::{InterfaceState, Status, problems::interfaces, sight::Sight, status::collect},
    rollback::Standing,
};

/// How long a daemon may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says that nothing can be said.
pub fn unseen(pins: &Pins) -> Vec<Finding> {
    vec![Finding::unseen(
        "gate",
        format!("only root can look into {}", pins.path().display()),
        "run it with sudo",
    )]
}

/// Looks at the gate in force.
pub fn look(pins: &Pins, sight: &Sight, devices: &[Device]) -> Vec<Finding> {
    let mut findings = pinned(sight);
    if sight.links.is_empty() {
        if findings.is_empty() {
            findings.push(Finding::ok("gate", "none is in force"));
        }
        return findings;
    }
    findings.extend(links(sight, devices));
    let server = match Address::of(pins).server(PATIENCE) {
        Ok(server) => server,
        Err(error) => {
            findings.push(Finding::fail(
                "daemon",
                format!("{error:#}"),
                "restart the daemon; the gate stays in force",
            ));
            Server::Nobody
        }
    };
    findings.push(daemon(server));
    findings.extend(sight.in_force().into_iter().flat_map(|about| ephemeral(about, &host_ephemeral())));
    match collect(pins, sight, server) {
        Ok(status) => findings.extend(tables(&status).into_iter().chain([events(&status)])),
        Err(error) => findings.push(Finding::fail("gate", format!("{error:#}"), "xdp-knock status")),
    }
    findings
}

fn pinned(sight: &Sight) -> Vec<Finding> {
    let foreign = sight.foreign.iter().map(|foreign| {
        Finding::fail("gate", &foreign.reason, "xdp-knock detach --force, or run --discard-state")
    });
    let others = sight.other_states.iter().map(|folder| {
        let what = format!("{} was left by another version of xdp-knock", folder.display());
        Finding::fail("gate", what, "xdp-knock run --discard-state, which gives its grants up")
    });
    foreign.chain(others).collect()
}

fn links(sight: &Sight, devices: &[Device]) -> Vec<Finding> {
    let known = interfaces(sight, devices);
    let mut findings: Vec<Finding> = known
        .iter()
        .filter_map(|one| {
            let what = match one.state {
                InterfaceState::Attached | InterfaceState::Foreign => return None,
                InterfaceState::Dead => "its gate went with an interface that was deleted",
                InterfaceState::Bare => "it is to be guarded and carries no gate",
                InterfaceState::Absent => "it is to be guarded and is not there",
            };
            Some(Finding::fail(
                &one.name,
                what,
                "xdp-knock reload; or leave a daemon running, which puts it on when it comes",
            ))
        })
        .collect();
    for seen in &sight.links {
        if let Standing::WentBack(_) = seen.standing {
            let what = "the last generation was not confirmed in time: what was before it holds";
            findings.push(Finding::warn(&seen.interface, what, "xdp-knock reload"));
        }
    }
    if findings.is_empty() {
        let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
        findings.push(Finding::ok("gate", format!("in force on {}", names.join(", "))));
    }
    findings
}

fn daemon(server: Server) -> Finding {
    match server {
        Server::Daemon(pid) => Finding::ok("daemon", format!("process {pid} serves")),
        Server::Nobody => Finding::warn(
            "daemon",
            "none serves: the gate holds, but nobody tells of events or puts it on interfaces that come back",
            "xdp-knock run --persist, as a service",
        ),
        Server::Silent(pid) => Finding::fail(
            "daemon",
            format!("process {pid} serves and does not answer: the gate holds"),
            format!("kill -9 {pid}, and start it again"),
        ),
    }
}

/// Looks at ports for the host's own traffic, UDP replies to which may come to where doors expect knocks.
fn ephemeral(about: &About, now: &RangeInclusive<u16>) -> Vec<Finding> {
    if about.mode == Mode::Deny {
        return vec![Finding::ok("ports", "replies to the host's own traffic are known by what it sent")];
    }
    let mut findings = Vec::new();
    let (first, last) = about.ephemeral;
    if (first, last) != (*now.start(), *now.end()) {
        let what = format!(
            "ip_local_port_range is {}-{} and was {first}-{last} when the gate was loaded: replies to the host's own UDP may spoil attempts",
            now.start(),
            now.end()
        );
        findings.push(Finding::warn("ports", what, "xdp-knock reload"));
    }
    for (name, _) in about.doors.iter().filter(|(_, door)| door.has_ephemeral_step) {
        let what = format!(
            "door {name} has a UDP step among the ports of the host's own traffic ({first}-{last}): replies may spoil attempts at it"
        );
        findings.push(Finding::warn("ports", what, format!("give it UDP steps below {first}, and reload")));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("ports", "no UDP step lies among the ports of the host's own traffic"));
    }
    findings
}

fn tables(status: &Status) -> Vec<Finding> {
    let full: Vec<Finding> = status
        .tables
        .iter()
        .filter(|table| table.is_nearly_full())
        .map(|table| {
            let what =
                format!("the table of {} holds {} of {} entries", table.name, table.entries, table.capacity);
            let verb = if table.name == "bans" { "unban" } else { "revoke" };
            Finding::warn("tables", what, format!("xdp-knock {verb}, or a shorter time"))
        })
        .collect();
    if !full.is_empty() || status.tables.is_empty() {
        return full;
    }
    vec![Finding::ok("tables", "grants and bans have room")]
}

fn events(status: &Status) -> Finding {
    match status.counters.get("event_lost") {
        Some(0) | None => Finding::ok("events", "none was lost"),
        Some(count) => Finding::warn(
            "events",
            format!("{count} were lost, since nobody took them out of the kernel in time"),
            "leave a daemon running: xdp-knock run --persist, as a service",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::DEFAULT_EPHEMERAL,
        report::{Table, sample},
        verbs::doctor::Level,
    };

    fn about(step: &str, mode: &str) -> About {
        sample::about(1, &format!(r#"knock = ["tcp/7101", "{step}", "tcp/5124", "tcp/1200"]"#), mode)
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn steps_among_the_hosts_own_ports_are_told_without_their_number() {
        assert_eq!(levels(&ephemeral(&about("udp/9032", "guard"), &DEFAULT_EPHEMERAL)), [Level::Ok]);

        let found = ephemeral(&about("udp/40000", "guard"), &DEFAULT_EPHEMERAL);

        assert_eq!(levels(&found), [Level::Warn]);
        assert!(!format!("{found:?}").contains("40000"), "{found:?}");
    }

    #[test]
    fn a_range_that_was_changed_under_a_gate_asks_for_a_reload() {
        let found = ephemeral(&about("udp/9032", "guard"), &(1024..=65_535));

        assert_eq!(
            (levels(&found), found[0].remedy.as_deref()),
            (vec![Level::Warn], Some("xdp-knock reload"))
        );
    }

    #[test]
    fn in_deny_mode_neither_steps_among_the_hosts_own_ports_nor_their_range_matter() {
        let deny = about("udp/40000", "deny");

        for range in [DEFAULT_EPHEMERAL, 1024..=65_535] {
            assert_eq!(levels(&ephemeral(&deny, &range)), [Level::Ok]);
        }
    }

    #[test]
    fn tables_of_earned_entries_alone_are_told_when_nearly_full() {
        let table = |name, entries| Table { name, entries, capacity: 100 };

        let full = [table("grants", 90), table("grants", 91), table("first_attempts", 100)];

        assert_eq!(full.map(|table| table.is_nearly_full()), [false, true, false]);
    }
}
