//! Dead letters: how they are kept, listed, replayed, edited and discarded.

use super::commit::{self, Limits};
use super::pack::Pack;
use super::packet::{Packet, queue_of};
use super::script::DEAD;
use super::{Core, micros_to_time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use celeriac_core::dead::{Attempt, DeadLetter, DeadReason};
use celeriac_core::store::{DeadFilter, Outgoing, Page, Plan, Replay};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::{Body, Headers, Map, Message, Properties, Value, from_value, to_value};
use jiff::Timestamp;
use redis::{Pipeline, Value as Answer};

/// The header of a dead letter that is no message: its body is what was in the list.
pub(super) const RAW_HEADER: &str = "celeriac_raw";
/// How many letters are read at once.
const PAGE_MAX: usize = 256;
/// How often a replay begins again because others take letters at the same time.
const RACES_MAX: usize = 16;

/// A dead letter as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Letter {
    queue: String,
    message: Message,
    reason: DeadReason,
    detail: String,
    died: Timestamp,
    enqueued: Timestamp,
    pub(super) history: Vec<Attempt>,
}

impl Letter {
    /// Of a payload, which need not be a message.
    pub(super) fn of_payload(
        queue: &str,
        payload: &[u8],
        reason: DeadReason,
        detail: &str,
        now: Timestamp,
    ) -> Self {
        let (message, enqueued, history) = match Packet::parse(payload) {
            Ok(packet) => {
                let enqueued = packet.notes.enqueued.map_or(now, micros_to_time);
                (packet.message, enqueued, packet.notes.history)
            }
            Err(_) => (raw_message(payload), now, Vec::new()),
        };
        let (queue, detail) = (queue.to_owned(), detail.to_owned());
        Self { queue, message, reason, detail, died: now, enqueued, history }
    }

    pub(super) fn task_id(&self) -> &str {
        self.message.headers.id().filter(|id| !id.contains('\n')).unwrap_or_default()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("reason", self.reason.as_str());
        map.insert("detail", self.detail.as_str());
        map.insert("died", self.died.as_microsecond());
        map.insert("enqueued", self.enqueued.as_microsecond());
        map.insert("history", to_value(&self.history).unwrap_or(Value::Null));
        map.insert("headers", self.message.headers.clone());
        map.insert("properties", self.message.properties.clone());
        map.insert("content_type", self.message.content_type.as_str());
        map.insert("content_encoding", self.message.content_encoding.as_str());
        match std::str::from_utf8(&self.message.body) {
            Ok(text) => map.insert("body", text),
            Err(_) => map.insert("base64", STANDARD.encode(&self.message.body)),
        };
        let head = format!("{}\n{}\n", self.queue, self.task_id());
        let mut bytes = head.into_bytes();
        bytes.extend(Value::Object(map).to_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
        let queue = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        let document = Value::parse(parts.nth(1)?).ok()?;
        let Value::Object(mut map) = document else { return None };
        let mut text = |name: &str| match map.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let reason = text("reason")?.parse().ok()?;
        let detail = text("detail")?;
        let (content_type, content_encoding) = (text("content_type")?, text("content_encoding")?);
        let body = match (text("body"), text("base64")) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded).ok()?,
            (None, None) => return None,
        };
        let mut object = |name: &str| match map.remove(name) {
            Some(Value::Object(object)) => Some(object),
            _ => None,
        };
        let headers = Headers::from_map(object("headers")?);
        let properties = Properties::from_map(object("properties")?);
        let time = |name: &str| map.get(name).and_then(Value::as_i64).map(micros_to_time);
        let history = map.get("history").cloned().and_then(|history| from_value(history).ok());
        Some(Self {
            queue,
            reason,
            detail,
            died: time("died")?,
            enqueued: time("enqueued")?,
            history: history.unwrap_or_default(),
            message: Message {
                headers,
                properties,
                content_type,
                content_encoding,
                body: body.into(),
            },
        })
    }

    fn into_dead_letter(self, number: i64) -> Result<DeadLetter, StoreError> {
        Ok(DeadLetter {
            number,
            queue: queue_of(&self.queue)?,
            message: self.message,
            reason: self.reason,
            detail: self.detail,
            died_at: self.died,
            enqueued_at: self.enqueued,
            history: self.history,
        })
    }
}

/// Bytes that are no message, as the body of one, so that they can be listed and replayed.
fn raw_message(payload: &[u8]) -> Message {
    let mut headers = Headers::default();
    headers.insert(RAW_HEADER, true);
    Message {
        headers,
        properties: Properties::default(),
        content_type: "application/data".to_owned(),
        content_encoding: "binary".to_owned(),
        body: payload.to_vec().into(),
    }
}

fn matches(filter: &DeadFilter, letter: &DeadLetter) -> bool {
    let id = letter.message.headers.id().unwrap_or_default();
    let task = letter.message.headers.task().unwrap_or_default();
    let named = |wanted: &String| wanted == id || *wanted == letter.number.to_string();
    filter.queue.as_ref().is_none_or(|queue| *queue == letter.queue)
        && filter.reason.is_none_or(|reason| reason == letter.reason)
        && filter.detail.as_ref().is_none_or(|detail| letter.detail.contains(detail))
        && filter.number.is_none_or(|number| number == letter.number)
        && filter.before.is_none_or(|before| letter.died_at < before)
        && filter.task.as_ref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => task.starts_with(prefix),
            None => task == wanted,
        })
        && (filter.ids.is_empty() || filter.ids.iter().any(named))
}

pub(super) async fn list(
    core: &Core,
    filter: &DeadFilter,
    page: Page,
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::new();
    each(core, filter, Way::Up(page.after), &mut |letter| {
        letters.push(letter);
        letters.len() < page.count_max
    })
    .await?;
    letters.truncate(page.count_max);
    Ok(letters)
}

/// Matching letters with numbers below `below`, the newest first.
pub(super) async fn newest(
    core: &Core,
    filter: &DeadFilter,
    below: i64,
    count_max: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::new();
    each(core, filter, Way::Down(below), &mut |letter| {
        letters.push(letter);
        letters.len() < count_max
    })
    .await?;
    Ok(letters)
}

/// In which order letters are read, and from which number on, itself left out.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up(i64),
    Down(i64),
}

/// Calls `take` with matching letters by number, until it says no.
async fn each(
    core: &Core,
    filter: &DeadFilter,
    mut way: Way,
    take: &mut (dyn FnMut(DeadLetter) -> bool + Send),
) -> Result<(), StoreError> {
    loop {
        let (command, from, to) = match way {
            Way::Up(after) => ("ZRANGEBYSCORE", format!("({after}"), "+inf"),
            Way::Down(below) => ("ZREVRANGEBYSCORE", format!("({below}"), "-inf"),
        };
        let mut numbers = redis::cmd(command);
        numbers.arg(core.keys.own("dead:numbers")).arg(from).arg(to);
        numbers.arg("LIMIT").arg(0).arg(PAGE_MAX);
        let numbers = texts(core.link.call("list dead letters", &numbers).await?);
        let Some(last) = numbers.last().and_then(|number| number.parse().ok()) else {
            return Ok(());
        };
        way = match way {
            Way::Up(_) => Way::Up(last),
            Way::Down(_) => Way::Down(last),
        };
        let mut letters = redis::cmd("HMGET");
        letters.arg(core.keys.own("dead")).arg(&numbers);
        let Answer::Array(letters) = core.link.call("read dead letters", &letters).await? else {
            return Ok(());
        };
        for (number, letter) in numbers.iter().zip(letters) {
            let (Ok(number), Answer::BulkString(bytes)) = (number.parse(), letter) else {
                continue;
            };
            let letter = match Letter::parse(&bytes) {
                Some(letter) => letter.into_dead_letter(number)?,
                None => damaged(&bytes, number)?,
            };
            if matches(filter, &letter) && !take(letter) {
                return Ok(());
            }
        }
    }
}

/// A letter that cannot be read is shown with its bytes.
fn damaged(bytes: &[u8], number: i64) -> Result<DeadLetter, StoreError> {
    let detail = "the stored dead letter is damaged; its bytes are the body".to_owned();
    let letter = Letter {
        queue: QueueName::celery().to_string(),
        message: raw_message(bytes),
        reason: DeadReason::Undecodable,
        detail,
        died: Timestamp::UNIX_EPOCH,
        enqueued: Timestamp::UNIX_EPOCH,
        history: Vec::new(),
    };
    letter.into_dead_letter(number)
}

pub(super) async fn count(core: &Core, filter: &DeadFilter) -> Result<u64, StoreError> {
    if *filter == DeadFilter::default() {
        let mut count = redis::cmd("ZCARD");
        count.arg(core.keys.own("dead:numbers"));
        return match core.link.call("count dead letters", &count).await? {
            Answer::Int(count) => Ok(count.unsigned_abs()),
            _ => Ok(0),
        };
    }
    let mut found = 0;
    each(core, filter, Way::Up(0), &mut |_letter| {
        found += 1;
        true
    })
    .await?;
    Ok(found)
}

pub(super) async fn replay(
    core: &Core,
    filter: &DeadFilter,
    replay: &Replay,
    count_max: usize,
) -> Result<Vec<i64>, StoreError> {
    for _race in 0..RACES_MAX {
        let letters = list(core, filter, Page { after: 0, count_max }).await?;
        let (mut plan, mut numbers, mut forget) = (Plan::default(), Vec::new(), Vec::new());
        for letter in letters {
            numbers.push(letter.number);
            let raw = letter.message.headers.as_map().contains_key(RAW_HEADER);
            let mut message = letter.message;
            if !raw {
                renew(&mut message, replay);
                forget.push(message.headers.id().unwrap_or_default().to_owned());
                // The rest of its chain was marked as failed with it, and may run now.
                let embed = Body::parse(&message.body).unwrap_or_default().embed;
                let steps = embed.chain().unwrap_or_default();
                forget.extend(steps.iter().filter_map(|step| step.task_id().map(str::to_owned)));
            }
            plan.publish.push(Outgoing {
                once: None,
                queue: replay.queue.clone().unwrap_or(letter.queue),
                message,
                history: letter.history,
                enqueued_at: None,
            });
        }
        if numbers.is_empty() {
            return Ok(numbers);
        }
        match commit::replay(core, plan, &numbers, &forget).await {
            Ok(()) => return Ok(numbers),
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::new(ErrorKind::Conflict, "others replay or discard the same dead letters"))
}

/// Its time and its expiry were those of the first life.
fn renew(message: &mut Message, replay: &Replay) {
    if !replay.keep_retries {
        message.headers.set_retries(0);
    }
    message.headers.set_eta(None).set_expires(None);
    message.properties.set_expiration(None);
}

pub(super) async fn edit(core: &Core, number: i64, outgoing: &Outgoing) -> Result<(), StoreError> {
    commit::check(core, &outgoing.message, Limits::Enforced)?;
    let gone = || {
        StoreError::new(ErrorKind::NotFound, format!("there is no dead letter {number}"))
            .hint("see `celeriac dead list`")
    };
    let mut old = redis::cmd("HGET");
    old.arg(core.keys.own("dead")).arg(number);
    let Answer::BulkString(bytes) = core.link.call("read a dead letter", &old).await? else {
        return Err(gone());
    };
    let letter = Letter::parse(&bytes).unwrap_or_else(|| {
        let detail = "the stored dead letter was damaged";
        let reason = DeadReason::Undecodable;
        Letter::of_payload(outgoing.queue.as_str(), &bytes, reason, detail, core.now())
    });
    let letter =
        Letter { queue: outgoing.queue.to_string(), message: outgoing.message.clone(), ..letter };
    let mut argument = Pack::default();
    argument.map(5);
    core.pack_head(&mut argument);
    argument.text("op").text("edit").text("number").text(&number.to_string());
    argument.text("letter").bytes(&letter.to_bytes());
    match core.link.script("edit a dead letter", &DEAD, argument.into_bytes()).await? {
        Answer::Int(1) => Ok(()),
        _ => Err(gone()),
    }
}

pub(super) async fn discard(core: &Core, numbers: &[i64]) -> Result<u64, StoreError> {
    let mut gone = 0;
    for some in numbers.chunks(1000) {
        let mut argument = Pack::default();
        argument.map(4);
        core.pack_head(&mut argument);
        argument.text("op").text("discard").text("numbers").array(some.len());
        for number in some {
            argument.text(&number.to_string());
        }
        let answer = core.link.script("discard dead letters", &DEAD, argument.into_bytes()).await?;
        if let Answer::Int(count) = answer {
            gone += count.unsigned_abs();
        }
    }
    Ok(gone)
}

/// The latest letter of a task.
pub(super) async fn of_task(core: &Core, task_id: &str) -> Result<Option<DeadLetter>, StoreError> {
    let mut number = redis::cmd("HGET");
    number.arg(core.keys.own("dead:ids")).arg(task_id);
    let Answer::BulkString(number) = core.link.call("look for a dead letter", &number).await?
    else {
        return Ok(None);
    };
    let Some(number) = String::from_utf8_lossy(&number).parse::<i64>().ok() else {
        return Ok(None);
    };
    let mut pipeline = Pipeline::new();
    pipeline.cmd("HGET").arg(core.keys.own("dead")).arg(number);
    match core.link.pipeline("read a dead letter", &pipeline).await?.pop() {
        Some(Answer::BulkString(bytes)) => match Letter::parse(&bytes) {
            Some(letter) => letter.into_dead_letter(number).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The texts of a list answer.
pub(super) fn texts(answer: Answer) -> Vec<String> {
    let Answer::Array(list) = answer else { return Vec::new() };
    list.into_iter().filter_map(text).collect()
}

/// An answer as text.
pub(super) fn text(answer: Answer) -> Option<String> {
    match answer {
        Answer::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Answer::Int(number) => Some(number.to_string()),
        _ => None,
    }
}
