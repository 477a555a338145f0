//! What the tests of this folder begin with.

use std::path::Path;

use jiff::Timestamp;

use super::sight::{Seen, Sight};
use crate::{
    about::{About, Overrides},
    config::Config,
    devices::Device,
    generation::{DEFAULT_EPHEMERAL, Generation},
    hook::Hook,
    pins::Pins,
    present::Carried,
    rollback::Standing,
};

/// A sequence of four steps.
pub const KNOCK: &str = r#"knock = ["tcp/7101", "udp/9032", "tcp/5124", "tcp/1200"]"#;

/// A generation for `eth0` and `eth1` with the doors `web` and, by a line of its own, `ssh`.
pub fn about(number: u32, ssh: &str, mode: &str) -> About {
    let text = format!(
        r#"
        [xdp]
        interfaces = ["eth0", "eth1"]
        mode = "{mode}"
        allow = ["192.0.2.0/24"]
        [[door]]
        name = "web"
        opens = ["tcp/443"]
        knock = ["udp/2001", "udp/3005", "udp/1490", "udp/7121"]
        [[door]]
        name = "ssh"
        opens = ["tcp/22"]
        {ssh}
        "#
    );
    let (config, _) = Config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"));
    let generation = Generation::compile(&config, number, &DEFAULT_EPHEMERAL).expect("few sets");
    About::of(&config, &generation, None, &Overrides::default(), Timestamp::UNIX_EPOCH)
}

/// A link on an interface, whose program has an id of ten times the interface's index.
pub fn seen(interface: &str, index: u32, about: &About) -> Seen {
    Seen {
        interface: interface.to_owned(),
        index,
        program: index * 10,
        hook: Hook::Xdp,
        egress: None,
        about: about.clone(),
        standing: Standing::Settled,
        before: None,
    }
}

/// What is seen of some links.
pub fn sight(links: Vec<Seen>) -> Sight {
    Sight { links, ..Sight::default() }
}

/// An interface that is up and carries the program of its link.
pub fn device(name: &str, index: u32) -> Device {
    let carried = Some(Carried { program: Some(index * 10), way: None });
    Device { name: name.to_owned(), index, is_up: true, carried, ..Device::default() }
}

/// Somewhere.
pub fn pins() -> Pins {
    Pins::at(Path::new("/nowhere"))
}
