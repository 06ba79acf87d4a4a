//! Declares what a worker consumes, as a stock worker does when it connects: each queue is bound to its
//! exchange, so that who sends there reaches it.

use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::route::Router;
use celeriac_core::store::Store;
use celeriac_core::{QueueName, StoreError};

/// How queues are bound: as the application declares them, or each to the exchange of its own name.
pub(super) fn bindings_of(router: &Router, queues: &[QueueName]) -> Vec<Binding> {
    queues.iter().map(|queue| router.binding_of(queue)).collect()
}

/// The queues of bindings.
pub(super) fn queues_of(bindings: &[Binding]) -> Vec<QueueName> {
    bindings.iter().map(|binding| binding.queue.clone()).collect()
}

/// Tells the store. Where there are no exchanges, a queue of a direct one is reached by its name, and
/// others are refused.
pub(super) async fn declare(store: &dyn Store, bindings: &[Binding]) -> Result<(), StoreError> {
    let exchanges = store.capabilities().exchanges;
    let needed = |one: &&Binding| exchanges || one.kind != ExchangeKind::Direct;
    store.bind(bindings.iter().filter(needed).cloned().collect()).await
}
