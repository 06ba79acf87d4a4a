//! A process with several runs in it: who is in there, what goes in and out, and when it ends.

use crate::pool::crew::{Crew, Held};
use crate::pool::kind::{Break, exit_of, undead};
use crate::pool::policy::Killed;
use crate::pool::process::Process;
use crate::pool::python::Python;
use crate::pool::python::frame::{self, FromChild, Order};
use crate::pool::python::job::JobSender;
use celeriac_core::outcome::Outcome;
use celeriac_core::store::Delivery;
use celeriac_wire::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// A run that was given up has so long to hear of it, and then so long to end.
const GIVEN_UP_PATIENCE: Duration = Duration::from_secs(1);
/// Frames of one run that wait for it.
const FRAMES_MAX: usize = 8;

/// What one run is to be told by the process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// It is over its soft limit.
    Soft,
    /// Nobody waits for it any more.
    Hard,
}

impl Limit {
    fn meta(self) -> Vec<u8> {
        let kind = match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        };
        Value::Object(Map::from([("kind", Value::from(kind))])).to_bytes()
    }
}

/// What is to be sent.
enum Letter {
    Run { tag: u64, delivery: Arc<Delivery>, sent: oneshot::Sender<io::Result<()>> },
    Limit { tag: u64, limit: Limit },
}

/// A run in the process.
#[derive(Debug)]
struct Guest {
    task_id: String,
    frames: mpsc::Sender<FromChild>,
}

/// A run that nobody waits for any more, but that has not ended.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    /// When something is done about it; `None` when that was done.
    due: Option<Instant>,
    heard: bool,
}

#[derive(Debug, Default)]
struct Book {
    /// No more runs come.
    closed: bool,
    taken: u64,
    guests: HashMap<u64, Guest>,
    given_up: BTreeMap<u64, GivenUp>,
    /// What becomes of the runs that were in it when it ended.
    fate: Option<Outcome>,
}

/// A process with several runs in it.
#[derive(Debug)]
pub(super) struct Host {
    crew: Arc<Crew<Python>>,
    number: u64,
    pub(super) process: Arc<Process>,
    tasks_max: Option<u64>,
    book: Mutex<Book>,
    letters: mpsc::UnboundedSender<Letter>,
    /// Wakes who attends to it.
    changed: Notify,
}

impl Host {
    /// Opens a process for runs; `None` when it has no connection any more.
    pub(super) fn open(
        crew: Arc<Crew<Python>>,
        held: Held<Python>,
        tasks_max: Option<u64>,
    ) -> Option<Arc<Self>> {
        let sender = held.channel.as_ref()?.sender.clone();
        // As many letters as runs, and a few for each.
        let (letters, mail) = mpsc::unbounded_channel();
        let host = Arc::new(Self {
            crew,
            number: held.number,
            process: Arc::clone(&held.process),
            tasks_max,
            book: Mutex::default(),
            letters,
            changed: Notify::new(),
        });
        tokio::spawn(send(sender, mail));
        tokio::spawn(attend(Arc::clone(&host), held));
        Some(host)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a run; `None` when the process takes no more.
    pub(super) fn seat(self: &Arc<Self>, tag: u64, task_id: &str) -> Option<Seat> {
        let heavy = self.crew.is_retired(self.number);
        let mut book = self.book();
        book.closed |= heavy || self.process.is_over();
        if book.closed {
            drop(book);
            self.changed.notify_one();
            return None;
        }
        book.taken += 1;
        let last = self.tasks_max.is_some_and(|max| book.taken >= max);
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        book.guests.insert(tag, Guest { task_id: task_id.to_owned(), frames: sender });
        drop(book);
        if last {
            self.retire();
        }
        Some(Seat { host: Arc::clone(self), tag, frames, over: false })
    }

    /// Takes no more runs; a successor is started, and it ends with its last run.
    fn retire(&self) {
        self.crew.retire(self.number);
        self.close();
    }

    /// Takes no more runs.
    pub(super) fn close(&self) {
        self.book().closed = true;
        self.changed.notify_one();
    }

    /// Ends it with everything in it: a run that was given up has not ended.
    pub(super) fn end_stuck(&self) {
        if !self.process.is_over() {
            tracing::error!(
                child = self.process.pid(),
                "a process is killed with the tasks in it: one of them could not be stopped"
            );
            self.process.kill(Killed::Stuck);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.process.is_over()
    }

    pub(super) fn taken(&self) -> u64 {
        self.book().taken
    }

    pub(super) fn runs(&self) -> usize {
        self.book().guests.len()
    }

    /// The tasks in it.
    pub(super) fn tasks(&self) -> Vec<String> {
        self.book().guests.values().map(|guest| guest.task_id.clone()).collect()
    }

    /// Hands a frame to its run; an error is what is wrong with it.
    async fn hand_on(&self, frame: FromChild) -> Result<(), String> {
        let (tag, last) = match &frame {
            FromChild::Ready => return Err("it said twice that it is ready".to_owned()),
            FromChild::Heard { tag } | FromChild::Store { tag, .. } => (*tag, false),
            FromChild::Done { tag, .. } => (*tag, true),
        };
        let frames = {
            let mut book = self.book();
            if let Some(guest) = book.guests.get(&tag) {
                let frames = guest.frames.clone();
                if last {
                    book.guests.remove(&tag);
                }
                frames
            } else {
                if last {
                    book.given_up.remove(&tag);
                } else if let (FromChild::Heard { .. }, Some(one)) =
                    (&frame, book.given_up.get_mut(&tag))
                {
                    one.heard = true;
                }
                return Ok(());
            }
        };
        // A run that was given up meanwhile wants nothing any more.
        let _gone = frames.send(frame).await;
        Ok(())
    }

    /// When a run that was given up is looked at next.
    fn due(&self) -> Option<Instant> {
        self.book().given_up.values().filter_map(|one| one.due).min()
    }

    /// Acts on runs that were given up and have not ended.
    fn look_after_given_up(&self) {
        let now = Instant::now();
        let (mut deaf, mut stuck) = (false, false);
        for one in self.book().given_up.values_mut() {
            if one.due.is_some_and(|due| due <= now) {
                one.due = None;
                deaf |= !one.heard;
                stuck = true;
            }
        }
        if deaf {
            // Whoever carries out such orders stands still, and all others with it.
            self.end_stuck();
        } else if stuck && !self.book().closed {
            tracing::warn!(
                child = self.process.pid(),
                "a task does not stop; new tasks get another process, this one ends with the others in it"
            );
            self.retire();
        }
    }

    /// Whether nothing is in it and nothing will come.
    fn is_empty(&self) -> bool {
        let book = self.book();
        book.closed && book.guests.is_empty()
    }

    fn end(&self, fate: Outcome) {
        let mut book = self.book();
        book.closed = true;
        book.fate = Some(fate);
        // Their senders close, which wakes the runs.
        book.guests.clear();
    }
}

/// Sends what is to be sent, one after another, as long as there is a host.
async fn send(sender: JobSender, mut mail: mpsc::UnboundedReceiver<Letter>) {
    while let Some(letter) = mail.recv().await {
        match letter {
            Letter::Run { tag, delivery, sent } => {
                let meta = frame::run_meta(&delivery);
                let result = sender.send(Order::Run, tag, &meta, &delivery.message.body).await;
                let _gone = sent.send(result);
            }
            Letter::Limit { tag, limit } => {
                // A closed socket is seen by who reads.
                let _closed = sender.send(Order::Limit, tag, &limit.meta(), &[]).await;
            }
        }
    }
}

/// Reads what the process says, until it has ended or is given back.
async fn attend(host: Arc<Host>, mut held: Held<Python>) {
    let why = loop {
        if host.is_empty() {
            held.give_back();
            return;
        }
        let Some(job) = held.channel.as_mut() else { return };
        let due = host.due();
        let look = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel safe: the job keeps what it read, a Notify its permit.
            said = job.next() => match said {
                Ok(Some(frame)) => {
                    if let Err(text) = host.hand_on(frame).await {
                        break Break::broken(&text);
                    }
                }
                Ok(None) => break Break::Closed,
                Err(error) => break Break::broken(&error),
            },
            () = host.changed.notified() => {}
            () = look => host.look_after_given_up(),
        }
    };
    let fate = match exit_of(&held, why).await {
        Some(exit) => {
            let (child, reason, tasks) = (held.process.pid(), exit.reason(), host.runs());
            if tasks > 0 {
                tracing::warn!(child, reason, tasks, "a child was lost while it ran tasks");
            }
            exit.outcome(held.output.last_words().await)
        }
        None => undead(),
    };
    host.end(fate);
}

/// The place of one run in a process. Dropped before its end, the run is given up.
#[derive(Debug)]
pub(super) struct Seat {
    host: Arc<Host>,
    tag: u64,
    frames: mpsc::Receiver<FromChild>,
    over: bool,
}

impl Seat {
    /// Sends the run. Cancel safe: it is sent whole or not at all.
    ///
    /// # Errors
    /// It cannot be sent; of the kind `Other` when that lies in the message.
    pub(super) async fn order(&self, delivery: Arc<Delivery>) -> io::Result<()> {
        let (sent, answer) = oneshot::channel();
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let letter = Letter::Run { tag: self.tag, delivery, sent };
        self.host.letters.send(letter).map_err(|_closed| closed())?;
        answer.await.unwrap_or_else(|_closed| Err(closed()))
    }

    /// Has the run told of a limit.
    pub(super) fn limit(&self, limit: Limit) {
        // Without a reader the process is gone.
        let _closed = self.host.letters.send(Letter::Limit { tag: self.tag, limit });
    }

    /// The next frame of this run; `None` when its process has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<FromChild> {
        self.frames.recv().await
    }

    /// The run has ended.
    pub(super) fn leave(mut self) {
        self.over = true;
        self.host.book().guests.remove(&self.tag);
        self.host.changed.notify_one();
    }

    /// What becomes of the run, whose process has ended.
    pub(super) fn fate(mut self) -> Outcome {
        self.over = true;
        self.host.book().fate.clone().unwrap_or_else(undead)
    }

    /// Ends the process, which does not take its runs.
    pub(super) fn end_deaf(&self) {
        self.host.end_stuck();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let due = Some(Instant::now() + GIVEN_UP_PATIENCE);
        {
            let mut book = self.host.book();
            if book.guests.remove(&self.tag).is_none() {
                // It has just ended, or its process has.
                return;
            }
            book.given_up.insert(self.tag, GivenUp { due, heard: false });
        }
        self.limit(Limit::Hard);
        self.host.changed.notify_one();
    }
}
