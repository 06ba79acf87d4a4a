//! What the server is given.

use crate::token::TokenSource;
use async_trait::async_trait;
use celeriac_core::schedule::Zone;
use celeriac_core::store::{Plan, Store};
use celeriac_core::{Clock, Entropy, StoreError};
use celeriac_wire::Signature;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Who may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Who has a token, as far as its role goes.
    #[default]
    Token,
    /// Everybody, for everything; on loopback addresses only.
    None,
}

/// What is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// API, metrics and probes.
    #[default]
    Full,
    /// Probes alone: they tell nothing that needs a token.
    Probes,
}

/// What has to come back for the process to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A message that the server sends to itself through the broker.
    Echo,
    /// A request that goes through the broker to the worker of this name, and through its loop.
    Worker(String),
}

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// Who may ask.
    pub auth: Auth,
    /// What is served.
    pub surface: Surface,
    /// Whether `/metrics` needs no token.
    pub public_metrics: bool,
    /// Host names that requests may carry besides the loopback ones. Empty: on loopback only those, on other
    /// addresses any.
    pub hosts: Vec<String>,
    /// The largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// What `/readyz` waits for.
    pub canary: Canary,
    /// Whether events are heard from the start; otherwise from the first request for metrics or workers.
    pub watch_from_start: bool,
    /// The zone of entries that name none.
    pub zone: Zone,
    /// How long requests may finish when the server stops.
    pub grace: Duration,
    /// The program's version, for people.
    pub version: String,
}

/// What the server works with.
#[derive(Clone)]
pub struct WebParts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Sends calls.
    pub publisher: Arc<dyn Publisher>,
    /// Who has which role.
    pub tokens: Arc<dyn TokenSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bits for ids.
    pub entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for WebParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WebParts").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its task id.
    pub task_id: String,
    /// The task that holds its unique key already; then nothing was sent.
    pub holder: Option<String>,
}

/// Why a call was not sent.
#[derive(Debug)]
pub enum PublishError {
    /// The call itself is wrong.
    Invalid(String),
    /// The store's answer; the kind says whether it may have been sent.
    Store(StoreError),
}

/// A call as messages that are ready to be written.
pub struct Prepared {
    /// What is written.
    pub plan: Plan,
    /// What is done once it is written: events and hooks. Dropped if it is not.
    pub afterwards: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Sends calls along the application's routes.
#[async_trait]
pub trait Publisher: fmt::Debug + Send + Sync {
    /// Sends one call. Has a deadline.
    async fn publish(&self, call: Signature) -> Result<Sent, PublishError>;

    /// Makes the messages of a call, for who writes them together with something else.
    async fn prepare(&self, call: Signature) -> Result<Prepared, PublishError>;
}
