//! Pools whose tasks share one process: threads, coroutines and greenlets of a Celery app.
//!
//! `host` is the process with the runs in it, `run` one run. A host that cannot go on – a run in it does
//! not stop, it holds too much memory, it has had its tasks – takes no more runs; the next begin in its
//! successor, and it ends when its last run has.

mod host;
mod run;

use super::{Python, PythonOptions};
use crate::handler::RunContext;
use crate::pool::crew::Crew;
use crate::pool::kind::Kind as _;
use crate::pool::output::Speaker;
use crate::pool::{Bounds, Children, News, Pool, PostMortem, TaskPool, Told};
use crate::worker::control::ProcessView;
use celeriac_core::outcome::Outcome;
use futures::future::BoxFuture;
use host::{Host, Seat};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A run that finds no process within this time goes back to its queue.
const HOST_PATIENCE: Duration = Duration::from_secs(2);

/// The process of a worker's runs, with its successors.
#[derive(Debug)]
pub(in crate::pool) struct Shared {
    hall: Arc<Hall>,
    pool: Pool<Python>,
    ready: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Shared {
    /// Starts the process, and returns when it is ready.
    ///
    /// # Errors
    /// Three starts in a row failed; the text is the process's error and the end of its stderr.
    pub(in crate::pool) async fn start(options: PythonOptions) -> Result<Self, String> {
        let Bounds { slots, tasks_max, .. } = options.bounds;
        // Its tasks are counted here.
        let one = Bounds { slots: 1, tasks_max: None, ..options.bounds };
        let pool = Pool::start(Python::new(options), one, super::run).await?;
        let (ready, receiver) = watch::channel(0);
        let hall = Arc::new(Hall {
            crew: Arc::clone(&pool.crew),
            slots: watch::Sender::new(slots),
            tasks_max,
            tags: AtomicU64::new(0),
            door: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(tell_ready(Arc::clone(&hall), ready));
        Ok(Self { hall, pool, ready: receiver, _tasks: tasks })
    }
}

/// Publishes how many runs there is room for, for ever.
async fn tell_ready(hall: Arc<Hall>, ready: watch::Sender<usize>) {
    let (mut children, mut slots) = (hall.crew.ready(), hall.slots.subscribe());
    loop {
        let room = if *children.borrow_and_update() > 0 { *slots.borrow_and_update() } else { 0 };
        ready.send_if_modified(|old| std::mem::replace(old, room) != room);
        let changed = tokio::select! {
            // Cancel safe.
            changed = children.changed() => changed,
            changed = slots.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl TaskPool for Shared {
    fn ready(&self) -> watch::Receiver<usize> {
        self.ready.clone()
    }

    fn run(&self, context: RunContext) -> BoxFuture<'static, Outcome> {
        Box::pin(run::run_in(Arc::clone(&self.hall), context))
    }

    fn resize(&self, slots: usize) {
        self.hall.slots.send_replace(slots);
    }

    fn renew(&self, children: Children) {
        self.pool.renew(children);
    }

    fn processes(&self) -> Vec<ProcessView> {
        let view = |host: &Arc<Host>| {
            let pid = u32::try_from(host.process.pid()).ok()?;
            Some(ProcessView { pid, taken: host.taken(), busy: host.runs() > 0 })
        };
        let hosts: Vec<ProcessView> = self.hall.known().iter().filter_map(view).collect();
        // One that has had no run yet.
        if hosts.is_empty() { self.pool.processes() } else { hosts }
    }

    fn busy(&self) -> BTreeMap<String, u32> {
        let mut busy = BTreeMap::new();
        for host in self.hall.known().iter() {
            let pid = u32::try_from(host.process.pid()).unwrap_or_default();
            busy.extend(host.tasks().into_iter().map(|task_id| (task_id, pid)));
        }
        busy
    }

    fn tasks_max(&self) -> Option<u64> {
        self.hall.tasks_max
    }

    fn look_ahead(&self) -> usize {
        0
    }

    fn tell(&self, mortem: PostMortem) -> Option<BoxFuture<'static, io::Result<Told>>> {
        Python::tell(&self.hall.crew, mortem)
    }

    fn announce(&self, news: News) -> Option<BoxFuture<'static, ()>> {
        Python::announce(&self.hall.crew, news)
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            for host in self.hall.known().iter() {
                host.close();
            }
            Box::new(self.pool).stop().await;
        })
    }
}

/// Where runs find their process.
#[derive(Debug)]
struct Hall {
    crew: Arc<Crew<Python>>,
    slots: watch::Sender<usize>,
    tasks_max: Option<u64>,
    tags: AtomicU64,
    /// Held while a run looks for a process, so that only one is opened.
    door: tokio::sync::Mutex<()>,
    /// The processes that live, the one that takes runs last.
    known: Mutex<Vec<Arc<Host>>>,
}

impl Hall {
    fn known(&self) -> MutexGuard<'_, Vec<Arc<Host>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat in the process that takes runs; `None` when there is none in time. Cancel safe.
    async fn seat(&self, speaker: &Speaker) -> Option<Seat> {
        let _one_at_a_time = self.door.lock().await;
        let tag = self.tags.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.known().last().cloned();
        if let Some(seat) = last.and_then(|host| host.seat(tag, &speaker.task_id)) {
            return Some(seat);
        }
        let held = self.crew.take(speaker, HOST_PATIENCE).await?;
        let host = Host::open(Arc::clone(&self.crew), held, self.tasks_max)?;
        let mut known = self.known();
        known.retain(|host| !host.is_over());
        // A worker has room for two: the older one has had its time.
        for older in known.iter().rev().skip(1) {
            older.end_stuck();
        }
        known.push(Arc::clone(&host));
        host.seat(tag, &speaker.task_id)
    }
}
