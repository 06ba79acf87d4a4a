//! What a failed command prints, and its exit code.

use crate::client::SendError;
use crate::config::ConfigError;
use crate::demo::Refused;
use crate::error::TaskError;
use crate::job::JobError;
use celeriac_core::{ErrorKind, StoreError};
use celeriac_runtime::WorkerError;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The exit code; the list is in the help and in `docs/reference/exit-codes.md`.
    pub(crate) code: u8,
    /// What went wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

const INTERNAL: u8 = 1;
const USAGE: u8 = 2;
const CONFIG: u8 = 3;
const UNAVAILABLE: u8 = 4;
const NO: u8 = 5;
const NO_REPLY: u8 = 69;

impl Failed {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Our fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL, message)
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// What was configured cannot be used.
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(CONFIG, message)
    }

    /// The store is not there or does not answer.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// The command was understood and the answer is no.
    pub(crate) fn no(message: impl Into<String>) -> Self {
        Self::new(NO, message)
    }

    /// No worker answered (Celery's code, `EX_UNAVAILABLE` of sysexits.h).
    pub(crate) fn no_reply(message: impl Into<String>) -> Self {
        Self::new(NO_REPLY, message)
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Failed {
    fn from(error: &StoreError) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Outdated => USAGE,
            ErrorKind::NotFound | ErrorKind::Conflict => NO,
            ErrorKind::Full | ErrorKind::DeadFull | ErrorKind::Unavailable | ErrorKind::Unknown => {
                UNAVAILABLE
            }
            _ => INTERNAL,
        };
        Self { code, message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::new(CONFIG, error.to_string())
    }
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Invalid(text) => Self::usage(format!("the call cannot be sent: {text}")),
            SendError::Refused(error) => {
                let failed = Self::from(error);
                Self { message: format!("refused: {}", failed.message), ..failed }
            }
            SendError::Unknown(error) => {
                Self::new(UNAVAILABLE, format!("unknown whether it was enqueued: {error}"))
                    .hint("look with `celeriac task list` before sending again")
            }
        }
    }
}

impl From<JobError> for Failed {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => Self::from(error),
            error => Self::no(error.to_string()),
        }
    }
}

impl From<TaskError> for Failed {
    /// Errors of the library keep their kind.
    fn from(error: TaskError) -> Self {
        if let Some(store) = error.downcast_ref::<StoreError>() {
            return Self::from(store);
        }
        match error.downcast_ref::<Refused>() {
            Some(Refused::Usage(text)) => return Self::usage(text),
            Some(Refused::NotReady(text)) => return Self::no(text),
            None => {}
        }
        match error.downcast_ref::<WorkerError>() {
            Some(WorkerError::Store(store)) => Self::from(store),
            Some(WorkerError::Options(_)) => Self::usage(error.to_string()),
            _ if error.downcast_ref::<ConfigError>().is_some() => {
                Self::new(CONFIG, error.to_string())
            }
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}
