//! Signals that end a command.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for TERM, INT or QUIT; for ever where they cannot be listened to, which is told.
pub(super) async fn told_to_stop() {
    let open =
        |kind| signal(kind).map_err(|error| tracing::error!(%error, "cannot listen to a signal"));
    let (Ok(mut term), Ok(mut int), Ok(mut quit)) =
        (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = quit.recv() => {}
    }
}
