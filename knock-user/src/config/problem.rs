//! What is wrong with a configuration, and where: one place, one value, what is allowed.

use std::{fmt, io::IsTerminal, ops::Range, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity};

/// One thing that is wrong (an error) or doubtful (a warning) in a configuration.
#[derive(Clone, Debug)]
pub struct Problem {
    source: Arc<NamedSource<String>>,
    place: Option<Place>,
    severity: Severity,
    message: String,
    help: String,
}

/// Something doubtful that does not stop a configuration from being used.
pub type Warning = Problem;

#[derive(Clone, Debug)]
struct Place {
    line: usize,
    column: usize,
    span: Range<usize>,
}

impl Place {
    /// Lines and columns count from 1, columns in characters, as editors do.
    fn new(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before[line_start..].chars().count();
        Self { line, column, span: start..text.floor_char_boundary(span.end).max(start) }
    }
}

impl Problem {
    /// The name of the file, as the caller gave it.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The line, from 1; none when the file as a whole is meant.
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// The column in characters, from 1; none when the file as a whole is meant.
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column)
    }

    /// What is wrong, with the offending value in it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What is allowed, or what to do next.
    pub fn advice(&self) -> &str {
        &self.help
    }

    /// One line for logs and editors: `FILE:LINE:COL: message; what is allowed`.
    pub fn plain(&self) -> String {
        let place = self.place.as_ref().map_or(String::new(), |at| format!("{}:{}:", at.line, at.column));
        let kind = if self.severity == Severity::Warning { "warning: " } else { "" };
        format!("{}:{place} {kind}{}; {}", self.file(), self.message, self.help)
    }

    /// The coloured form for a terminal, with the line of the file and a mark under the value.
    pub fn pretty(&self) -> String {
        // Without a place there is no snippet, which is where the file's name would stand.
        if self.place.is_none() {
            return format!("{}\n", self.plain());
        }
        let mut shown = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode());
        match handler.render_report(&mut shown, self) {
            Ok(()) => shown,
            // A report that cannot be drawn must still be read.
            Err(fmt::Error) => self.plain(),
        }
    }

    /// The same facts for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file(), "line": self.line(), "column": self.column(),
            "message": self.message, "help": self.help,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.place.as_ref().map(|_| &self.source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.place.as_ref()?.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some("here".to_owned()), span))))
    }
}

/// Everything that is wrong with one configuration; never empty.
#[derive(Clone, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Every problem, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Carets when standard error is a terminal, else the plain lines. Print it with `anstream`, which
    /// takes the colours away where they are not wanted.
    pub fn for_stderr(&self) -> String {
        if std::io::stderr().is_terminal() { self.pretty() } else { self.to_string() }
    }

    /// Every problem with its line of the file and a mark under the value, coloured.
    pub fn pretty(&self) -> String {
        let shown: Vec<String> = self.problems.iter().map(Problem::pretty).collect();
        shown.join("\n")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", problem.plain())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects what is found while a configuration is read, so that one run shows all of it.
#[derive(Debug)]
pub(super) struct Findings {
    source: Arc<NamedSource<String>>,
    errors: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Findings {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let source = Arc::new(NamedSource::new(name, text.to_owned()));
        Self { source, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.problem(Some(span), Severity::Error, message.into(), help.into());
        self.errors.push(problem);
    }

    pub(super) fn warning(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let problem = self.problem(Some(span), Severity::Warning, message.into(), help.into());
        self.warnings.push(problem);
    }

    /// An error of the file as a whole.
    pub(super) fn file_error(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.problem(None, Severity::Error, message.into(), help.into());
        self.errors.push(problem);
    }

    /// A warning about the file as a whole.
    pub(super) fn file_warning(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.problem(None, Severity::Warning, message.into(), help.into());
        self.warnings.push(problem);
    }

    pub(super) fn line_of(&self, span: &Range<usize>) -> usize {
        Place::new(self.source.inner(), span.clone()).line
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// What was read and the warnings when nothing is wrong, else every error.
    pub(super) fn verdict<T>(mut self, read: T) -> Result<(T, Vec<Warning>), ConfigError> {
        if self.has_errors() {
            return Err(self.into_error());
        }
        self.warnings.sort_by_key(order);
        Ok((read, self.warnings))
    }

    /// Every error, in the order of the file.
    pub(super) fn into_error(mut self) -> ConfigError {
        self.errors.sort_by_key(order);
        ConfigError { problems: self.errors }
    }

    fn problem(
        &self,
        span: Option<Range<usize>>,
        severity: Severity,
        message: String,
        help: String,
    ) -> Problem {
        let place = span.map(|span| Place::new(self.source.inner(), span));
        let (message, help) = (one_line(&message), one_line(&help));
        Problem { source: Arc::clone(&self.source), place, severity, message, help }
    }
}

/// Values of the file are part of messages; what they hold must not move a terminal's cursor.
fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn order(problem: &Problem) -> Option<(usize, usize)> {
    problem.place.as_ref().map(|place| (place.line, place.column))
}
