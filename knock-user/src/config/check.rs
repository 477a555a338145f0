//! The verb `check`: is this file a configuration, and is it a good one?

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::{
    Config, Door, Mode, Problem, ReadError, Warning, bits, keys::in_words, listeners::Listeners, programs,
    show_duration,
};
use crate::generation::host_ephemeral;

/// Validates a configuration and tells what is doubtful about it; needs no root.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration to check
    pub file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Fail on warnings too
    #[arg(long)]
    pub strict: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The configuration can be used.
    Good,
    /// It has errors, or with `--strict` warnings.
    Bad,
    /// The file could not be read.
    Unreadable,
}

impl Outcome {
    /// The exit status: 0 good, 78 bad configuration (`EX_CONFIG` of sysexits.h), 1 anything else.
    pub fn status(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Bad => 78,
            Self::Unreadable => 1,
        }
    }
}

/// Checks the file: the report on standard output, errors on standard error.
///
/// # Errors
/// When the report cannot be written.
pub fn run(args: &Args) -> io::Result<Outcome> {
    report(
        args,
        &Listeners::of_this_machine(),
        &mut anstream::stdout().lock(),
        &mut anstream::stderr().lock(),
    )
}

fn report(
    args: &Args,
    listeners: &Listeners,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Outcome> {
    let file = args.file.display().to_string();
    let (config, warnings) = match Config::read(&args.file) {
        Ok(read) => read,
        Err(error) => return refused(args, &file, &error, out, err),
    };
    let doubts = [taken_steps(&config, listeners), programs::doubts(&config.hooks)].concat();
    let unreachable: Vec<String> =
        listeners.unreachable(&config, &host_ephemeral()).iter().map(ToString::to_string).collect();
    let count = warnings.len() + doubts.len();
    let good = !args.strict || count == 0;
    if args.json {
        let warnings: Vec<Value> = warnings
            .iter()
            .map(Problem::to_json)
            .chain(doubts.iter().map(|text| note(&file, text)))
            .collect();
        let doors: Vec<Value> = config.doors.iter().map(door_json).collect();
        let facts = json!({ "v": 1, "file": file, "ok": good, "mode": mode(&config), "doors": doors,
            "unreachable": unreachable, "warnings": warnings, "errors": [] });
        writeln!(out, "{facts}")?;
    } else {
        summary(&config, &unreachable, out)?;
        print_warnings(&file, &warnings, &doubts, out)?;
        writeln!(out, "{}", verdict(&file, good, count))?;
    }
    Ok(if good { Outcome::Good } else { Outcome::Bad })
}

fn refused(
    args: &Args,
    file: &str,
    error: &ReadError,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Outcome> {
    let (outcome, errors, text) = match error {
        ReadError::Io { .. } => {
            (Outcome::Unreadable, vec![note(file, &error.to_string())], error.to_string())
        }
        ReadError::Bad(bad) => {
            let errors = bad.problems().iter().map(Problem::to_json).collect();
            (Outcome::Bad, errors, bad.for_stderr())
        }
    };
    if args.json {
        let facts =
            json!({ "v": 1, "file": file, "ok": false, "doors": [], "warnings": [], "errors": errors });
        writeln!(out, "{facts}")?;
        return Ok(outcome);
    }
    writeln!(err, "{}", text.trim_end())?;
    if outcome == Outcome::Bad {
        let plural = if errors.len() == 1 { "" } else { "s" };
        writeln!(err, "{file}: {} error{plural}: not usable", errors.len())?;
    }
    Ok(outcome)
}

/// One sentence for each step that something on this machine listens for.
fn taken_steps(config: &Config, listeners: &Listeners) -> Vec<String> {
    let steps = config.doors.iter().flat_map(|door| door.knock.iter().map(move |step| (door, *step)));
    let taken = steps.filter(|(_, step)| listeners.take(*step));
    let sentence = |(door, step): (&Door, _)| {
        format!(
            "door \"{}\": something on this machine listens on step \"{step}\", so a scan can tell it from a \
             closed port; choose another, or stop the listener",
            door.name
        )
    };
    taken.map(sentence).collect()
}

fn summary(config: &Config, unreachable: &[String], out: &mut impl Write) -> io::Result<()> {
    let interfaces = match &config.interfaces[..] {
        [] => "to be named with --iface".to_owned(),
        names => names.join(", "),
    };
    writeln!(out, "mode {}, interfaces {interfaces}", mode(config))?;
    let width = config.doors.iter().map(|door| door.name.len()).max().unwrap_or(0);
    for door in &config.doors {
        let opens: Vec<String> = door.opens.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "door {:width$}  opens {} for {}; {}",
            door.name,
            opens.join(", "),
            show_duration(door.open_for),
            ways(door),
        )?;
    }
    if let Some(server) = &config.spa {
        let (identity, window) = (&server.identity, show_duration(server.window));
        writeln!(out, "single packets for {identity}, clocks no more than {window} apart")?;
    }
    for key in &config.keys {
        writeln!(out, "key {}: {}", key.name, in_words(key))?;
    }
    if !unreachable.is_empty() {
        writeln!(
            out,
            "listening, and in mode deny nobody reaches it, neither public nor behind a door: {}",
            unreachable.join(", ")
        )?;
    }
    Ok(())
}

/// Returns how a door is opened, in words.
fn ways(door: &Door) -> String {
    let steps = door.knock.len();
    let sequence = (steps > 0).then(|| {
        format!(
            "{steps} step{}, {:.0} bits of secret; {} a step, {} in all",
            if steps == 1 { "" } else { "s" },
            bits(&door.knock),
            show_duration(door.step_timeout),
            show_duration(door.total_timeout),
        )
    });
    let spa = door
        .spa
        .as_ref()
        .map(|spa| format!("by single packets to udp/{} with {}", spa.listen, spa.keys.join(", ")));
    let rotating = door.rotate.as_ref().map(|rotate| {
        format!(
            "{} steps that change every {}, {:.0} bits of secret",
            rotate.shape.steps,
            show_duration(rotate.shape.every),
            rotate.bits()
        )
    });
    let list = (!door.list.is_empty()).then(|| format!("{} sequences, each once", door.list.len()));
    sequence.into_iter().chain(rotating).chain(list).chain(spa).collect::<Vec<_>>().join("; ")
}

fn print_warnings(
    file: &str,
    warnings: &[Warning],
    doubts: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    for warning in warnings {
        writeln!(out, "{}", warning.plain())?;
    }
    for text in doubts {
        writeln!(out, "{file}: warning: {text}")?;
    }
    Ok(())
}

fn verdict(file: &str, good: bool, warnings: usize) -> String {
    let counted = match warnings {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    if good { format!("{file}: good, {counted}") } else { format!("{file}: {counted}, refused by --strict") }
}

/// A fact about the file as a whole, in the form of a problem.
fn note(file: &str, message: &str) -> Value {
    json!({ "file": file, "line": null, "column": null, "message": message, "help": "" })
}

fn door_json(door: &Door) -> Value {
    let opens: Vec<String> = door.opens.iter().map(ToString::to_string).collect();
    json!({
        "name": door.name, "opens": opens, "steps": door.knock.len(),
        "secret_bits": (bits(&door.knock) * 10.0).round() / 10.0,
        "step_timeout_s": door.step_timeout.as_secs_f64(),
        "total_timeout_s": door.total_timeout.as_secs_f64(),
        "open_for_s": door.open_for.as_secs_f64(),
        "rotates_every_s": door.rotate.as_ref().map(|rotate| rotate.shape.every.as_secs_f64()),
        "list": door.list.len(),
        "keys": door.spa.as_ref().map_or(&[][..], |spa| &spa.keys[..]),
    })
}

fn mode(config: &Config) -> &'static str {
    match config.mode {
        Mode::Observe => "observe",
        Mode::Guard => "guard",
        Mode::Deny => "deny",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[[door]]\nname = \"ssh\"\nopens = [\"tcp/22\"]\nknock = [\"tcp/20011\", \"udp/5017\", \"tcp/1490\", \"udp/7121\"]\n";

    /// What `check` writes about `config` on a machine where UDP port 5017 is taken.
    fn checked(config: &str, json: bool, strict: bool) -> (Outcome, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let args = Args { file: folder.path().join("x.toml"), json, strict };
        crate::config::init::create(&args.file, config).expect("a file");
        let udp = "0: 00000000:1399 00000000:0000 07";
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = report(&args, &Listeners::from_tables("", udp), &mut out, &mut err).expect("no output");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (outcome, text(out), text(err))
    }

    #[test]
    fn a_listener_on_a_step_is_a_warning_on_standard_output() {
        let (outcome, out, err) = checked(CONFIG, false, false);

        assert_eq!((outcome, err.as_str()), (Outcome::Good, ""));
        assert!(out.contains("door ssh  opens tcp/22 for 30s; 4 steps, 64 bits of secret"), "{out}");
        assert!(out.contains("listens on step \"udp/5017\"") && out.contains("good, 1 warning"), "{out}");
        assert!(!out.contains("20011"), "the sequence is a secret: {out}");
        assert_eq!(checked(CONFIG, false, true).0, Outcome::Bad);
    }

    #[test]
    fn what_deny_mode_leaves_unreachable_is_told_and_is_no_warning() {
        let deny =
            format!("[xdp]\nmode = \"deny\"\nallow = [\"192.0.2.7/32\"]\n{}", CONFIG.replace("5017", "5018"));

        let (outcome, out, err) = checked(&deny, false, true);

        assert_eq!((outcome, err.as_str()), (Outcome::Good, ""), "{out}");
        assert!(out.contains("nobody reaches it, neither public nor behind a door: udp/5017\n"), "{out}");
        let json =
            |config: &str| -> Value { serde_json::from_str(&checked(config, true, false).1).expect("JSON") };
        assert_eq!(json(&deny)["unreachable"], json!(["udp/5017"]));
        assert_eq!(
            json(&deny.replace("udp/5018", "udp/5017"))["unreachable"],
            json!(["udp/5017"]),
            "a step is no door"
        );
        assert_eq!(json(CONFIG)["unreachable"], json!([]));
    }

    #[test]
    fn json_is_one_object_with_the_same_facts() {
        for (config, ok, errors, warnings) in [(CONFIG, true, 0, 1), ("[xdp]\nmode = 3\n", false, 2, 0)] {
            let (_, out, err) = checked(config, true, false);
            let facts: Value = serde_json::from_str(&out).expect("JSON");

            assert_eq!((err.as_str(), &facts["v"], &facts["ok"]), ("", &json!(1), &json!(ok)));
            assert_eq!(facts["errors"].as_array().map(Vec::len), Some(errors));
            assert_eq!(facts["warnings"].as_array().map(Vec::len), Some(warnings));
        }
    }
}
