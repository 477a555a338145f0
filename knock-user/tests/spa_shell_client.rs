//! The shell client of `docs/` makes the very packets that the gate checks. Needs `sh` and `openssl`, as it does.

use std::{
    io::Write as _,
    net::UdpSocket,
    process::{Command, Stdio},
    time::Duration,
};

use knock_common::{
    abi::mapped,
    door::door_id,
    spa::{
        key::SpaKey,
        packet::{Datagram, Request},
    },
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spa-client.sh");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the script with a secret on its standard input; returns what it prints.
fn run(secret: &[u8], args: &[&str]) -> Result<String, String> {
    let mut child = Command::new("sh")
        .args([SCRIPT, "-k", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    // A script that has refused its arguments does not read.
    let _ = writeln!(child.stdin.take().expect("a pipe"), "{}", hex(secret));
    let output = child.wait_with_output().expect("an end");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn it_makes_the_same_packets_as_our_client() {
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let sources = [
        (None, None),
        (Some("203.0.113.9"), Some(mapped([203, 0, 113, 9]))),
        (Some("2001:db8::7"), Some(v6)),
        (Some("::1"), Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
        (Some("::ffff:192.0.2.1"), Some(mapped([192, 0, 2, 1]))),
    ];
    // Secrets with high bits everywhere, since a shell's numbers have a sign; names with bytes above 127.
    for (number, (text, source)) in (0_u8..).zip(sources) {
        let secret =
            [[0xff; 32], std::array::from_fn(|at| 0xf0_u8.wrapping_mul(number ^ at.to_le_bytes()[0]))]
                [usize::from(number != 0)];
        let (door, server) = (["ssh", "Tür", "a"][usize::from(number % 3)], "box.example");
        let (seconds, counter) = (u32::from(number) * 40_000, 1_767_323_045_678_000_000 + u64::from(number));
        let request = Request {
            seconds,
            door: door_id(door.as_bytes()),
            counter,
            server: door_id(server.as_bytes()),
            source,
        };
        let (seconds, counter) = (seconds.to_string(), counter.to_string());
        let mut args = vec!["-s", server, "-d", door, "-t", &seconds, "-c", &counter, "-n"];
        args.extend(text.into_iter().flat_map(|text| ["-a", text]));

        let printed = run(&secret, &args).unwrap_or_else(|error| panic!("{error}"));

        assert_eq!(printed.trim(), hex(Datagram::seal(&request, &SpaKey::new(&secret)).bytes()), "{args:?}");
    }
}

#[test]
fn it_sends_one_datagram() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    let port = socket.local_addr().expect("bound").port().to_string();
    let request =
        Request { seconds: 0, door: door_id(b"ssh"), counter: 7, server: door_id(b"box"), source: None };

    run(&[1; 32], &["-s", "box", "-d", "ssh", "-c", "7", "127.0.0.1", &port]).unwrap();

    let mut room = [0; 200];
    let length = socket.recv(&mut room).expect("a datagram");
    assert_eq!(room[..length], Datagram::seal(&request, &SpaKey::new(&[1; 32])).bytes()[..]);
}

#[test]
fn it_refuses_what_makes_no_packet() {
    let with =
        |more: &[&str]| run(&[1; 32], &[&["-s", "box", "-d", "ssh", "-n"], more].concat()).unwrap_err();

    assert!(with(&["-a", "1:2:3"]).contains("1:2:3 is not an address"));
    assert!(run(&[1; 31], &["-s", "box", "-d", "ssh", "-n"]).unwrap_err().contains("64 hex digits"));
    assert!(run(&[1; 32], &["-s", "box", "-n"]).unwrap_err().contains("usage"));
}
