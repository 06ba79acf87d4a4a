//! The one writer of a process: a thread that commits whatever waits as one group.
//!
//! Owns the writing connection. A job runs inside its own savepoint, so a failing job leaves its
//! neighbours alone; all jobs of a group share one commit and, if any of them is durable, one
//! fsync. Nobody is answered before the commit.

use celeriac_core::{ErrorKind, StoreError};
use rusqlite::{Connection, ffi};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Dropped with its caller: what has not begun by then is not done later, when nobody expects it.
struct Caller(Arc<AtomicU8>);

impl Drop for Caller {
    fn drop(&mut self) {
        // Anything else means that it is done or given up already.
        let _begun =
            self.0.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Called after every commit with the durability of its group.
pub(super) type Committed = Box<dyn Fn(Durability) + Send + Sync>;

/// Whether a program can go on with a file, as an error of SQLite where it cannot.
pub(super) type Fitness = fn(&Connection) -> rusqlite::Result<()>;

/// The schema that the writer knows. Another process may migrate the file while this one has it open;
/// an older program must not write into what it does not understand.
struct Schema {
    seen: Option<i64>,
    fitness: Fitness,
}

impl Schema {
    fn check(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let now: i64 =
            connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if self.seen != Some(now) {
            (self.fitness)(connection)?;
            self.seen = Some(now);
        }
        Ok(())
    }
}

pub(super) trait Job: Send {
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
    run: Option<F>,
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
        let Some(work) = self.run.take() else {
            return Ok(());
        };
        connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        // A chord's finisher is foreign code: its panic must not end the writer.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|panic| Err(panicked(self.context, &*panic)));
        if let Err(error) = &outcome {
            let undone = connection
                .prepare_cached("ROLLBACK TO job")
                .and_then(|mut statement| statement.execute([]));
            if undone.is_err() {
                let ended = transaction_ended(error.kind());
                self.outcome = Some(outcome);
                return Err(ended);
            }
        }
        connection.prepare_cached("RELEASE job")?.execute([])?;
        self.outcome = Some(outcome);
        Ok(())
    }

    fn finish(self: Box<Self>, commit: Result<(), &rusqlite::Error>) {
        let outcome = match (commit, self.outcome) {
            (Ok(()), Some(outcome)) | (Err(_), Some(outcome @ Err(_))) => outcome,
            (Err(error), _) => Err(super::error::commit(self.context, error)),
            (Ok(()), None) => Err(StoreError::new(
                ErrorKind::Internal,
                format!("{}: the job did not run", self.context),
            )),
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
    ///
    /// `fitness` says whether this program still understands the file; it is asked in the first
    /// transaction and in every one after the schema has changed.
    pub(super) fn spawn(
        connection: Connection,
        fitness: Fitness,
        committed: Committed,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let schema = Schema { seen: None, fitness };
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || serve(&connection, schema, &receiver, &committed))?;
        Ok(Self::Thread(sender))
    }

    /// Runs `work` in a transaction and answers after its commit.
    ///
    /// Cancel safe: a dropped future leaves the whole job done or not done, and one that waits for
    /// another process's lock is not done.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        context: &'static str,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let claim = Arc::new(AtomicU8::new(WAITING));
        let _caller = Caller(Arc::clone(&claim));
        let job = Box::new(Work {
            durability,
            context,
            claim: Arc::clone(&claim),
            run: Some(work),
            outcome: None,
            reply,
        });
        match self {
            Self::Inline(connection, committed) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                commit_group(&connection, None, vec![job]);
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

fn panicked(context: &str, panic: &(dyn std::any::Any + Send)) -> StoreError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a panic without text");
    StoreError::new(ErrorKind::Internal, format!("{context}: panicked: {text}"))
}

/// What the other jobs of a group are told when one ended the transaction of all: SQLite does that
/// by itself on a full or failing disk (`sqlite.org/lang_transaction.html`, section 3.1).
fn transaction_ended(kind: ErrorKind) -> rusqlite::Error {
    let code = if kind == ErrorKind::Full { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR };
    let text = "another write of the same group failed";
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()))
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

fn serve(
    connection: &Connection,
    mut schema: Schema,
    jobs: &Receiver<Box<dyn Job>>,
    committed: &Committed,
) {
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
        commit_group(connection, Some(&mut schema), group);
        committed(durability);
    }
}

fn commit_group(
    connection: &Connection,
    schema: Option<&mut Schema>,
    mut group: Vec<Box<dyn Job>>,
) {
    let commit = (|| -> rusqlite::Result<()> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // The lock may have taken seconds: a sweep of then would find others dead who only waited too.
        group.retain(|job| job.claim());
        if let Some(schema) = schema {
            schema.check(connection)?;
        }
        for job in &mut group {
            job.run(connection)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    })();
    if commit.is_err()
        && !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "cannot roll back a failed group");
    }
    for job in group {
        job.finish(commit.as_ref().map(|&()| ()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    fn job(
        work: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) -> (Box<dyn Job>, Answer) {
        let (reply, answer) = oneshot::channel();
        let work = Work {
            durability: Durability::Synced,
            context: "test",
            claim: Arc::new(AtomicU8::new(WAITING)),
            run: Some(work),
            outcome: None,
            reply,
        };
        (Box::new(work), answer)
    }

    fn insert(value: i64) -> impl FnOnce(&Connection) -> Result<(), StoreError> + Send {
        move |connection| {
            let inserted = connection.execute("INSERT INTO t VALUES (?1)", [value]);
            inserted.map(|_| ()).map_err(super::super::error::wrap("insert"))
        }
    }

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (v INTEGER)").unwrap();
        connection
    }

    fn values(connection: &Connection) -> Vec<i64> {
        let mut statement = connection.prepare("SELECT v FROM t ORDER BY v").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_bad_job_is_rolled_back_alone() {
        let connection = table();
        let (one, first) = job(insert(1));
        let (bad, refused) = job(|connection| {
            insert(2)(connection)?;
            Err(StoreError::invalid("refused"))
        });
        let (burst, panicked) = job(|connection| {
            insert(3)(connection)?;
            panic!("a bug")
        });
        let (four, last) = job(insert(4));
        commit_group(&connection, None, vec![one, bad, burst, four]);
        assert_eq!(values(&connection), [1, 4]);
        assert!(first.blocking_recv().unwrap().is_ok() && last.blocking_recv().unwrap().is_ok());
        assert_eq!(refused.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Invalid);
        let error = panicked.blocking_recv().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("a bug")),
            (ErrorKind::Internal, true)
        );
    }

    #[test]
    fn a_transaction_that_sqlite_ends_is_written_for_nobody() {
        let connection = table();
        let (one, first) = job(insert(1));
        // SQLite rolls back by itself when the disk is full.
        let (full, refused) = job(|connection| {
            connection.execute_batch("ROLLBACK").unwrap();
            Err(StoreError::new(ErrorKind::Full, "the disk is full"))
        });
        let (three, last) = job(insert(3));
        commit_group(&connection, None, vec![one, full, three]);
        assert!(values(&connection).is_empty());
        for answer in [first, refused, last] {
            let error = answer.blocking_recv().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        }
        let (four, answer) = job(insert(4));
        commit_group(&connection, None, vec![four]);
        assert!(answer.blocking_recv().unwrap().is_ok());
        assert_eq!(values(&connection), [4]);
    }

    #[test]
    fn a_job_whose_caller_has_given_up_is_not_run() {
        let connection = table();
        let claim = Arc::new(AtomicU8::new(WAITING));
        let (reply, _answer) = oneshot::channel();
        let late = Work {
            durability: Durability::Synced,
            context: "test",
            claim: Arc::clone(&claim),
            run: Some(insert(1)),
            outcome: None,
            reply,
        };
        assert_eq!(given_up("test", &claim).kind(), ErrorKind::Unavailable);
        commit_group(&connection, None, vec![Box::new(late)]);
        assert!(values(&connection).is_empty());
        let taken = AtomicU8::new(TAKEN);
        assert_eq!(given_up("test", &taken).kind(), ErrorKind::Unknown);
    }

    #[tokio::test]
    async fn a_writer_that_cannot_begin_answers_everybody() {
        let (release, held): (_, Receiver<()>) = channel();
        let writer = Writer::spawn(table(), |_| Ok(()), Box::new(|_| ())).unwrap();
        // The first job stops the thread until the second one waits behind it.
        let first = writer.write("hold", Durability::Relaxed, move |connection| {
            held.recv().unwrap();
            connection.execute_batch("DROP TABLE t").map_err(super::super::error::wrap("drop"))
        });
        let second = writer.write("insert", Durability::Synced, insert(1));
        let (first, second, ()) =
            tokio::join!(first, second, async move { release.send(()).unwrap() });
        first.unwrap();
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Internal);
    }
}
