//! Early acknowledgement, kept to the letter: nothing of a task begins before the store knows.

use celeriac_core::outcome::Outcome;
use celeriac_core::store::{Begun, Store};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Runs a task once its acknowledgement is written, so that it never runs twice when its worker dies. A
/// message of which that cannot be written goes back.
pub(super) fn acknowledged_first(
    store: Arc<dyn Store>,
    mark: Begun,
    run: BoxFuture<'static, Outcome>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        match store.mark_started(vec![mark]).await {
            Ok(()) => run.await,
            Err(error) => {
                let reason = format!("its acknowledgement cannot be written: {error}");
                Outcome::Returned { reason, begun: false }
            }
        }
    })
}
