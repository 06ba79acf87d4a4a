//! Sends tasks.

use crate::access::Principal;
use crate::extract::{Document, Json, text};
use crate::problem::Problem;
use crate::schema::{SendRequest, SentTask};
use crate::server::Shared;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use celeriac_core::document::object;
use celeriac_core::priority::Level;
use celeriac_core::throttle::KEY_HEADER;
use celeriac_core::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use celeriac_core::unique::{UNIQUE_HEADER, Unique};
use celeriac_core::{QueueName, clock};
use celeriac_wire::{Map, Signature, Value, parse_iso};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// The longest name of a task, and its longest id, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Send a task
///
/// With the header `Idempotency-Key` a repeated request sends nothing and answers with the first one's
/// task, for a day and as long as the task has not ended. `traceparent` and `tracestate` go on with the
/// caller's trace.
#[utoipa::path(
    post, path = "/api/v1/tasks", tag = "tasks", security(("token" = ["operator"])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context"),
        ("tracestate" = Option<String>, Header, description = "W3C trace context")
    ),
    request_body = SendRequest,
    responses(
        (status = 201, description = "It is as durable as the store", body = SentTask),
        (status = 200, description = "It was sent before", body = SentTask)
    )
)]
pub(crate) async fn send(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Json { value: request, bytes }: Json<SendRequest>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let mut custom = Map::new();
    let parent = text(&headers, TRACEPARENT)?;
    let trace = parent.and_then(|parent| {
        let state = headers.get(TRACESTATE).and_then(|state| state.to_str().ok());
        TraceContext::parse(parent, state)
    });
    if let Some(trace) = trace {
        custom.insert(TRACEPARENT, trace.to_string());
        if let Some(state) = trace.state() {
            custom.insert(TRACESTATE, state);
        }
    }
    if let Some(key) = &request.key {
        custom.insert(KEY_HEADER, key.as_str());
    }
    let own_id = request.task_id.clone();
    let mut call = signature(request)?;
    if let Some(key) = key {
        let unique = Unique {
            window: Some(clock::DAY),
            ..Unique::new(format!("http {} {key}", principal.id))
        };
        custom.insert(UNIQUE_HEADER, unique.to_value());
        if own_id.is_some() {
            return Err(Problem::invalid("give task_id or Idempotency-Key, not both"));
        }
        call = call.with_option("task_id", marked_id(&shared, mark(&principal, key, &bytes)));
    }
    if !custom.is_empty() {
        call = call.with_option("headers", Value::Object(custom));
    }
    let sent = shared.parts.publisher.publish(call).await?;
    if let (Some(holder), Some(key)) = (&sent.holder, key)
        && !is_marked(holder, mark(&principal, key, &bytes))
    {
        let text = format!("this idempotency key has sent task {holder} with another body");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", text)
            .hint("take a new key for another call"));
    }
    Ok(answer(sent.holder.as_ref().unwrap_or(&sent.task_id), sent.holder.is_some()))
}

/// What a request says under its idempotency key, in 62 bits.
fn mark(principal: &Principal, key: &str, body: &[u8]) -> u64 {
    let mut digest = Sha256::new();
    for part in [principal.id.as_bytes(), b"\0", key.as_bytes(), b"\0", body] {
        digest.update(part);
    }
    let digest = digest.finalize();
    let first = digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    first >> 2
}

/// A task id that carries the mark: a UUID of version 8 (RFC 9562) whose front is the time and random, so
/// that the store takes a repeated request for another task and says which one holds the key.
fn marked_id(shared: &Shared, mark: u64) -> String {
    let millis = u64::try_from(shared.parts.clock.wall().as_millisecond()).unwrap_or(0);
    let random = shared.parts.entropy.next_u64() & 0xfff;
    let (time, variant) = (millis & 0xffff_ffff_ffff, 1 << 63 | mark);
    let (high, low) = (variant >> 48, variant & 0xffff_ffff_ffff);
    format!("{:08x}-{:04x}-8{random:03x}-{high:04x}-{low:012x}", time >> 16, time & 0xffff)
}

fn is_marked(task_id: &str, mark: u64) -> bool {
    let variant = 1_u64 << 63 | mark;
    let end = format!("-{:04x}-{:012x}", variant >> 48, variant & 0xffff_ffff_ffff);
    task_id.ends_with(&end)
}

fn answer(task_id: &str, replayed: bool) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let value = object([("task_id", Value::from(task_id)), ("replayed", Value::from(replayed))]);
    let mut response = Document(status, value).into_response();
    // An id that is no part of a path by itself is told in the body alone.
    let plain = task_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/tasks/{task_id}"))
        && plain
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = text(headers, "idempotency-key")? else { return Ok(None) };
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !visible {
        let text = format!("Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(Problem::bad_request(text));
    }
    Ok(Some(key))
}

/// A name that a store can keep.
pub(super) fn checked<'a>(what: &str, name: &'a str) -> Result<&'a str, Problem> {
    let usable = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if usable {
        return Ok(name);
    }
    let text = format!("{what} has 1 to {NAME_BYTES_MAX} bytes and no control characters");
    Err(Problem::invalid(text))
}

fn signature(request: SendRequest) -> Result<Signature, Problem> {
    let mut call = Signature::new(checked("task", &request.task)?).with_args(request.args);
    for (name, value) in request.kwargs.iter() {
        call.kwargs_mut().insert(name, value.clone());
    }
    if let Some(queue) = &request.queue {
        call = call.with_option("queue", QueueName::parse(queue)?.as_str());
    }
    if let Some(eta) = &request.eta {
        if request.countdown.is_some() {
            return Err(Problem::invalid("give countdown or eta, not both"));
        }
        let instant = parse_iso(eta).map_err(|error| Problem::invalid(format!("eta: {error}")))?;
        call = call.with_option("eta", celeriac_wire::print_iso(instant));
    }
    let seconds = [
        ("countdown", request.countdown),
        ("expires", request.expires),
        ("time_limit", request.time_limit),
        ("soft_time_limit", request.soft_time_limit),
    ];
    for (name, value) in seconds {
        let Some(value) = value else { continue };
        if !value.is_finite() || value < 0.0 {
            return Err(Problem::invalid(format!("{name} is a number of seconds, 0 or more")));
        }
        call = call.with_option(name, value);
    }
    if let Some(level) = &request.priority {
        let level: Level = level.parse().map_err(Problem::invalid)?;
        call = call.with_option("priority", i64::from(level.ascending()));
    }
    if let Some(id) = &request.task_id {
        call = call.with_option("task_id", checked("task_id", id)?);
    }
    if let Some(key) = &request.key {
        checked("key", key)?;
    }
    if request.ignore_result {
        call = call.with_option("ignore_result", true);
    }
    Ok(call)
}
