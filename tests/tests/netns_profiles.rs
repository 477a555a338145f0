//! The client by its profile: real packets and sequences open a real sshd, by itself and from ssh's own configuration.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use knock_tests::{
    instance::{Instance, door, guard},
    netns::{Family, Namespace, Network, address, masquerade},
    program::{Finished, poll, run, xdp_knock},
    sshd::Sshd,
};
use knock_user::clock::unix_ns;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The folder of a client's configuration.
struct Client(TempDir);

impl Client {
    fn new() -> Self {
        let client = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(client.folder()).expect("a folder in it");
        client
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("xdp-knock")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("a writable folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        path
    }

    /// Makes a key; returns what `keygen` says for the server and for the client.
    fn keygen(&self, host: &str, more: &[&str]) -> (String, String) {
        let mut keygen = Command::new(xdp_knock());
        keygen.args(["keygen", "alice", "--host", host]).args(more);
        let said = run(keygen.arg("--dir").arg(self.folder())).succeeded();
        let (before, client) = said.split_once("# On the client").expect("a stanza for the client");
        let (_, server) = before.split_once("# On the server").expect("a stanza for the server");
        let stanza = |text: &str| text.split_once(":\n").expect("a line before it").1.to_owned();
        let secret = self.folder().join("alice.key").display().to_string();
        // All hosts of these tests have private addresses; and the server's configuration is in another folder.
        let server = stanza(server)
            .replace("# nat = true", "nat = true")
            .replace("\"alice.key\"", &format!("{secret:?}"));
        (server, stanza(client))
    }

    /// A program that finds the client's configuration.
    fn program(&self, from: &Namespace, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = from.bounded(program);
        command.env("XDG_CONFIG_HOME", self.0.path());
        command
    }

    fn knock(&self, from: &Namespace, words: &[&str]) -> Finished {
        run(self.program(from, xdp_knock()).arg("knock").args(words))
    }
}

const GUARD: &str = "[xdp]\nmode = \"guard\"\n";

fn server_of(family: Family) -> IpAddr {
    address(family, 0, 1)
}

#[test]
fn what_keygen_says_for_either_side_opens_ssh_over_both_families() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    for family in [Family::V4, Family::V6] {
        let (client, server) = (Client::new(), server_of(family));
        let (theirs, ours) = client.keygen(&server.to_string(), &[]);
        let _ = client.write("hosts.toml", &ours);
        let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
        let mut daemon = gate.serve(&[]);
        assert!(!sshd.opens_soon(&network.client, server, None), "{family:?}: shut before the packet");

        let knocked = client.knock(&network.client, &["box", "--verify", "22"]);

        assert!(knocked.is_success(), "{knocked}");
        assert!(knocked.stdout.contains("tcp/22 is open"), "{knocked}");
        assert!(
            knocked.stdout.contains("lets in whoever sends it, since this machine's own address"),
            "{knocked}"
        );
        assert_eq!(daemon.event("promoted", |_| true)["via"], json!("spa"));
        assert!(sshd.opens(&network.client, server), "{family:?}: open after it");
    }
}

#[test]
fn ssh_opens_its_own_way_by_match_and_by_proxy_command() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let program = xdp_knock();
    let knock = format!("{} knock -q box ssh", program.canonicalize().expect("built").display());
    for family in [Family::V4, Family::V6] {
        let server = server_of(family);
        for recipe in [
            format!("Match originalhost home exec \"{knock} --verify 22\"\n  HostName {server}\n"),
            format!("Host home\n  HostName {server}\n  ProxyCommand sh -c '{knock} && exec nc %h %p'\n"),
        ] {
            let client = Client::new();
            let (theirs, ours) = client.keygen(&server.to_string(), &[]);
            let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
            let _daemon = gate.serve(&[]);
            assert!(!sshd.opens_soon(&network.client, server, None), "{family:?}: shut before");

            let _ = client.write("hosts.toml", &ours);
            let mut ssh = client.program(&network.client, "ssh");

            assert!(sshd.opens_by(&mut ssh, &recipe, "home"), "{family:?}: {recipe}");
        }
    }
}

/// Runs the client where a name has addresses of both families.
fn knock_by_name(client: &Client, from: &Namespace, words: &[&str]) -> Finished {
    let [v4, v6] = [Family::V4, Family::V6].map(server_of);
    let hosts = client.write("hosts", &format!("{v4} box.test\n{v6} box.test\n"));
    let mut shell = client.program(from, "unshare");
    shell.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    run(shell.arg(xdp_knock()).arg("knock").args(words))
}

#[test]
fn a_name_is_knocked_at_all_its_addresses_with_a_packet_each() {
    let network = Network::new();
    let client = Client::new();
    let (theirs, ours) = client.keygen("box.test", &[]);
    let _ = client.write("hosts.toml", &ours);
    let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
    let mut daemon = gate.serve(&[]);

    let knocked = knock_by_name(&client, &network.client, &["box", "ssh"]);

    assert!(knocked.is_success(), "{knocked}");
    let mut sources = [0, 1].map(|_| daemon.event("promoted", |_| true)["source"].to_string());
    sources.sort();
    assert_eq!(sources, [Family::V4, Family::V6].map(|family| format!("\"{}\"", address(family, 0, 2))));
    let one = knock_by_name(&client, &network.client, &["box", "ssh", "-6", "--json"]);
    let facts: Value = serde_json::from_str(&one.stdout).unwrap_or_else(|error| panic!("{error}: {one}"));
    assert_eq!(facts["addresses"].as_array().map(Vec::len), Some(1), "{one}");
}

#[test]
fn a_packet_that_is_lost_is_made_anew_by_a_retry_through_a_nat() {
    let network = Network::new();
    let inside = Namespace::new("inside");
    masquerade(&network.client, &inside, 7);
    let sshd = Sshd::start(&network.server);
    let (client, server) = (Client::new(), server_of(Family::V4));
    let (theirs, ours) = client.keygen(&server.to_string(), &[]);
    let _ = client.write("hosts.toml", &ours);
    let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
    let _daemon = gate.serve(&[]);
    network.client.run("nft add chain inet nat loses { type filter hook forward priority filter ; }");
    let lose_the_next = || {
        network.client.run("nft flush chain inet nat loses");
        // Every other one, in truth, from the first on.
        network.client.run("nft add rule inet nat loses udp dport 62201 numgen inc mod 2 0 drop");
    };

    lose_the_next();
    let words = ["box", "ssh", "--verify", "22", "--timeout", "1s", "--json"];
    let once = client.knock(&inside, &words);
    assert_eq!(once.status, Some(4), "{once}");
    assert!(once.stderr.contains("clock"), "where to look: {once}");
    assert!(!sshd.opens_soon(&inside, server, None), "shut");
    lose_the_next();
    let again = client.knock(&inside, &[&words[..], &["--retry", "2"]].concat());

    assert!(again.is_success(), "{again}");
    let facts: Value = serde_json::from_str(&again.stdout).unwrap_or_else(|error| panic!("{error}: {again}"));
    assert_eq!(
        (&facts["tries"], &facts["addresses"][0]["lets_in"]),
        (&json!(2), &json!("sender")),
        "{again}"
    );
    assert!(sshd.opens(&inside, server), "open");
}

#[test]
fn a_secret_comes_by_descriptor_or_standard_input_and_is_told_to_nobody() {
    let network = Network::new();
    let (client, server) = (Client::new(), server_of(Family::V4));
    let (theirs, ours) = client.keygen(&server.to_string(), &[]);
    let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
    let mut daemon = gate.serve(&[]);
    let key = client.folder().join("alice.key");
    let secret = fs::read_to_string(&key).expect("a key").trim().to_owned();
    for (place, redirection) in [("fd:3", "3<"), ("-", "<")] {
        let _ = client.write("hosts.toml", &ours.replace("alice.key", place));
        let line = format!("exec \"$0\" knock -v box ssh {redirection}'{}'", key.display());
        let knocked = run(client.program(&network.client, "sh").args(["-c", &line]).arg(xdp_knock()));

        assert!(knocked.is_success(), "{knocked}");
        let _ = daemon.event("promoted", |_| true);
        assert!(!format!("{knocked}").contains(&secret), "{place}");
    }
}

/// A gate that comes up without a memory takes the present time step and the next for used.
#[test]
fn a_rotating_sequence_opens_ssh_over_both_families_by_a_retry_in_a_later_time_step() {
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let client = Client::new();
    let stanzas = client.keygen("box.test", &["--rotate"]);
    let [theirs, ours] = <[String; 2]>::from(stanzas).map(|stanza| stanza.replace("30s", "10s"));
    let _ = client.write("hosts.toml", &ours);
    let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{theirs}"));
    // The first try is to fall into the time step in which the gate comes up.
    poll("time enough", Duration::from_secs(20), || (unix_ns() / 1_000_000_000 % 10 < 4).then_some(()));
    let mut daemon = gate.serve(&[]);

    let words = ["box", "--verify", "22", "--timeout", "1s", "--retry", "2", "--json"];
    let knocked = knock_by_name(&client, &network.client, &words);

    assert!(knocked.is_success(), "{knocked}");
    let facts: Value =
        serde_json::from_str(&knocked.stdout).unwrap_or_else(|error| panic!("{error}: {knocked}"));
    assert_eq!(facts["tries"], json!(2), "{knocked}");
    let sequences: Vec<_> =
        facts["addresses"].as_array().into_iter().flatten().map(|one| &one["knocked"]).collect();
    assert!(sequences.len() == 2 && sequences[0] != sequences[1], "{knocked}");
    for family in [Family::V4, Family::V6] {
        assert_eq!(daemon.event("promoted", |_| true)["via"], json!("rotating"), "{knocked}");
        assert!(sshd.opens(&network.client, server_of(family)), "{family:?}: open");
    }
}

#[test]
fn each_line_of_a_list_opens_ssh_once_until_it_is_used_up() {
    const LINES: &str = "# ours\ntcp/7001 udp/7002\nudp/7004, tcp/7003\n";
    let network = Network::new();
    let sshd = Sshd::start(&network.server);
    let (client, theirs) = (Client::new(), Client::new());
    let ours = client.write("lab.list", LINES);
    let list = format!("list = {{ file = {:?} }}\n", theirs.write("lab.list", LINES));
    let door = format!("[[door]]\nname = \"lab\"\nopens = [\"tcp/22\"]\nallow_weak = true\n{list}");
    let gate = Instance::new(&network.server, &["srv0"], &format!("{GUARD}{door}"));
    let mut daemon = gate.serve(&[]);
    for family in [Family::V4, Family::V6] {
        let server = server_of(family);
        let _ = client.write(
            "hosts.toml",
            &format!("[home]\naddress = \"{server}\"\ndoor.lab.list.file = \"lab.list\"\n"),
        );
        assert!(!sshd.opens_soon(&network.client, server, None), "{family:?}: shut");

        let knocked = client.knock(&network.client, &["home", "--verify", "22"]);

        assert!(knocked.is_success(), "{knocked}");
        assert_eq!(daemon.event("promoted", |_| true)["via"], json!("list"));
    }
    let used_up = client.knock(&network.client, &["home"]);
    assert_eq!(used_up.status, Some(1), "{used_up}");
    assert!(used_up.stderr.contains("every sequence of") && is_marked(&ours), "{used_up}");
}

fn is_marked(list: &Path) -> bool {
    let text = fs::read_to_string(list).expect("a list");
    text.lines().all(|line| line.starts_with('#'))
}

#[test]
fn a_plain_sequence_of_a_profile_opens_its_door() {
    let network = Network::new();
    let gate = Instance::new(
        &network.server,
        &["srv0"],
        &guard(&[door("web", &["tcp/80"], &["tcp/7101", "udp/5017"], "")]),
    );
    let mut daemon = gate.serve(&[]);
    for family in [Family::V4, Family::V6] {
        let (client, server) = (Client::new(), server_of(family));
        let _ = client.write(
            "hosts.toml",
            &format!("[home]\naddress = \"{server}\"\ndoor.web.knock = [\"tcp/7101\", \"udp/5017\"]\n"),
        );

        let knocked = client.knock(&network.client, &["home", "web"]);

        assert!(knocked.is_success(), "{knocked}");
        assert_eq!(daemon.event("promoted", |_| true)["door"], json!("web"));
    }
}

#[test]
fn a_bad_profile_sends_nothing_and_ends_with_78_and_the_place() {
    let network = Network::new();
    let client = Client::new();
    let _ = client
        .write("hosts.toml", "[box]\naddress = \"10.77.0.1\"\n[box.door.ssh]\nknock = [\"tcp/70000\"]\n");

    let refused = client.knock(&network.client, &["box", "ssh"]);

    assert_eq!(refused.status, Some(78), "{refused}");
    assert!(refused.stderr.contains("hosts.toml:4:10: "), "{refused}");
    let named = client.knock(&network.client, &["box", "ssh", "--profile", "/nowhere"]);
    assert_eq!(named.status, Some(1), "{named}");
}
