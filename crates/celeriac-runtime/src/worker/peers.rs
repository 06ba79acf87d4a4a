//! Asks the stock workers beside us which of the tasks that we do not know are theirs.

use super::Worker;
use celeriac_core::store::{Store, ask};
use celeriac_core::{Clock, Entropy, QueueName, StoreError, clock};
use celeriac_wire::{ControlRequest, Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long one question waits for answers (celery 5.7.0 app/control.py, timeout 1.0).
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked while there is a task that nobody here knows.
const AGAIN: Duration = Duration::from_secs(5);

/// Task names and the queues in which their messages are.
pub(super) type Wanted = BTreeMap<String, BTreeSet<QueueName>>;

/// What it takes to ask.
pub(super) struct Peers {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// The names that are asked about.
    wanted: watch::Receiver<Wanted>,
    /// Those of them that a stock worker knows which consumes one of their queues.
    known: watch::Sender<BTreeSet<String>>,
}

impl Peers {
    /// Who asks, where it is told what to ask about, and where it tells what others know.
    pub(super) fn new(
        worker: &Worker,
    ) -> (Self, watch::Sender<Wanted>, watch::Receiver<BTreeSet<String>>) {
        let (ask_about, wanted) = watch::channel(Wanted::new());
        let (known, told) = watch::channel(BTreeSet::new());
        let store = Arc::clone(&worker.store);
        let (clock, entropy) = (Arc::clone(&worker.clock), Arc::clone(&worker.entropy));
        (Self { store, clock, entropy, wanted, known }, ask_about, told)
    }

    /// Runs until it is dropped. Does nothing where only workers of ours can be.
    pub(super) async fn serve(mut self) {
        if !self.store.has_stock_nodes() {
            return;
        }
        while self.wanted.wait_for(|wanted| !wanted.is_empty()).await.is_ok() {
            let wanted = self.wanted.borrow_and_update().clone();
            match self.look(&wanted).await {
                Ok(known) => _ = self.known.send_if_modified(|last| replace(last, known)),
                Err(error) => tracing::warn!(%error, "cannot ask what others know"),
            }
            // A new name is asked about at once.
            let _elapsed = tokio::time::timeout(AGAIN, self.wanted.changed()).await;
        }
    }

    async fn look(&self, wanted: &Wanted) -> Result<BTreeSet<String>, StoreError> {
        let nodes = self.store.nodes().await?;
        let ours: BTreeSet<String> = nodes.into_iter().map(|node| node.info.name).collect();
        let queues = self.question("active_queues").await?;
        let tasks = self.question("registered").await?;
        let consumed = |node: &str| -> BTreeSet<&str> {
            let list = queues.get(node).and_then(Value::as_array).unwrap_or_default();
            list.iter().filter_map(|queue| queue.get("name")?.as_str()).collect()
        };
        let mut known = BTreeSet::new();
        for (node, answer) in tasks.iter().filter(|(node, _)| !ours.contains(*node)) {
            let consumed = consumed(node);
            for task in answer.as_array().unwrap_or_default().iter().filter_map(Value::as_str) {
                // `name [rate_limit=10/s]` (celery 5.7.0 worker/control.py `registered`).
                let task = task.split(' ').next().unwrap_or(task);
                let met = wanted.get(task);
                if met.is_some_and(|met| met.iter().any(|one| consumed.contains(one.as_str()))) {
                    known.insert(task.to_owned());
                }
            }
        }
        Ok(known)
    }

    /// The answers by node.
    async fn question(&self, method: &str) -> Result<BTreeMap<String, Value>, StoreError> {
        let mut request = ControlRequest::new(method, Map::default());
        request.expires = clock::after(self.clock.wall(), PATIENCE).as_nanosecond() as f64 / 1e9;
        let id = clock::task_id(&*self.clock, &*self.entropy);
        let replies = ask(&*self.store, &id, request, PATIENCE, None).await?;
        let answers = replies.iter().flat_map(|reply| reply.answers.iter());
        Ok(answers.map(|(node, answer)| (node.to_owned(), answer.clone())).collect())
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}
