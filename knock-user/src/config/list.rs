//! `list` in a door: sequences of a file, each of which opens it once.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

use super::{MAX_STEPS, problem::Findings, section::Section, spelling::LIST_KEYS};
use crate::{secret, step::Step};

/// More lines than this are refused.
pub const MAX_LINES: usize = 1000;
/// A larger file is no list.
const LONGEST: u64 = 1 << 20;

/// One sequence of a list.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands in its file, from 1.
    pub number: usize,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl fmt::Debug for Line {
    /// Leaves the sequence out, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<line {}, {} steps>", self.number, self.steps.len())
    }
}

/// A list as read, with its place.
pub(super) struct Draft {
    pub(super) span: Range<usize>,
    /// The name of the file, as written.
    pub(super) file: String,
    pub(super) path: PathBuf,
    /// Empty where something in it is wrong, which has been told.
    pub(super) lines: Vec<Line>,
}

impl Draft {
    /// Reads `list` of a door, where it has one. `folder` is what the name of its file begins from.
    pub(super) fn read(door: &Section<'_, '_>, folder: &Path, found: &mut Findings) -> Option<Self> {
        let value = door.value("list")?;
        let DeValue::Table(table) = value.get_ref() else {
            let help = "write list = { file = \"ssh.list\" }";
            found.error(value.span(), format!("{}: `list` is not a table", door.title), help);
            return None;
        };
        let section = Section::new(format!("{}: list", door.title), value.span(), table);
        section.refuse_unknown(LIST_KEYS, found);
        if !section.has("file") {
            let help = "add the file with one sequence a line, as file = \"ssh.list\"";
            found.error(value.span(), format!("{}: no `file`", section.title), help);
        }
        let file = section.text("file", found)?;
        let name = (*file.get_ref()).to_owned();
        let path = folder.join(&name);
        let lines = lines(&file, &path, &section.title, found);
        Some(Self { span: file.span(), file: name, path, lines })
    }
}

fn lines(file: &Spanned<&str>, path: &Path, title: &str, found: &mut Findings) -> Vec<Line> {
    let name = file.get_ref();
    let text = match secret::read_text(path, LONGEST) {
        Ok(text) => text,
        Err(error) => {
            found.error(file.span(), format!("{title}: `file` is \"{name}\""), error.to_string());
            return Vec::new();
        }
    };
    match parse(&text) {
        Ok(lines) => lines,
        Err((line, why)) => {
            // The line is named and not shown: it is a secret.
            found.error(file.span(), format!("{title}: {name} line {line} is no sequence"), why);
            Vec::new()
        }
    }
}

/// Reads the lines of a list: steps with blanks or commas between them; what follows a `#` is a comment.
///
/// # Errors
/// The first line that is no sequence, and why.
pub fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut lines: Vec<Line> = Vec::new();
    let mut seen: HashMap<Vec<Step>, usize> = HashMap::new();
    for (text, number) in text.lines().zip(1..) {
        let steps = text.split('#').next().unwrap_or_default();
        let steps = steps.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
        let read: Result<Vec<Step>, _> = steps.map(str::parse).collect();
        let steps = read.map_err(|_| (number, "steps are as in `knock`: tcp/7001 udp/7002".to_owned()))?;
        if steps.is_empty() {
            continue;
        }
        if steps.len() > MAX_STEPS {
            return Err((number, format!("a sequence has 1 to {MAX_STEPS} steps")));
        }
        if let Some(first) = seen.insert(steps.clone(), number) {
            return Err((number, format!("it is the same as line {first}: each is used once")));
        }
        lines.push(Line { number, steps });
        if lines.len() > MAX_LINES {
            return Err((number, format!("a list has {MAX_LINES} sequences at most")));
        }
    }
    if lines.is_empty() {
        return Err((1, "the file has none: write one sequence a line".to_owned()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_sequence_a_line_between_comments() {
        let lines = parse("# ours\n\ntcp/7001 udp/7002,tcp/7003 # Monday\n  7004:udp icmp/echo?size=9\n")
            .expect("a list");

        let shown: Vec<(usize, Vec<String>)> = lines
            .iter()
            .map(|line| (line.number, line.steps.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(
            shown,
            [
                (3, vec!["tcp/7001".to_owned(), "udp/7002".to_owned(), "tcp/7003".to_owned()]),
                (4, vec!["udp/7004".to_owned(), "icmp/echo?size=9".to_owned()])
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_sequence_is_told_by_its_number_and_not_shown() {
        for (text, line) in [
            ("tcp/7001\ntcp/0\n", 2),
            ("", 1),
            ("# nothing\n", 1),
            ("tcp/1 udp/2\nudp/9\ntcp/1, udp/2\n", 3),
            (&"tcp/1 ".repeat(17), 1),
        ] {
            let (number, why) = parse(text).expect_err(text);

            assert_eq!(number, line, "{text}");
            assert!(!why.contains("tcp/0"), "{why}");
        }
        let many: String = (1..=1001).map(|port| format!("tcp/{port}\n")).collect();
        assert_eq!(parse(&many).expect_err("too many").0, 1001);
    }
}
