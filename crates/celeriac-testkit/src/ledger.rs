//! The ledger: an append-only record of what happened, outside the system under test.
//!
//! One line is `<what> <id> <attempt> <who> <microseconds>` and then notes `name=value`. The
//! simulation keeps lines in memory; tasks of real processes append them to a file, several
//! processes to one, each line in one write (`examples/ledger.rs` of the crate `celeriac`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What a line says. Tasks may write words of their own ([`What::Other`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The store confirmed that it has the task.
    Enqueued,
    /// A send of the task ended without an answer: it may have been enqueued.
    Maybe,
    /// A worker registered; note `node`.
    Registered,
    /// A worker signed off; note `node`.
    SignedOff,
    /// A sweep took the leases of this worker.
    Swept,
    /// The store leased the message; notes `row`, `token`, `redelivered`.
    Leased,
    /// A run of the task began; notes `token`, `redelivered`.
    Started,
    /// A run reached its end; notes `token`, `outcome`, `value`.
    Ended,
    /// The store answered a settlement; notes `row`, `token`, `fate`, `accepted`.
    Settled,
    /// The store answered a state of a running task; notes `row`, `token`, `accepted`.
    State,
    /// A fault was injected; the id is its kind, note `until`.
    Fault,
    /// A worker ended and reported its counts.
    Report,
    /// The result that stands at the end; notes `state`, `value`.
    Result,
    /// Something that only one test knows.
    Other(String),
}

const WORDS: [(What, &str); 13] = [
    (What::Enqueued, "enq"),
    (What::Maybe, "maybe"),
    (What::Registered, "register"),
    (What::SignedOff, "signoff"),
    (What::Swept, "sweep"),
    (What::Leased, "lease"),
    (What::Started, "start"),
    (What::Ended, "end"),
    (What::Settled, "settle"),
    (What::State, "state"),
    (What::Fault, "fault"),
    (What::Report, "report"),
    (What::Result, "result"),
];

impl What {
    /// The word in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(word) => word,
            known => WORDS.iter().find(|(what, _)| what == known).map_or("", |(_, word)| *word),
        }
    }

    fn parse(word: &str) -> Self {
        WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map_or_else(|| Self::Other(word.to_owned()), |(what, _)| what.clone())
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What happened.
    pub what: What,
    /// The task, or the kind of a fault.
    pub id: String,
    /// The retry count of the task's message.
    pub attempt: u32,
    /// The worker or process; `*` is everybody.
    pub who: String,
    /// When, in microseconds of the test's clock.
    pub micros: i64,
    /// More, by name.
    pub notes: BTreeMap<String, String>,
}

impl Line {
    /// A line without notes.
    pub fn new(what: What, id: &str, who: &str, micros: i64) -> Self {
        let (id, who) = (id.to_owned(), who.to_owned());
        Self { what, id, attempt: 0, who, micros, notes: BTreeMap::new() }
    }

    /// The same line of this attempt.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same line with a note; white space in the value becomes `_`.
    pub fn note(mut self, name: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string().replace(char::is_whitespace, "_");
        self.notes.insert(name.to_owned(), value);
        self
    }

    /// A note by name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// Whether a note says yes.
    pub fn says(&self, name: &str) -> bool {
        self.get(name) == Some("yes")
    }

    /// Reads a line; `None` when it has fewer than five columns or its numbers are none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut cells = text.split(' ');
        let what = What::parse(cells.next()?);
        let id = cells.next()?.to_owned();
        let attempt = cells.next()?.parse().ok()?;
        let who = cells.next()?.to_owned();
        let micros = cells.next()?.parse().ok()?;
        let note = |cell: &str| {
            let (name, value) = cell.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Some(Self { what, id, attempt, who, micros, notes: cells.filter_map(note).collect() })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, id, attempt, who, micros, notes } = self;
        write!(formatter, "{} {id} {attempt} {who} {micros}", what.as_str())?;
        for (name, value) in notes {
            write!(formatter, " {name}={value}")?;
        }
        Ok(())
    }
}

/// Reads a file's text; a last line that is still being written is left out.
///
/// # Panics
/// If a whole line is none of a ledger.
pub fn parse(text: &str) -> Vec<Line> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| Line::parse(line).unwrap_or_else(|| panic!("no line of a ledger: {line:?}")))
        .collect()
}

/// A ledger in memory.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Line>>);

impl Ledger {
    /// Appends a line.
    pub fn append(&self, line: Line) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The text of lines, as a file has it.
pub fn print(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip_and_an_unfinished_one_is_left_out() {
        let lines = vec![
            Line::new(What::Started, "a-1", "4711", 12).attempt(2).note("redelivered", "yes"),
            Line::new(What::Other("told".to_owned()), "a-1", "w1", -3),
            Line::new(What::Ended, "a-1", "w1", 4).note("value", "[1, 2]"),
        ];
        let text = print(&lines);
        assert_eq!(parse(&format!("{text}end a-1 0")), lines);
        assert!(text.contains("start a-1 2 4711 12 redelivered=yes\n") && text.contains("=[1,_2]"));
        assert!(lines[0].says("redelivered") && !lines[1].says("redelivered"));
        assert_eq!(parse("start a 0 4711 5"), []);
        for (what, word) in WORDS {
            assert_eq!(What::parse(word), what);
        }
    }
}
