//! Events as entries of the systemd journal, with fields to search by.

use std::{env, io, os::fd::AsFd};

use log::{Level, Record};
use nix::sys::stat::fstat;
use systemd_journal_logger::JournalLog;

use crate::events::{Line, Name, rfc3339};

/// What entries are filed under; `journalctl -t xdp-knock` finds them.
const IDENTIFIER: &str = "xdp-knock";

/// The connection to the journal.
pub struct Journal {
    log: JournalLog,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Connects to the journal if what is written to `stream` goes there anyway, as with services of systemd.
    ///
    /// # Errors
    /// When it does, but the journal takes no entries.
    pub fn of_stream(stream: &impl AsFd) -> io::Result<Option<Self>> {
        let named = env::var("JOURNAL_STREAM").ok();
        if !named.is_some_and(|named| is_stream(stream, &named)) {
            return Ok(None);
        }
        Self::connect().map(Some)
    }

    /// Connects to the journal.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect() -> io::Result<Self> {
        Ok(Self { log: JournalLog::empty()?.with_syslog_identifier(IDENTIFIER.to_owned()) })
    }

    /// Writes an event. Waits if the journal is slow, so it is not for the daemon's loop.
    ///
    /// # Errors
    /// When the journal takes no entries.
    pub fn write(&self, line: &Line) -> io::Result<()> {
        let values = fields(line);
        let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let sentence = line.sentence();
        self.log.journal_send(
            &Record::builder()
                .level(level(line.event))
                .target(IDENTIFIER)
                .key_values(&pairs.as_slice())
                .args(format_args!("{sentence}"))
                .build(),
        )
    }
}

/// Whether a stream is the one that `JOURNAL_STREAM` names, as `DEVICE:INODE` (systemd.exec(5)).
fn is_stream(stream: &impl AsFd, named: &str) -> bool {
    fstat(stream).is_ok_and(|facts| named == format!("{}:{}", facts.st_dev, facts.st_ino))
}

/// The fields of an event, beside its message and priority.
fn fields(line: &Line) -> Vec<(&'static str, String)> {
    let known = [
        ("MESSAGE_ID", Some(message_id(line.event).to_owned())),
        ("RESULT", Some(line.event.word().to_owned())),
        ("DOOR", line.door.clone()),
        ("SRC", line.source.map(|source| source.to_string())),
        ("IFACE", line.iface.clone()),
        ("VIA", line.via.clone()),
        ("EXPIRES", line.expires.as_ref().map(rfc3339)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The priority: what wants a look is a warning, what tells of a change is a notice, and what strangers cause at will is
/// less. The crate writes `Info` as notice (5), `Debug` as info (6).
const fn level(event: Name) -> Level {
    match event {
        Name::TableFull | Name::Lost | Name::Spent => Level::Warn,
        Name::Attached
        | Name::Detached
        | Name::Reloaded
        | Name::Promoted
        | Name::Revoked
        | Name::Banned
        | Name::Unbanned => Level::Info,
        Name::Expired | Name::Step | Name::Reset | Name::SpaRejected => Level::Debug,
    }
}

/// The id of a kind of event; drawn once, never changed (`journalctl MESSAGE_ID=...`).
#[must_use]
pub const fn message_id(event: Name) -> &'static str {
    match event {
        Name::Attached => "62c7561983c649f892c563db82519327",
        Name::Detached => "8e35971ce1384353b4e3b864cb8ba7c9",
        Name::Reloaded => "03079c338cd14d3d829e41cd20d255bc",
        Name::Step => "54ca266e391c46a295142d090e8890ec",
        Name::Reset => "338535cfe8f740eaadbfe4f5b53b695a",
        Name::Promoted => "88e4913b272640ec9a9efdb3b64ddeba",
        Name::Expired => "901f42f653ec4befa2512bdbf12822cd",
        Name::Revoked => "02b9323d6cef49249d4142dca7ada23f",
        Name::Banned => "8a56ccbf0c6c403d8863a452bdc0f9bd",
        Name::Unbanned => "0dbc2d9085ca4b16863dff6e994442c9",
        Name::TableFull => "2ba0a6ab7394424aa148df806544834d",
        Name::SpaRejected => "fb5f5584555c4b7ca391563fa864468d",
        Name::Spent => "9f4cea8c5d724f59a5db30e1dd4a6f02",
        Name::Lost => "e52ddea1327d40d38edd017b0d269e25",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_an_id_of_its_own_that_the_manual_names() {
        let manual = include_str!("../../docs/operations.md");

        let ids: BTreeSet<_> = Name::ALL.into_iter().map(message_id).collect();

        assert_eq!(ids.len(), Name::ALL.len());
        for event in Name::ALL {
            let id = message_id(event);
            assert!(
                id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                "{id}"
            );
            let row = format!("| `{}` | `{id}` |", event.word());
            assert!(manual.contains(&row), "no row {row} in docs/operations.md");
        }
    }

    #[test]
    fn a_stream_is_known_by_device_and_inode() {
        let (stream, other) = nix::unistd::pipe().expect("a pipe");
        let facts = fstat(&stream).expect("its facts");
        let named = format!("{}:{}", facts.st_dev, facts.st_ino);
        let null = std::fs::File::open("/dev/null").expect("a device");

        // Both ends of a pipe are one inode.
        assert!(is_stream(&stream, &named) && is_stream(&other, &named));
        assert!(!is_stream(&null, &named));
        assert!(!is_stream(&stream, "") && !is_stream(&stream, &facts.st_ino.to_string()));
    }

    #[test]
    fn fields_that_do_not_apply_are_left_out() {
        let line =
            Line { iface: Some("eth0".to_owned()), ..Line::new(jiff::Timestamp::UNIX_EPOCH, Name::Attached) };

        let names: Vec<_> = fields(&line).into_iter().map(|(name, _)| name).collect();

        assert_eq!(names, ["MESSAGE_ID", "RESULT", "IFACE"]);
    }
}
