//! The verb `init`: a commented configuration with a sequence nobody else has.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    num::NonZeroU16,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{Config, lint, listeners::Listeners};
use crate::step::Step;

const STEPS: usize = 4;
/// Below the kernel's ephemeral range (32768 and up) and above the ports that need root.
const PORTS: std::ops::Range<u16> = 1024..32_768;

/// Writes a commented configuration with a strong random sequence.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to write it
    #[arg(default_value = "./xdp-knock.toml")]
    pub path: PathBuf,
    /// Replace a file that is there; its sequence is lost
    #[arg(long)]
    pub force: bool,
    /// An interface to guard; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
}

/// Writes the file and tells on standard output what to do next.
///
/// # Errors
/// When the file is there already (without `--force`), cannot be written, or there are no random numbers.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let steps = random_sequence(&Listeners::of_this_machine())?;
    let text = text(&args.iface, &steps);
    // What the command line put into it, the names of interfaces, may be wrong.
    Config::parse("the new configuration", &text)?;
    write(args, &text)?;
    let mut out = anstream::stdout().lock();
    out.write_all(next_commands(args, &steps).as_bytes()).context("cannot write to standard output")
}

/// The text of a configuration in observe mode, with a new random sequence each time.
///
/// # Errors
/// When the system gives no random numbers.
pub fn example(interfaces: &[String]) -> anyhow::Result<String> {
    Ok(text(interfaces, &random_sequence(&Listeners::of_this_machine())?))
}

/// Steps over TCP and UDP that `check` has nothing to say about.
fn random_sequence(listeners: &Listeners) -> anyhow::Result<Vec<Step>> {
    loop {
        let mut steps: Vec<Step> = Vec::with_capacity(STEPS);
        while steps.len() < STEPS {
            let step = random_step()?;
            if !listeners.take(step) && steps.iter().all(|other| apart(*other, step)) {
                steps.push(step);
            }
        }
        let tcp = steps.iter().filter(|step| matches!(step, Step::Tcp(_))).count();
        // Drawn again as a whole, so that every mixed sequence is equally likely.
        if (1..STEPS).contains(&tcp) {
            return Ok(steps);
        }
    }
}

/// A step on a port of `PORTS` that no scanner prefers.
fn random_step() -> anyhow::Result<Step> {
    loop {
        let bits = getrandom::u32().context("the system gives no random numbers for a sequence")?;
        let [low, high, proto, _] = bits.to_le_bytes();
        let Some(port) = NonZeroU16::new(u16::from_le_bytes([low, high])) else { continue };
        if PORTS.contains(&port.get()) && !lint::is_well_known(port.get()) && !lint::is_round(port.get()) {
            return Ok(if proto & 1 == 0 { Step::Tcp(port) } else { Step::Udp(port) });
        }
    }
}

/// Not the same port, and not neighbours, whatever the protocol.
fn apart(a: Step, b: Step) -> bool {
    match (lint::port(a), lint::port(b)) {
        (Some(a), Some(b)) => a.abs_diff(b) > 1,
        (Some(_) | None, _) => true,
    }
}

fn write(args: &Args, text: &str) -> anyhow::Result<()> {
    let path = args.path.as_path();
    let shown = path.display();
    if !args.force {
        return match create(path, text) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                anyhow::bail!("{shown} is there already: name another file, or replace it with --force")
            }
            result => result.with_context(|| format!("cannot write {shown}")),
        };
    }
    // Written beside it and renamed: the old file stays whole until the new one is.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    create(&beside, text).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot replace {shown}"))
}

/// A new file that only its owner can read, since it holds the secret.
pub(super) fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn text(interfaces: &[String], steps: &[Step]) -> String {
    let quoted = |texts: Vec<String>| {
        let items: Vec<String> =
            texts.iter().map(|text| toml::Value::from(text.as_str()).to_string()).collect();
        format!("[{}]", items.join(", "))
    };
    let interfaces = if interfaces.is_empty() {
        "# interfaces = [\"eth0\"]        # or name them with --iface".to_owned()
    } else {
        format!("interfaces = {}", quoted(interfaces.to_vec()))
    };
    let knock = quoted(steps.iter().map(ToString::to_string).collect());
    include_str!("example.toml").replace("%interfaces%", &interfaces).replace("%knock%", &knock)
}

fn next_commands(args: &Args, steps: &[Step]) -> String {
    let path = args.path.display();
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    let iface = args.iface.first().map_or("eth0", String::as_str);
    format!(
        "wrote {path}: one door, \"ssh\", in observe mode; only you can read it\n\
         \n\
         check it:         xdp-knock check {path}\n\
         try it:           sudo xdp-knock run --iface {iface} --config {path}\n\
         from elsewhere:   xdp-knock knock HOST {}\n\
         \n\
         Nothing is dropped until you set mode = \"guard\". Keep the sequence off this machine too.\n",
        steps.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Mode, bits};

    #[test]
    fn every_example_passes_without_a_warning() {
        for _ in 0..200 {
            let steps = random_sequence(&Listeners::default()).expect("random numbers");
            let text = text(&["eth0".to_owned()], &steps);
            let (config, warnings) =
                Config::parse("example", &text).unwrap_or_else(|error| panic!("{error}"));

            assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
            assert_eq!((config.mode, config.interfaces.len()), (Mode::Observe, 1));
            assert!(bits(&config.doors[0].knock) > 63.0);
        }
    }

    #[test]
    fn two_examples_have_two_sequences() {
        assert_ne!(example(&[]).expect("random numbers"), example(&[]).expect("random numbers"));
    }

    #[test]
    fn an_interface_that_cannot_be_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.toml");

        let error = run(&Args { path: path.clone(), force: false, iface: vec!["a\"b/c".to_owned()] });

        assert!(error.expect_err("a wrong name").to_string().contains("a\"b/c"));
        assert!(!path.exists());
    }

    #[test]
    fn an_existing_file_is_only_replaced_by_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.toml");
        let args = |force| Args { path: path.clone(), force, iface: Vec::new() };
        fs::write(&path, "mine").expect("a file");

        let error = write(&args(false), "new").expect_err("the file is there");
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("the file"), "mine");

        write(&args(true), "new").expect("replaced");
        assert_eq!(fs::read_to_string(&path).expect("the file"), "new");
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing is left beside it");
    }
}
