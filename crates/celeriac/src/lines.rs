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
use std::os::unix::fs::OpenOptionsExt as _;
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
        let mut file: File = options.create(true).append(true).mode(0o600).open(&self.0)?;
        file.lock()?;
        // A line that a full disk cut in two would spoil the next one.
        let length = file.metadata()?.len();
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
