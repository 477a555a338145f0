//! `events`: the event stream, from any number of terminals. A daemon passes it on; where there is none, the first reader
//! takes the events out of the kernel and passes them on to the others.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    control::Address,
    daemon::{End, relay},
    events::Line,
    pins::Pins,
    survey,
};

/// How long a reader leaves the place of a server that has ended to a daemon that may have asked for it.
const COURTESY: Duration = Duration::from_millis(500);

/// Follows the event stream.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print events as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// Follows the event stream until SIGINT, or until nobody reads any more.
///
/// # Errors
/// When no gate is in force, or the kernel refuses.
pub fn run(args: &Args, pins: &Pins) -> Result<()> {
    let links = survey::links(pins)?;
    let about = survey::current(&links)
        .context("no gate is in force here, so there are no events: see `xdp-knock status`")?;
    let address = Address::of(pins);
    let mut left: Option<Instant> = None;
    loop {
        let may_serve = left.is_none_or(|left| left.elapsed() >= COURTESY);
        if may_serve && let Some(seat) = address.take()? {
            say!("xdp-knock: no daemon serves this gate: events come straight from the kernel");
            match relay(seat, pins, about, args.json)? {
                End::Yielded => left = Some(Instant::now()),
                End::NoReader => return Ok(()),
            }
        }
        let Some(stream) = address.events()? else {
            // One server has gone and the next has not come.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        match follow(stream, args.json)? {
            Ended::NoReader => return Ok(()),
            Ended::Unserved => thread::sleep(Duration::from_millis(20)),
            Ended::Server => {
                left = Some(Instant::now());
                say!(
                    "xdp-knock: the process that passed the events on has ended; the gate itself stays in force"
                );
                if survey::bare_links(pins)?.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The server hung up before it began.
    Unserved,
    Server,
    NoReader,
}

fn follow(mut stream: BufReader<UnixStream>, json: bool) -> Result<Ended> {
    // The first line says that from here on nothing is missed.
    let mut opening = String::new();
    if !matches!(stream.read_line(&mut opening), Ok(1..)) {
        return Ok(Ended::Unserved);
    }
    for text in stream.lines() {
        let Ok(text) = text else { return Ok(Ended::Server) };
        if !show(&text, json)? {
            return Ok(Ended::NoReader);
        }
    }
    Ok(Ended::Server)
}

/// Returns whether somebody reads.
fn show(text: &str, json: bool) -> Result<bool> {
    let mut out = anstream::stdout().lock();
    let written = if json {
        writeln!(out, "{text}")
    } else {
        let line: Line = serde_json::from_str(text).context("reading a line of the event stream")?;
        writeln!(out, "{}", line.text())
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("writing to standard output"),
    }
}
