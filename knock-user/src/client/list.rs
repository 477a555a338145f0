//! A list of one-time sequences. A line is marked in the file before it is sent: whatever happens then, it is never sent twice.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    config::list,
    secret::{self, SecretError},
    step::Step,
};

/// A larger file is no list.
const LONGEST: usize = 1 << 20;

/// The file of a list.
pub(super) struct List {
    path: PathBuf,
}

/// A sequence that was taken off its list.
pub(super) struct Taken {
    pub(super) steps: Vec<Step>,
    start: usize,
    mark: String,
}

/// Why there is no sequence to send.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("cannot read the list {path}: {cause}")]
    Find { path: String, cause: io::Error },
    #[error(transparent)]
    Read(#[from] SecretError),
    #[error("{path}: larger than 1 MiB: name the right file")]
    TooLarge { path: String },
    // The line is named and not shown: it is a secret.
    #[error("{path}: line {line} is no sequence: {why}")]
    Malformed { path: String, line: usize, why: String },
    #[error("every sequence of {0} is used: write new ones, here and on the server")]
    UsedUp(String),
    #[error(
        "no line of {path} can be marked as used: {cause}; nothing is sent that could be sent again: make the file and its \
         folder yours to write"
    )]
    Mark { path: String, cause: io::Error },
}

impl List {
    /// Takes the file, which may be a link to it.
    pub(super) fn new(path: &Path) -> Result<Self, ListError> {
        let failed = |cause| ListError::Find { path: path.display().to_string(), cause };
        Ok(Self { path: fs::canonicalize(path).map_err(failed)? })
    }

    /// Returns the sequence that is next, and leaves it so.
    pub(super) fn first(&self) -> Result<Vec<Step>, ListError> {
        first_of(&self.text()?, &self.shown()).map(|(_, steps)| steps)
    }

    /// Marks the next sequence as used and returns it.
    pub(super) fn take(&self, now: Timestamp) -> Result<Taken, ListError> {
        let _lock = self.lock().map_err(|cause| self.cannot_mark(cause))?;
        let mut text = self.text()?;
        let (start, steps) = first_of(&text, &self.shown())?;
        let mark = format!("# used {}: ", now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        text.insert_str(start, &mark);
        self.replace(&text).map_err(|cause| self.cannot_mark(cause))?;
        Ok(Taken { steps, start, mark })
    }

    /// Takes the mark off again: for a sequence of which nothing was sent.
    pub(super) fn give_back(&self, taken: &Taken) -> Result<(), ListError> {
        let _lock = self.lock().map_err(|cause| self.cannot_mark(cause))?;
        let mut text = self.text()?;
        let marked = taken.start..taken.start + taken.mark.len();
        // Somebody else's line, if the file was changed in between.
        if text.get(marked.clone()) != Some(&taken.mark) {
            return Ok(());
        }
        text.replace_range(marked, "");
        self.replace(&text).map_err(|cause| self.cannot_mark(cause))
    }

    fn text(&self) -> Result<String, ListError> {
        let text = secret::read_text(&self.path, LONGEST as u64 + 1)?;
        if text.len() > LONGEST {
            return Err(ListError::TooLarge { path: self.shown() });
        }
        Ok(text)
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Of two clients at the same instant one waits for the other. The lock is on the folder, since the file is replaced.
    fn lock(&self) -> io::Result<File> {
        let folder = File::open(self.folder())?;
        folder.lock()?;
        Ok(folder)
    }

    /// Puts a whole new file in its place, of the same owner and rights, and on the disk before anything is sent.
    fn replace(&self, text: &str) -> io::Result<()> {
        let before = fs::metadata(&self.path)?;
        let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(before.permissions())?;
        let made = file.as_file().metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
        }
        file.as_file().sync_all()?;
        let _ = file.persist(&self.path).map_err(|error| error.error)?;
        File::open(self.folder())?.sync_all()
    }

    fn cannot_mark(&self, cause: io::Error) -> ListError {
        ListError::Mark { path: self.shown(), cause }
    }
}

/// Returns where the first sequence that is not used begins, and its steps.
fn first_of(text: &str, path: &str) -> Result<(usize, Vec<Step>), ListError> {
    let is_sequence = |line: &str| line.split('#').next().is_some_and(|before| !before.trim().is_empty());
    if !text.lines().any(is_sequence) {
        return Err(ListError::UsedUp(path.to_owned()));
    }
    let malformed = |(line, why)| ListError::Malformed { path: path.to_owned(), line, why };
    let first = list::parse(text).map_err(malformed)?.into_iter().next();
    let list::Line { number, steps } = first.ok_or_else(|| ListError::UsedUp(path.to_owned()))?;
    let before = text.split_inclusive('\n').take(number.saturating_sub(1));
    Ok((before.map(str::len).sum(), steps))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        sync::Mutex,
        thread,
    };

    use super::*;

    const TEXT: &str = "# mine\ntcp/1 udp/2\n\n tcp/3, udp/4\n";

    fn written(text: &str) -> (tempfile::TempDir, List) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.list");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let list = List::new(&path).unwrap();
        (folder, list)
    }

    fn now() -> Timestamp {
        "2026-11-26T08:00:00.5Z".parse().unwrap()
    }

    fn shown(steps: &[Step]) -> String {
        steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_line_is_taken_once_and_in_order_and_the_end_is_told() {
        let (_folder, list) = written(TEXT);
        let take = || list.take(now()).map(|taken| shown(&taken.steps)).map_err(|error| error.to_string());

        assert_eq!(list.first().map(|steps| shown(&steps)).unwrap(), "tcp/1 udp/2");
        assert_eq!(take(), Ok("tcp/1 udp/2".to_owned()));
        assert_eq!(take(), Ok("tcp/3 udp/4".to_owned()));
        let error = take().unwrap_err();
        assert!(error.contains("every sequence of") && error.contains("lab.list is used"), "{error}");
        assert!(list.first().is_err());
        let marked = "# mine\n# used 2026-11-26T08:00:00Z: tcp/1 udp/2\n\n# used 2026-11-26T08:00:00Z:  tcp/3, udp/4\n";
        assert_eq!(fs::read_to_string(&list.path).unwrap(), marked);
        assert_eq!(fs::metadata(&list.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_was_not_sent_is_given_back_unless_the_file_was_changed() {
        let (_folder, list) = written(TEXT);
        let taken = list.take(now()).unwrap();
        list.give_back(&taken).unwrap();
        assert_eq!(fs::read_to_string(&list.path).unwrap(), TEXT);

        let taken = list.take(now()).unwrap();
        let edited = format!("# new\n{}", fs::read_to_string(&list.path).unwrap());
        fs::write(&list.path, &edited).unwrap();
        list.give_back(&taken).unwrap();
        assert_eq!(fs::read_to_string(&list.path).unwrap(), edited);
    }

    #[test]
    fn of_many_clients_at_once_no_two_get_the_same_line() {
        const LINES: usize = 40;
        let text: String = (1..=LINES).map(|port| format!("tcp/{port}\n")).collect();
        let (_folder, list) = written(&text);
        let taken = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                let _ = scope.spawn(|| {
                    for _ in 0..LINES / 4 {
                        let steps = shown(&list.take(now()).unwrap().steps);
                        taken.lock().unwrap().push(steps);
                    }
                });
            }
        });

        let mut taken = taken.into_inner().unwrap();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), LINES);
    }

    #[test]
    fn a_link_stays_a_link() {
        let (folder, list) = written(TEXT);
        let link = folder.path().join("link");
        symlink(&list.path, &link).unwrap();

        let _ = List::new(&link).unwrap().take(now()).unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&list.path).unwrap().contains("# used"));
    }

    #[test]
    fn a_list_that_others_can_read_or_that_is_wrong_gives_nothing() {
        let (_folder, list) = written("tcp/1\n");
        fs::set_permissions(&list.path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(list.take(now()).err().expect("refused").to_string().contains("chmod 600"));

        let (_folder, list) = written("tcp/1\nsctp/2\n");
        assert!(list.take(now()).err().expect("refused").to_string().contains("line 2 is no sequence"));
        assert_eq!(fs::read_to_string(&list.path).unwrap(), "tcp/1\nsctp/2\n");
    }
}
