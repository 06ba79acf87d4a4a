//! Problems as RFC 9457 has them: what went wrong, whose fault it is, what to do.

use crate::options::PublishError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use celeriac_core::document::{object, strict};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::Value;

/// How long clients are asked to wait before they try again, in seconds.
const RETRY_AFTER: &str = "2";

/// Every type of problem with what it means; the names are stable.
pub(crate) const TYPES: &[(&str, u16, &str)] = &[
    ("bad-request", 400, "the request cannot be read: its path, query, headers or JSON"),
    ("unauthorized", 401, "there is no token, or none that is known"),
    ("forbidden", 403, "the token's role is too weak"),
    ("cross-origin", 403, "a page of another site sent it"),
    ("not-found", 404, "there is no such route, task, queue, dead letter or command"),
    ("method-not-allowed", 405, "the route has other methods"),
    ("conflict", 409, "it is not as the request expects: a task that has ended, another count"),
    (
        "already-run",
        409,
        "an occurrence that another scheduler asks for was run, and is not run again",
    ),
    ("not-owner", 410, "the entry belongs to another scheduler, or to this one in a later epoch"),
    ("too-large", 413, "the body, the message or the result is too large"),
    ("unsupported-media-type", 415, "the body is not `application/json`"),
    ("misdirected", 421, "the header `Host` names none of the server's hosts"),
    ("invalid", 422, "the request can be read and makes no sense: a field, a call, a name"),
    ("idempotency-key-reused", 422, "the key was used for another call"),
    ("paused", 423, "the entry is paused, so nobody runs it"),
    ("internal", 500, "a fault of celeriac: please report it"),
    ("unavailable", 503, "the store does not answer or is full; nothing was written; try again"),
    ("timeout", 504, "there was no answer in time; what was to be written may have been written"),
];

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(
            TYPES.iter().any(|(name, code, _)| *name == kind && *code == status.as_u16()),
            "{kind} is not in the table"
        );
        Self { status, kind, detail: detail.into(), hint: None }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn to_value(&self) -> Value {
        let detail = match &self.hint {
            Some(hint) => format!("{}: {hint}", self.detail),
            None => self.detail.clone(),
        };
        object([
            ("type", Value::from(format!("urn:celeriac:problem:{}", self.kind))),
            ("title", Value::from(self.kind.replace('-', " "))),
            ("status", Value::from(i64::from(self.status.as_u16()))),
            ("detail", Value::from(detail)),
        ])
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (status, kind) = match error.kind() {
            ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::Full | ErrorKind::DeadFull | ErrorKind::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            ErrorKind::Unknown => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        if status.is_server_error() {
            tracing::warn!(%error, "a request cannot be answered");
        }
        let problem = Self::new(status, kind, error.to_string());
        match error.hint_text() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Invalid(text) => Self::invalid(text),
            PublishError::Store(error) => Self::from(error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = strict(&self.to_value()).to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"celeriac\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_errors_say_whose_fault_they_are() {
        for (kind, status) in [
            (ErrorKind::Invalid, 422),
            (ErrorKind::TooLarge, 413),
            (ErrorKind::Full, 503),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Unknown, 504),
            (ErrorKind::Corrupt, 500),
        ] {
            let problem = Problem::from(StoreError::new(kind, "try").hint("do this"));
            assert_eq!(problem.status.as_u16(), status, "{kind:?}");
            assert!(problem.to_value().to_string().contains("try: do this"));
        }
    }
}
