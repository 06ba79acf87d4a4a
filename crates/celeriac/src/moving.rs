//! Moves what waits in a queue to another queue, in this store or another.
//!
//! A message is held at its old place (a lease of a node of its own) until it is at the new one, so that no
//! worker runs it meanwhile and a death in between returns it. In one store both happen in one step. Between
//! two stores the message is sent under a key that goes once ([`Outgoing::once`]), then settled at its old
//! place, then the key is forgotten: whoever goes on after a death sends nothing a second time.

use celeriac_core::lease::LeaseTimes;
use celeriac_core::pattern::Patterns;
use celeriac_core::store::{
    Delivery, Fate, Heartbeat, NodeId, NodeInfo, Outgoing, Page, Place, Plan, Settled, Settlement,
    Store,
};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// So many messages, or so many bytes of bodies, are held at a time.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 << 20;
/// How the node of a mover is called, before the `@`.
const NODE: &str = "move";
/// How often is looked whether what an earlier mover held is back.
const LOOK: Duration = Duration::from_millis(200);
/// A send whose outcome is unknown is repeated so often.
const TRIES: u32 = 5;

/// What is to be moved.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Out of this queue …
    pub(crate) from: QueueName,
    /// … into this one.
    pub(crate) to: QueueName,
    /// Only tasks of these names; `None` means all.
    pub(crate) tasks: Option<Patterns<()>>,
    /// The most messages.
    pub(crate) count_max: Option<u64>,
}

/// What came of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Messages that went.
    pub(crate) moved: u64,
    /// Those of them that were at the new place already: an earlier move was cut off.
    pub(crate) known: u64,
}

/// A node that moves and runs nothing. Its leases are kept until it is dropped.
#[derive(Debug)]
pub(crate) struct Mover {
    store: Arc<dyn Store>,
    node: NodeId,
    beating: JoinHandle<()>,
}

impl Mover {
    /// Signs on at the store that messages are moved out of.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        host: &str,
        times: LeaseTimes,
    ) -> Result<Self, StoreError> {
        let node = store
            .register(NodeInfo {
                name: format!("{NODE}@{host}"),
                pid: std::process::id(),
                queues: Vec::new(),
                concurrency: 0,
                pool: "none".to_owned(),
                times,
                tasks: Vec::new(),
            })
            .await?;
        let beating = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                loop {
                    tokio::time::sleep(times.heartbeat).await;
                    if let Err(error) = store.heartbeat(node, Heartbeat::default()).await {
                        tracing::warn!(%error, "the mover cannot renew what it holds");
                    }
                }
            }
        });
        Ok(Self { store, node, beating })
    }

    /// Gives back what it holds and signs off.
    ///
    /// # Errors
    /// Those of the store; its leases then run out.
    pub(crate) async fn stop(self) -> Result<(), StoreError> {
        self.beating.abort();
        self.store.deregister(self.node).await?;
        Ok(())
    }

    /// Moves until nothing is left that was there, then waits for what an earlier mover held when it died.
    /// Tells after each batch. May be dropped: what is held goes back when the mover stops or its leases run
    /// out.
    ///
    /// # Errors
    /// Those of either store; what is held is back at its old place then, if that can be reached.
    pub(crate) async fn run(
        &self,
        target: &Target,
        order: &Order,
        mut tell: impl FnMut(&Moved),
    ) -> Result<Moved, StoreError> {
        let mut sum = Moved::default();
        loop {
            self.pass(target, order, &mut sum, &mut tell).await?;
            let enough = order.count_max.is_some_and(|max| sum.moved >= max);
            if enough || !self.others_come_back().await? {
                return Ok(sum);
            }
        }
    }

    /// Goes once through the queue as it is.
    async fn pass(
        &self,
        target: &Target,
        order: &Order,
        sum: &mut Moved,
        tell: &mut impl FnMut(&Moved),
    ) -> Result<(), StoreError> {
        let mut page = Page { after: 0, count_max: BATCH };
        loop {
            let left = order.count_max.map_or(u64::MAX, |max| max.saturating_sub(sum.moved));
            if left == 0 {
                return Ok(());
            }
            let stored = self.store.peek(&order.from, page).await?;
            let Some(last) = stored.last() else { return Ok(()) };
            let end = last.row;
            let (mut rows, mut bytes, mut looked) = (Vec::new(), 0, 0);
            for one in &stored {
                bytes += one.outgoing.message.body.len();
                if rows.len() as u64 >= left || (bytes > BATCH_BYTES && !rows.is_empty()) {
                    break;
                }
                looked += 1;
                if order.wants(&one.outgoing) {
                    rows.push(one.row);
                }
            }
            let held = self.store.hold(self.node, &rows).await?;
            let (gone, known) = self.carry(target, order, held).await?;
            sum.moved += gone;
            sum.known += known;
            tell(sum);
            if gone == 0 && looked == stored.len() {
                // All of them stay: other tasks, or what cannot be read.
                page.after = end;
            }
        }
    }

    /// Brings held messages to their new place; how many went, and how many were there.
    async fn carry(
        &self,
        target: &Target,
        order: &Order,
        held: Vec<Delivery>,
    ) -> Result<(u64, u64), StoreError> {
        if held.is_empty() {
            return Ok((0, 0));
        }
        let outgoing = |delivery: &Delivery| Outgoing {
            queue: order.to.clone(),
            message: delivery.message.clone(),
            history: delivery.history.clone(),
            enqueued_at: Some(delivery.enqueued_at),
            once: None,
        };
        let Target::Elsewhere { store, source } = target else {
            let all = held.iter().map(|delivery| (delivery, vec![outgoing(delivery)]));
            return Ok((self.settle(all).await?, 0));
        };
        let keys = keys_of(source, &held);
        // A key of what no mover has held before is left of an earlier move of the same message.
        let first: Vec<String> = held
            .iter()
            .zip(&keys)
            .filter(|(delivery, _)| !delivery.redelivered)
            .map(|(_, key)| key.clone())
            .collect();
        store.forget_once(&first).await?;
        let publish = held
            .iter()
            .zip(&keys)
            .map(|(delivery, key)| Outgoing { once: Some(key.clone()), ..outgoing(delivery) });
        let plan = Plan { publish: publish.collect(), ..Plan::default() };
        let known = match send(&**store, plan).await {
            Ok(known) => known,
            Err(error) => {
                // What may have arrived goes back as redelivered when this mover stops: its key counts then.
                if error.kind() != ErrorKind::Unknown {
                    self.give_back(&held).await;
                }
                return Err(error);
            }
        };
        let gone = self.settle(held.iter().map(|delivery| (delivery, Vec::new()))).await?;
        store.forget_once(&keys).await?;
        Ok((gone, known))
    }

    async fn settle<'a>(
        &self,
        held: impl Iterator<Item = (&'a Delivery, Vec<Outgoing>)>,
    ) -> Result<u64, StoreError> {
        let settlements = held.map(|(delivery, publish)| Settlement {
            lease: delivery.lease,
            fate: Fate::Done,
            plan: Plan { publish, ..Plan::default() },
            finisher: None,
        });
        let settled = self.store.settle(settlements.collect()).await?;
        let fenced = settled.iter().filter(|one| **one == Settled::Fenced).count();
        if fenced > 0 {
            let text = format!("the mover was away so long that {fenced} messages were given back");
            let error = StoreError::new(ErrorKind::Conflict, text);
            return Err(error.hint("move again: what is at the new place stays once"));
        }
        Ok(settled.len() as u64)
    }

    async fn give_back(&self, held: &[Delivery]) {
        let back = held.iter().map(|delivery| Settlement {
            lease: delivery.lease,
            fate: Fate::Release { place: Place::Head, attempt: None },
            plan: Plan::default(),
            finisher: None,
        });
        // The last one first, so that the first stands at the head.
        let back: Vec<Settlement> = back.rev().collect();
        if let Err(error) = self.store.settle(back).await {
            tracing::warn!(%error, "what the mover holds goes back when its leases run out");
        }
    }

    /// Waits until every earlier mover is found dead or has left; whether anything came back.
    async fn others_come_back(&self) -> Result<bool, StoreError> {
        let mut waited = false;
        loop {
            // What a dead one held may be halfway back: whoever found it dead may have died too.
            waited |= self.store.sweep().await?.requeued > 0;
            let nodes = self.store.nodes().await?;
            let other = nodes.iter().any(|node| {
                let mover = node.info.name.split_once('@').is_some_and(|(name, _)| name == NODE);
                node.alive && mover && node.id != self.node
            });
            if !other {
                return Ok(waited);
            }
            waited = true;
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl Order {
    /// Whether it is among what is to be moved.
    pub(crate) fn wants(&self, outgoing: &Outgoing) -> bool {
        let task = outgoing.message.headers.task().unwrap_or_default();
        self.tasks.as_ref().is_none_or(|tasks| tasks.find(task).is_some())
    }
}

/// Where messages go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The store they are in.
    Here,
    /// Another one.
    Elsewhere {
        /// That one.
        store: Arc<dyn Store>,
        /// What the old place is called in keys: two moves from two places are two.
        source: String,
    },
}

/// What messages are called while nobody knows whether they arrived: by all that is in them, for two may
/// have one id, and by their number among those that are the same.
fn keys_of(source: &str, held: &[Delivery]) -> Vec<String> {
    let mut seen: BTreeMap<Uuid, u32> = BTreeMap::new();
    let key = |delivery: &Delivery| {
        let (message, mut bytes) = (&delivery.message, Vec::new());
        for part in [
            source.as_bytes(),
            delivery.queue.as_str().as_bytes(),
            message.headers.to_json().as_bytes(),
            message.properties.to_json().as_bytes(),
        ] {
            bytes.extend_from_slice(part);
            bytes.push(0);
        }
        bytes.extend_from_slice(&message.body);
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes);
        let number = seen.entry(name).and_modify(|number| *number += 1).or_insert(0);
        format!("move:{}:{number}", name.simple())
    };
    held.iter().map(key).collect()
}

/// Sends, and again when nobody knows whether it went; how many were there already.
async fn send(store: &dyn Store, plan: Plan) -> Result<u64, StoreError> {
    let mut tries = 1;
    loop {
        match store.publish(plan.clone(), None).await {
            Ok(published) if tries == 1 => return Ok(published.duplicates.len() as u64),
            // What is there now may have come with an earlier try.
            Ok(_) => return Ok(0),
            Err(error) if error.is_retryable() && tries < TRIES => {
                tracing::warn!(%error, "sending again");
                tries += 1;
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_core::limits::StoreLimits;
    use celeriac_core::testing::{FixedClock, Seeded};
    use celeriac_wire::Message;

    fn store() -> (Arc<dyn Store>, Arc<FixedClock>) {
        let clock = Arc::new(FixedClock::at("2026-11-22T12:00:00Z"));
        let resources = celeriac_stores::Resources {
            clock: clock.clone(),
            entropy: Arc::new(Seeded::new(7)),
            limits: StoreLimits::default(),
            results: None,
        };
        (celeriac_stores::connect("memory://", resources).unwrap(), clock)
    }

    fn order() -> Order {
        let (from, to) = (QueueName::celery(), QueueName::celery());
        Order { from, to, tasks: None, count_max: None }
    }

    async fn send_one(store: &dyn Store) {
        let outgoing = Outgoing::new(QueueName::celery(), Message::new("t", "id", "[[], {}, {}]"));
        let plan = Plan { publish: vec![outgoing], ..Plan::default() };
        store.publish(plan, None).await.unwrap();
    }

    async fn count(store: &dyn Store) -> usize {
        let page = Page { after: 0, count_max: 9 };
        store.peek(&QueueName::celery(), page).await.unwrap().len()
    }

    /// Sends what waits to the other store, as a mover that is killed before it settles.
    async fn move_half(from: &Arc<dyn Store>, to: &dyn Store) {
        let mover = Mover::start(Arc::clone(from), "half", LeaseTimes::default()).await.unwrap();
        let page = Page { after: 0, count_max: 9 };
        let stored = from.peek(&QueueName::celery(), page).await.unwrap();
        let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
        let held = from.hold(mover.node, &rows).await.unwrap();
        let keys = keys_of("here", &held);
        let publish = held.iter().zip(keys).map(|(delivery, key)| Outgoing {
            once: Some(key),
            enqueued_at: Some(delivery.enqueued_at),
            ..Outgoing::new(QueueName::celery(), delivery.message.clone())
        });
        to.publish(Plan { publish: publish.collect(), ..Plan::default() }, None).await.unwrap();
    }

    async fn move_all(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Moved {
        let mover = Mover::start(Arc::clone(from), "all", LeaseTimes::default()).await.unwrap();
        let target = Target::Elsewhere { store: Arc::clone(to), source: "here".to_owned() };
        let done = mover.run(&target, &order(), |_| {}).await.unwrap();
        mover.stop().await.unwrap();
        done
    }

    #[tokio::test]
    async fn what_a_killed_mover_has_sent_is_not_sent_again() {
        let ((here, clock), (there, _)) = (store(), store());
        send_one(&*here).await;
        move_half(&here, &*there).await;
        clock.advance(LeaseTimes::default().expiry);
        here.sweep().await.unwrap();
        assert_eq!(move_all(&here, &there).await, Moved { moved: 1, known: 1 });
        assert_eq!((count(&*here).await, count(&*there).await), (0, 1));
    }

    /// The key of a mover that was killed between its last two steps is still there.
    #[tokio::test]
    async fn the_same_message_may_come_back_and_go_again() {
        let ((here, clock), (there, _)) = (store(), store());
        send_one(&*here).await;
        move_half(&here, &*there).await;
        clock.advance(LeaseTimes::default().expiry);
        here.sweep().await.unwrap();
        for place in [&here, &there] {
            let stored = place.peek(&QueueName::celery(), Page { after: 0, count_max: 9 }).await;
            let rows: Vec<i64> = stored.unwrap().iter().map(|one| one.row).collect();
            assert_eq!(place.remove(&rows).await.unwrap().len(), 1);
        }
        send_one(&*here).await;
        assert_eq!(move_all(&here, &there).await, Moved { moved: 1, known: 0 });
        assert_eq!((count(&*here).await, count(&*there).await), (0, 1));
    }
}
