//! Keeping the owner from locking himself out: the far end of the SSH connection that the command came through is found,
//! and a gate that would cut it off is refused until he says how he means it.

use std::{fs, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use nix::unistd::Pid;

use crate::{
    about::Overrides,
    config::{Config, Mode},
    install::Plan,
    run::BadUsage,
    service::Service,
    step::Step,
};

/// What the owner says about it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LockoutArgs {
    /// Allow the address that your SSH connection comes from, for as long as this gate is in force
    #[arg(long)]
    pub allow_me: bool,
    /// Hide the port of your SSH connection although nothing brings you back in but the knock
    #[arg(long)]
    pub yes: bool,
}

/// An SSH connection, as `sshd` tells of it (`SSH_CONNECTION` in `ssh(1)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where the person is.
    pub peer: IpAddr,
    /// The port of this machine that is connected.
    pub port: u16,
}

impl Connection {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (peer, _, _, port) = (words.next()?, words.next()?, words.next()?, words.next()?);
        // A link-local address comes with its zone.
        let peer = peer.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical();
        Some(Self { peer, port: port.parse().ok()? })
    }
}

/// Returns the SSH connection that this process was started through, if any. `sudo` takes the variable away, so the
/// processes above are asked, too.
#[must_use]
pub fn connection() -> Option<Connection> {
    let mut process = std::process::id();
    // No chain of processes is that long but by a fault.
    for _ in 0..64 {
        if let Some(connection) = environment(process) {
            return Some(connection);
        }
        process = parent(process)?;
    }
    None
}

fn environment(process: u32) -> Option<Connection> {
    let bytes = fs::read(format!("/proc/{process}/environ")).ok()?;
    let text = bytes.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    Connection::parse(std::str::from_utf8(text).ok()?)
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())?;
    (parent > 1 && Pid::from_raw(i32::try_from(parent).ok()?) != Pid::this()).then_some(parent)
}

/// Puts the owner's wish into the plan, or refuses a plan that cuts off his own connection.
///
/// # Errors
/// [`BadUsage`] with the ways out.
pub fn guard(args: &LockoutArgs, plan: &mut Plan) -> Result<()> {
    guard_against(connection(), args, plan.confirm.is_some(), &mut plan.config, &mut plan.overrides)
}

/// As [`guard`], for a connection found already.
///
/// # Errors
/// [`BadUsage`] with the ways out.
pub fn guard_against(
    connection: Option<Connection>,
    args: &LockoutArgs,
    is_confirmed: bool,
    config: &mut Config,
    overrides: &mut Overrides,
) -> Result<()> {
    let Some(connection) = connection else {
        if args.allow_me {
            return Err(BadUsage("--allow-me: no SSH connection brought you here, so there is nobody to allow; name addresses with `allow` under [xdp]".to_owned()).into());
        }
        return Ok(());
    };
    if args.allow_me {
        overrides.allow.push(IpNet::from(connection.peer));
        overrides.apply(config);
        say!("xdp-knock: {} is allowed for as long as this gate is in force (--allow-me)", connection.peer);
    }
    if !is_cut_off(connection, config) || args.yes {
        return Ok(());
    }
    if is_confirmed {
        say!(
            "xdp-knock: WARNING: this hides port {} of your own SSH connection: unless you get back in and run `xdp-knock confirm`, all is as before",
            connection.port
        );
        return Ok(());
    }
    Err(BadUsage(format!(
        "this hides port {port} of the SSH connection that you are on, from {peer}: it would be cut. Allow yourself (--allow-me), or try it with a way back (--confirm 60s), or say that you mean it (--yes). Nothing was changed",
        port = connection.port,
        peer = connection.peer,
    ))
    .into())
}

fn is_cut_off(connection: Connection, config: &Config) -> bool {
    let is_allowed = config.allow.iter().any(|net| net.contains(&connection.peer));
    let Some(port) = std::num::NonZeroU16::new(connection.port) else { return false };
    let hides = |service: &Service| service.takes(Step::Tcp(port));
    match config.mode {
        Mode::Observe => false,
        Mode::Guard => !is_allowed && config.doors.iter().flat_map(|door| &door.opens).any(hides),
        Mode::Deny => !is_allowed && !config.public.iter().any(hides),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [xdp]
        interfaces = ["eth0"]
        mode = "guard"
        [[door]]
        name = "ssh"
        opens = ["tcp/22"]
        knock = ["tcp/33817", "udp/9032", "tcp/51240", "tcp/4711"]
    "#;

    fn config(mode: Mode) -> Config {
        let (mut config, _) = Config::parse("test", CONFIG).unwrap_or_else(|error| panic!("{error}"));
        config.mode = mode;
        config
    }

    fn from(peer: &str, port: u16) -> Option<Connection> {
        Some(Connection { peer: peer.parse().expect("an address"), port })
    }

    fn judge(
        connection: Option<Connection>,
        args: &LockoutArgs,
        is_confirmed: bool,
        config: &mut Config,
    ) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        guard_against(connection, args, is_confirmed, config, &mut overrides)?;
        Ok(overrides)
    }

    #[test]
    fn deny_mode_cuts_off_whoever_is_neither_allowed_nor_at_a_public_port() {
        let mut denying = config(Mode::Deny);
        let refused = judge(from("192.0.2.7", 2222), &LockoutArgs::default(), false, &mut denying);
        assert!(refused.is_err(), "no door opens the port, and deny mode closes it");

        denying.public.push(Service::Tcp(2222..=2222));
        assert!(judge(from("192.0.2.7", 2222), &LockoutArgs::default(), false, &mut denying).is_ok());
    }

    #[test]
    fn hiding_the_port_one_is_connected_to_is_refused_with_the_ways_out() {
        let refused = judge(from("192.0.2.7", 22), &LockoutArgs::default(), false, &mut config(Mode::Guard));

        let message = refused.expect_err("it cuts the connection").to_string();

        for word in ["192.0.2.7", "22", "--allow-me", "--confirm", "--yes"] {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
    }

    #[test]
    fn what_does_not_cut_the_connection_is_let_through() {
        let mut allowed = config(Mode::Guard);
        allowed.allow.push("192.0.2.0/24".parse().expect("a prefix"));
        for (connection, mut config) in [
            (None, config(Mode::Guard)),
            (from("192.0.2.7", 2222), config(Mode::Guard)),
            (from("192.0.2.7", 22), config(Mode::Observe)),
            (from("192.0.2.7", 22), allowed),
        ] {
            assert!(judge(connection, &LockoutArgs::default(), false, &mut config).is_ok(), "{connection:?}");
        }
    }

    #[test]
    fn each_of_the_three_ways_out_is_one() {
        let connection = from("192.0.2.7", 22);
        let mut allowed = config(Mode::Guard);

        let allow_me = LockoutArgs { allow_me: true, yes: false };
        let overrides = judge(connection, &allow_me, false, &mut allowed).expect("allowed");

        let me: IpNet = "192.0.2.7/32".parse().expect("a prefix");
        assert_eq!((overrides.allow, allowed.allow), (vec![me], vec![me]));
        let yes = LockoutArgs { allow_me: false, yes: true };
        assert!(judge(connection, &yes, false, &mut config(Mode::Guard)).is_ok());
        assert!(judge(connection, &LockoutArgs::default(), true, &mut config(Mode::Guard)).is_ok());
    }

    #[test]
    fn the_far_end_is_read_from_the_words_of_sshd() {
        for (text, peer, port) in [
            ("192.0.2.7 51000 198.51.100.1 22", "192.0.2.7", 22),
            ("::ffff:192.0.2.7 51000 ::ffff:198.51.100.1 2222", "192.0.2.7", 2222),
            ("fe80::1%eth0 51000 fe80::2%eth0 22", "fe80::1", 22),
        ] {
            assert_eq!(Connection::parse(text), from(peer, port), "{text}");
        }
        assert_eq!(Connection::parse("192.0.2.7 51000"), None);
    }
}
