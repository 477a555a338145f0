//! Over loopback: packets leave in order, and the exit status says what happened.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use clap::Parser;

use super::{
    Args, Exit, pause_before, run,
    send::{Answer, SendError, knock},
    sequence,
    verify::{Probe, probe},
};
use crate::step::Step;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

pub(super) fn parse(line: &str) -> Result<Args, String> {
    let words = std::iter::once("knock").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
}

/// Without the profile of whoever runs the tests.
fn ends_with(line: &str) -> Exit {
    run(&parse(&format!("--profile /dev/null {line}")).unwrap())
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Both loopback addresses, or the one there is: containers are often made without IPv6.
fn homes() -> Vec<SocketAddr> {
    let v6: SocketAddr = (Ipv6Addr::LOCALHOST, 0).into();
    if UdpSocket::bind(v6).is_err() {
        eprintln!("no IPv6 loopback here: tried with IPv4 only");
        return vec![loopback()];
    }
    vec![loopback(), v6]
}

/// A TCP port that was free a moment ago.
fn shut_port() -> u16 {
    TcpListener::bind(loopback()).unwrap().local_addr().unwrap().port()
}

fn steps(texts: &[String]) -> Vec<Step> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn each_step_arrives_before_the_next_one_is_sent() {
    for home in homes() {
        let doors: Vec<_> = (0..3).map(|_| UdpSocket::bind(home).unwrap()).collect();
        let steps = steps(
            &doors.iter().map(|s| format!("udp/{}", s.local_addr().unwrap().port())).collect::<Vec<_>>(),
        );
        let mut senders = Vec::new();

        let result = sequence::send(home, &steps, Duration::ZERO, &mut |step, _| {
            let at = steps.iter().position(|&s| s == step).unwrap();
            doors[at].set_read_timeout(Some(MINUTE)).unwrap();
            let (length, sender) = doors[at].recv_from(&mut [0; 8]).unwrap();
            senders.push(sender);
            assert_eq!(length, 1);
            for later in &doors[at + 1..] {
                later.set_nonblocking(true).unwrap();
                assert_eq!(later.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
                later.set_nonblocking(false).unwrap();
            }
        });

        assert!(result.is_ok(), "{result:?}");
        assert_eq!(senders.len(), 3);
    }
}

#[test]
fn a_closed_tcp_port_counts_as_knocked() {
    let step = format!("tcp/{}", shut_port()).parse().unwrap();

    let answer = knock(step, loopback(), MINUTE);

    assert!(matches!(answer, Ok(Answer::Refused)), "{answer:?}");
}

#[test]
fn a_connection_that_a_listener_takes_is_closed_at_once() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let step = format!("tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();

    let answer = knock(step, loopback(), MINUTE);

    assert!(matches!(answer, Ok(Answer::Accepted)), "{answer:?}");
    let (mut taken, _) = listener.accept().unwrap();
    assert_eq!(io::Read::read(&mut taken, &mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_refused_udp_knock_does_not_spoil_the_next_one() {
    let shut = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap().port();
    let steps = steps(&[format!("udp/{shut}"), format!("udp/{shut}"), format!("udp/{shut}")]);

    let result = sequence::send(loopback(), &steps, Duration::ZERO, &mut |_, _| {});

    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn an_echo_request_is_sent_or_the_error_says_how_to_be_allowed() {
    for home in homes() {
        for text in ["icmp/echo", "icmp/echo?size=172&id=4711"] {
            match knock(text.parse().unwrap(), home, MINUTE) {
                Ok(answer) => assert!(matches!(answer, Answer::NotAwaited), "{answer:?}"),
                Err(error @ SendError::EchoPermission { .. }) => {
                    let message = error.to_string();
                    assert!(message.contains("ping_group_range") && message.contains("root"), "{message}");
                }
                Err(error) => panic!("{text}: {error}"),
            }
        }
    }
}

#[test]
fn a_port_is_found_open_or_shut() {
    let listener = TcpListener::bind(loopback()).unwrap();

    let open = probe(loopback(), listener.local_addr().unwrap().port().try_into().unwrap(), MINUTE);
    let shut = probe(loopback(), shut_port().try_into().unwrap(), MINUTE);

    assert!(matches!(open, Probe::Open), "{open:?}");
    assert!(matches!(shut, Probe::Refused), "{shut:?}");
}

#[test]
fn the_exit_status_tells_the_four_endings_apart() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let open = listener.local_addr().unwrap().port();
    let shut = shut_port();

    for (line, exit) in [
        (format!("-q -d 0 127.0.0.1 {shut}"), Exit::Done),
        (format!("-q -d 0 127.0.0.1 {shut} --verify {open}"), Exit::Done),
        (format!("-q -d 0 127.0.0.1 {shut} --verify {shut}"), Exit::StillShut),
        ("-q -6 127.0.0.1 7000".to_owned(), Exit::Failed),
        ("-q 127.0.0.1".to_owned(), Exit::Usage),
    ] {
        assert_eq!(ends_with(&line), exit, "{line}");
    }
    let exits = [Exit::Done, Exit::Failed, Exit::Usage, Exit::StillShut, Exit::BadProfile];
    assert_eq!(exits.map(Exit::status), [0, 1, 2, 4, 78]);
}

#[test]
fn a_door_that_is_shut_is_knocked_on_again() {
    let knocks = UdpSocket::bind(loopback()).unwrap();
    knocks.set_read_timeout(Some(MINUTE)).unwrap();
    let (port, shut) = (knocks.local_addr().unwrap().port(), shut_port());

    let exit = ends_with(&format!("-q -d 0 127.0.0.1 {port}:udp --verify {shut} --retry 1"));

    assert_eq!(exit, Exit::StillShut);
    let senders: Vec<_> = (0..2).map(|_| knocks.recv_from(&mut [0; 8]).unwrap().1).collect();
    assert_eq!(senders.len(), 2);
}

#[test]
fn pauses_grow_up_to_half_a_minute() {
    let seconds: Vec<_> = (1..=7).map(|retry| pause_before(retry).as_secs_f32()).collect();

    assert_eq!(seconds, [1.5, 3.0, 6.0, 12.0, 24.0, 30.0, 30.0]);
    assert_eq!(pause_before(u32::MAX), Duration::from_secs(30));
}

/// A list of one-time sequences over loopback, of UDP steps to a socket of ours.
fn list(lines: &[String]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.list");
    fs::write(&path, lines.join("\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path.display().to_string())
}

fn bound() -> (UdpSocket, String) {
    let socket = UdpSocket::bind(loopback()).unwrap();
    let step = format!("udp/{}", socket.local_addr().unwrap().port());
    socket.set_nonblocking(true).unwrap();
    (socket, step)
}

fn is_knocked(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 8]).is_ok()
}

#[test]
fn each_knock_by_a_list_takes_the_next_line_and_a_used_up_list_fails() {
    let ((first, first_step), (second, second_step)) = (bound(), bound());
    let (_folder, path) = list(&[first_step, second_step]);
    let line = format!("-q -d 0 127.0.0.1 --list {path}");

    assert_eq!(ends_with(&format!("{line} --dry-run")), Exit::Done);
    assert!(!is_knocked(&first));
    assert_eq!(ends_with(&line), Exit::Done);
    assert!(is_knocked(&first) && !is_knocked(&second));
    assert_eq!(ends_with(&line), Exit::Done);
    assert!(!is_knocked(&first) && is_knocked(&second));
    assert_eq!(ends_with(&line), Exit::Failed);
    assert!(!is_knocked(&first) && !is_knocked(&second));
}

#[test]
fn a_retry_by_a_list_goes_on_with_the_next_line() {
    let ((first, first_step), (second, second_step)) = (bound(), bound());
    let (_folder, path) = list(&[first_step, second_step]);

    let exit = ends_with(&format!("-q -d 0 127.0.0.1 --list {path} --verify {} --retry 1", shut_port()));

    assert_eq!(exit, Exit::StillShut);
    for socket in [&first, &second] {
        assert!(is_knocked(socket) && !is_knocked(socket));
    }
}

#[test]
fn a_line_of_which_nothing_could_be_sent_is_still_there() {
    // Nobody may send to a broadcast address without asking for it.
    let (_folder, path) = list(&["udp/9".to_owned()]);

    assert_eq!(ends_with(&format!("-q -d 0 255.255.255.255 --list {path}")), Exit::Failed);

    assert_eq!(fs::read_to_string(&path).unwrap(), "udp/9");
}

#[test]
fn nothing_is_sent_in_a_dry_run() {
    let (socket, step) = bound();

    assert_eq!(ends_with(&format!("-d 0 127.0.0.1 {step} --dry-run")), Exit::Done);

    assert!(!is_knocked(&socket));
}
