//! Tells waiting code that the store changed, in this process or in another.
//!
//! Every process writes one byte into the bell file after each synced commit; the others hear it
//! by inotify (Linux). The write-ahead log itself is no bell: its bytes are written before the
//! fsync, and what publishes the commit is a write to mapped memory, which inotify does not see.
//! A look at `PRAGMA data_version` every 100 ms is the safety net, and the only way elsewhere.

use rusqlite::Connection;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How late a change may be noticed when the file system does not tell.
pub(super) const SAFETY_NET: Duration = Duration::from_millis(100);

/// Counts changes; cloned by everybody who rings or listens.
///
/// Listeners are woken in the order in which they began to wait. A `watch` channel wakes them in an
/// order of its own random numbers, and no simulation could be replayed.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    count: Arc<AtomicU64>,
    listeners: Arc<Notify>,
    file: Option<Arc<File>>,
}

impl Bell {
    /// A bell that rings in this process and, with a file, in others.
    pub(super) fn new(file: Option<File>) -> Self {
        Self { count: Arc::default(), listeners: Arc::default(), file: file.map(Arc::new) }
    }

    /// Wakes this process.
    pub(super) fn ring(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.listeners.notify_waiters();
    }

    /// Wakes this process and the others.
    pub(super) fn ring_everywhere(&self) {
        self.ring();
        if let Some(file) = &self.file
            && let Err(error) = file.write_at(b"!", 0)
        {
            tracing::debug!(%error, "cannot ring the bell; others notice within 100 ms");
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until the count is not `seen`. Cancel safe.
    pub(super) async fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        // It hears every ring from here on, also before it is first polled: none is missed between
        // the look at the count and the wait.
        let rung = self.listeners.notified();
        if self.count() == seen {
            // Rung or late, the count says it.
            drop(tokio::time::timeout(timeout, rung).await);
        }
        self.count()
    }
}

/// Listens for other processes until it is dropped.
#[derive(Debug)]
pub(super) struct Listener(Arc<AtomicBool>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Listener {
    /// Starts the listening thread on a connection of its own; it ends within 100 ms of the drop.
    pub(super) fn spawn(
        connection: Connection,
        bell_file: &Path,
        bell: Bell,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ear = Ear::new(bell_file);
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("sqlite-bell".to_owned()).spawn(move || {
            let version = || connection.pragma_query_value(None, "data_version", |row| row.get(0));
            let mut seen: i64 = version().unwrap_or(0);
            while !stopped.load(Ordering::Acquire) {
                // A heard bell needs no look; its own process has rung already, a second ring is
                // cheaper than finding out who it was.
                let heard = ear.wait(SAFETY_NET);
                // An unreadable store is reported by the calls that need it.
                let current = if heard { seen } else { version().unwrap_or(seen) };
                if heard || current != seen {
                    seen = current;
                    bell.ring();
                }
            }
        })?;
        Ok(Self(stop))
    }
}

/// Waits for a write to the bell file, at most for a given time; tells whether there was one.
struct Ear {
    #[cfg(target_os = "linux")]
    inotify: Option<rustix::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Ear {
    fn new(bell_file: &Path) -> Self {
        use rustix::fs::inotify;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watched = inotify::init(flags).and_then(|fd| {
            inotify::add_watch(&fd, bell_file, inotify::WatchFlags::MODIFY)?;
            Ok(fd)
        });
        if let Err(error) = &watched {
            tracing::warn!(%error, "inotify is not available; changes of other processes are noticed \
                within 100 ms");
        }
        Self { inotify: watched.ok() }
    }

    fn wait(&self, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let Some(fd) = &self.inotify else {
            // Both an expired and an interrupted poll lead to the look at data_version.
            let _ready = poll(&mut [], Some(&timeout));
            return false;
        };
        let heard = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout))
            .is_ok_and(|ready| ready > 0);
        if heard {
            // One read takes up to 256 events; what is left makes the next poll return at once.
            let mut drained = [0u8; 4096];
            let _count = rustix::io::read(fd, &mut drained);
        }
        heard
    }
}

#[cfg(not(target_os = "linux"))]
impl Ear {
    fn new(_bell_file: &Path) -> Self {
        Self {}
    }

    fn wait(&self, timeout: Duration) -> bool {
        use rustix::event::{Timespec, poll};
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // Both an expired and an interrupted poll lead to the look at data_version.
        let _ready = poll(&mut [], Some(&timeout));
        false
    }
}
