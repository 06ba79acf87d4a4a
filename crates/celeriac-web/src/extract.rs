//! Reads requests; what cannot be read is a problem document. Writes JSON.

use crate::problem::Problem;
use crate::server::Shared;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use celeriac_core::document::strict;
use celeriac_wire::{Value, from_value};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A JSON body as a type, with its bytes.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    pub(crate) bytes: axum::body::Bytes,
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let text = format!("the body is {essence:?}");
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                text,
            )
            .hint("send JSON with `Content-Type: application/json`"));
        }
        let max = shared.options.body_bytes_max;
        let bytes = to_bytes(request.into_body(), max).await.map_err(|error| {
            let text = format!("the body cannot be read, or has more than {max} bytes ({error})");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
                .hint("large data belongs beside the queue; send where it is")
        })?;
        let value = Value::parse(&bytes)
            .map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))?;
        if !matches!(value, Value::Object(_)) {
            return Err(Problem::invalid("the body must be a JSON object"));
        }
        let value = from_value(value)
            .map_err(|error| Problem::invalid(format!("the body is not as expected: {error}")))?;
        Ok(Self { value, bytes })
    }
}

/// The query as a type.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The variable part of the path.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let name = path.map_err(|error| Problem::bad_request(error.body_text()))?.0;
        if name.chars().any(char::is_control) {
            return Err(Problem::bad_request("a name in the path has a control character"));
        }
        Ok(Self(name))
    }
}

/// Answers with a document.
pub(crate) struct Document(pub(crate) StatusCode, pub(crate) Value);

impl Document {
    pub(crate) fn ok(value: Value) -> Self {
        Self(StatusCode::OK, value)
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        let mut response = (self.0, strict(&self.1).to_string()).into_response();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// A header as text, if it is there.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::bad_request(format!("the header {name} is not plain text")))
}
