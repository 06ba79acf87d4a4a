//! The thread that reads and writes the sockets of one store.
//!
//! A task that does not yield blocks its runtime's threads; leases and settlements must not wait for
//! it. So the connections live in a runtime of their own, and callers in any other hold only handles.

use celeriac_core::{ErrorKind, StoreError};
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread; it ends when the last handle to it is dropped.
#[derive(Debug)]
pub(super) struct Io {
    handle: Handle,
    _running: oneshot::Sender<()>,
}

impl Io {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Unavailable` when the system has no thread or no descriptor left.
    pub(super) fn start() -> Result<Arc<Self>, StoreError> {
        let refuse = |error: std::io::Error| {
            StoreError::new(ErrorKind::Unavailable, "start the thread for Redis").because(error)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(refuse)?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("redis".to_owned())
            .spawn(move || {
                let _dropped = runtime.block_on(ended);
            })
            .map_err(refuse)?;
        Ok(Arc::new(Self { handle, _running: running }))
    }

    /// Runs a future there. A dropped answer does not end it.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(work)
    }
}
