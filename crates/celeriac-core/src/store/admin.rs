//! What operators do to queues and dead letters.

use super::broker::Outgoing;
use crate::dead::{DeadLetter, DeadReason};
use crate::error::StoreError;
use crate::queue::QueueName;
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;

/// A slice of a long list: entries with a number above `after`, at most `count_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last number of the page before, 0 for the first page.
    pub after: i64,
    /// The most entries.
    pub count_max: usize,
}

/// Which dead letters are meant; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Numbers or task ids; empty means any.
    pub ids: Vec<String>,
    /// Only this number.
    pub number: Option<i64>,
    /// The queue they came from.
    pub queue: Option<QueueName>,
    /// The task's name, or a prefix of it that ends in `*`.
    pub task: Option<String>,
    /// Why they were set aside.
    pub reason: Option<DeadReason>,
    /// Text inside the detail.
    pub detail: Option<String>,
    /// Set aside before this time.
    pub before: Option<Timestamp>,
}

/// How a dead letter goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Another queue than its own.
    pub queue: Option<QueueName>,
    /// Keep the retry count instead of starting at 0.
    pub keep_retries: bool,
}

/// Messages set aside.
#[async_trait]
pub trait DeadLetters: fmt::Debug + Send + Sync {
    /// Lists dead letters by number.
    async fn dead_list(
        &self,
        filter: &DeadFilter,
        page: Page,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// Counts them.
    async fn dead_count(&self, filter: &DeadFilter) -> Result<u64, StoreError>;

    /// Puts them back into their queues, at most `count_max` of them, and forgets their failed
    /// result; each goes exactly once. Returns the numbers that went.
    async fn dead_replay(
        &self,
        filter: &DeadFilter,
        replay: &Replay,
        count_max: usize,
    ) -> Result<Vec<i64>, StoreError>;

    /// Replaces the message of one dead letter.
    async fn dead_edit(&self, number: i64, outgoing: Outgoing) -> Result<(), StoreError>;

    /// Deletes those with these numbers; returns how many there were.
    async fn dead_discard(&self, numbers: &[i64]) -> Result<u64, StoreError>;
}

/// A waiting message with its row, for pages and purges.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The row, to ask for the next page and to remove.
    pub row: i64,
    /// The message.
    pub outgoing: Outgoing,
}

/// What a release put back for stock workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Messages that waited for their time; their eta goes with them.
    pub scheduled: u64,
    /// Messages that waited behind a limit, a pause, or for a unique key.
    pub limited: u64,
    /// Messages that others are careful with.
    pub suspects: u64,
    /// Messages whose worker died after they were acknowledged: they are dead letters with a result, and
    /// no stock worker gets them.
    pub lost: u64,
}

impl Released {
    /// All of them.
    pub fn total(self) -> u64 {
        self.scheduled + self.limited + self.suspects + self.lost
    }
}

/// What operators do to whole queues.
#[async_trait]
pub trait Queues: fmt::Debug + Send + Sync {
    /// Waiting and scheduled messages of a queue by row; leased ones are not shown, nor those that only
    /// wait to be set aside ([`super::Broker::mark_started`]).
    async fn peek(&self, queue: &QueueName, page: Page) -> Result<Vec<Stored>, StoreError>;

    /// Puts everything of a queue that only celeriac's nodes would find into the place and form in
    /// which stock workers take it, `count_max` messages at most. What nodes hold is not touched: it
    /// goes back when they stop, or to the next sweep when they are dead.
    ///
    /// # Errors
    /// `Invalid` for a store that no stock worker can read.
    async fn release(&self, queue: &QueueName, count_max: usize) -> Result<Released, StoreError>;

    /// Removes waiting messages by row; returns the rows that were still waiting and are gone now.
    async fn remove(&self, rows: &[i64]) -> Result<Vec<i64>, StoreError>;
}
