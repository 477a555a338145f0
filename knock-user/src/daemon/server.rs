//! The daemon's end of the control socket: requests go to the daemon's loop one by one, events straight to their reader.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use super::{
    Daemon, Stop,
    reload::{Wanted, refusal},
};
use crate::{
    control::{Reply, Request, Seat},
    events::Line,
};

/// Longest request.
const MAX_BYTES: u64 = 1 << 16;
/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long those who asked may take to read their answer once the server ends.
const PARTING: Duration = Duration::from_secs(2);
/// Events written to a reader at a time: as many as are taken out of the ring, so that none falls behind for the writing.
const LINES_AT_ONCE: usize = 1024;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;

/// A request on its way to the daemon's loop.
#[derive(Debug)]
pub enum Command {
    /// Something to be answered.
    Ask(Request, oneshot::Sender<Reply>),
    /// A reader for every event from now on.
    Subscribe(oneshot::Sender<mpsc::Receiver<Arc<Line>>>),
}

/// The listening socket.
#[derive(Debug)]
pub struct Server {
    commands: mpsc::Receiver<Command>,
    accepting: AbortHandle,
}

impl Server {
    /// Listens, and passes requests on. Must be called inside the runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(seat: Seat) -> Result<Self> {
        let path = seat.address.socket().to_owned();
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("closing {} to others", path.display()))?;
        let (sender, commands) = mpsc::channel(MAX_CONNECTIONS);
        let accepting = tokio::spawn(accept(listener, seat, sender)).abort_handle();
        Ok(Self { commands, accepting })
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    /// Listens no more, and waits until answers and the last events are written. Whoever gives events must be gone.
    pub async fn finish(mut self) {
        self.accepting.abort();
        // Every conversation holds a sender: when all have ended, nothing can come any more.
        let ended = async { while self.commands.recv().await.is_some() {} };
        // Who does not read must not hold up the end.
        let _ = timeout(PARTING, ended).await;
    }
}

async fn accept(listener: UnixListener, _seat: Seat, commands: mpsc::Sender<Command>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let is_ours =
            stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
        if !is_ours || open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            if is_ours {
                open.fetch_sub(1, Ordering::Relaxed);
            }
            continue;
        }
        let (commands, open) = (commands.clone(), Arc::clone(&open));
        tokio::spawn(async move {
            // Whoever asked has gone: there is nobody to tell.
            let _ = converse(stream, &commands).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn converse(stream: UnixStream, commands: &mpsc::Sender<Command>) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_BYTES));
    timeout(PATIENCE, reader.read_line(&mut line)).await.context("no request came")??;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let reply = Reply { error: Some(format!("not a request: {error}")), ..Reply::default() };
            return answer(&mut writer, reply).await;
        }
    };
    if matches!(request, Request::Events) {
        let (sender, receiver) = oneshot::channel();
        commands.send(Command::Subscribe(sender)).await?;
        return stream_events(reader, writer, receiver.await?).await;
    }
    let (sender, receiver) = oneshot::channel();
    commands.send(Command::Ask(request, sender)).await?;
    answer(&mut writer, receiver.await?).await
}

async fn answer(writer: &mut tokio::net::unix::OwnedWriteHalf, reply: Reply) -> Result<()> {
    let reply = Reply { pid: std::process::id(), ..reply };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await?;
    writer.shutdown().await?;
    Ok(())
}

async fn stream_events(
    mut reader: BufReader<tokio::io::Take<tokio::net::unix::OwnedReadHalf>>,
    mut writer: tokio::net::unix::OwnedWriteHalf,
    mut lines: mpsc::Receiver<Arc<Line>>,
) -> Result<()> {
    // Says that from here on nothing is missed.
    answer_open(&mut writer).await?;
    let mut end = [0; 1];
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            count = lines.recv_many(&mut waiting, LINES_AT_ONCE) => {
                if count == 0 {
                    return Ok(());
                }
                let text: String = waiting.drain(..).flat_map(|line| [line.json(), "\n".to_owned()]).collect();
                writer.write_all(text.as_bytes()).await?;
            }
            // A reader has nothing more to say: this is its end.
            _ = reader.read(&mut end) => return Ok(()),
        }
    }
}

async fn answer_open(writer: &mut tokio::net::unix::OwnedWriteHalf) -> Result<()> {
    let reply = Reply { ok: true, pid: std::process::id(), ..Reply::default() };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await?;
    Ok(())
}

impl Daemon {
    /// Does what is asked; returns a reason to stop if that is it.
    pub(super) fn obey(&mut self, command: Command) -> Option<Stop> {
        let (request, reply) = match command {
            Command::Subscribe(reader) => {
                // Gone already: the hub finds out.
                let _ = reader.send(self.hub.subscribe());
                return None;
            }
            Command::Ask(request, reply) => (request, reply),
        };
        let done = Reply { ok: true, is_daemon: true, ..Reply::default() };
        let answer = match request {
            Request::Who | Request::Events => done,
            Request::Reload { config, confirm_ms, allow } => {
                self.reload(Wanted { config, confirm: confirm_ms.map(Duration::from_millis), allow })
            }
            Request::Tell { line } => {
                self.publish(*line);
                done
            }
            Request::Yield => {
                Reply { error: Some("a daemon does not make way".to_owned()), ..Reply::default() }
            }
            Request::Detach => {
                // Answered when it is done.
                self.farewell = Some(reply);
                return Some(Stop::Detach);
            }
        };
        // The asker may have gone; what it asked for is done.
        let _ = reply.send(answer);
        None
    }

    /// Answers the one who had the daemon detach.
    pub(super) fn say_farewell(&mut self, outcome: &Result<()>) {
        let Some(reply) = self.farewell.take() else { return };
        let answer = match outcome {
            Ok(()) => Reply { ok: true, is_daemon: true, ..Reply::default() },
            Err(error) => refusal(error),
        };
        // Gone: it sees for itself.
        let _ = reply.send(answer);
    }
}
