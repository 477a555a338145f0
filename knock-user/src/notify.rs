//! What the service manager is told. Where there is none, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells that the gate is in force and the daemon serves, with a word for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Tells that a reload has begun; [`ready`] ends it, however it went.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => say!("xdp-knock: the monotonic clock cannot be read: {error}"),
    }
}

/// Tells how things are, in words.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

/// Tells that the daemon is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that the daemon still does its work: to be called every [`watchdog_interval`], by the loop that does it.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Returns how often the service manager is to hear that the daemon is alive: half of the time after which it gives
/// it up, as `sd_watchdog_enabled(3)` has it. `None`: it does not ask.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        // The gate does not depend on it.
        say!("xdp-knock: the service manager cannot be told: {error}");
    }
}

/// The protocol's fields end with their line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, process::Command};

    use super::*;

    /// Runs in a process of its own, since the environment belongs to the whole process.
    #[test]
    fn what_a_child_tells() {
        if std::env::var_os("TELL_THE_MANAGER").is_none() {
            return;
        }
        ready("enforcing\non eth0");
        reloading();
        status("2 doors");
        alive();
        stopping();
        println!("interval {:?}", watchdog_interval());
    }

    fn child() -> Command {
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "notify::tests::what_a_child_tells", "--nocapture"]);
        child.env_remove("WATCHDOG_PID").env("TELL_THE_MANAGER", "1");
        child
    }

    #[test]
    fn the_manager_hears_each_state_in_its_own_datagram() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let outcome =
            child().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "30000000").output().expect("a child");
        assert!(outcome.status.success(), "{outcome:?}");

        socket.set_nonblocking(true).expect("a socket of our own");
        let mut heard = Vec::new();
        let mut datagram = [0; 512];
        while let Ok(length) = socket.recv(&mut datagram) {
            heard.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
        }

        let reloading = heard.remove(1);
        assert_eq!(
            heard,
            ["READY=1\nSTATUS=enforcing on eth0\n", "STATUS=2 doors\n", "WATCHDOG=1\n", "STOPPING=1\n"]
        );
        let time =
            reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end).map(str::parse::<u64>);
        assert!(matches!(time, Some(Ok(1..))), "{reloading}");
        let output = String::from_utf8_lossy(&outcome.stdout);
        assert!(output.contains("interval Some(15s)"), "{output}");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let outcome =
            child().env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").output().expect("a child");

        let output = String::from_utf8_lossy(&outcome.stdout);
        assert!(outcome.status.success() && output.contains("interval None"), "{outcome:?}");
        assert!(outcome.stderr.is_empty(), "{outcome:?}");
    }

    #[test]
    fn a_manager_that_is_gone_is_told_of_and_no_error() {
        let outcome = child().env("NOTIFY_SOCKET", "/no/such/socket").output().expect("a child");

        let errors = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.success() && errors.contains("cannot be told"), "{outcome:?}");
    }
}
