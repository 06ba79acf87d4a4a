//! Probes for orchestrators: cheap, truthful, without a token, and silent about everything else.
//!
//! `/livez` and `/healthz` say that this process answers at all; they stay good while the broker is away,
//! or an orchestrator would restart healthy workers in a circle. `/brokerz` says that the broker answers a
//! question, `/readyz` that something went through it and came back. An answer is kept for a second, and
//! one question is asked at a time, however many probes there are.

use crate::canary;
use crate::extract::Document;
use crate::problem::Problem;
use crate::server::Shared;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use celeriac_core::document::object;
use celeriac_wire::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(1);
/// How long the broker may take for a question.
const BROKER_DEADLINE: Duration = Duration::from_secs(2);
/// Where they are.
const PATHS: [&str; 4] = ["/livez", "/healthz", "/readyz", "/brokerz"];

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    broker: Kept,
    ready: Kept,
}

/// The last answer to one question.
#[derive(Debug, Default)]
struct Kept {
    answer: Mutex<Option<(Instant, Result<(), String>)>>,
    /// So that the log tells a change once.
    was_bad: AtomicBool,
}

impl Kept {
    async fn ask(
        &self,
        what: &str,
        question: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        let mut kept = self.answer.lock().await;
        if let Some((at, answer)) = &*kept
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = question.await;
        let bad = answer.is_err();
        if self.was_bad.swap(bad, Ordering::Relaxed) != bad {
            if let Err(error) = &answer {
                tracing::warn!(error, "{what}: no");
            } else {
                tracing::info!("{what}: yes, again");
            }
        }
        *kept = Some((Instant::now(), answer.clone()));
        answer
    }
}

pub(crate) fn router() -> Router<Arc<Shared>> {
    let [live, health, ready, broker] = PATHS;
    Router::new()
        .route(live, get(alive))
        .route(health, get(alive))
        .route(ready, get(readyz))
        .route(broker, get(brokerz))
}

pub(crate) fn is_probe(path: &str) -> bool {
    PATHS.contains(&path)
}

fn good() -> Document {
    Document::ok(object([("status", Value::from("ok"))]))
}

fn bad(text: &str) -> Problem {
    // Who asks has no token: the reason is for the log.
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
        .hint("the log of this process says why")
}

async fn alive() -> Document {
    good()
}

async fn brokerz(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    let answer = shared.probes.broker.ask("the broker answers", asked(&shared)).await;
    answer.map(|()| good()).map_err(|_| bad("the broker does not answer"))
}

async fn asked(shared: &Shared) -> Result<(), String> {
    // Any short question does.
    match tokio::time::timeout(BROKER_DEADLINE, shared.parts.store.pauses()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", BROKER_DEADLINE.as_secs())),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    let flight = canary::send(&shared.parts, &shared.options.canary);
    let answer = shared.probes.ready.ask("a canary comes back through the broker", flight).await;
    answer.map(|()| good()).map_err(|_| bad("no canary came back through the broker"))
}
