//! A process that holds itself back as the daemon does, and says what it can still do: one word and its outcome a line.
//! Arguments: the folder that it may write, one that it may remove folders from, a listening port, a process to signal.

use std::{
    env, fs,
    io::{self, Read as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use knock_user::sandbox;
use nix::{
    sys::{signal::kill, stat::Mode},
    unistd::{Pid, mkfifo},
};

fn main() {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [writable, cleared, port, process] = &arguments[..] else { panic!("four arguments: {arguments:?}") };
    let number = |path: &Path| path.to_str().and_then(|text| text.parse().ok()).expect("a number");
    // Bound before, as the daemon's own socket may be.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");

    let hold = sandbox::hold(&[writable], &[cleared]).expect("rules");

    println!("hold {hold:?}");
    let say = |what: &str, outcome: io::Result<()>| match outcome {
        Ok(()) => println!("{what} yes"),
        Err(error) => println!("{what} {}", error.kind()),
    };
    let here = |name: &str| writable.join(name);
    say("read-elsewhere", fs::read(cleared.join("file")).map(drop));
    say("list-elsewhere", fs::read_dir(cleared).map(drop));
    say("make", fs::write(here("a"), "text"));
    say("change", fs::write(here("a"), "other"));
    say("rename", fs::rename(here("a"), here("b")));
    say("make-folder", fs::create_dir(here("folder")));
    say("rename-across", fs::rename(here("b"), here("folder/b")));
    say("remove", fs::remove_file(here("folder/b")));
    say("remove-folder", fs::remove_dir(here("folder")));
    say("socket", UnixListener::bind(here("socket")).map(drop));
    say("symlink", symlink("/", here("link")));
    say("fifo", mkfifo(&here("fifo"), Mode::S_IRWXU).map_err(io::Error::from));
    say("make-elsewhere", fs::write(cleared.join("new"), "text"));
    say("change-elsewhere", fs::OpenOptions::new().append(true).open(cleared.join("file")).map(drop));
    say("remove-elsewhere", fs::remove_file(cleared.join("file")));
    say("clear", fs::remove_dir(cleared.join("empty")));
    say("run", Command::new("/bin/true").status().map(drop));
    say("connect", TcpStream::connect(("127.0.0.1", number(port) as u16)).map(drop));
    let address = listener.local_addr().expect("it is bound");
    say("listen", TcpListener::bind("127.0.0.1:0").map(drop));
    say("accept", accept(&listener, address.port()));
    say("signal", kill(Pid::from_raw(number(process)), None).map_err(io::Error::from));
}

/// Tells the test where to connect, and waits until it has.
fn accept(listener: &TcpListener, port: u16) -> io::Result<()> {
    println!("port {port}");
    let (mut stream, _) = listener.accept()?;
    stream.read_exact(&mut [0; 1])
}
