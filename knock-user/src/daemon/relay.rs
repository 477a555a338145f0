//! Passing events on for want of a daemon: what the first `events` does, until a daemon wants the place.

use std::collections::BTreeMap;

use super::{
    hub::Hub,
    ring::Ring,
    server::{Command, Server},
    sweep::{TICK, losses},
    terminal::Terminal,
};
use crate::{
    about::About,
    control::{Reply, Request, Seat},
    events::Line,
    pins::Pins,
    state::State,
};
use anyhow::Result;

/// Why passing on ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A daemon serves from now on.
    Yielded,
    /// Nobody reads standard output any more.
    NoReader,
}

/// Takes events out of the kernel, prints them and passes them on.
///
/// # Errors
/// When the kernel's maps cannot be read.
pub fn relay(seat: Seat, pins: &Pins, about: &About, json: bool) -> Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, terminal) = runtime.block_on(async {
        let mut hub = Hub::default();
        let mut terminal = Terminal::start(hub.subscribe(), json)?;
        let mut server = Server::start(seat)?;
        let end = pass_on(hub, &mut server, &mut terminal, pins, about).await?;
        server.finish().await;
        anyhow::Ok((end, terminal))
    })?;
    terminal.finish();
    Ok(end)
}

async fn pass_on(
    mut hub: Hub,
    server: &mut Server,
    terminal: &mut Terminal,
    pins: &Pins,
    about: &About,
) -> Result<End> {
    let mut ring = Ring::open(pins)?;
    let mut state = State::open(pins)?;
    let mut tick = tokio::time::interval(TICK);
    let names: BTreeMap<u64, String> =
        about.doors.iter().map(|(name, door)| (door.id, name.clone())).collect();
    loop {
        tokio::select! {
            events = ring.read() => {
                let since = state.kept_since()?;
                for event in events? {
                    Line::of_event(&event, &names, since).into_iter().for_each(|line| hub.publish(line));
                }
            }
            Some(command) = server.next() => {
                if obey(command, &mut hub) {
                    return Ok(End::Yielded);
                }
            }
            () = terminal.gone() => return Ok(End::NoReader),
            _ = tick.tick() => {
                losses(&mut state)?.into_iter().for_each(|line| hub.publish(line));
                hub.catch_up();
            }
        }
    }
}

/// Returns whether to make way.
fn obey(command: Command, hub: &mut Hub) -> bool {
    let (request, reply) = match command {
        Command::Subscribe(reader) => {
            // Gone already: the hub finds out.
            let _ = reader.send(hub.subscribe());
            return false;
        }
        Command::Ask(request, reply) => (request, reply),
    };
    let (is_end, answer) = match request {
        Request::Yield => (true, Reply { ok: true, ..Reply::default() }),
        Request::Who | Request::Events => (false, Reply { ok: true, ..Reply::default() }),
        Request::Tell { line } => {
            hub.publish(*line);
            (false, Reply { ok: true, ..Reply::default() })
        }
        Request::Reload { .. } | Request::Detach => {
            (false, Reply { error: Some("no daemon serves this gate".to_owned()), ..Reply::default() })
        }
    };
    // The asker may have gone.
    let _ = reply.send(answer);
    is_end
}
