//! Over loopback: packets leave in order, and the exit status says what happened.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use clap::Parser;

use super::{
    Args, Exit, run,
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

fn ends_with(line: &str) -> Exit {
    run(&Line::try_parse_from(std::iter::once("knock").chain(line.split_whitespace())).unwrap().args)
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
    assert_eq!([Exit::Done, Exit::Failed, Exit::Usage, Exit::StillShut].map(Exit::status), [0, 1, 2, 4]);
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
