use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::*;
use crate::{client::tests::parse, secret::Place, step::Step};

const PROFILE: &str = r#"
[home]
address = "192.0.2.7"
verify = 22
retry = 2
[home.door.ssh]
knock = ["tcp/7000", "udp/8000"]
verify = 2222
delay = "50ms"
[home.door.admin]
spa = { key = "alice.key", server = "box", nat = true, for = "30m" }
[home.door.vpn]
rotate = { secret_file = "alice.key", steps = 4, every = "30s", ports = "20000-60000" }
[home.door.lab]
list = { file = "lab.list" }
[one]
address = "2001:db8::7"
family = "ipv6"
door.ssh.knock = ["tcp/1"]
[none]
"#;

/// A folder with the profile and what it names.
struct Home(tempfile::TempDir);

impl Home {
    fn new(profile: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for (name, text) in
            [("hosts.toml", profile), ("alice.key", &"ab".repeat(32)), ("lab.list", "tcp/1 udp/2\ntcp/3\n")]
        {
            fs::write(home.path(name), text).unwrap();
            fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn args(&self, line: &str) -> Args {
        parse(&format!("--profile {} {line}", self.path("hosts.toml").display())).unwrap()
    }

    fn plan(&self, line: &str) -> Result<Plan, PlanError> {
        Plan::new(&self.args(line), &mut |warning| panic!("{warning}"))
    }

    /// The way that a line comes to, before its secrets are read.
    fn way(&self, line: &str) -> hosts::Way {
        let args = self.args(line);
        let profile = Profile::read(args.profile.as_deref(), &mut |_| {}).unwrap();
        let (way, _) = choose(&args, &profile).unwrap();
        with_options(way, &args.way).unwrap()
    }
}

fn sequence(way: &hosts::Way) -> String {
    let hosts::Way::Knock(steps) = way else { panic!("{way:?}") };
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_door_is_named_or_the_only_one() {
    let home = Home::new(PROFILE);

    assert_eq!(sequence(&home.way("home ssh")), "tcp/7000 udp/8000");
    assert_eq!(sequence(&home.way("one")), "tcp/1");
    assert_eq!(sequence(&home.way("home 7001 9000:udp")), "tcp/7001 udp/9000");
    assert_eq!(sequence(&home.way("-u elsewhere 7000 tcp/8000 9000:tcp")), "udp/7000 tcp/8000 tcp/9000");
    assert_eq!(home.way("home lab"), hosts::Way::List(home.path("lab.list")));
}

#[test]
fn a_host_of_the_profile_stands_for_its_address_and_settings() {
    let home = Home::new(PROFILE);
    let plan = |line| home.plan(line).unwrap_or_else(|error| panic!("{error:?}"));
    let shown = |plan: &Plan| plan.targets.iter().map(address::shown).collect::<Vec<_>>();

    let ssh = plan("home ssh");
    assert_eq!(shown(&ssh), ["192.0.2.7"]);
    assert_eq!(
        (ssh.verify, ssh.retry, ssh.delay, ssh.timeout),
        (NonZeroU16::new(2222), 2, Duration::from_millis(50), TIMEOUT)
    );
    let steps = plan("home tcp/1");
    assert_eq!((steps.verify, steps.delay), (NonZeroU16::new(22), DELAY));
    assert_eq!(shown(&plan("one")), ["2001:db8::7"]);
    // No host of the profile: an address, as without one.
    let other = plan("192.0.2.9 tcp/1");
    assert_eq!((shown(&other), other.verify, other.retry), (vec!["192.0.2.9".to_owned()], None, 0));
}

#[test]
fn options_beat_the_profile() {
    let home = Home::new(PROFILE);
    let plan = |line| home.plan(line).unwrap_or_else(|error| panic!("{error:?}"));

    let ssh = plan("home ssh -d 9 --verify 80 --retry 7 --timeout 9s");
    assert_eq!(
        (ssh.verify, ssh.retry, ssh.delay, ssh.timeout),
        (NonZeroU16::new(80), 7, Duration::from_millis(9), Duration::from_secs(9))
    );
    assert_eq!(plan("home ssh --verify").verify, NonZeroU16::new(2222));
    assert_eq!(plan("home ssh --no-verify").verify, None);
    let line = "home admin --key k --server s --door d --port 9 --source 192.0.2.1 --for 5s";
    let spa = Spa {
        key: Place::File("k".into()),
        server: "s".to_owned(),
        door: "d".to_owned(),
        port: NonZeroU16::new(9),
        whom: Some(Whom::Named("192.0.2.1".parse().unwrap())),
        open_for: NonZeroU32::new(5),
    };
    assert_eq!(home.way(line), hosts::Way::Spa(spa));
    let hosts::Way::Spa(spa) = home.way("home admin") else { panic!("no packet") };
    assert_eq!(
        (spa.whom, spa.open_for, spa.door.as_str()),
        (Some(Whom::Sender), NonZeroU32::new(1800), "admin")
    );
    let hosts::Way::Rotate(rotate) = home.way("home vpn --steps 5 --every 60s --ports 1-99 --door d") else {
        panic!("no rotating sequence")
    };
    assert_eq!(
        (rotate.shape.steps, rotate.shape.every, rotate.door.as_str()),
        (5, Duration::from_secs(60), "d")
    );
}

#[test]
fn options_alone_name_the_same_ways() {
    let home = Home::new("");
    let key = home.path("alice.key").display().to_string();
    for (line, is_of_its_way) in [
        (
            format!("192.0.2.7 --spa --key {key} --server s --door d"),
            (|way| matches!(way, Way::Packet(_))) as fn(&Way) -> bool,
        ),
        (format!("192.0.2.7 --rotate --key {key} --door d --steps 4 --every 30s --ports 1-99"), |way| {
            matches!(way, Way::Rotating(_))
        }),
        (format!("192.0.2.7 --list {}", home.path("lab.list").display()), |way| matches!(way, Way::List(_))),
    ] {
        let plan = home.plan(&line).unwrap_or_else(|error| panic!("{line}: {error:?}"));

        assert!(is_of_its_way(&plan.way), "{line}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_remedy_before_anything_is_sent() {
    let home = Home::new(PROFILE);
    for (line, exit, reason) in [
        ("elsewhere", Exit::Usage, "no step to knock on elsewhere"),
        ("elsewhere ssh", Exit::Usage, "hosts.toml has no host `elsewhere`, only home, none, one"),
        ("home", Exit::Usage, "name one of admin, lab, ssh, vpn"),
        ("home web", Exit::Usage, "no door `web` in the profile, only admin, lab, ssh, vpn"),
        ("home ssh admin", Exit::Usage, "give one door"),
        ("home ssh tcp/1", Exit::Usage, "give one door"),
        ("none", Exit::Usage, "no door in the profile"),
        ("home ssh --key k", Exit::Usage, "--key is of use with --spa or --rotate only"),
        ("home vpn --nat", Exit::Usage, "--nat is of use with --spa only"),
        ("home admin --steps 4", Exit::Usage, "--steps is of use with --rotate only"),
        ("home lab --for 5s", Exit::Usage, "--for is of use with --spa only"),
        ("192.0.2.1 1 --key k", Exit::Usage, "--spa"),
        ("192.0.2.1 1 --retry 2", Exit::Usage, "--verify"),
        ("192.0.2.1 1 --timeout 1s", Exit::Usage, "--verify"),
        ("one --verify", Exit::Usage, "--verify 22"),
        ("home vpn --steps 4 --ports 1-3", Exit::Usage, "fewer ports"),
        ("home admin --key /nowhere", Exit::Failed, "/nowhere"),
        ("one -4", Exit::Failed, "leave out -4"),
        ("192.0.2.1 --list /nowhere", Exit::Failed, "cannot read the list /nowhere"),
    ] {
        let error = home.plan(line).err().unwrap_or_else(|| panic!("`{line}` was taken"));

        assert_eq!(error.exit, exit, "`{line}`: {}", error.text);
        assert!(error.text.contains(reason), "`{line}`: {}", error.text);
    }
}

#[test]
fn a_bad_profile_or_list_ends_as_bad_configuration_with_the_place() {
    let home = Home::new("[home]\naddress = 7\n");
    let error = home.plan("192.0.2.1 tcp/1").err().expect("refused");
    assert_eq!(error.exit, Exit::BadProfile);
    assert!(error.text.contains("2:11"), "{}", error.text);

    let home = Home::new(PROFILE);
    fs::write(home.path("lab.list"), "tcp/1\nsctp/2\n").unwrap();
    let error = home.plan("home lab").err().expect("refused");
    assert_eq!(error.exit, Exit::BadProfile);
    assert!(error.text.contains("lab.list: line 2"), "{}", error.text);
}

#[test]
fn no_secret_is_in_an_error() {
    let home = Home::new(PROFILE);
    fs::write(home.path("alice.key"), "ab".repeat(31)).unwrap();
    for line in ["home admin", "home vpn"] {
        let error = home.plan(line).err().expect("refused");

        assert!(error.exit == Exit::Failed && !error.text.contains("abab"), "{}", error.text);
    }
    // The secret itself, where its file is to be named.
    let error = home.plan(&format!("home admin --key {}", "ab".repeat(32))).err().expect("refused");
    assert!(error.text.contains("keygen") && !error.text.contains("abab"), "{}", error.text);
}
