//! The connections of one store, each call with a deadline.
//!
//! Every tokio runtime has a connection of its own: the heartbeat's thread must not wait for a busy
//! worker. A connection whose call had no answer is thrown away, and the next call makes a new one,
//! so a half-open socket is noticed by the first call after it broke.

use super::address::Address;
use super::io::Io;
use super::script::Script;
use super::server;
use celeriac_core::{ErrorKind, StoreError};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, Pipeline, Value};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime;
use tokio::time::Instant;

/// The longest wait for an answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// The longest wait for a connection.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// The most connections, one for each runtime that uses the store.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// After a failed attempt to connect the next one waits so long, then twice as long …
const PAUSE: Duration = Duration::from_millis(50);
/// … but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The state of one runtime's connection.
#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Grows with every new connection, so that a late failure does not end a newer one.
    number: u64,
    failures: u32,
    not_before: Option<Instant>,
}

/// Connections to one Redis.
pub(super) struct Link {
    address: Address,
    io: Arc<Io>,
    slots: Mutex<HashMap<runtime::Id, Arc<tokio::sync::Mutex<Slot>>>>,
    /// What endangers messages on this server.
    warnings: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(address: Address, io: Arc<Io>) -> Self {
        Self { address, io, slots: Mutex::default(), warnings: Mutex::default() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    fn slot(&self) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let id = runtime::Handle::current().id();
        if slots.len() >= CONNECTIONS_MAX && !slots.contains_key(&id) {
            // Their runtimes have most likely ended; a living one makes a new connection.
            slots.clear();
        }
        Arc::clone(slots.entry(id).or_default())
    }

    /// The connection of this runtime, a new one if there is none.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let slot = self.slot();
        let mut slot = slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((connection.clone(), slot.number));
        }
        if slot.not_before.is_some_and(|at| at > Instant::now()) {
            return Err(self.unavailable("waits before it connects again"));
        }
        match self.connect().await {
            Ok(connection) => {
                slot.number += 1;
                slot.failures = 0;
                slot.not_before = None;
                slot.connection = Some(connection.clone());
                Ok((connection, slot.number))
            }
            Err(error) => {
                let pause = PAUSE * 2u32.saturating_pow(slot.failures.min(8));
                slot.failures += 1;
                slot.not_before = Some(Instant::now() + pause.min(PAUSE_MAX));
                Err(error)
            }
        }
    }

    /// A new connection to a server that is what we need.
    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let address = self.address.clone();
        let connecting = self.io.spawn(async move {
            let mut connection = address.connect(None).await?;
            let asked = server::check(&mut connection, &address);
            let asked = tokio::time::timeout(DEADLINE, asked).await;
            Ok::<_, StoreError>((connection, asked))
        });
        let connected = connecting.await.map_err(|error| {
            StoreError::new(ErrorKind::Internal, "the thread for Redis has ended").because(error)
        })?;
        let (connection, asked) = connected?;
        let warnings = asked.map_err(|_elapsed| self.unavailable("does not say what it is"))??;
        let mut known = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(warnings);
        Ok(connection)
    }

    /// What endangers messages on this server; each is told once.
    pub(super) fn take_warnings(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unavailable(&self, what: &str) -> StoreError {
        let text = format!("Redis at {} {what}", self.address);
        StoreError::new(ErrorKind::Unavailable, text)
    }

    /// Throws a connection away unless a newer one is there already.
    async fn discard(&self, number: u64) {
        let slot = self.slot();
        let mut slot = slot.lock().await;
        if slot.number == number {
            slot.connection = None;
        }
    }

    /// Sends one command.
    pub(super) async fn call(&self, what: &str, command: &Cmd) -> Result<Value, StoreError> {
        let (mut connection, number) = self.connection().await?;
        self.judge(what, number, ask(&mut connection, command).await).await
    }

    /// Sends commands in one go; one answer each.
    pub(super) async fn pipeline(
        &self,
        what: &str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let count = pipeline.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let (mut connection, number) = self.connection().await?;
        let call = connection.req_packed_commands(pipeline, 0, count);
        let sent = tokio::time::timeout(DEADLINE, call).await;
        let answers = self.judge(what, number, sent).await?;
        for answer in &answers {
            if let Value::ServerError(error) = answer {
                let error = redis::RedisError::from(error.clone());
                return Err(refused(what, &self.address, &error));
            }
        }
        Ok(answers)
    }

    /// Runs a script, which is loaded first where the server does not know it yet.
    pub(super) async fn script(
        &self,
        what: &str,
        script: &Script,
        argument: Vec<u8>,
    ) -> Result<Value, StoreError> {
        let command = script.evaluate(&argument);
        let (mut connection, number) = self.connection().await?;
        let sent = ask(&mut connection, &command).await;
        let unknown = matches!(&sent, Ok(Err(error)) if error.code() == Some("NOSCRIPT"));
        if !unknown {
            return self.judge(what, number, sent).await;
        }
        self.call("load a script", &script.load()).await?;
        self.call(what, &command).await
    }

    /// What an answer, an error or silence means.
    async fn judge<T>(
        &self,
        what: &str,
        number: u64,
        sent: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        match sent {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => {
                self.discard(number).await;
                let text = format!("{what}: the connection to Redis at {} broke", self.address);
                Err(StoreError::new(ErrorKind::Unknown, text).because(error))
            }
            Ok(Err(error)) => {
                let refused = refused(what, &self.address, &error);
                if refused.kind() == ErrorKind::Unavailable {
                    // A replica that was a master, a server that loads: look for the right one anew.
                    self.discard(number).await;
                }
                Err(refused)
            }
            Err(_elapsed) => {
                self.discard(number).await;
                let seconds = DEADLINE.as_secs();
                let text = format!("{what}: Redis at {} is silent for {seconds} s", self.address);
                Err(StoreError::new(ErrorKind::Unknown, text))
            }
        }
    }
}

/// Sends a command; an error that the server answers with is an error.
async fn ask(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Result<Value, redis::RedisError>, tokio::time::error::Elapsed> {
    let sent = tokio::time::timeout(DEADLINE, connection.req_packed_command(command)).await;
    sent.map(|answer| answer.and_then(Value::extract_error))
}

/// An error that the server answered with, in the words of a store.
pub(super) fn refused(what: &str, address: &Address, error: &redis::RedisError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    let (kind, hint) = match code {
        "OOM" => (ErrorKind::Full, Some("Redis is at its maxmemory; free space or raise it")),
        "MISCONF" => (ErrorKind::Full, Some("Redis cannot save to its disk and refuses writes")),
        "READONLY" | "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
            (ErrorKind::Unavailable, None)
        }
        "NOREPLICAS" => {
            (ErrorKind::Unavailable, Some("Redis has too few replicas to accept writes"))
        }
        "NOPERM" => (
            ErrorKind::Invalid,
            Some("give the user the permissions listed in docs/reference/redis-keys.md"),
        ),
        "NOAUTH" | "WRONGPASS" => {
            (ErrorKind::Invalid, Some("look at the user and password of the URL"))
        }
        "CROSSSLOT" | "MOVED" => (ErrorKind::Invalid, Some("Redis Cluster is not supported")),
        "WRONGTYPE" => (ErrorKind::Corrupt, Some("another program uses one of our keys")),
        _ => (ErrorKind::Internal, None),
    };
    let text = format!("{what}: Redis at {address} refused: {code} {detail}");
    let made = StoreError::new(kind, text.trim_end());
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}
