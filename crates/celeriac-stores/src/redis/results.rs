//! Results: Celery's key and channel, with what else we keep of a run in one key of the document.

use super::pack::Pack;
use super::{Core, script};
use celeriac_core::store::ResultRecord;
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::codec::Compression;
use celeriac_wire::limits::DECOMPRESSED_BYTES_MAX;
use celeriac_wire::{Map, ResultMeta, Value};
use jiff::Timestamp;
use redis::Value as Answer;
use std::borrow::Cow;
use std::time::Duration;

/// The key of the document that is ours. Python's readers ignore what they do not know
/// (`celery/backends/base.py` 5.7, `decode_result`).
const NOTES: &str = "celeriac";

/// How often a waiter looks at a result even if nothing is heard.
const RECHECK: Duration = Duration::from_secs(1);

/// How long results are kept, in seconds; 0 is for ever.
pub(super) fn seconds_kept(core: &Core) -> i64 {
    core.limits.result_expires.map_or(0, |span| span.as_secs().max(1) as i64)
}

/// One command on keys of results, wherever they are.
pub(super) async fn call(core: &Core, what: &str, words: &[String]) -> Result<Answer, StoreError> {
    let [name, arguments @ ..] = words else { return Ok(Answer::Nil) };
    if core.keys.result_database.is_none() {
        let mut command = redis::cmd(name);
        command.arg(arguments);
        return core.link.call(what, &command).await;
    }
    let mut argument = Pack::default();
    argument.map(4);
    core.pack_head(&mut argument);
    core.pack_results(&mut argument);
    argument.text("command").array(words.len());
    for word in words {
        argument.text(word);
    }
    core.link.script(what, &script::RESULTS, argument.into_bytes()).await
}

/// {key, document, seconds to keep it, task id}.
pub(super) fn pack(core: &Core, pack: &mut Pack, record: &ResultRecord) -> Result<(), StoreError> {
    let id = record.meta.task_id().unwrap_or_default();
    let bytes = record.meta.to_bytes().len();
    let max = core.limits.result_bytes_max;
    if bytes > max {
        return Err(StoreError::new(
            ErrorKind::TooLarge,
            format!("the result of task {id} has {bytes} bytes, the limit is {max}"),
        )
        .hint("store large data elsewhere and return its address, or raise result_bytes_max"));
    }
    pack.array(4)
        .text(&core.keys.result(id))
        .bytes(&document(record))
        .number(seconds_kept(core))
        .text(id);
    Ok(())
}

/// The document with our notes before its last key, which is `task_id` in Celery's.
pub(super) fn document(record: &ResultRecord) -> Vec<u8> {
    let mut notes = Map::new();
    let texts = [("task", &record.task), ("queue", &record.queue), ("worker", &record.worker)];
    for (name, text) in texts {
        if let Some(text) = text {
            notes.insert(name, text.as_str());
        }
    }
    let times = [("enqueued", record.enqueued_at), ("started", record.started_at)];
    for (name, time) in times {
        if let Some(time) = time {
            notes.insert(name, time.as_microsecond());
        }
    }
    notes.insert("written", record.written_at.as_microsecond());
    if record.retries > 0 {
        notes.insert("retries", u64::from(record.retries));
    }
    let mut meta = record.meta.clone().into_map();
    let last = meta.len().saturating_sub(1);
    meta.insert_at(last, NOTES, Value::Object(notes));
    Value::Object(meta).to_bytes()
}

/// What a Python backend has encoded, without the compression of its `result_compression` (wire
/// specification 4.2).
pub(super) fn plain(stored: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let Some(compressed) = ResultMeta::compressed(stored) else { return Ok(stored.into()) };
    let compression = Compression::of_header(compressed.mime)
        .ok_or_else(|| format!("it is compressed with {}, which is not known", compressed.mime))?;
    let bytes = compression.decompress(compressed.bytes, DECOMPRESSED_BYTES_MAX);
    bytes.map(Cow::Owned).map_err(|error| error.to_string())
}

/// Reads a stored document, ours or Python's; `now` stands in for a time that is not known.
pub(super) fn read(bytes: &[u8], now: Timestamp) -> Result<ResultRecord, StoreError> {
    let corrupt = |what: String| {
        StoreError::new(ErrorKind::Corrupt, format!("a stored result cannot be read: {what}"))
    };
    let bytes = plain(bytes).map_err(&corrupt)?;
    let meta = ResultMeta::parse(&bytes).map_err(|error| corrupt(error.to_string()))?;
    let mut map = meta.into_map();
    let notes = map.remove(NOTES);
    let meta = ResultMeta::from_map(map);
    let note = |name: &str| notes.as_ref().and_then(|notes| notes.get(name));
    let text = |name: &str| note(name).and_then(Value::as_str).map(str::to_owned);
    let time = |name: &str| {
        note(name).and_then(Value::as_i64).and_then(|at| Timestamp::from_microsecond(at).ok())
    };
    let done = meta.date_done().ok().flatten();
    Ok(ResultRecord {
        task: text("task").or_else(|| meta.name().map(str::to_owned)),
        queue: text("queue").or_else(|| meta.queue().map(str::to_owned)),
        worker: text("worker").or_else(|| meta.worker().map(str::to_owned)),
        enqueued_at: time("enqueued"),
        started_at: time("started"),
        written_at: time("written").or(done).unwrap_or(now),
        retries: note("retries")
            .and_then(Value::as_u64)
            .or_else(|| meta.retries())
            .and_then(|retries| u32::try_from(retries).ok())
            .unwrap_or_default(),
        meta,
    })
}

/// The most results that are asked for in one call; each may be as large as results are allowed to be.
const READ_MAX: usize = 100;

/// The results of several tasks.
pub(super) async fn of_all(
    core: &Core,
    task_ids: &[String],
) -> Result<Vec<Option<ResultRecord>>, StoreError> {
    let mut records = Vec::with_capacity(task_ids.len());
    for ids in task_ids.chunks(READ_MAX) {
        let mut words = vec!["MGET".to_owned()];
        words.extend(ids.iter().map(|id| core.keys.result(id)));
        let Answer::Array(documents) = call(core, "read results", &words).await? else {
            return Err(StoreError::new(ErrorKind::Corrupt, "results are not a list"));
        };
        for document in documents {
            records.push(match document {
                Answer::BulkString(bytes) => Some(read(&bytes, core.now())?),
                _ => None,
            });
        }
    }
    Ok(records)
}

/// Waits on the result's channel, as Python's `AsyncResult.get` does (wire specification 4.6): subscribe
/// first, then look, so that nothing falls in between.
pub(super) async fn wait(
    core: &Core,
    task_id: &str,
    timeout: Duration,
) -> Result<Option<ResultRecord>, StoreError> {
    let deadline = tokio::time::Instant::now() + timeout;
    let ready = |record: &Option<ResultRecord>| {
        record.as_ref().is_some_and(|record| record.meta.state().is_ready())
    };
    match super::view::result(core, task_id).await {
        Ok(first) if ready(&first) || timeout.is_zero() => return Ok(first),
        Err(error) if !error.is_retryable() || timeout.is_zero() => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let key = core.keys.result(task_id);
    let mut subscription = core.bell.subscribe(&key, false).await;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        match super::view::result(core, task_id).await {
            Ok(record) if ready(&record) || left.is_zero() => return Ok(record),
            // The server may come back before the caller gives up.
            Err(error) if !error.is_retryable() || left.is_zero() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        // Looked at now and then all the same: a broken connection hears nothing.
        let heard = async {
            loop {
                let payload = subscription.next().await?;
                if let Ok(record) = read(&payload, core.now())
                    && record.meta.state().is_ready()
                {
                    return Some(record);
                }
            }
        };
        if let Ok(Some(record)) = tokio::time::timeout(left.min(RECHECK), heard).await {
            return Ok(Some(record));
        }
    }
}
