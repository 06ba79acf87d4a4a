//! The library as a program uses it, on every store.

mod additions;
mod application;
mod bodies;
mod calls;
mod hooks;
mod limits;
mod lost;
mod order;
mod outage;
mod outcomes;
#[cfg(feature = "encryption")]
mod sealed;
mod seeing;
mod sets;
mod spill;
mod strangers;
mod testing;
mod unique;

use crate::kit::Place;
use crate::running::{TestApp, application, start};
pub(crate) use application::configured;
use celeriac::prelude::*;

/// Runs a test with a running worker on each store.
async fn each(test: impl AsyncFn(&Client, &TestApp)) {
    for place in Place::every() {
        let under_test = application(place.app());
        let running = start(&under_test.app).await;
        test(&running.client, &under_test).await;
        running.stop().await;
    }
}
