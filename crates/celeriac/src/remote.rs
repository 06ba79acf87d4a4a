//! Asks workers and gives them orders: Celery's `app.control` and `app.control.inspect()`.

use celeriac_core::store::{Store, ask};
use celeriac_core::{Clock, Entropy, StoreError, clock};
use celeriac_wire::{ControlRequest, Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whom to ask, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names of nodes; empty asks all.
    pub destination: Vec<String>,
    /// Only nodes whose name matches this glob, where no destination is given.
    pub pattern: Option<String>,
    /// The end is when nobody has answered for so long; each reply begins the wait anew.
    pub timeout: Duration,
    /// The end is also when so many have answered; the number of destinations where there are any.
    pub count_max: Option<usize>,
}

impl Default for Ask {
    /// Everybody, one second (celery 5.7.0 app/control.py).
    fn default() -> Self {
        Self {
            destination: Vec::new(),
            pattern: None,
            timeout: Duration::from_secs(1),
            count_max: None,
        }
    }
}

impl Ask {
    /// Asks only these nodes.
    pub fn nodes<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Self {
        let destination = nodes.into_iter().map(Into::into).collect();
        Self { destination, ..Self::default() }
    }

    /// Waits so long.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Remote control of an application's workers, stock ones included. Cheap to clone.
///
/// ```
/// # use celeriac::prelude::*;
/// # use celeriac::{Ask, App};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> celeriac::Result {
/// let remote = App::at("memory://")?.remote().await?;
/// let answers = remote.ask("ping", Default::default(), &Ask::default().within(10.millis())).await?;
/// assert!(answers.is_empty(), "nobody works here");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remote").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Remote {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { store, clock, entropy }
    }

    /// Sends a command and collects what each node answers, by its name.
    ///
    /// # Errors
    /// The store does not answer. That no node answers is no error.
    pub async fn ask(
        &self,
        method: &str,
        arguments: Map,
        whom: &Ask,
    ) -> Result<Vec<(String, Value)>, StoreError> {
        let mut request = request(method, arguments, whom);
        let end = clock::after(self.clock.wall(), whom.timeout);
        request.expires = end.as_nanosecond() as f64 / 1e9;
        let count_max = whom.count_max.or(Some(whom.destination.len()).filter(|count| *count > 0));
        let id = clock::task_id(&*self.clock, &*self.entropy);
        let replies = ask(&*self.store, &id, request, whom.timeout, count_max).await?;
        Ok(replies.into_iter().flat_map(|reply| reply.answers).collect())
    }

    /// Sends a command and waits for no answer.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn cast(&self, method: &str, arguments: Map, whom: &Ask) -> Result<(), StoreError> {
        self.store.broadcast(&request(method, arguments, whom)).await
    }
}

fn request(method: &str, arguments: Map, whom: &Ask) -> ControlRequest {
    let mut request = ControlRequest::new(method, arguments).to(&whom.destination);
    if let Some(pattern) = &whom.pattern {
        request = request.matching(pattern, "glob");
    }
    // An asker hears nothing between its requests: any small number will do (wire 6.5).
    request.clock = 1;
    request
}
