//! Talking to the process that serves a gate: one line of JSON asks, lines of JSON answer, over a socket of root's.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{about::Diff, events::Line, pins::Pins};

/// Where control sockets are.
const FOLDER: &str = "/run/xdp-knock";

/// How long an answer may take. A reload has the verifier at work for a second, or ten on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What may be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Who serves?
    Who,
    /// Every event from now on, a line each, until one of the two hangs up.
    Events,
    /// Read the configuration again and bring it into force.
    Reload {
        /// Another file than before.
        config: Option<PathBuf>,
        /// Go back unless confirmed within so many milliseconds.
        confirm_ms: Option<u64>,
        /// Sources to allow beside those of the file.
        allow: Vec<ipnet::IpNet>,
    },
    /// Take the gate off and end.
    Detach,
    /// Tell everybody of an event that another process caused.
    Tell {
        /// A line of the event stream.
        line: Box<Line>,
    },
    /// Make way: a daemon wants to serve. Only a reader of events that serves for want of a daemon does.
    Yield,
}

/// What is answered.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// The process that answers.
    pub pid: u32,
    /// Why it was not done, as shown to people.
    pub error: Option<String>,
    /// The exit status that goes with the error.
    pub status: Option<u8>,
    /// What a reload changed.
    pub diff: Option<Diff>,
    /// Number of the generation in force.
    pub generation: Option<u32>,
    /// Whether it is a daemon, and not a reader of events that serves for want of one.
    pub is_daemon: bool,
}

/// Who serves a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// No daemon: enforcement does not need one.
    Nobody,
    /// The daemon with this process id.
    Daemon(u32),
    /// This process, or 0 where the kernel does not tell, which does not answer: it is stopped, or hangs.
    Silent(u32),
}

/// The place where a gate's server listens, by the folder of its pins.
#[derive(Clone, Debug)]
pub struct Address {
    socket: PathBuf,
    lock: PathBuf,
}

impl Address {
    /// Returns the address that goes with a folder of pins.
    #[must_use]
    pub fn of(pins: &Pins) -> Self {
        let name = pins.path().display().to_string().trim_matches('/').replace('/', "-");
        let at = |ending: &str| Path::new(FOLDER).join(format!("{name}.{ending}"));
        Self { socket: at("sock"), lock: at("lock") }
    }

    /// Returns the socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the folder of the socket.
    #[must_use]
    pub fn folder() -> &'static Path {
        Path::new(FOLDER)
    }

    /// Takes the place of the server; `None` when another process has it.
    ///
    /// # Errors
    /// When the folder cannot be made or the socket of a dead server not be removed.
    pub fn take(&self) -> Result<Option<Seat>> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(FOLDER)
            .with_context(|| format!("making {FOLDER}"))?;
        let file = File::create(&self.lock).with_context(|| format!("opening {}", self.lock.display()))?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        // Its last holder may have removed the file between our opening and our locking it: another one may be locked now.
        let identity = |facts: fs::Metadata| (facts.dev(), facts.ino());
        if file.metadata().map(identity).ok() != fs::metadata(&self.lock).map(identity).ok() {
            return Ok(None);
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", self.socket.display()));
            }
            Ok(()) | Err(_) => {}
        }
        Ok(Some(Seat { address: self.clone(), _lock: file }))
    }

    /// Asks, and returns the answer; `None` when nobody serves.
    ///
    /// # Errors
    /// When the server does not answer, or not as it should.
    pub fn ask(&self, request: &Request) -> Result<Option<Reply>> {
        self.ask_within(request, PATIENCE)
    }

    /// Asks as [`Self::ask`] does, of a server that may take so long for each of being reached, listening and answering.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_within(&self, request: &Request, patience: Duration) -> Result<Option<Reply>> {
        let Some(mut stream) = self.connect(request, patience)? else { return Ok(None) };
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).map_err(|error| {
            anyhow!(
                "the process that serves this gate does not answer ({error}); the gate itself stays in force"
            )
        })?;
        let reply = serde_json::from_str(&line).map_err(|_| {
            anyhow!("the process that serves this gate hung up; `xdp-knock status` says what is in force")
        })?;
        Ok(Some(reply))
    }

    /// Asks for the stream of events; `None` when nobody serves.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn events(&self) -> Result<Option<BufReader<UnixStream>>> {
        let Some(stream) = self.connect(&Request::Events, PATIENCE)? else { return Ok(None) };
        // The next event may come in a year.
        stream.set_read_timeout(None).context("lifting the time limit")?;
        Ok(Some(BufReader::new(stream)))
    }

    /// Finds out who serves, and whether it answers in time.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn server(&self, patience: Duration) -> Result<Server> {
        let Some(stream) = self.reach(patience)? else { return Ok(Server::Nobody) };
        let pid = getsockopt(&stream, PeerCredentials).ok().and_then(|peer| u32::try_from(peer.pid()).ok());
        drop(stream);
        Ok(match self.ask_within(&Request::Who, patience) {
            Ok(Some(Reply { is_daemon: true, pid, .. })) => Server::Daemon(pid),
            Ok(Some(Reply { is_daemon: false, .. }) | None) => Server::Nobody,
            Err(_) => Server::Silent(pid.unwrap_or_default()),
        })
    }

    fn connect(&self, request: &Request, patience: Duration) -> Result<Option<UnixStream>> {
        let Some(mut stream) = self.reach(patience)? else { return Ok(None) };
        let mut text = serde_json::to_string(request).context("writing the request")?;
        text.push('\n');
        match stream.write_all(text.as_bytes()) {
            // It has ended since.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(None)
            }
            other => other.map(|()| Some(stream)).context("asking the process that serves this gate"),
        }
    }

    /// Connects; `None` when nobody serves. Reading and writing have the time limit, too.
    fn reach(&self, patience: Duration) -> Result<Option<UnixStream>> {
        let reaching = || format!("connecting to {}", self.socket.display());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).with_context(reaching)?;
        // Set before connecting, which waits, too, once a server that hangs has a full queue (`unix(7)`, `socket(7)`).
        socket.set_write_timeout(Some(patience)).with_context(reaching)?;
        socket.set_read_timeout(Some(patience)).with_context(reaching)?;
        match socket.connect(&SockAddr::unix(&self.socket).with_context(reaching)?) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            other => other.map(|()| Some(OwnedFd::from(socket).into())).with_context(reaching),
        }
    }
}

/// The right to serve; ends with the process at the latest.
#[derive(Debug)]
pub struct Seat {
    /// Where.
    pub address: Address,
    _lock: File,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A socket left behind is removed by the next server.
        let _ = fs::remove_file(&self.address.socket);
        let _ = fs::remove_file(&self.address.lock);
    }
}
