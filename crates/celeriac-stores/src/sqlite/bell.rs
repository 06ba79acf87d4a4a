//! Tells waiting code that the store changed, in this process or in another.
//!
//! Every process writes one byte into the bell file after each synced commit, and touches the file
//! after each request or reply; the others hear both by inotify (Linux), and tell them apart. The
//! write-ahead log itself is no bell: its bytes are written before the fsync, and what publishes the
//! commit is a write to mapped memory, which inotify does not see. A look at `PRAGMA data_version`
//! every 100 ms is the safety net, the only way for events, and the only way elsewhere.

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

/// While the bell rings without a pause, `data_version` is looked at after so many rings.
const LOOK_EVERY: u32 = 16;

/// How a process rings for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stroke {
    /// It writes into the bell file: messages and results.
    Write,
    /// It sets the file's times: what is in the events file.
    Touch,
}

/// Counts changes; cloned by everybody who rings or listens.
///
/// Listeners are woken in the order in which they began to wait. A `watch` channel wakes them in an
/// order of its own random numbers, and no simulation could be replayed.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    count: Arc<AtomicU64>,
    listeners: Arc<Notify>,
    file: Option<(Arc<File>, Stroke)>,
}

impl Bell {
    /// A bell that rings in this process and, with a file, in others.
    pub(super) fn new(file: Option<(Arc<File>, Stroke)>) -> Self {
        Self { count: Arc::default(), listeners: Arc::default(), file }
    }

    /// Wakes this process.
    pub(super) fn ring(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.listeners.notify_waiters();
    }

    /// Wakes this process and the others.
    pub(super) fn ring_everywhere(&self) {
        self.ring();
        let rung = match &self.file {
            None => Ok(()),
            Some((file, Stroke::Write)) => file.write_at(b"!", 0).map(|_| ()),
            Some((file, Stroke::Touch)) => touch(file),
        };
        if let Err(error) = rung {
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

/// Sets the file's times to now, which inotify reports as a change of attributes.
fn touch(file: &File) -> std::io::Result<()> {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(futimens(file, &Timestamps { last_access: now, last_modification: now })?)
}

/// Listens for other processes until it is dropped.
#[derive(Debug)]
pub(super) struct Listener(Arc<AtomicBool>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A file whose changes ring a bell.
struct Source {
    connection: Connection,
    bell: Bell,
    seen: i64,
}

impl Source {
    fn new((connection, bell): (Connection, Bell)) -> Self {
        let mut source = Self { connection, bell, seen: 0 };
        source.seen = source.version();
        source
    }

    /// An unreadable store is reported by the calls that need it.
    fn version(&self) -> i64 {
        self.connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .unwrap_or(self.seen)
    }

    fn look(&mut self) {
        let version = self.version();
        if version != self.seen {
            self.seen = version;
            self.bell.ring();
        }
    }
}

impl Listener {
    /// Starts the listening thread on connections of its own, to the main file and to the events
    /// file; it ends within 100 ms of the drop.
    pub(super) fn spawn(
        sources: [(Connection, Bell); 2],
        bell_file: &Path,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ear = Ear::new(bell_file);
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("sqlite-bell".to_owned()).spawn(move || {
            let [mut main, mut events] = sources.map(Source::new);
            let mut rings = 0;
            while !stopped.load(Ordering::Acquire) {
                let heard = ear.wait(SAFETY_NET);
                // A heard bell needs no look; its own process has rung already, a second ring is
                // cheaper than finding out who it was.
                if heard.written {
                    main.bell.ring();
                }
                if heard.touched {
                    events.bell.ring();
                }
                rings += 1;
                if !heard.any() || rings >= LOOK_EVERY {
                    rings = 0;
                    main.look();
                    events.look();
                }
            }
        })?;
        Ok(Self(stop))
    }
}

/// What was heard.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    written: bool,
    touched: bool,
}

impl Heard {
    fn any(self) -> bool {
        self.written || self.touched
    }
}

/// Waits for a stroke on the bell file, at most for a given time.
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
            let strokes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::ATTRIB;
            inotify::add_watch(&fd, bell_file, strokes)?;
            Ok(fd)
        });
        if let Err(error) = &watched {
            tracing::warn!(%error, "inotify is not available; changes of other processes are noticed \
                within 100 ms");
        }
        Self { inotify: watched.ok() }
    }

    fn wait(&self, timeout: Duration) -> Heard {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::fs::inotify::{ReadFlags, Reader};
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut heard = Heard::default();
        let Some(fd) = &self.inotify else {
            // Both an expired and an interrupted poll lead to the look at data_version.
            let _ready = poll(&mut [], Some(&timeout));
            return heard;
        };
        let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout));
        if ready.is_ok_and(|ready| ready > 0) {
            // What does not fit makes the next poll return at once.
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(fd, &mut buffer);
            while let Ok(event) = reader.next() {
                let flags = event.events();
                // A queue that overflowed may have lost either.
                let lost = flags.contains(ReadFlags::QUEUE_OVERFLOW);
                heard.written |= lost || flags.contains(ReadFlags::MODIFY);
                heard.touched |= lost || flags.contains(ReadFlags::ATTRIB);
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        heard
    }
}

#[cfg(not(target_os = "linux"))]
impl Ear {
    fn new(_bell_file: &Path) -> Self {
        Self {}
    }

    fn wait(&self, timeout: Duration) -> Heard {
        use rustix::event::{Timespec, poll};
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // Both an expired and an interrupted poll lead to the look at data_version.
        let _ready = poll(&mut [], Some(&timeout));
        Heard::default()
    }
}
