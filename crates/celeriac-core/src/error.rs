//! The one error of every store call.

use std::error::Error;
use std::fmt;

/// What kind of trouble a store met; callers branch on this, never on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller gave something that can never work.
    Invalid,
    /// A message or result is larger than the configured maximum.
    TooLarge,
    /// The queue is at its depth limit, or the disk is full; try later.
    Full,
    /// The dead letters are at their bound: there is no room for another, though there is for other
    /// writes.
    DeadFull,
    /// What was named does not exist.
    NotFound,
    /// Somebody else changed it first, or the lease is no longer ours.
    Conflict,
    /// The store cannot be reached or is locked; nothing was written.
    Unavailable,
    /// The deadline passed: the write may or may not have happened.
    Unknown,
    /// The stored data is damaged or from an incompatible version.
    Corrupt,
    /// A newer program has changed the store while it was open here: this process has to be replaced.
    Outdated,
    /// A broken invariant of ours.
    Internal,
}

/// An error of a store call: a kind, what was tried, and the cause.
#[derive(Debug)]
pub struct StoreError {
    kind: ErrorKind,
    context: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of `kind` while doing `context` (lower case, no full stop, with ids).
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), hint: None, source: None }
    }

    /// An error of kind [`ErrorKind::Invalid`].
    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, context)
    }

    /// Adds what the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind callers branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the reader can do, when the maker knows.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Full | ErrorKind::DeadFull | ErrorKind::Unavailable | ErrorKind::Unknown
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.context)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
