//! Chords that wait for members of whom nobody hears.

use super::commit::read_part;
use super::{Core, results};
use celeriac_core::StoreError;
use celeriac_core::store::StalledChord;
use celeriac_wire::{Signature, Value};
use jiff::Timestamp;
use redis::Value as Answer;

/// Chords in which nobody has ended since `before`.
pub(super) async fn list(
    core: &Core,
    before: Timestamp,
    count_max: usize,
) -> Result<Vec<StalledChord>, StoreError> {
    const WHAT: &str = "look for stalled chords";
    let all = core.keys.own("chords");
    let mut command = redis::cmd("ZRANGEBYSCORE");
    command.arg(&all).arg("-inf").arg(format!("({}", before.as_microsecond()));
    command.arg("LIMIT").arg(0).arg(count_max);
    let Answer::Array(keys) = core.link.call(WHAT, &command).await? else { return Ok(Vec::new()) };
    let mut stalled = Vec::new();
    for key in keys {
        let Answer::BulkString(key) = key else { continue };
        let key = String::from_utf8_lossy(&key).into_owned();
        if let Some(chord) = look(core, &key).await? {
            stalled.push(chord);
        } else {
            // Others have completed it, or its keys have expired.
            let mut forget = redis::cmd("ZREM");
            core.link.call(WHAT, forget.arg(&all).arg(&key)).await?;
        }
    }
    Ok(stalled)
}

async fn look(core: &Core, key: &str) -> Result<Option<StalledChord>, StoreError> {
    const WHAT: &str = "read a stalled chord";
    let mut read = redis::cmd("GET");
    read.arg(core.keys.own(&format!("chord:{key}")));
    let Answer::BulkString(body) = core.link.call(WHAT, &read).await? else { return Ok(None) };
    let body = Value::parse(&body).ok().and_then(|body| Signature::from_value(body).ok());
    let Some(body) = body else { return Ok(None) };
    let group = key.strip_prefix(&core.keys.chord("")).unwrap_or(key).to_owned();
    let words = ["ZRANGE", &format!("{key}.j"), "0", "-1", "WITHSCORES"].map(str::to_owned);
    let Answer::Array(parts) = results::call(core, WHAT, &words).await? else { return Ok(None) };
    let mut present = Vec::with_capacity(parts.len() / 2);
    for pair in parts.chunks(2) {
        if let [Answer::BulkString(text), Answer::BulkString(score)] = pair {
            present.push(read_part(&group, text, score, &body)?.index);
        }
    }
    if present.is_empty() {
        return Ok(None);
    }
    let words = ["MGET".to_owned(), format!("{key}.s"), format!("{key}.t")];
    let Answer::Array(sizes) = results::call(core, WHAT, &words).await? else { return Ok(None) };
    let number = |at: usize| match sizes.get(at) {
        Some(Answer::BulkString(text)) => std::str::from_utf8(text).ok()?.parse::<u32>().ok(),
        _ => None,
    };
    let added = number(1).unwrap_or(0);
    let size = number(0).map(|size| size.saturating_add(added));
    Ok(Some(StalledChord { group, size, added, present, body }))
}
