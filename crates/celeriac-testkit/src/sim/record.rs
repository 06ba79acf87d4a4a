//! The ledger of a simulation: everything is written down at the moment it is true.

use crate::ledger::{Ledger, Line, What};
use celeriac_core::lease::Lease;
use celeriac_core::store::{Delivery, Fate, NodeId, Settled, Settlement};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The ledger, and which task is behind a lease.
#[derive(Debug)]
pub(crate) struct Record {
    ledger: Ledger,
    start: tokio::time::Instant,
    leased: Mutex<BTreeMap<Lease, (String, u32)>>,
}

impl Record {
    pub(crate) fn new(start: tokio::time::Instant) -> Self {
        Self { ledger: Ledger::default(), start, leased: Mutex::default() }
    }

    /// Microseconds since the simulation began.
    pub(crate) fn micros(&self) -> i64 {
        self.start.elapsed().as_micros() as i64
    }

    pub(crate) fn append(&self, line: Line) {
        self.ledger.append(line);
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.ledger.lines()
    }

    /// A line of now.
    pub(crate) fn line(&self, what: What, id: &str, who: &str) -> Line {
        Line::new(what, id, who, self.micros())
    }

    pub(crate) fn leased(&self, who: &str, node: NodeId, delivery: &Delivery) {
        let headers = &delivery.message.headers;
        let (id, attempt) = (headers.id().unwrap_or_default(), headers.retries());
        self.leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(delivery.lease, (id.to_owned(), attempt));
        let line = self.line(What::Leased, id, who).attempt(attempt).note("node", node.0);
        self.append(
            line.note("row", delivery.lease.row)
                .note("token", delivery.lease.token)
                .note("redelivered", yes(delivery.redelivered)),
        );
    }

    fn of_lease(&self, what: What, who: &str, lease: Lease) -> Line {
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, attempt) =
            leased.get(&lease).map_or(("?", 0), |(id, attempt)| (id.as_str(), *attempt));
        let line = self.line(what, id, who).attempt(attempt);
        line.note("row", lease.row).note("token", lease.token)
    }

    pub(crate) fn settled(&self, who: &str, settlement: &Settlement, settled: Settled) {
        let fate = match settlement.fate {
            Fate::Done => "done",
            Fate::Release { .. } => "release",
            Fate::Lost { .. } => "lost",
            Fate::Dead { .. } => "dead",
        };
        let line = self.of_lease(What::Settled, who, settlement.lease).note("fate", fate);
        let id = line.id.clone();
        let mut results = settlement.plan.results.iter();
        let success = results.any(|record| {
            record.meta.task_id() == Some(id.as_str())
                && record.meta.state() == celeriac_wire::State::Success
        });
        let line = line.note("accepted", yes(settled == Settled::Done));
        self.append(if success { line.note("success", "yes") } else { line });
    }

    pub(crate) fn state(&self, who: &str, lease: Lease, accepted: bool) {
        self.append(self.of_lease(What::State, who, lease).note("accepted", yes(accepted)));
    }
}

/// A note's word.
pub(crate) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
