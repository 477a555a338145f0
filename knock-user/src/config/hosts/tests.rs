use super::*;

fn parsed(text: &str) -> Result<Hosts, String> {
    let found = Findings::new("hosts.toml", text);
    parse(text, Path::new("/conf"), found).map(|(hosts, _)| hosts).map_err(|error| error.to_string())
}

const EVERYTHING: &str = r#"
[home]
address = "203.0.113.7"
family = "ipv4"
verify = 22
timeout = "2s"
retry = 3
delay = "50ms"
[home.door.ssh]
knock = ["tcp/33817", "udp/9032", "icmp/echo?size=9"]
verify = 2222
[home.door.admin]
spa = { port = 62202, key = "alice.key", server = "box", nat = false, source = "198.51.100.4", for = "30m" }
[home.door.vpn]
rotate = { secret_file = "fd:3", door = "v", steps = 4, every = "30s", ports = "20000-60000" }
[home.door.lab]
list = { file = "lab.list" }
["box.example"]
door.ssh.spa = { key = "/keys/k", server = "s", nat = true }
"#;

#[test]
fn every_key_is_read() {
    let hosts = parsed(EVERYTHING).unwrap_or_else(|error| panic!("{error}"));
    let home = &hosts.0["home"];
    let port = |port| NonZeroU16::new(port);

    assert_eq!((home.address.as_str(), home.family), ("203.0.113.7", Some(Family::V4)));
    let settings = Settings {
        verify: port(22),
        timeout: Some(Duration::from_secs(2)),
        retry: Some(3),
        delay: Some(Duration::from_millis(50)),
    };
    assert_eq!(home.settings, settings);
    let ssh = &home.doors["ssh"];
    assert_eq!(ssh.settings.or(&home.settings), Settings { verify: port(2222), ..settings });
    let Way::Knock(steps) = &ssh.way else { panic!("{ssh:?}") };
    assert_eq!(
        steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" "),
        "tcp/33817 udp/9032 icmp/echo?size=9"
    );
    let spa = Spa {
        key: Place::File("/conf/alice.key".into()),
        server: "box".to_owned(),
        door: "admin".to_owned(),
        port: port(62202),
        whom: Some(Whom::Named("198.51.100.4".parse().unwrap())),
        open_for: NonZeroU32::new(1800),
    };
    assert_eq!(home.doors["admin"].way, Way::Spa(spa));
    let Way::Rotate(rotate) = &home.doors["vpn"].way else { panic!("no rotating door") };
    assert_eq!((&rotate.key, rotate.door.as_str()), (&Place::Descriptor(3), "v"));
    assert_eq!((rotate.shape.steps, rotate.shape.every), (4, Duration::from_secs(30)));
    assert_eq!(rotate.shape.ports, "20000-60000".parse().unwrap());
    assert_eq!(home.doors["lab"].way, Way::List("/conf/lab.list".into()));
}

#[test]
fn a_host_without_an_address_is_its_name() {
    let hosts = parsed(EVERYTHING).unwrap_or_else(|error| panic!("{error}"));
    let host = &hosts.0["box.example"];

    assert_eq!(host.address, "box.example");
    let Way::Spa(spa) = &host.doors["ssh"].way else { panic!("{host:?}") };
    assert_eq!((&spa.key, spa.whom, spa.port), (&Place::File("/keys/k".into()), Some(Whom::Sender), None));
}

#[test]
fn what_is_wrong_is_shown_with_its_place_and_the_remedy() {
    for (line, expected) in [
        (
            "knock = [\"tcp/70000\"]",
            "3:10: host \"h\", door \"d\": \"tcp/70000\" in `knock`; `70000` is not a port",
        ),
        ("knock = []", "3:9: host \"h\", door \"d\": `knock` is [], an empty list"),
        ("", "2:1: host \"h\", door \"d\": no way to open it; add one of knock, spa"),
        ("knock = [\"1\"]\nlist = { file = \"l\" }", "4:8: host \"h\", door \"d\": `knock` and `list`"),
        ("knok = [\"1\"]", "3:1: host \"h\", door \"d\": unknown key `knok`; did you mean `knock`?"),
        ("spa = \"k\"", "`spa` is not a table; write spa = { key = \"alice.key\""),
        (
            "spa = { server = \"s\" }",
            "3:7: host \"h\", door \"d\": spa: no `key`; add it, as key = \"alice.key\"",
        ),
        ("spa = { key = \"k\" }", "no `server`"),
        (
            "spa = { key = \"fd:x\", server = \"s\" }",
            "3:15: host \"h\", door \"d\": spa: `key` is \"fd:x\"; ",
        ),
        ("spa = { key = \"k\", server = \"s\", port = 0 }", "`port` is 0; it must be a whole number from 1"),
        ("spa = { key = \"k\", server = \"s\", for = \"1500ms\" }", "`for` has a part of a second"),
        (
            "spa = { key = \"k\", server = \"s\", source = \"me\" }",
            "`source` is \"me\"; it must be your address",
        ),
        (
            "spa = { key = \"k\", server = \"s\", nat = true, source = \"192.0.2.1\" }",
            "`nat = true` and `source`",
        ),
        ("spa = { key = \"k\", server = \"s\", secret = \"x\" }", "unknown key `secret`"),
        (
            "rotate = { secret_file = \"k\", every = \"30s\", ports = \"1-9\" }",
            "no `steps`; add it, as steps = 4",
        ),
        (
            "rotate = { secret_file = \"k\", steps = 17, every = \"30s\", ports = \"1-99\" }",
            "`steps` is 17; it must be a whole number from 1 to 16",
        ),
        (
            "rotate = { secret_file = \"k\", steps = 4, every = \"0s\", ports = \"9-1\" }",
            "`every` is \"0s\", which is out of range",
        ),
        (
            "rotate = { secret_file = \"k\", steps = 4, every = \"30s\", ports = \"9-1\" }",
            "`ports` is \"9-1\"; `9-1` is no range of ports",
        ),
        (
            "rotate = { secret_file = \"k\", steps = 4, every = \"30s\", ports = \"1-3\" }",
            "`ports` has fewer ports than there are steps",
        ),
        (
            "spa = { key = \"~/k\", server = \"s\" }",
            "3:15: host \"h\", door \"d\": spa: no file is called \"~/k\"; `~` means something to a shell alone",
        ),
        ("list = { file = \"~/l\" }", "no file is called \"~/l\""),
        ("list = {}", "no `file`; add it, as file = \"lab.list\""),
        ("knock = [\"1\"]\nverify = 70000", "4:10: host \"h\", door \"d\": `verify` is 70000"),
        ("knock = [\"1\"]\ndelay = \"2h\"", "`delay` is \"2h\", which is out of range"),
        (
            "knock = [\"1\"]\n[h.door.22]\nknock = [\"1\"]",
            "4:9: host \"h\", door \"22\": not a name of a door",
        ),
        ("knock = [\"1\"]\n[x]\ndoor = 1", "5:8: host \"x\": `door` is not a table"),
        ("knock = [\"1\"]\n[x]\naddress = \"a b\"", "5:11: host \"x\": the address is \"a b\""),
        ("knock = [\"1\"]\n[x]\nfamily = \"v4\"", "5:10: host \"x\": `family` is \"v4\"; it must be one of"),
        ("knock = [\"1\"", "not TOML"),
    ] {
        let error = parsed(&format!("[h]\n[h.door.d]\n{line}\n")).expect_err(line);

        assert!(error.contains(expected), "{line}: {error}");
    }
    assert!(parsed("port = 1").unwrap_err().contains("hosts.toml:1:8: `port` is not a host"));
}

#[test]
fn all_that_is_wrong_is_shown_at_once() {
    let error = parsed("[a]\nverify = 0\nretry = \"x\"\n[b.door.d]\n").unwrap_err();

    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_profile_that_everybody_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts.toml");
    std::fs::write(&path, "[h]\n").unwrap();
    let with = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Hosts::read(&path)
    };

    assert_eq!(with(0o600).unwrap().1.len(), 0);
    assert_eq!(with(0o644).unwrap().1.len(), 1);
    let error = with(0o666).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn the_profile_of_the_manual_is_one() {
    let manual = include_str!("../../../../docs/knock-client.md");
    let (_, after) = manual.split_once("```toml\n").unwrap();
    let (text, _) = after.split_once("```").unwrap();

    let hosts = parsed(text).unwrap_or_else(|error| panic!("{error}"));

    let doors: Vec<_> = hosts.0["home"].doors.keys().map(String::as_str).collect();
    assert_eq!(doors, ["admin", "lab", "ssh", "vpn"]);
    for key in [HOST_KEYS, door::DOOR_KEYS, way::SPA_KEYS, way::ROTATE_KEYS, way::LIST_KEYS].concat() {
        assert!(manual.contains(&format!("`{key}`")), "{key} is not in docs/knock-client.md");
    }
}
