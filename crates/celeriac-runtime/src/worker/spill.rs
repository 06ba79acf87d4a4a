//! Where dead letters go that the store has no room for. The worker knows only this trait; the file
//! itself belongs to the crate `celeriac`.

use celeriac_core::StoreError;
use celeriac_core::clock;
use celeriac_core::dead::{Attempt, DeadReason, remember};
use celeriac_core::store::{DeadFilter, Delivery, Fate, NodeId, Outgoing, Page, Store};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// Aged dead letters are moved so many at a time.
const MOVE_MAX: usize = 100;

/// A dead letter on its way out of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct SpilledLetter {
    /// Its message with its history, complete enough to put it back.
    pub outgoing: Outgoing,
    /// Why it was set aside.
    pub reason: DeadReason,
    /// The error in one line.
    pub detail: String,
    /// When it was set aside.
    pub died_at: Timestamp,
}

impl SpilledLetter {
    /// What a delivery with this fate leaves behind; `None` unless it is set aside.
    pub(super) fn of(delivery: &Delivery, fate: &Fate, now: Timestamp) -> Option<Self> {
        let Fate::Dead { reason, detail, attempt } = fate else { return None };
        let mut history: Vec<Attempt> = delivery.history.clone();
        if let Some(attempt) = attempt.clone() {
            remember(&mut history, attempt);
        }
        let outgoing = Outgoing {
            once: None,
            queue: delivery.queue.clone(),
            message: delivery.message.clone(),
            history,
            enqueued_at: Some(delivery.enqueued_at),
        };
        Some(Self { outgoing, reason: *reason, detail: detail.clone(), died_at: now })
    }
}

/// A place beside the store for dead letters.
pub trait Spill: fmt::Debug + Send + Sync {
    /// Writes letters; they are on disk when it returns. May block.
    ///
    /// # Errors
    /// Nothing can be relied on to be written; the worker stops fetching until it works.
    fn write(&self, letters: &[SpilledLetter]) -> std::io::Result<()>;
}

/// Writes letters away from the async threads.
pub(super) async fn write(
    spill: &Arc<dyn Spill>,
    letters: Vec<SpilledLetter>,
) -> std::io::Result<()> {
    let spill = Arc::clone(spill);
    tokio::task::spawn_blocking(move || spill.write(&letters))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Moves dead letters that are older than the store keeps them; returns how many.
///
/// They are deleted after they are on disk, so that a crash in between leaves some in both places and
/// none in neither.
pub(super) async fn move_aged(
    store: &dyn Store,
    spill: &Arc<dyn Spill>,
    node: NodeId,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let Some(age) = store.limits().dead_expires else { return Ok(0) };
    // One worker does it, the one that has been there for longest: two would write each letter twice.
    let nodes = store.nodes().await?;
    if nodes.iter().any(|other| other.alive && other.id < node) {
        return Ok(0);
    }
    let before = jiff::SignedDuration::try_from(age)
        .ok()
        .and_then(|age| now.checked_sub(age).ok())
        .unwrap_or(Timestamp::MIN);
    let filter = DeadFilter { before: Some(before), ..DeadFilter::default() };
    let letters = store.dead_list(&filter, Page { after: 0, count_max: MOVE_MAX }).await?;
    if letters.is_empty() {
        return Ok(0);
    }
    let numbers: Vec<i64> = letters.iter().map(|letter| letter.number).collect();
    let spilled = letters
        .into_iter()
        .map(|letter| SpilledLetter {
            outgoing: Outgoing {
                once: None,
                queue: letter.queue,
                message: letter.message,
                history: letter.history,
                enqueued_at: Some(letter.enqueued_at),
            },
            reason: letter.reason,
            detail: letter.detail,
            died_at: letter.died_at,
        })
        .collect();
    write(spill, spilled).await.map_err(|error| {
        StoreError::new(celeriac_core::ErrorKind::Unavailable, "write aged dead letters to a file")
            .because(error)
    })?;
    store.dead_discard(&numbers).await?;
    Ok(numbers.len())
}

/// How long until aged dead letters are looked for again.
pub(super) fn pause_of(moved: usize, store: &dyn Store) -> std::time::Duration {
    // A full page means that there are more; a short age is looked at more often than a minute.
    if moved == MOVE_MAX {
        return std::time::Duration::ZERO;
    }
    let age = store.limits().dead_expires.unwrap_or(clock::DAY);
    (age / 10).clamp(std::time::Duration::from_millis(100), std::time::Duration::from_mins(1))
}
