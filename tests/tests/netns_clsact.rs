//! A kernel without TCX (before Linux 6.6): what the host sends is noted by a filter of clsact, with no link to pin.

use std::time::Duration;

use knock_tests::{
    hosts::network,
    instance::Instance,
    netns::Network,
    older::without_tcx,
    program::{self, poll},
    site::{AT_ONCE, Site, deny, deny_less, guard, succeed},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the ids of the programs of the filters on what leaves by `srv0`.
fn filters(network: &Network) -> Vec<u32> {
    let said = network.server.run("tc -json filter show dev srv0 egress");
    let filters: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let filters = filters.as_array().expect("a list").iter();
    let ids = filters.filter_map(|filter| filter["options"]["prog"]["id"].as_u64());
    ids.map(|id| u32::try_from(id).expect("an id")).collect()
}

fn the_filter(network: &Network) -> u32 {
    let [one] = filters(network)[..] else { panic!("not one filter: {:?}", filters(network)) };
    one
}

fn assert_protected(gate: &Instance<'_>) {
    let status = gate.run("status", &[]);
    assert_eq!(status.status, Some(0), "{status}");
}

#[test]
fn deny_mode_lets_answers_in_and_nobody_else_whoever_lives() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let daemon = without_tcx(|| gate.serve(&["--persist"]));
    let first = the_filter(&network);
    site.assert_denies("behind the gate");
    without_tcx(|| assert_protected(&gate));

    daemon.kill();
    site.assert_denies("after kill -9");
    assert_eq!(the_filter(&network), first);

    let next = without_tcx(|| gate.serve(&["--persist"]));
    site.assert_denies("with the next daemon");
    assert_ne!(the_filter(&network), first, "it has a program of its own");
    drop(next);

    succeed(without_tcx(|| gate.run("detach", &[])));
    assert_eq!(filters(&network), [0; 0]);
    gate.assert_nothing("after a detach");
    site.assert_open("after a detach");
}

#[test]
fn a_reload_puts_the_next_program_in_its_place_and_takes_it_off_where_none_is_needed() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    without_tcx(|| {
        succeed(gate.run("attach", &[]));
        let first = the_filter(&network);

        gate.configure(deny_less().as_bytes());
        succeed(gate.run("reload", &[]));
        assert_ne!(the_filter(&network), first);
        site.assert_denies("after a reload");

        gate.configure(guard().as_bytes());
        succeed(gate.run("reload", &[]));
        assert_eq!(filters(&network), [0; 0], "guard mode without sessions needs none");

        gate.configure(deny().as_bytes());
        succeed(gate.run("reload", &[]));
        site.assert_denies("in deny mode again");
        succeed(gate.run("detach", &[]));
    });
    assert_eq!(filters(&network), [0; 0]);
}

#[test]
fn what_others_have_there_stays() {
    let network = network();
    network.server.run("tc qdisc add dev srv0 clsact");
    let filter = ["filter", "add", "dev", "srv0", "egress", "prio", "7", "bpf", "bytecode", "1,6 0 0 0,"];
    succeed(program::run(network.server.command("tc").args(filter)));
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let shown = || network.server.run("tc filter show dev srv0 egress");
    let before = shown();

    succeed(without_tcx(|| gate.run("attach", &[])));
    site.assert_denies("beside another's filter");
    assert!(shown().contains("pref 7"), "{}", shown());

    succeed(without_tcx(|| gate.run("detach", &[])));
    assert_eq!(shown(), before);
}

#[test]
fn status_tells_when_it_is_gone_and_a_reload_puts_it_back() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    without_tcx(|| {
        succeed(gate.run("attach", &[]));
        assert_protected(&gate);

        network.server.run("tc filter del dev srv0 egress");
        let status = gate.run("status", &[]);
        assert_eq!(status.status, Some(3), "{status}");
        assert!(!site.is_answered(AT_ONCE), "nothing notes what is asked");

        succeed(gate.run("reload", &[]));
        assert_protected(&gate);
        site.assert_denies("after the reload");
        succeed(gate.run("detach", &[]));
    });
}

#[test]
fn an_interface_that_is_made_anew_has_it_again() {
    let network = network();
    let site = Site::new(&network);
    let gate = site.gate(&deny());
    let _daemon = without_tcx(|| gate.serve(&[]));
    let first = the_filter(&network);
    network.server.run("ip link del srv0");
    network.add_link(0, 1500);
    network.add_host("cli0", 0, 3);

    poll("the filter to be back", PATIENCE, || (!filters(&network).is_empty()).then_some(()));
    poll("the gate to be back", PATIENCE, || (!site.is_let_in()).then_some(()));
    site.assert_denies("on the new interface");
    assert_eq!(the_filter(&network), first, "the same generation");
}
