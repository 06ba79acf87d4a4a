//! Looks at a Redis from outside, for `celeriac doctor`: with connections of its own, plain commands that
//! read, and no promise that the server can be used.

mod facts;
pub(super) mod redbeat;
mod way;

use super::address::Address;
use super::keys::SEPARATOR;
use super::link::DEADLINE;
use crate::Resources;
use async_trait::async_trait;
use celeriac_core::priority::STEPS;
use celeriac_core::store::{Diagnose, HeldElsewhere, Leftover, Step, StoreFacts, Unlisted};
use celeriac_core::{Clock, ErrorKind, StoreError};
use celeriac_wire::{Envelope, Message, Value as Json};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline};
use std::sync::Arc;
use std::time::Duration;

/// What the list of an inbox's replies ends in.
const REPLIES: &str = ".reply.celery.pidbox";
/// How many held messages one step of a search reads.
const PAGE: usize = 1000;
/// The most messages of a queue, or held by workers of Celery, among which one is looked for.
const HELD_MAX: usize = 100_000;

/// A Redis that is looked at.
#[derive(Debug)]
pub(crate) struct Outside {
    address: Address,
    clock: Arc<dyn Clock>,
}

impl Outside {
    /// Reads a URL; nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none.
    pub(crate) fn new(url: &str, resources: Resources) -> Result<Self, StoreError> {
        Ok(Self { address: Address::parse(url)?, clock: resources.clock })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.address.keys.prefix)
    }

    async fn connect(&self) -> Result<Questions<'_>, StoreError> {
        let connection = self.address.connect(None).await?;
        Ok(Questions { connection, address: &self.address })
    }
}

/// A connection with a deadline for each question.
struct Questions<'a> {
    connection: MultiplexedConnection,
    address: &'a Address,
}

impl Questions<'_> {
    async fn ask<T: FromRedisValue>(&mut self, what: &str, command: &Cmd) -> Result<T, StoreError> {
        let asked = command.query_async(&mut self.connection);
        let answer = tokio::time::timeout(DEADLINE, asked).await;
        answer.map_or_else(
            |_late| Err(late(what, self.address)),
            |answer| answer.map_err(|error| refused(what, self.address, &error)),
        )
    }

    async fn all<T: FromRedisValue>(
        &mut self,
        what: &str,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let asked = commands.query_async(&mut self.connection);
        let answer = tokio::time::timeout(DEADLINE, asked).await;
        answer.map_or_else(
            |_late| Err(late(what, self.address)),
            |answer| answer.map_err(|error| refused(what, self.address, &error)),
        )
    }
}

fn late(what: &str, address: &Address) -> StoreError {
    let text = format!("{what}: Redis at {address} did not answer within {} s", DEADLINE.as_secs());
    StoreError::new(ErrorKind::Unavailable, text)
}

fn refused(what: &str, address: &Address, error: &redis::RedisError) -> StoreError {
    super::link::refused(what, address, error)
}

#[async_trait]
impl Diagnose for Outside {
    async fn reach(&self) -> Vec<Step> {
        way::go(&self.address).await
    }

    async fn facts(&self, idle: Duration) -> Result<StoreFacts, StoreError> {
        facts::gather(self, idle).await
    }

    async fn clean(&self, leftovers: &[Leftover], idle: Duration) -> Result<u64, StoreError> {
        let mut questions = self.connect().await?;
        let mut removed = 0;
        for leftover in leftovers {
            let name =
                leftover.key.strip_prefix(&self.address.keys.prefix).unwrap_or(&leftover.key);
            let Some(inbox) = name.strip_suffix(REPLIES) else { continue };
            let mut clean = redis::cmd("EVAL");
            clean.arg(include_str!("lua/clean.lua")).arg(2).arg(&leftover.key);
            clean.arg(self.key("_kombu.binding.reply.celery.pidbox")).arg(idle.as_secs());
            clean.arg(format!("{inbox}{SEPARATOR}{SEPARATOR}{name}"));
            removed += questions.ask::<u64>("remove a leftover", &clean).await?;
        }
        Ok(removed)
    }

    async fn unlisted(&self, task_id: &str) -> Result<Option<Unlisted>, StoreError> {
        let mut questions = self.connect().await?;
        let (lists, _cut) = facts::scan(&mut questions, &self.key("*"), Some("list")).await?;
        for key in &lists {
            let Some((queue, step)) = facts::queue_of(&self.address.keys.prefix, key) else {
                continue;
            };
            let Some((place, message)) = look_for(&mut questions, key, task_id).await else {
                continue;
            };
            let mut position = place;
            for before in &STEPS[..step] {
                let mut length = redis::cmd("LLEN");
                length.arg(self.address.keys.list(queue, *before));
                position += questions.ask::<u64>("count a queue", &length).await?;
            }
            return Ok(Some(Unlisted { queue: queue.to_owned(), position, message }));
        }
        Ok(None)
    }

    async fn held_elsewhere(&self, task_id: &str) -> Result<Option<HeldElsewhere>, StoreError> {
        let mut questions = self.connect().await?;
        let mut cursor = 0_u64;
        let mut seen = 0;
        while seen < HELD_MAX {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.key("unacked")).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, pairs): (u64, Vec<(String, Vec<u8>)>) =
                questions.ask("look among what Celery's workers hold", &scan).await?;
            seen += pairs.len();
            if let Some((tag, _)) = pairs.iter().find(|(_, held)| is_of(held, task_id)) {
                let mut score = redis::cmd("ZSCORE");
                score.arg(self.key("unacked_index")).arg(tag);
                let since: Option<f64> =
                    questions.ask("look since when it is held", &score).await?;
                let Some(since) = since else { return Ok(None) };
                let timeout = self.address.visibility_timeout.as_secs_f64();
                let at = |seconds: f64| super::micros_to_time((seconds * 1e6) as i64);
                return Ok(Some(HeldElsewhere {
                    since: at(since),
                    returns_at: at(since + timeout),
                }));
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(None)
    }
}

/// The message of a task in a list, and how many are before it. A list that is not to be read has none.
async fn look_for(
    questions: &mut Questions<'_>,
    key: &str,
    task_id: &str,
) -> Option<(u64, Message)> {
    for from in (0..HELD_MAX).step_by(PAGE) {
        let mut range = redis::cmd("LRANGE");
        // The head is the right end.
        let (first, last) = (-((from + PAGE) as i64), -(from as i64) - 1);
        range.arg(key).arg(first).arg(last);
        let page: Vec<Vec<u8>> = questions.ask("look into a queue", &range).await.ok()?;
        let found = page.iter().rev().enumerate().find_map(|(place, payload)| {
            let message = Envelope::parse(payload).ok()?.message;
            let is_it = message.headers.id() == Some(task_id);
            is_it.then_some(((from + place) as u64, message))
        });
        if found.is_some() || page.len() < PAGE {
            return found;
        }
    }
    None
}

/// Whether a held message is of a task: `[envelope, exchange, routing key]`.
fn is_of(held: &[u8], task_id: &str) -> bool {
    let Ok(held) = Json::parse(held) else { return false };
    let headers = held.as_array().and_then(|parts| parts.first()?.get("headers"));
    headers.and_then(|headers| headers.get("id")?.as_str()) == Some(task_id)
}
