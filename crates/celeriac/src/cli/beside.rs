//! What runs beside a worker in its process, and ends with it: a beat, the HTTP server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How a part learns that it is to end.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    asked: CancellationToken,
    now: CancellationToken,
}

impl End {
    /// Waits until it is to end, with what it has begun.
    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Waits until it is to end, and nothing is waited for any more.
    #[cfg(feature = "web")]
    pub(super) async fn now(&self) {
        self.asked.cancelled().await;
        self.now.cancelled().await;
    }

    /// The token that is cancelled when it is to end.
    #[cfg(feature = "web")]
    pub(super) fn token(&self) -> CancellationToken {
        self.asked.clone()
    }
}

/// The parts of a worker's process that are not the worker.
#[derive(Debug, Default)]
pub(super) struct Beside {
    end: End,
    parts: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
    rows: BTreeMap<&'static str, String>,
    address: Option<SocketAddr>,
}

impl Beside {
    /// Starts a part, which runs until it is to end; `shown` stands in the worker's banner.
    pub(super) fn start<F>(
        &mut self,
        name: &'static str,
        shown: String,
        part: impl FnOnce(End) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.parts.spawn(part(self.end.clone())).id();
        self.names.push((id, name));
        self.rows.insert(name, shown);
    }

    /// Notes that the process has its HTTP server, and where.
    #[cfg(feature = "web")]
    pub(super) fn serves_at(&mut self, address: SocketAddr) {
        self.address = Some(address);
    }

    /// Where the process has its HTTP server: with `celeriac up`.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The parts with what is shown of them.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.rows.iter().map(|(name, shown)| (*name, shown.as_str()))
    }

    /// Cancelled when nothing is to be waited for any more.
    pub(super) fn now(&self) -> CancellationToken {
        self.end.now.clone()
    }

    /// Waits for a part that ends without being asked, and names it; for ever where none does.
    pub(super) async fn broken(&mut self) -> &'static str {
        let ended = match self.parts.join_next_with_id().await {
            None => return std::future::pending().await,
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
        };
        let name = self.names.iter().find(|(id, _)| *id == ended);
        name.map_or("part beside it", |(_, name)| *name)
    }

    /// Asks all parts to end, and waits for them.
    pub(super) async fn stop(mut self) {
        self.end.asked.cancel();
        while let Some(ended) = self.parts.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "what ran beside the worker did not end well");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_named_and_the_others_are_asked() {
        let mut beside = Beside::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        beside.start("beat", "here".to_owned(), |end| async move {
            end.asked().await;
            tell.send(()).unwrap();
        });
        beside.start("http", "there".to_owned(), |_end| async { panic!("on purpose") });
        assert_eq!(beside.rows().collect::<Vec<_>>(), [("beat", "here"), ("http", "there")]);
        assert_eq!(beside.broken().await, "http");
        beside.stop().await;
        told.await.unwrap();
    }

    #[cfg(feature = "web")]
    #[tokio::test]
    async fn a_part_that_takes_its_time_is_hurried() {
        let mut beside = Beside::default();
        beside.start("http", String::new(), |end| async move { end.now().await });
        let now = beside.now();
        // Too early to mean anything: nobody has asked it to end.
        now.cancel();
        tokio::select! {
            biased;
            name = beside.broken() => panic!("{name} ended"),
            () = tokio::task::yield_now() => {}
        }
        beside.stop().await;
    }
}
