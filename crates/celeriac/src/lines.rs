//! Messages as lines of JSON, complete enough to put each one back: what `queue purge`, `dead export`
//! and workers without room for dead letters write, and `queue load` reads.
//!
//! `{"queue", "enqueued_at", "history", "envelope"}`, the envelope being Celery's on Redis
//! (wire specification 2.2); dead letters add `reason`, `detail` and `died_at`.

use celeriac_core::store::Outgoing;
use celeriac_runtime::{Spill, SpilledLetter};
use celeriac_wire::{Envelope, JsonError, Map, Value, print_iso, to_value};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The fields of a message.
pub(crate) fn fields(outgoing: &Outgoing) -> Result<Map, JsonError> {
    let mut fields = Map::default();
    fields.insert("queue", outgoing.queue.as_str());
    fields
        .insert("enqueued_at", outgoing.enqueued_at.map_or(Value::Null, |at| print_iso(at).into()));
    fields.insert("history", to_value(&outgoing.history)?);
    let envelope = Envelope::new(outgoing.message.clone()).to_bytes();
    fields.insert("envelope", Value::parse(&envelope)?);
    Ok(fields)
}

/// The file for dead letters that the store has no room for. Several workers may append to one.
#[derive(Debug)]
pub(crate) struct SpillFile(PathBuf);

impl SpillFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn append(&self, text: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file: File =
            options.create(true).read(true).append(true).mode(0o600).open(&self.0)?;
        file.lock()?;
        let length = file.metadata()?.len();
        if length == 0 {
            // The file's name has to be on disk as well as what is in it.
            let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        // A line that a dead process or a full disk cut in two would spoil the next one.
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        let end = if last == [b'\n'] { "" } else { "\n" };
        let text = format!("{end}{text}");
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            file.set_len(length)?;
        }
        written
    }
}

impl Spill for SpillFile {
    fn write(&self, letters: &[SpilledLetter]) -> std::io::Result<()> {
        let mut text = String::new();
        for letter in letters {
            let mut fields = fields(&letter.outgoing).map_err(std::io::Error::other)?;
            fields.insert("reason", letter.reason.as_str());
            fields.insert("detail", letter.detail.as_str());
            fields.insert("died_at", print_iso(letter.died_at));
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "{}", Value::Object(fields));
        }
        self.append(&text).map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", self.0.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_in_two_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill.jsonl");
        let spill = SpillFile::new(&path);
        spill.append("one\n").unwrap();
        std::fs::write(&path, "one\ntw").unwrap();
        spill.append("three\n").unwrap();
        spill.append("four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\nthree\nfour\n");
    }
}
