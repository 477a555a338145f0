//! Configurations that must be taken, with what they mean and what they warn about.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use knock_user::config::{Config, Fact, Forward, HideAs, Hooks, Mode, SessionRule, Warning, keys::in_words};
use knock_user::service::Service;

fn parse(text: &str) -> (Config, Vec<Warning>) {
    Config::parse("good.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn warned(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(|warning| format!("{}: {}", warning.line().unwrap_or(0), warning.message())).collect()
}

const EXAMPLE: &str = r#"[xdp]
interfaces = ["eth0"]
mode = "guard"
hide_as = "filtered"
allow = ["192.0.2.0/24"]
public = ["tcp/80", "tcp/443", "icmp/echo"]

[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/33817", "udp/9032", "icmp/echo?size=172", "tcp/51240"]
step_timeout = "5s"
total_timeout = "15s"
open_for = "30s"
from = ["0.0.0.0/0", "::/0"]

[[door]]
name = "admin"
opens = ["tcp/8443", "tcp/9100-9110", "udp/51820"]
knock = ["12017:tcp", "udp/3044", "icmp/echo?size=80&id=4711"]
to = ["198.51.100.7/32"]
new_attempts_per_s = 50
"#;

#[test]
fn the_example_of_the_manual_means_what_it_says() {
    let (config, warnings) = parse(EXAMPLE);

    assert_eq!(warned(&warnings), Vec::<String>::new());
    assert_eq!(config.interfaces, ["eth0"]);
    assert_eq!((config.mode, config.hide_as), (Mode::Guard, HideAs::Filtered));
    assert_eq!(config.public, [Service::Tcp(80..=80), Service::Tcp(443..=443), Service::IcmpEcho]);
    let [ssh, admin] = &config.doors[..] else { panic!("{config:?}") };
    let steps: Vec<_> = ssh.knock.iter().map(ToString::to_string).collect();
    assert_eq!(steps, ["tcp/33817", "udp/9032", "icmp/echo?size=172", "tcp/51240"]);
    assert_eq!((ssh.from.len(), ssh.to.len(), ssh.new_attempts_per_s), (2, 0, 10_000));
    assert_eq!((admin.from.len(), admin.to.len(), admin.new_attempts_per_s), (0, 1, 50));
    assert_eq!(admin.step_timeout, Duration::from_secs(5));
    assert_eq!(admin.total_timeout, Duration::from_secs(15));
    assert_eq!(admin.open_for, Duration::from_secs(30));
}

#[test]
fn the_router_recipe_is_taken_with_warnings() {
    let (config, warnings) = parse(
        r#"[[door]]
name = "winbox"
opens = ["tcp/8291"]
knock = ["tcp/33333", "tcp/22222", "tcp/11111"]
step_timeout = "1m"
open_for = "7d"
"#,
    );

    let door = &config.doors[0];
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(door.step_timeout, Duration::from_secs(60));
    assert_eq!(door.total_timeout, Duration::from_secs(180), "every step may use its whole time");
    assert_eq!(door.open_for, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(
        warned(&warnings),
        [
            "4: door \"winbox\": 48 bits of secret",
            "4: door \"winbox\": tcp/33333, tcp/22222, tcp/11111 is like a published example",
            "6: door \"winbox\": `open_for` is 7d",
        ]
    );
}

#[test]
fn deny_mode_has_words_of_its_own() {
    let (config, warnings) = parse(
        r#"[xdp]
mode = "deny"
hide_as = "closed"
forward = "deny"
udp_idle = "2m"
public = ["tcp/443", "proto/47"]

[[door]]
name = "trusted"
opens = ["any"]
knock = ["tcp/12017", "udp/3044", "tcp/9321", "udp/7121"]

[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/13017", "udp/4044", "tcp/9322", "udp/7122"]
sessions = "cut"
"#,
    );

    assert_eq!(warned(&warnings), Vec::<String>::new());
    assert_eq!((config.mode, config.hide_as, config.forward), (Mode::Deny, HideAs::Closed, Forward::Deny));
    assert_eq!(config.udp_idle, Duration::from_secs(120));
    assert_eq!(config.public, [Service::Tcp(443..=443), Service::Proto(47)]);
    assert_eq!(config.doors[0].opens, [Service::Any]);
    let sessions: Vec<_> = config.doors.iter().map(|door| door.sessions).collect();
    assert_eq!(sessions, [SessionRule::Keep, SessionRule::Cut]);
}

#[test]
fn deny_mode_knows_replies_so_a_step_among_the_ports_of_the_host_s_own_traffic_is_no_doubt() {
    let text = |mode: &str| {
        format!(
            "[xdp]\nmode = \"{mode}\"\nallow = [\"192.0.2.7/32\"]\n[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\n\
             knock = [\"tcp/20011\", \"udp/40017\", \"tcp/1490\", \"udp/7121\"]\n"
        )
    };

    let [warning] = &warned(&parse(&text("guard")).1)[..] else { panic!("one warning") };
    assert!(warning.contains("\"udp/40017\" is in the ephemeral range"), "{warning}");
    assert_eq!(warned(&parse(&text("deny")).1), Vec::<String>::new());
}

/// A good door after the given tables.
fn with_tables(tables: &str) -> (Config, Vec<Warning>) {
    parse(&format!("{tables}\n{DOOR_HEAD}"))
}

#[test]
fn hooks_are_commands_with_limits() {
    let (config, warnings) = with_tables(
        r#"[hooks]
on_promote = ["/usr/local/bin/tell", "{door}", "--from={source}", "{{}}", ""]
on_expire = ["/bin/true"]
user = "tell"
timeout = "2s"
at_once = 3
"#,
    );

    let hooks = &config.hooks;
    assert_eq!(warned(&warnings), Vec::<String>::new());
    assert_eq!((hooks.user.as_str(), hooks.timeout, hooks.at_once), ("tell", Duration::from_secs(2), 3));
    let keys: Vec<_> = hooks.commands().map(|(key, argv)| (key, argv.program().to_owned())).collect();
    assert_eq!(keys, [("on_promote", "/usr/local/bin/tell".into()), ("on_expire", "/bin/true".into())]);
    let on_promote = hooks.on_promote.as_ref().expect("it is configured");
    let fact = |fact| match fact {
        Fact::Door => "ssh; rm -rf /".to_owned(),
        Fact::Source => "2001:db8::7".to_owned(),
        Fact::Event | Fact::Via | Fact::Expires | Fact::Iface => panic!("{fact:?} was not asked for"),
    };
    assert_eq!(on_promote.arguments(fact), ["ssh; rm -rf /", "--from=2001:db8::7", "{}", ""]);
}

#[test]
fn without_their_tables_nothing_runs_listens_or_is_kept() {
    let (config, _) = with_tables("");
    assert_eq!((&config.hooks, config.metrics, &config.state), (&Hooks::default(), None, &None));
    assert!(config.hooks.is_empty());

    let (config, warnings) = with_tables("[metrics]\n[state]");
    assert_eq!(config.metrics, Some(([127, 0, 0, 1], 9477).into()));
    assert_eq!(config.state, Some("/var/lib/xdp-knock/grants.json".into()));
    assert_eq!(warned(&warnings), Vec::<String>::new());
}

#[test]
fn hooks_have_the_rights_of_nobody_by_default() {
    let (config, _) = with_tables("[hooks]\non_ban = [\"/bin/true\"]");

    let hooks = config.hooks;
    assert_eq!((hooks.user.as_str(), hooks.timeout, hooks.at_once), ("nobody", Duration::from_secs(10), 8));
}

#[test]
fn metrics_and_state_are_where_they_are_said_to_be() {
    let (config, _) = with_tables("[metrics]\nlisten = \"[::1]:80\"\n[state]\nfile = \"/srv/../x y\"");

    assert_eq!(config.metrics.map(|address| address.to_string()), Some("[::1]:80".to_owned()));
    assert_eq!(config.state, Some("/srv/../x y".into()));
}

#[test]
fn doubtful_hooks_are_warned_about() {
    let shown = |hooks: &str| warned(&with_tables(&format!("[hooks]\n{hooks}")).1);

    assert_eq!(shown("timeout = \"1s\""), ["1: [hooks]: no hook: nothing is run"]);
    assert_eq!(shown("on_ban = [\"/bin/true\"]\nuser = \"root\""), ["3: [hooks]: `user` is \"root\""]);
}

/// A door with the given lines in place of its sequence.
fn with_lines(lines: &str) -> (Config, Vec<Warning>) {
    parse(&format!("[[door]]\nname = \"d\"\nopens = [\"tcp/22\"]\n{lines}\n"))
}

#[test]
fn the_total_timeout_follows_the_step_timeout() {
    const PORTS: &str = "\"tcp/20011\", \"tcp/5017\", \"udp/1490\", \"tcp/7121\"";
    for (timeouts, total) in [
        ("", 15),
        ("step_timeout = \"1s\"", 15),
        ("step_timeout = \"10s\"", 40),
        ("step_timeout = \"10s\"\ntotal_timeout = \"10s\"", 10),
        ("total_timeout = \"1h\"", 3600),
    ] {
        let (config, _) = with_lines(&format!("knock = [{PORTS}]\n{timeouts}"));
        assert_eq!(config.doors[0].total_timeout, Duration::from_secs(total), "{timeouts}");
    }
    let steps: Vec<String> = (0..10).map(|i| format!("\"tcp/{}\"", 2001 + 7 * i)).collect();
    let (config, _) = with_lines(&format!("knock = [{}]\nstep_timeout = \"10m\"", steps.join(", ")));
    assert_eq!(config.doors[0].total_timeout, Duration::from_secs(3600), "never more than may be written");
}

#[test]
fn what_is_doubtful_is_warned_about() {
    for (knock, warning) in [
        (r#""tcp/20011", "tcp/20012", "udp/1490", "tcp/7121""#, "tcp/20011, tcp/20012 are neighbours"),
        (r#""udp/20012", "udp/20011", "udp/1490", "tcp/7121""#, "udp/20012, udp/20011 are neighbours"),
        (r#""tcp/7000", "tcp/8001", "udp/1490", "tcp/3389""#, "step \"tcp/3389\" is a well-known port"),
        (r#""tcp/20011", "tcp/443", "udp/1490", "tcp/7121""#, "step \"tcp/443\" is a well-known port"),
        (r#""tcp/7000", "tcp/8000", "tcp/9000", "tcp/17000""#, "is like a published example"),
        (r#""udp/33000", "tcp/8001", "udp/1490", "tcp/7121""#, "replies to this host's own traffic"),
        (r#""udp/9032", "tcp/8001", "udp/9032", "tcp/7121""#, "step \"udp/9032\" comes again"),
        (
            r#""icmp/echo", "tcp/8001", "udp/9032", "tcp/7121", "tcp/91""#,
            "first step is a bare \"icmp/echo\"",
        ),
        (r#""tcp/20011", "tcp/9017", "udp/1490""#, "48 bits of secret"),
    ] {
        let (_, warnings) = with_lines(&format!("knock = [{knock}]"));
        let shown = warned(&warnings);
        assert!(shown.iter().any(|line| line.contains(warning)), "{knock}: {shown:?}");
    }
}

#[test]
fn ports_that_are_two_apart_are_no_neighbours() {
    let (_, warnings) = with_lines("knock = [\"tcp/20011\", \"tcp/20013\", \"tcp/20015\", \"udp/20016\"]");

    assert_eq!(warned(&warnings), Vec::<String>::new());
}

#[test]
fn a_weak_sequence_may_be_allowed() {
    let (_, warnings) = with_lines("knock = [\"tcp/20011\"]\nallow_weak = true");

    let shown = warned(&warnings).join("\n");
    assert!(shown.contains("16 bits of secret") && shown.contains("a single step"), "{shown}");
}

#[test]
fn guarding_ssh_without_a_way_back_is_warned_about() {
    let door = "[[door]]\nname = \"d\"\nopens = [\"tcp/20-30\"]\nknock = [\"tcp/20011\", \"tcp/5017\", \"udp/1490\", \"tcp/7121\"]\n";
    let warnings = |xdp: &str| warned(&parse(&format!("[xdp]\n{xdp}\n{door}")).1);

    assert_eq!(
        warnings("mode = \"guard\""),
        ["2: [xdp]: mode \"guard\" with door \"d\" hiding tcp/22 and no `allow`"]
    );
    assert_eq!(warnings("mode = \"guard\"\nallow = [\"10.0.0.0/8\"]"), Vec::<String>::new());
    assert_eq!(warnings("mode = \"observe\""), Vec::<String>::new());
}

#[test]
fn a_sequence_does_not_show_in_debug_output() {
    let (config, _) = with_lines("knock = [\"tcp/20011\", \"tcp/5017\", \"udp/1490\", \"tcp/7121\"]");

    let shown = format!("{config:?}");
    assert!(!shown.contains("20011") && shown.contains("<4 steps>"), "{shown}");
}

const DOOR_HEAD: &str = r#"[[door]]
name = "ssh"
opens = ["tcp/22"]
knock = ["tcp/20011", "udp/5017", "tcp/1490", "udp/7121"]
"#;

/// Writes a secret that its owner alone can read; returns where.
fn written_key(folder: &Path) -> String {
    let path = folder.join("a.key");
    fs::write(&path, "00".repeat(32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn keys_are_read_beside_the_file_and_are_in_no_debug_output() {
    let folder = tempfile::tempdir().unwrap();
    let _ = written_key(folder.path());
    let text = "[spa]\nidentity = \"box\"\nwindow = \"10s\"\n[[key]]\nname = \"alice\"\nsecret_file = \"a.key\"\nnat = true\nfrom = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
                [[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nspa = { listen = \"udp/62201\", keys = [\"alice\"] }\n";
    let path = folder.path().join("x.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    let (config, warnings) = Config::read(&path).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(warned(&warnings), Vec::<String>::new());
    assert_eq!((config.keys.len(), config.keys[0].nat, config.keys[0].secrets.len()), (1, true, 1));
    assert_eq!(config.doors[0].spa.as_ref().map(|spa| spa.listen), Some(62_201));
    assert!(config.doors[0].knock.is_empty());
    let words = in_words(&config.keys[0]);
    assert!(words.ends_with(", within 192.0.2.0/24, 2001:db8::/32"), "{words}");
    assert!(!format!("{config:?}").contains("00000000"), "{config:?}");

    fs::set_permissions(folder.path().join("a.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Config::read(&path).expect_err("others can read the secret").to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn every_example_of_the_reference_is_taken_as_it_stands() {
    let reference = include_str!("../../docs/configuration.md");
    let examples: Vec<_> = reference.split("```toml\n").skip(1).collect();
    let whole = examples.iter().filter_map(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().unwrap();
    let key = written_key(folder.path());
    let list = folder.path().join("lab.list");
    fs::write(&list, "tcp/7001 udp/8002 tcp/9003\n").unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    let list = list.display().to_string();

    for example in whole {
        // A line or two is shown without the rest: a door gets what it lacks.
        let head = if example.contains("[[door]]") { "" } else { DOOR_HEAD };
        let text = format!("{head}{example}").replace("alice.key", &key);
        let text = text.replace("vpn.secret", &key).replace("lab.list", &list);
        let (_, warnings) = parse(&text);
        assert_eq!(warned(&warnings), Vec::<String>::new(), "{text}");
    }
    assert!(examples.len() > 10, "{} examples", examples.len());
}
