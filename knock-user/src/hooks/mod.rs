//! Programs that are run when something happens: bounded in number and time, and never waited for.

mod job;
mod user;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::Child,
    sync::watch,
    time::{sleep, timeout},
};

use self::{job::Job, user::Identity};
use crate::{
    config::{Argv, Hooks, show_duration},
    events::{Line, Name},
};

/// How many jobs wait while as many run as may; what comes then is skipped.
pub const QUEUE: usize = 64;

/// Runs the hooks of one configuration.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
}

struct Shared {
    hooks: Hooks,
    identity: Identity,
    state: Mutex<State>,
    /// Each worker holds a receiver: a value means that it must end now, and none left that all have ended.
    stop: watch::Sender<()>,
    report: Box<dyn Fn(String) + Send + Sync>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    workers: usize,
    waiting: VecDeque<Job>,
    skipped: u64,
    ending: bool,
}

impl Runner {
    /// Prepares to run hooks; what goes wrong with one later is told on standard error.
    ///
    /// # Errors
    /// When the user of the hooks does not exist, or this process may not act as that user.
    pub fn new(hooks: &Hooks) -> Result<Self> {
        Self::reporting_to(hooks, |text| say!("xdp-knock: {text}"))
    }

    /// As [`Self::new`], but what goes wrong is told to `report`, one sentence each.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reporting_to(hooks: &Hooks, report: impl Fn(String) + Send + Sync + 'static) -> Result<Self> {
        let identity = if hooks.is_empty() { Identity::Own } else { Identity::of(&hooks.user)? };
        let shared = Shared {
            hooks: hooks.clone(),
            identity,
            state: Mutex::default(),
            stop: watch::Sender::new(()),
            report: Box::new(report),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether hooks run as another user than this process: it must keep `CAP_SETUID`, `CAP_SETGID` and `CAP_KILL`.
    #[must_use]
    pub fn switches_user(&self) -> bool {
        matches!(self.shared.identity, Identity::Other(_))
    }

    /// Runs the hook of an event, if it has one, as soon as fewer run than may. Returns at once; must be called within
    /// a tokio runtime.
    pub fn tell(&self, line: &Line) {
        let Some(argv) = hook(&self.shared.hooks, line.event) else { return };
        let job = Job::new(argv, line);
        let mut state = self.shared.lock();
        if state.ending {
            state.skipped += 1;
        } else if state.workers < self.shared.hooks.at_once {
            state.workers += 1;
            drop(state);
            tokio::spawn(work(Arc::clone(&self.shared), self.shared.stop.subscribe(), job));
        } else if state.waiting.len() < QUEUE {
            state.waiting.push_back(job);
        } else {
            state.skipped += 1;
        }
    }

    /// Returns how many hooks were not run, for want of room, since it was last asked.
    #[must_use]
    pub fn take_skipped(&self) -> u64 {
        std::mem::take(&mut self.shared.lock().skipped)
    }

    /// Ends: those that wait or come later are skipped, those that run have `patience` to end and are killed then.
    /// A runner that is only dropped leaves both to run on, for as long as the runtime does.
    pub async fn finish(&self, patience: Duration) {
        {
            let mut state = self.shared.lock();
            state.ending = true;
            state.skipped += state.waiting.len() as u64;
            state.waiting.clear();
        }
        if timeout(patience, self.shared.stop.closed()).await.is_err() {
            self.shared.stop.send_replace(());
            self.shared.stop.closed().await;
        }
    }
}

fn hook(hooks: &Hooks, event: Name) -> Option<&Argv> {
    match event {
        Name::Promoted => hooks.on_promote.as_ref(),
        Name::Expired | Name::Revoked => hooks.on_expire.as_ref(),
        Name::Banned => hooks.on_ban.as_ref(),
        Name::Attached
        | Name::Detached
        | Name::Reloaded
        | Name::Step
        | Name::Reset
        | Name::Unbanned
        | Name::TableFull
        | Name::SpaRejected
        | Name::Spent
        | Name::Lost => None,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, or one worker less.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let job = state.waiting.pop_front();
        if job.is_none() {
            state.workers -= 1;
        }
        job
    }

    fn report(&self, job: &Job, what: fmt::Arguments<'_>) {
        (self.report)(format!("hook {job} {what}"));
    }
}

async fn work(shared: Arc<Shared>, mut stop: watch::Receiver<()>, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        run(&shared, &mut stop, &job).await;
        next = shared.next();
    }
}

async fn run(shared: &Shared, stop: &mut watch::Receiver<()>, job: &Job) {
    let mut child = match job.command(&shared.identity).spawn() {
        Ok(child) => child,
        Err(error) => return shared.report(job, format_args!("cannot be run: {error}")),
    };
    let limit = shared.hooks.timeout;
    tokio::select! {
        ended = child.wait() => match ended {
            Ok(status) if status.success() => {}
            Ok(status) => shared.report(job, format_args!("failed: {status}")),
            Err(error) => shared.report(job, format_args!("was lost: {error}")),
        },
        () = sleep(limit) => {
            let outcome = kill(&mut child).await;
            shared.report(job, format_args!("took more than {}: {outcome}", show_duration(limit)));
        }
        _ = stop.changed() => {
            let outcome = kill(&mut child).await;
            shared.report(job, format_args!("ran while the daemon stopped: {outcome}"));
        }
    }
}

/// Kills the process group and waits for its leader.
async fn kill(child: &mut Child) -> &'static str {
    // It has no id once it was waited for, and until then nobody else can have its group.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let killed = group.map_or(Ok(()), |group| killpg(group, Signal::SIGKILL));
    match killed {
        Ok(()) | Err(Errno::ESRCH) => {
            // Nothing is left to be said of one that was killed.
            let _ = child.wait().await;
            "killed"
        }
        Err(_) => "it cannot be killed, and runs on",
    }
}

#[cfg(test)]
mod tests;
