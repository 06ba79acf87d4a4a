//! What operators do to tasks and queues in several steps; the command line and the HTTP API share it.
//!
//! Every step is a store's; an interruption between two leaves a message twice rather than not at all.

pub mod entries;

use crate::QueueName;
use crate::error::{ErrorKind, StoreError};
use crate::store::{DeadFilter, Outgoing, Page, Phase, Plan, Replay, Store, TaskView};
use crate::throttle::LimitRule;
use celeriac_wire::codec::{self, Accept, Serializer};
use celeriac_wire::{Map, Value};

/// Messages are looked through so many at a time.
const BATCH: usize = 500;

/// What a retry found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// The dead letter with this number is back in its queue.
    Replayed(i64),
    /// It does not wait for its time any longer.
    RunsNow,
    /// A worker has just taken it.
    JustTaken,
    /// Nothing is known of it.
    Unknown,
    /// It is done and its message is gone.
    Done,
    /// It is where a retry changes nothing: this word of [`Phase::as_str`].
    Nothing(&'static str),
}

/// Runs a task again now: a dead letter is replayed, a scheduled message does not wait any longer.
///
/// # Errors
/// The store's.
pub async fn retry(store: &dyn Store, id: &str) -> Result<Retried, StoreError> {
    let view = store.task(id).await?;
    Ok(match view.phase {
        Phase::Dead { number, .. } => {
            let filter = DeadFilter { number: Some(number), ..DeadFilter::default() };
            let gone = store.dead_replay(&filter, &Replay::default(), 1).await?;
            if gone.is_empty() { Retried::JustTaken } else { Retried::Replayed(number) }
        }
        Phase::Scheduled { .. } => run_now(store, id, &view).await?,
        Phase::Unknown => Retried::Unknown,
        Phase::Done => Retried::Done,
        phase => Retried::Nothing(phase.as_str()),
    })
}

/// Takes a scheduled message out and sends it again without its time. The copy is sent first.
async fn run_now(store: &dyn Store, id: &str, view: &TaskView) -> Result<Retried, StoreError> {
    let queue = QueueName::parse(view.queue.as_deref().unwrap_or_default())?;
    let mut page = Page { after: 0, count_max: BATCH };
    loop {
        let stored = store.peek(&queue, page).await?;
        let Some(last) = stored.last() else { return Ok(Retried::JustTaken) };
        page.after = last.row;
        let found = stored.into_iter().find(|one| one.outgoing.message.headers.id() == Some(id));
        if let Some(mut found) = found {
            found.outgoing.message.headers.set_eta(None);
            let plan = Plan { publish: vec![found.outgoing], ..Plan::default() };
            store.publish(plan, None).await?;
            store.remove(&[found.row]).await?;
            return Ok(Retried::RunsNow);
        }
    }
}

/// Cancels a task: a waiting one never runs, a running one is told to stop unless it may finish.
/// Returns where it was; what is done or a dead letter stays so.
///
/// # Errors
/// The store's.
pub async fn cancel(store: &dyn Store, id: &str, keep_running: bool) -> Result<Phase, StoreError> {
    let phase = store.task(id).await?.phase;
    if !matches!(phase, Phase::Done | Phase::Dead { .. }) {
        store.revoke(&[id.to_owned()], !keep_running).await?;
    }
    Ok(phase)
}

/// What a cancellation does to a task that is in this phase, in a few words.
pub fn cancelled(phase: &Phase, keep_running: bool) -> &'static str {
    match phase {
        Phase::Unknown => "unknown here; it is cancelled should it arrive",
        Phase::Done => "is done already",
        Phase::Dead { .. } => "is a dead letter already",
        Phase::Running { .. } | Phase::Reserved { .. } if keep_running => {
            "is running and may finish"
        }
        Phase::Running { .. } | Phase::Reserved { .. } => "is told to stop",
        _ => "will not run",
    }
}

/// What of a dead letter is changed; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadEdit {
    /// Its positional arguments.
    pub args: Option<Vec<Value>>,
    /// Its keyword arguments.
    pub kwargs: Option<Map>,
    /// The queue that it returns to.
    pub queue: Option<QueueName>,
}

impl DeadEdit {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes a dead letter before its replay. Changed arguments are written as JSON, which everybody
/// accepts and which carries what any of the other serializers can.
///
/// # Errors
/// The store's; `NotFound` without such a letter, `Conflict` where its body cannot be read or written.
pub async fn edit_dead(store: &dyn Store, number: i64, edit: DeadEdit) -> Result<(), StoreError> {
    // By number only: a task id may look like one.
    let filter = DeadFilter { number: Some(number), ..DeadFilter::default() };
    let letter = store.dead_list(&filter, Page { after: 0, count_max: 1 }).await?.pop();
    let letter = letter.ok_or_else(|| {
        StoreError::new(ErrorKind::NotFound, format!("there is no dead letter {number}"))
            .hint("see `celeriac dead list`")
    })?;
    let mut message = letter.message;
    if edit.args.is_some() || edit.kwargs.is_some() {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            let text = format!("the body of dead letter {number} cannot be {what}: {error}");
            StoreError::new(ErrorKind::Conflict, text)
                .hint("export it (`celeriac dead export`), mend the file, and load it")
        };
        let read = codec::read(&message, Accept::default()).map_err(|e| wrong("read", &e))?;
        let mut body = read.body;
        message = read.upgraded.unwrap_or(message);
        body.args = edit.args.unwrap_or(body.args);
        body.kwargs = edit.kwargs.unwrap_or(body.kwargs);
        message.headers.set_arguments_text(&body.args, &body.kwargs);
        codec::write(&mut message, &body, Serializer::Json, None)
            .map_err(|e| wrong("written", &e))?;
    }
    let queue = edit.queue.unwrap_or(letter.queue);
    store.dead_edit(number, Outgoing::new(queue, message)).await
}

/// Sets an operator's limit.
///
/// # Errors
/// The store's; `Invalid` where the rule lets nothing run, or limits nothing.
pub async fn set_limit(store: &dyn Store, rule: LimitRule) -> Result<(), StoreError> {
    if rule.concurrency == Some(0) || rule.is_empty() {
        return Err(StoreError::invalid("a limit of nothing lets nothing run")
            .hint("to stop work, pause it; to lift a limit, remove it"));
    }
    store.set_limit(rule).await
}

/// How many messages of a queue wait, ready or scheduled.
///
/// # Errors
/// The store's.
pub async fn waiting(store: &dyn Store, queue: &QueueName) -> Result<u64, StoreError> {
    let queues = store.queues().await?;
    let found = queues.into_iter().find(|view| view.name == queue.as_str());
    Ok(found.map_or(0, |view| view.ready + view.scheduled))
}
