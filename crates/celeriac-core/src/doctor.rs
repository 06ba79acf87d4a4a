//! What is wrong with an application, its files, or its store: checks from facts to findings. Pure.
//!
//! Facts are gathered elsewhere: about a store by [`Diagnose`](crate::store::Diagnose), about an
//! application by Python. A finding has a code that never changes its meaning
//! (`docs/reference/doctor.md` is written from [`CODES`]).

mod app;
mod codes;
mod server;

pub use app::{AppFacts, CallFacts, CommandFacts, Spot, TaskFacts, Transport, check_app};
pub use codes::{CODES, Code, find_code};
pub use server::check_store;

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Note,
    /// Work can be lost, doubled, delayed or unseen.
    Warning,
    /// It does not work.
    Error,
}

impl Severity {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind it is.
    pub code: &'static Code,
    /// Where: `file:line`, a setting, a key or a queue.
    pub place: String,
    /// What was found, in a sentence.
    pub what: String,
    /// What to do about it, in a sentence.
    pub fix: String,
}

impl Finding {
    /// A finding of a known kind.
    ///
    /// # Panics
    /// If there is no such code.
    pub fn new(
        code: &str,
        place: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let Some(code) = find_code(code) else { panic!("{code} is no code of a finding") };
        Self { code, place: place.into(), what: what.into(), fix: fix.into() }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.code.severity
    }
}

/// Puts the worst first, then by code and place; says each thing once.
pub fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|one, other| {
        let key = |finding: &Finding| {
            // `tasks.py:9` comes before `tasks.py:10`.
            let (file, line) = finding.place.rsplit_once(':').unwrap_or((&finding.place, ""));
            (finding.code.name, file.to_owned(), line.parse::<u64>().unwrap_or(0))
        };
        other.severity().cmp(&one.severity()).then_with(|| key(one).cmp(&key(other)))
    });
    findings.dedup();
}
