//! What operators do to tasks and queues in several steps; the command line and the HTTP API share it.
//!
//! Every step is a store's; an interruption between two leaves a message twice rather than not at all.

use crate::QueueName;
use crate::error::StoreError;
use crate::store::{DeadFilter, Page, Phase, Plan, Replay, Store, TaskView};

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

/// How many messages of a queue wait, ready or scheduled.
///
/// # Errors
/// The store's.
pub async fn waiting(store: &dyn Store, queue: &QueueName) -> Result<u64, StoreError> {
    let queues = store.queues().await?;
    let found = queues.into_iter().find(|view| view.name == queue.as_str());
    Ok(found.map_or(0, |view| view.ready + view.scheduled))
}
