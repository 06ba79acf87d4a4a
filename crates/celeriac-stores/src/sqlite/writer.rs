//! The one writer of a process: a thread that commits whatever waits as one group.
//!
//! Owns the writing connection. A job runs inside its own savepoint, so a failing job leaves its
//! neighbours alone; all jobs of a group share one commit and, if any of them is durable, one
//! fsync. Nobody is answered before the commit.

use celeriac_core::{ErrorKind, StoreError};
use rusqlite::Connection;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The most jobs in one group.
const GROUP_MAX: usize = 512;
/// The most jobs that wait for the writer; more senders wait outside.
const WAITING_MAX: usize = 4096;
/// How long a caller waits for its commit.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Whether a job's commit has to be on disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Messages, results, settlements: wait for fsync.
    Synced,
    /// Leases, heartbeats, marks: the next synced commit carries them.
    Relaxed,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// Called after every commit with the durability of its group.
pub(super) type Committed = Box<dyn Fn(Durability) + Send + Sync>;

trait Job: Send {
    fn durability(&self) -> Durability;
    /// Claims the job unless its caller has given up.
    fn claim(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, commit: Result<(), &rusqlite::Error>);
}

struct Work<F, T> {
    durability: Durability,
    context: &'static str,
    claim: Arc<AtomicU8>,
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Work<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn claim(&self) -> bool {
        self.claim.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        let outcome = work(connection);
        if outcome.is_err() {
            connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        connection.prepare_cached("RELEASE job")?.execute([])?;
        self.outcome = Some(outcome);
        Ok(())
    }

    fn finish(self: Box<Self>, commit: Result<(), &rusqlite::Error>) {
        let outcome = match (commit, self.outcome) {
            (Ok(()), Some(outcome)) | (Err(_), Some(outcome @ Err(_))) => outcome,
            (Err(error), _) => Err(super::error::commit(self.context, error)),
            (Ok(()), None) => {
                Err(StoreError::new(ErrorKind::Internal, format!("{}: the job did not run", self.context)))
            }
        };
        // The caller may have been cancelled; then nobody wants the answer.
        let _cancelled = self.reply.send(outcome);
    }
}

/// Sends jobs to the writing connection.
pub(super) enum Writer {
    /// A thread that groups commits.
    Thread(SyncSender<Box<dyn Job>>),
    /// Runs each job where it is asked for: `memory://`, which has nothing to wait for.
    Inline(Arc<Mutex<Connection>>, Committed),
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Thread(_) => "Writer::Thread",
            Self::Inline(..) => "Writer::Inline",
        })
    }
}

impl Writer {
    /// Starts the writer's thread; it ends when the writer is dropped and its jobs are done.
    pub(super) fn spawn(connection: Connection, committed: Committed) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || serve(&connection, &receiver, &committed))?;
        Ok(Self::Thread(sender))
    }

    /// Runs `work` in a transaction and answers after its commit.
    ///
    /// Cancel safe: a dropped future leaves the whole job done or not done.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        context: &'static str,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(AtomicU8::new(WAITING));
        let job = Box::new(Work {
            durability,
            context,
            claim: Arc::clone(&claim),
            work: Some(work),
            outcome: None,
            reply,
        });
        match self {
            Self::Inline(connection, committed) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                commit_group(&connection, vec![job]);
                committed(durability);
            }
            Self::Thread(sender) => enqueue(sender, job, context).await?,
        }
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_gone)) => Err(gone(context)),
            Err(_elapsed) => Err(given_up(context, &claim)),
        }
    }
}

async fn enqueue(
    sender: &SyncSender<Box<dyn Job>>,
    mut job: Box<dyn Job>,
    context: &'static str,
) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match sender.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(gone(context)),
            Err(TrySendError::Full(back)) => job = back,
        }
        if tokio::time::Instant::now() >= deadline {
            let what = format!("{context}: {WAITING_MAX} writes wait already");
            return Err(StoreError::new(ErrorKind::Unavailable, what)
                .hint("the disk is slower than the senders; send less at once"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn gone(context: &str) -> StoreError {
    StoreError::new(ErrorKind::Unavailable, format!("{context}: the store is closed"))
}

fn given_up(context: &str, claim: &AtomicU8) -> StoreError {
    let unstarted =
        claim.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok();
    let seconds = DEADLINE.as_secs();
    if unstarted {
        let what = format!("{context}: the writer was busy for {seconds} s, nothing was written");
        StoreError::new(ErrorKind::Unavailable, what)
    } else {
        let what = format!("{context}: no answer within {seconds} s, it may have been written");
        StoreError::new(ErrorKind::Unknown, what)
    }
    .hint("the disk is slow, or another process holds the store's lock; see `celeriac status`")
}

fn serve(connection: &Connection, jobs: &Receiver<Box<dyn Job>>, committed: &Committed) {
    let mut synced = None;
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            match jobs.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let synced_job = group.iter().any(|job| job.durability() == Durability::Synced);
        let durability = if synced_job { Durability::Synced } else { Durability::Relaxed };
        if synced != Some(durability) {
            let level = if synced_job { "FULL" } else { "NORMAL" };
            match connection.pragma_update(None, "synchronous", level) {
                Ok(()) => synced = Some(durability),
                // FULL is what the connection was opened with, so this errs on the safe side.
                Err(error) => tracing::warn!(%error, "cannot change the synchronous level"),
            }
        }
        commit_group(connection, group);
        committed(durability);
    }
}

fn commit_group(connection: &Connection, mut group: Vec<Box<dyn Job>>) {
    group.retain(|job| job.claim());
    let commit = (|| -> rusqlite::Result<()> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for job in &mut group {
            job.run(connection)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    })();
    if commit.is_err() && !connection.is_autocommit() {
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "cannot roll back a failed group");
        }
    }
    for job in group {
        job.finish(commit.as_ref().map(|&()| ()));
    }
}
