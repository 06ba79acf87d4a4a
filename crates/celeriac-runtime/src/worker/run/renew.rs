//! Going on with other tasks and other children, without a stop.

use super::Loop;
use crate::worker::Renewal;
use crate::worker::rates::OwnRates;
use std::sync::Arc;

impl Loop {
    /// Knows other tasks from now on; children are replaced one by one, each after its task. Rates that
    /// remote control has changed are those of the tasks again.
    pub(super) async fn renew(&mut self, renewal: Renewal) {
        // First: no child of the old ones gets a task that only the new ones know.
        if let Some(pool) = &self.pool {
            pool.renew(renewal.children);
        }
        let registry = Arc::clone(&self.worker().registry);
        registry.replace(renewal.registry);
        self.rates = OwnRates::of(&registry);
        let names = registry.names();
        self.strangers.forget(&names);
        self.wanted.send_replace(self.strangers.wanted());
        let store = Arc::clone(&self.worker().store);
        match self.side_call(store.declare_limits(&names, registry.limit_rules())).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "the store does not know the new limits"),
            None => tracing::warn!("the store does not know the new limits: it did not answer"),
        }
        tracing::info!(tasks = names.len(), "the new tasks are known, and new children run them");
    }
}
