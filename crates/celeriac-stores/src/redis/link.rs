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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime;
use tokio::time::Instant;

/// The longest wait for an answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// The longest wait for a connection.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// The most connections, one for each runtime that uses the store.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// After a failed attempt to connect the next one waits so long, then twice as long …
const PAUSE: Duration = Duration::from_millis(50);
/// … but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A caller that gave up after so long makes its connection suspect: the next call takes a new one.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// One runtime's connection.
#[derive(Default)]
struct Place {
    slot: tokio::sync::Mutex<Slot>,
    /// The number of a connection on which a caller waited in vain.
    suspect: AtomicU64,
}

/// A call under way. Dropped without an answer it tells on its connection.
struct Waiting {
    place: Arc<Place>,
    number: u64,
    since: Instant,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= SUSPECT_AFTER {
            self.place.suspect.store(self.number, Ordering::Release);
        }
    }
}

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
    slots: Mutex<HashMap<runtime::Id, Arc<Place>>>,
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

    fn place(&self) -> Arc<Place> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let id = runtime::Handle::current().id();
        if slots.len() >= CONNECTIONS_MAX && !slots.contains_key(&id) {
            // Their runtimes have most likely ended; a living one makes a new connection.
            slots.clear();
        }
        Arc::clone(slots.entry(id).or_default())
    }

    /// The connection of this runtime, a new one if there is none, and the mark of a call on it.
    async fn connection(&self) -> Result<(MultiplexedConnection, Waiting), StoreError> {
        let place = self.place();
        let mut slot = place.slot.lock().await;
        if place.suspect.load(Ordering::Acquire) == slot.number {
            slot.connection = None;
        }
        if slot.connection.is_none() {
            if let Some(at) = slot.not_before {
                tokio::time::sleep_until(at).await;
            }
            match self.connect().await {
                Ok(connection) => {
                    slot.number += 1;
                    slot.failures = 0;
                    slot.not_before = None;
                    slot.connection = Some(connection);
                }
                Err(error) => {
                    let pause = PAUSE * 2u32.saturating_pow(slot.failures.min(8));
                    slot.failures += 1;
                    slot.not_before = Some(Instant::now() + pause.min(PAUSE_MAX));
                    return Err(error);
                }
            }
        }
        let number = slot.number;
        let Some(connection) = slot.connection.clone() else {
            return Err(self.unavailable("has no connection"));
        };
        drop(slot);
        Ok((connection, Waiting { place, number, since: Instant::now(), answered: false }))
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

    /// Sends one command.
    pub(super) async fn call(&self, what: &str, command: &Cmd) -> Result<Value, StoreError> {
        let (mut connection, waiting) = self.connection().await?;
        self.judge(what, waiting, ask(&mut connection, command).await)
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
        let (mut connection, waiting) = self.connection().await?;
        let call = connection.req_packed_commands(pipeline, 0, count);
        let sent = tokio::time::timeout(DEADLINE, call).await;
        let answers = self.judge(what, waiting, sent)?;
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
        let (mut connection, mut waiting) = self.connection().await?;
        let sent = ask(&mut connection, &command).await;
        let unknown = matches!(&sent, Ok(Err(error)) if error.code() == Some("NOSCRIPT"));
        if !unknown {
            return self.judge(what, waiting, sent);
        }
        waiting.answered = true;
        self.call("load a script", &script.load()).await?;
        self.call(what, &command).await
    }

    /// What an answer, an error or silence means. A connection that broke or is silent is not used again.
    fn judge<T>(
        &self,
        what: &str,
        mut waiting: Waiting,
        sent: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        waiting.answered = true;
        let discard = || waiting.place.suspect.store(waiting.number, Ordering::Release);
        match sent {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => {
                discard();
                let text = format!("{what}: the connection to Redis at {} broke", self.address);
                Err(StoreError::new(ErrorKind::Unknown, text).because(error))
            }
            Ok(Err(error)) => {
                let refused = refused(what, &self.address, &error);
                if refused.kind() == ErrorKind::Unavailable {
                    // A replica that was a master, a server that loads: look for the right one anew.
                    discard();
                }
                Err(refused)
            }
            Err(_elapsed) => {
                discard();
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
