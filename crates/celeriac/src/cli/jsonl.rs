//! Files of messages, written and read by commands; [`crate::lines`] has the format.

use super::exit::Failed;
use super::output::time;
use crate::lines;
use celeriac_core::QueueName;
use celeriac_core::dead::DeadLetter;
use celeriac_core::store::Outgoing;
use celeriac_wire::{Envelope, Map, Value, from_value, parse_iso};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

/// A new file of messages; an existing one is never overwritten.
pub(super) struct Writer {
    file: File,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self, Failed> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
            Failed::usage(format!("cannot create {}: {error}", path.display())).hint(
                "give another file with --save or --output; existing files are not overwritten",
            )
        })?;
        Ok(Self { file })
    }

    pub(super) fn message(&mut self, outgoing: &Outgoing) -> Result<(), Failed> {
        self.line(message_fields(outgoing)?)
    }

    pub(super) fn dead_letter(&mut self, letter: &DeadLetter) -> Result<(), Failed> {
        let outgoing = Outgoing {
            once: None,
            queue: letter.queue.clone(),
            message: letter.message.clone(),
            history: letter.history.clone(),
            enqueued_at: Some(letter.enqueued_at),
        };
        let mut fields = message_fields(&outgoing)?;
        fields.insert("number", letter.number);
        fields.insert("reason", letter.reason.as_str());
        fields.insert("detail", letter.detail.as_str());
        fields.insert("died_at", time(Some(letter.died_at)));
        self.line(fields)
    }

    fn line(&mut self, fields: Map) -> Result<(), Failed> {
        writeln!(self.file, "{}", Value::Object(fields))?;
        Ok(())
    }

    /// Makes sure that everything is on disk.
    pub(super) fn sync(&mut self) -> Result<(), Failed> {
        Ok(self.file.sync_all()?)
    }
}

fn message_fields(outgoing: &Outgoing) -> Result<Map, Failed> {
    lines::fields(outgoing).map_err(|error| Failed::internal(error.to_string()))
}

/// Reads a file of messages, line by line; a bad line is an error with its number.
pub(super) fn read(path: &Path) -> Result<impl Iterator<Item = Result<Outgoing, Failed>>, Failed> {
    let file = File::open(path)
        .map_err(|error| Failed::usage(format!("cannot read {}: {error}", path.display())))?;
    let shown = path.display().to_string();
    let lines = BufReader::new(file).lines().enumerate();
    Ok(lines.filter(|(_, line)| line.as_ref().map_or(true, |line| !line.trim().is_empty())).map(
        move |(index, line)| {
            let at = index + 1;
            let line =
                line.map_err(|error| Failed::usage(format!("{shown}, line {at}: {error}")))?;
            parse(&line).map_err(|why| {
                Failed::usage(format!("{shown}, line {at}: {why}"))
                    .hint("nothing from this line on was loaded; mend it and load the rest")
            })
        },
    ))
}

fn parse(line: &str) -> Result<Outgoing, String> {
    let value = Value::parse(line.as_bytes()).map_err(|error| error.to_string())?;
    let field =
        |name: &str| value.get(name).ok_or_else(|| format!("the field {name:?} is missing"));
    let queue = field("queue")?.as_str().ok_or("the field \"queue\" is not a text")?;
    let envelope =
        Envelope::parse(&field("envelope")?.to_bytes()).map_err(|error| error.to_string())?;
    let enqueued_at = match value.get("enqueued_at").and_then(Value::as_str) {
        Some(text) => Some(parse_iso(text).map_err(|error| format!("enqueued_at: {error}"))?),
        None => None,
    };
    let history = value.get("history").cloned().unwrap_or(Value::Array(Vec::new()));
    Ok(Outgoing {
        once: None,
        queue: QueueName::parse(queue).map_err(|error| error.to_string())?,
        message: envelope.message,
        history: from_value(history).map_err(|error| format!("history: {error}"))?,
        enqueued_at,
    })
}
