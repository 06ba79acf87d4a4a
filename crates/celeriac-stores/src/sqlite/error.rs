//! SQLite's errors in the words of a store.

use celeriac_core::{ErrorKind, StoreError};
use rusqlite::ErrorCode;

/// Wraps an error of one statement.
pub(super) fn wrap(context: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| commit(context, &error)
}

/// Wraps an error of a group's commit; nothing of the group was written.
pub(super) fn commit(context: &str, error: &rusqlite::Error) -> StoreError {
    let (kind, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, Some("free space on the store's disk")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            Some("another process has held the store's write lock for 5 s; is one stopped?"),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, Some("restore the file from a backup"))
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            (ErrorKind::Unavailable, Some("look at the disk and the file's permissions"))
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            // It may be mounted anew: what waits to be written waits on.
            (
                ErrorKind::Unavailable,
                Some("the store's file and folder must be writable for this user"),
            )
        }
        Some(ErrorCode::SchemaChanged) => {
            (ErrorKind::Outdated, Some("restart this process with the newer celeriac"))
        }
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, None),
        None if is_unreadable(error) => (ErrorKind::Corrupt, None),
        _ => (ErrorKind::Internal, None),
    };
    let made = StoreError::new(kind, format!("{context}: {error}"));
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// Whether a stored value has not the type that this program wrote.
fn is_unreadable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}

/// A stored value that this program cannot read.
pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, what)
}
