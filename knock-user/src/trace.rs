//! The kernel program's debug traces on standard error.

use log::{Log, Metadata, Record};

/// Prints each trace as one line.
#[derive(Clone, Copy, Debug)]
pub struct ToStderr;

impl Log for ToStderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        say!("trace: {}", record.args());
    }

    fn flush(&self) {}
}
