//! Notices changes: one connection on which the server tells us what happens.
//!
//! Before a wait the lists of our queues are read on a connection with `CLIENT TRACKING`; the server
//! then says once when any of them changes, whoever changes it. That wakes for any number of queues
//! and priorities over one connection, pops nothing, and costs nothing while work flows (decision
//! 0009). Changes under our own keys, and results, are published on channels that it subscribes to.

use super::address::Address;
use super::io::Io;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{PushInfo, PushKind, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};

/// After a failed attempt to listen the next one waits so long, then twice as long …
const PAUSE: Duration = Duration::from_millis(50);
/// … but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often an idle connection is asked whether it still lives.
const PING: Duration = Duration::from_secs(5);
/// The longest wait for an answer: silence here costs only a new connection.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often queues are looked at where the server does not tell: it may refuse `CLIENT TRACKING`.
const RECHECK: Duration = Duration::from_millis(100);
/// How often all queues are looked at even where it does.
const SAFETY: Duration = Duration::from_secs(1);
/// The most lists that are watched.
pub(super) const LISTS_MAX: usize = 1024;
/// The most channels that are subscribed to for waiters of results.
pub(super) const CHANNELS_MAX: usize = 100_000;
/// The most messages of channels that a slow listener may be behind.
const HEARD_MAX: usize = 4096;

/// A message of a channel.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The pattern that matched, if it was one.
    channel: String,
    payload: Arc<[u8]>,
}

/// What waiters want to hear of.
#[derive(Default)]
struct Wishes {
    lists: BTreeSet<String>,
    /// Channels and patterns, with the number of waiters.
    channels: BTreeMap<String, usize>,
    patterns: BTreeMap<String, usize>,
}

struct Shared {
    address: Address,
    changes: watch::Sender<u64>,
    wishes: Mutex<Wishes>,
    /// Set by a waiter: read the lists, so that the next change of them is told.
    armed: AtomicU64,
    work: Notify,
    heard: broadcast::Sender<Heard>,
    /// Channels whose subscription stands on the present connection.
    subscribed: watch::Sender<BTreeSet<String>>,
}

/// The ear of one store. Dropping it ends the listening.
pub(super) struct Bell {
    shared: Arc<Shared>,
    io: Arc<Io>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bell").field("changes", &self.count()).finish_non_exhaustive()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// A standing subscription; it ends when the last of its kind is dropped.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    channel: String,
    pattern: bool,
    heard: broadcast::Receiver<Heard>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Subscription").field(&self.channel).finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.unwish(&self.channel, self.pattern);
    }
}

impl Subscription {
    /// The next message of this channel; a listener that is too slow misses the oldest. Cancel safe.
    /// `None` when the store has ended.
    pub(super) async fn next(&mut self) -> Option<Arc<[u8]>> {
        loop {
            match self.heard.recv().await {
                Ok(heard) if heard.channel == self.channel => return Some(heard.payload),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Bell {
    pub(super) fn new(address: Address, io: Arc<Io>) -> Self {
        let channel = address.keys.bell();
        let wishes = Wishes { channels: BTreeMap::from([(channel, 1)]), ..Wishes::default() };
        let shared = Arc::new(Shared {
            address,
            changes: watch::channel(0).0,
            wishes: Mutex::new(wishes),
            armed: AtomicU64::new(0),
            work: Notify::new(),
            heard: broadcast::channel(HEARD_MAX).0,
            subscribed: watch::channel(BTreeSet::new()).0,
        });
        Self { shared, io, task: Mutex::default() }
    }

    /// Begins to listen. A store that only publishes has no second connection.
    fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            *task = Some(self.io.spawn(listen(Arc::clone(&self.shared))));
        }
    }

    pub(super) fn count(&self) -> u64 {
        *self.shared.changes.borrow()
    }

    /// Wakes the waiters of this process.
    pub(super) fn ring(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// The lists whose changes wake.
    pub(super) fn watch_lists(&self, lists: impl Iterator<Item = String>) {
        let mut wishes = self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        for list in lists {
            if wishes.lists.len() < LISTS_MAX {
                wishes.lists.insert(list);
            }
        }
    }

    pub(super) async fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.start();
        let mut changes = self.shared.changes.subscribe();
        if *changes.borrow() == seen {
            self.shared.armed.fetch_add(1, Ordering::AcqRel);
            self.shared.work.notify_one();
            let until = changes.wait_for(|count| *count != seen);
            let _timeout = tokio::time::timeout(timeout, until).await.map(drop);
        }
        self.count()
    }

    /// Ends what [`Bell::watch_lists`] began.
    pub(super) fn forget_list(&self, list: &str) {
        let mut wishes = self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.lists.remove(list);
    }

    /// Subscribes to a channel, or a pattern of channels, and waits until the server has confirmed,
    /// at most one deadline: without it the caller only hears less.
    pub(super) async fn subscribe(&self, channel: &str, pattern: bool) -> Subscription {
        self.start();
        let heard = self.shared.heard.subscribe();
        {
            let mut wishes = self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            let all = if pattern { &mut wishes.patterns } else { &mut wishes.channels };
            if all.len() < CHANNELS_MAX || all.contains_key(channel) {
                *all.entry(channel.to_owned()).or_default() += 1;
            }
        }
        let shared = Arc::clone(&self.shared);
        let subscription = Subscription { shared, channel: channel.to_owned(), pattern, heard };
        let mut subscribed = self.shared.subscribed.subscribe();
        self.shared.work.notify_one();
        let confirmed = subscribed.wait_for(|all| all.contains(channel));
        let _timeout = tokio::time::timeout(DEADLINE, confirmed).await.map(drop);
        subscription
    }
}

impl Shared {
    fn unwish(&self, channel: &str, pattern: bool) {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        let all = if pattern { &mut wishes.patterns } else { &mut wishes.channels };
        if let Some(count) = all.get_mut(channel) {
            *count -= 1;
            if *count == 0 {
                all.remove(channel);
            }
        }
        self.work.notify_one();
    }
}

/// Listens for ever; every broken connection is followed by a new one.
async fn listen(shared: Arc<Shared>) {
    let mut pause = PAUSE;
    loop {
        let (sender, pushed) = mpsc::unbounded_channel();
        match shared.address.connect(Some(sender)).await {
            Ok(connection) => {
                pause = PAUSE;
                let mut ear = Ear::new(&shared, connection).await;
                ear.listen(pushed).await;
                shared.subscribed.send_replace(BTreeSet::new());
                tracing::debug!("the connection that listens to Redis broke");
            }
            Err(error) => tracing::debug!(%error, "cannot listen to Redis"),
        }
        // What happened meanwhile was not heard.
        shared.changes.send_modify(|count| *count += 1);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One connection that listens.
struct Ear<'a> {
    shared: &'a Shared,
    connection: MultiplexedConnection,
    /// Whether the server tells when a list changes.
    tracking: bool,
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
    armed: u64,
}

impl<'a> Ear<'a> {
    async fn new(shared: &'a Shared, connection: MultiplexedConnection) -> Self {
        let mut ear = Self {
            shared,
            connection,
            tracking: false,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            armed: shared.armed.load(Ordering::Acquire),
        };
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON");
        ear.tracking = match ear.ask(&track).await {
            Some(Value::Okay) => true,
            refused => {
                tracing::warn!(?refused, "Redis does not tell of changes; queues are polled");
                false
            }
        };
        ear
    }

    /// Sends a command; `None` when there is no answer: the connection is of no use any more.
    async fn ask(&mut self, command: &redis::Cmd) -> Option<Value> {
        let call = self.connection.req_packed_command(command);
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(Value::ServerError(error))) => Some(Value::SimpleString(format!("{error:?}"))),
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => None,
            Ok(Err(error)) => Some(Value::SimpleString(error.to_string())),
            Err(_elapsed) => None,
        }
    }

    async fn listen(&mut self, mut pushed: mpsc::UnboundedReceiver<PushInfo>) {
        // What changed before this connection listened was not heard.
        let mut rearm = true;
        let mut ping = tokio::time::interval(PING);
        ping.reset();
        loop {
            if !self.follow_wishes().await || (rearm && !self.look().await) {
                return;
            }
            rearm = false;
            let check = if self.tracking { SAFETY } else { RECHECK };
            tokio::select! {
                push = pushed.recv() => {
                    let Some(push) = push else { return };
                    if !self.hear(&push) {
                        return;
                    }
                }
                () = self.shared.work.notified() => {
                    let armed = self.shared.armed.load(Ordering::Acquire);
                    rearm = armed != self.armed;
                    self.armed = armed;
                }
                () = tokio::time::sleep(check) => rearm = true,
                _now = ping.tick() => {
                    if self.ask(&redis::cmd("PING")).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Reads the lists, which also asks the server to tell of their next change. What waits there now
    /// may have come before.
    async fn look(&mut self) -> bool {
        let lists: Vec<String> = {
            let wishes = self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            wishes.lists.iter().cloned().collect()
        };
        if lists.is_empty() {
            return true;
        }
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&lists);
        match self.ask(&exists).await {
            Some(Value::Int(count)) => {
                if count > 0 {
                    self.shared.changes.send_modify(|count| *count += 1);
                }
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    fn hear(&self, push: &PushInfo) -> bool {
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::SimpleString(text) => Some(text.clone()),
            _ => None,
        };
        match push.kind {
            PushKind::Invalidate => self.shared.changes.send_modify(|count| *count += 1),
            PushKind::Disconnection => return false,
            PushKind::Message | PushKind::PMessage => {
                let (Some(channel), Some(Value::BulkString(payload))) =
                    (push.data.first().and_then(text), push.data.last())
                else {
                    return true;
                };
                if channel == self.shared.address.keys.bell() {
                    self.shared.changes.send_modify(|count| *count += 1);
                } else {
                    let heard = Heard { channel, payload: payload.as_slice().into() };
                    let _nobody = self.shared.heard.send(heard);
                }
            }
            _ => {}
        }
        true
    }

    /// Subscribes to what waiters want and unsubscribes from the rest.
    async fn follow_wishes(&mut self) -> bool {
        let (channels, patterns) = {
            let wishes = self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            if wishes.channels.len() == self.channels.len()
                && wishes.patterns.len() == self.patterns.len()
                && wishes.channels.keys().eq(&self.channels)
                && wishes.patterns.keys().eq(&self.patterns)
            {
                return true;
            }
            let names = |all: &BTreeMap<String, usize>| all.keys().cloned().collect();
            let both: (BTreeSet<String>, BTreeSet<String>) =
                (names(&wishes.channels), names(&wishes.patterns));
            both
        };
        for (command, names) in [
            ("UNSUBSCRIBE", &self.channels - &channels),
            ("PUNSUBSCRIBE", &self.patterns - &patterns),
            ("SUBSCRIBE", &channels - &self.channels),
            ("PSUBSCRIBE", &patterns - &self.patterns),
        ] {
            if names.is_empty() {
                continue;
            }
            let mut order = redis::cmd(command);
            order.arg(names.iter().collect::<Vec<_>>());
            if self.ask(&order).await.is_none() {
                return false;
            }
        }
        let all: BTreeSet<String> = &channels | &patterns;
        (self.channels, self.patterns) = (channels, patterns);
        self.shared.subscribed.send_replace(all);
        true
    }
}
