//! Builds that are broken on purpose, one for each promise: a checker that cannot fail proves
//! nothing.

use celeriac_core::StoreError;
use celeriac_core::store::{
    ChordFinisher, Delivery, Fate, FetchRequest, Outgoing, Plan, Published, Settled, Settlement,
    Store, Sweep,
};
use celeriac_wire::{ResultMeta, State, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Every fifth publish is confirmed and dropped (I1).
    DropPublish,
    /// Every third settled message is enqueued again (I2).
    RunAgain,
    /// Nobody is told that a message was delivered before (I2).
    HideRedelivery,
    /// The leases of dead workers are never taken (I3).
    NeverSweep,
    /// What a fenced owner writes is written all the same (I4).
    IgnoreLease,
    /// Every fifth settlement is confirmed and not written (I5).
    ForgetSettlement,
    /// A success is stored with the value of another run (I6).
    OtherRunsResult,
    /// One dead letter too many is counted (I7).
    Miscount,
    /// Every fetch leaves a task of the runtime behind (I8).
    Leak,
    /// Messages of one send are enqueued the other way round (I9).
    Reorder,
}

/// Breaks what it is told to.
#[derive(Debug, Default)]
pub(crate) struct Saboteur {
    plan: Option<Sabotage>,
    calls: AtomicU64,
    copies: Mutex<BTreeMap<i64, Outgoing>>,
}

impl Saboteur {
    pub(crate) fn new(plan: Option<Sabotage>) -> Self {
        Self { plan, ..Self::default() }
    }

    fn does(&self, sabotage: Sabotage) -> bool {
        self.plan == Some(sabotage)
    }

    fn every(&self, count: u64) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % count == count - 1
    }

    pub(crate) async fn publish(
        &self,
        inner: &dyn Store,
        mut plan: Plan,
        finisher: Option<ChordFinisher>,
    ) -> Result<Published, StoreError> {
        if self.does(Sabotage::DropPublish) && self.every(5) {
            return Ok(Published::default());
        }
        if self.does(Sabotage::Reorder) {
            plan.publish.reverse();
        }
        inner.publish(plan, finisher).await
    }

    pub(crate) async fn fetch(
        &self,
        inner: &Arc<dyn Store>,
        request: FetchRequest,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut held = inner.fetch(request).await?;
        if self.does(Sabotage::HideRedelivery) {
            for delivery in &mut held {
                delivery.redelivered = false;
            }
        }
        if self.does(Sabotage::RunAgain) {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            for delivery in &held {
                let copy = Outgoing::new(delivery.queue.clone(), delivery.message.clone());
                copies.insert(delivery.lease.token, copy);
            }
        }
        if self.does(Sabotage::Leak) {
            let kept = Arc::clone(inner);
            drop(tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(kept);
            }));
        }
        Ok(held)
    }

    pub(crate) async fn settle(
        &self,
        inner: &dyn Store,
        mut settlements: Vec<Settlement>,
    ) -> Result<Vec<Settled>, StoreError> {
        if self.does(Sabotage::ForgetSettlement) && self.every(5) {
            return Ok(vec![Settled::Done; settlements.len()]);
        }
        if self.does(Sabotage::OtherRunsResult) {
            settlements.iter_mut().for_each(forge);
        }
        let mut settled = inner.settle(settlements.clone()).await?;
        for (settlement, settled) in settlements.into_iter().zip(&mut settled) {
            if self.does(Sabotage::IgnoreLease) && *settled == Settled::Fenced {
                inner.publish(settlement.plan, settlement.finisher).await?;
                *settled = Settled::Done;
            } else if self.does(Sabotage::RunAgain)
                && settlement.fate == Fate::Done
                && self.every(3)
            {
                let token = settlement.lease.token;
                let copy =
                    self.copies.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
                let publish = copy.into_iter().collect();
                inner.publish(Plan { publish, ..Plan::default() }, None).await?;
            }
        }
        Ok(settled)
    }

    pub(crate) async fn sweep(&self, inner: &dyn Store) -> Result<Sweep, StoreError> {
        if self.does(Sabotage::NeverSweep) {
            return Ok(Sweep::default());
        }
        inner.sweep().await
    }

    pub(crate) fn count(&self, count: u64) -> u64 {
        count + u64::from(self.does(Sabotage::Miscount))
    }
}

/// Replaces the value of a success.
fn forge(settlement: &mut Settlement) {
    for record in &mut settlement.plan.results {
        if record.meta.state() == State::Success {
            let id = record.meta.task_id().unwrap_or_default().to_owned();
            record.meta = ResultMeta::new(&id, &State::Success, Value::from("another run"));
        }
    }
}
