//! What is true of tasks and queues.

use super::dead::{self, texts};
use super::nodes::{self, HeldRecord};
use super::packet::{Packet, key_of, split};
use super::walk::{self, Entry, Source};
use super::{Core, limits, micros_to_time, results};
use celeriac_core::QueueName;
use celeriac_core::StoreError;
use celeriac_core::dead::DeadLetter;
use celeriac_core::store::{NodeId, Phase, QueueView, ResultRecord, TaskView};
use celeriac_core::throttle::Target;
use redis::{Pipeline, Value as Answer};
use std::collections::BTreeMap;

/// Positions beyond this are not counted.
const POSITION_MAX: usize = 10_000;
/// How many waiting messages of a queue are looked at to find a task, or to list some.
pub(super) const LOOK_MAX: usize = 100_000;

fn of_packet(packet: Packet, queue: &str, phase: Phase) -> TaskView {
    TaskView {
        task_id: packet.message.headers.id().unwrap_or_default().to_owned(),
        phase,
        task: packet.message.headers.task().map(str::to_owned),
        queue: Some(queue.to_owned()),
        enqueued_at: packet.notes.enqueued.map(micros_to_time),
        retries: packet.message.headers.retries(),
        result: None,
        history: packet.notes.history,
        message: Some(packet.message),
    }
}

fn scheduled(packet: Packet, queue: &str) -> TaskView {
    let until = packet.message.headers.eta().ok().flatten().unwrap_or_default();
    let retry = packet.message.headers.retries() > 0;
    of_packet(packet, queue, Phase::Scheduled { until, retry })
}

pub(super) fn held(record: HeldRecord, names: &BTreeMap<NodeId, String>) -> TaskView {
    let worker = names.get(&NodeId(record.node)).cloned();
    let worker = worker.unwrap_or_else(|| format!("node {}", record.node));
    let phase = match record.started {
        Some(since) => Phase::Running { worker, since: micros_to_time(since) },
        None => Phase::Reserved { worker },
    };
    of_packet(record.packet, &record.queue, phase)
}

pub(super) fn of_letter(letter: DeadLetter, task_id: &str) -> TaskView {
    TaskView {
        task_id: task_id.to_owned(),
        phase: Phase::Dead { number: letter.number, reason: letter.reason },
        task: letter.message.headers.task().map(str::to_owned),
        queue: Some(letter.queue.to_string()),
        enqueued_at: Some(letter.enqueued_at),
        retries: letter.message.headers.retries(),
        message: Some(letter.message),
        result: None,
        history: letter.history,
    }
}

pub(super) fn of_result(record: ResultRecord) -> TaskView {
    let phase = if record.meta.state().is_ready() { Phase::Done } else { Phase::Unknown };
    TaskView {
        task: record.task.clone(),
        queue: record.queue.clone(),
        enqueued_at: record.enqueued_at,
        retries: record.retries,
        ..TaskView::bare(record.meta.task_id().unwrap_or_default(), phase)
    }
    .with_result(record)
}

trait WithResult {
    fn with_result(self, record: ResultRecord) -> Self;
}

impl WithResult for TaskView {
    fn with_result(mut self, record: ResultRecord) -> Self {
        self.result = Some(record);
        self
    }
}

pub(super) async fn names(core: &Core) -> Result<BTreeMap<NodeId, String>, StoreError> {
    Ok(nodes::list(core).await?.into_iter().map(|node| (node.id, node.info.name)).collect())
}

pub(super) async fn task(core: &Core, task_id: &str) -> Result<TaskView, StoreError> {
    let result = result(core, task_id).await?;
    let mut view = match waiting(core, task_id).await? {
        Some(view) => view,
        None => match dead::of_task(core, task_id).await? {
            Some(letter) => of_letter(letter, task_id),
            None => match result {
                Some(record) => return Ok(of_result(record)),
                None => return Ok(TaskView::bare(task_id, Phase::Unknown)),
            },
        },
    };
    view.result = result;
    Ok(view)
}

/// A task with a message: scheduled, held or ready, in the order of what a look costs.
async fn waiting(core: &Core, task_id: &str) -> Result<Option<TaskView>, StoreError> {
    let mut place = redis::cmd("HGET");
    place.arg(core.keys.own("ids")).arg(task_id);
    if let Answer::BulkString(place) = core.link.call("look for a task", &place).await? {
        let place = String::from_utf8_lossy(&place).into_owned();
        if let Some((queue, row)) = place.split_once('\n') {
            let mut record = redis::cmd("HGET");
            record.arg(core.keys.own("waiting")).arg(row);
            let record = core.link.call("look at a scheduled task", &record).await?;
            if let Answer::BulkString(record) = record
                && let Some((_, payload)) = split(&record)
                && let Ok(packet) = Packet::parse(payload)
            {
                return Ok(Some(scheduled(packet, queue)));
            }
        }
    }
    let is_it = |packet: &Packet| packet.message.headers.id() == Some(task_id);
    let mut running = nodes::held(core, usize::MAX).await?;
    running.retain(|record| is_it(&record.packet));
    if let Some(record) = running.pop() {
        return Ok(Some(held(record, &names(core).await?)));
    }
    for queue in walk::queues(core).await? {
        let mut before = 0;
        for source in walk::places(core, &queue).await? {
            let mut offset = 0;
            loop {
                let chunk = walk::read(core, &source, offset).await?;
                if walk::is_last(&chunk) || offset >= LOOK_MAX {
                    break;
                }
                offset += chunk.len();
                for entry in chunk {
                    if contains(&entry.payload, task_id.as_bytes())
                        && let Some(packet) = entry.packet()
                        && is_it(&packet)
                    {
                        let position = (before <= POSITION_MAX).then_some(before as u64);
                        return queued(core, &queue, &entry, packet, position).await.map(Some);
                    }
                    before += 1;
                }
            }
        }
    }
    Ok(None)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // An id of odd characters is written with escapes; then every message is read.
    let plain = needle.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte));
    !plain || needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

/// The word for a message that waits ([`Phase::as_str`]).
pub(super) fn waits_as(core: &Core, entry: &Entry, packet: &Packet) -> &'static str {
    let later = || packet.message.headers.eta().ok().flatten().is_some_and(|eta| eta > core.now());
    match &entry.source {
        Source::Due(_) => {}
        Source::Lost(_) => return "queued",
        _ if later() => {}
        _ => return "queued",
    }
    if packet.message.headers.retries() > 0 { "retry" } else { "scheduled" }
}

/// A message that is ready, or was made ready for its revocation.
pub(super) async fn queued(
    core: &Core,
    queue: &QueueName,
    entry: &Entry,
    packet: Packet,
    position: Option<u64>,
) -> Result<TaskView, StoreError> {
    if matches!(entry.source, Source::Lost(_)) {
        // It waits for nothing but a worker that sets it aside.
        let phase = Phase::Queued { position: None, paused: false, limited: false, revoked: false };
        return Ok(of_packet(packet, queue.as_str(), phase));
    }
    if waits_as(core, entry, &packet) != "queued" {
        return Ok(scheduled(packet, queue.as_str()));
    }
    let rules = core.reload_rules().await?;
    let task = packet.message.headers.task().unwrap_or_default().to_owned();
    let key = key_of(&packet.message.headers).to_owned();
    let id = packet.message.headers.id().unwrap_or_default().to_owned();
    let paused = rules.1.pauses(queue.as_str(), &task, &key);
    let limited = !paused && limits::holds_back(core, &rules.1, queue, &task, &key).await?;
    let revoked = super::control::revoked_among(core, &[id]).await?;
    let phase = Phase::Queued { position, paused, limited, revoked: !revoked.is_empty() };
    Ok(of_packet(packet, queue.as_str(), phase))
}

pub(super) async fn result(core: &Core, task_id: &str) -> Result<Option<ResultRecord>, StoreError> {
    let words = ["GET".to_owned(), core.keys.result(task_id)];
    match super::results::call(core, "read a result", &words).await? {
        Answer::BulkString(bytes) => results::read(&bytes, core.now()).map(Some),
        _ => Ok(None),
    }
}

pub(super) async fn queues(core: &Core) -> Result<Vec<QueueView>, StoreError> {
    let nodes = nodes::list(core).await?;
    let names = walk::queues(core).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("HGETALL").arg(core.keys.own("count"));
    for name in &names {
        for list in core.keys.lists(name) {
            pipeline.cmd("LLEN").arg(&list);
            pipeline.cmd("LINDEX").arg(&list).arg(0);
            pipeline.cmd("LINDEX").arg(&list).arg(-1);
        }
    }
    let mut answers = core.link.pipeline("list the queues", &pipeline).await?.into_iter();
    let mut queues: BTreeMap<String, QueueView> = BTreeMap::new();
    for pair in texts(answers.next().unwrap_or_default()).chunks(2) {
        let [field, count] = pair else { continue };
        let Some((kind, queue)) = field.split_once(':') else { continue };
        let count: u64 = count.parse().unwrap_or(0);
        let view = queues.entry(queue.to_owned()).or_default();
        match kind {
            "l" => view.leased += count,
            "d" => view.scheduled += count,
            "w" => view.ready += count,
            _ => view.dead += count,
        }
    }
    for name in &names {
        for _list in 0..4 {
            let length = match answers.next() {
                Some(Answer::Int(length)) => length.unsigned_abs(),
                _ => 0,
            };
            let ends: Vec<Answer> = answers.by_ref().take(2).collect();
            if length == 0 {
                continue;
            }
            let view = queues.entry(name.to_string()).or_default();
            view.ready += length;
            let enqueued = |end: &Answer| match end {
                Answer::BulkString(payload) => Packet::parse(payload).ok()?.notes.enqueued,
                _ => None,
            };
            let oldest = ends.iter().filter_map(enqueued).min().map(micros_to_time);
            view.oldest = [view.oldest, oldest].into_iter().flatten().min();
        }
    }
    let mut all_paused = false;
    for pause in super::control::pauses(core).await? {
        match pause.target {
            Target::Queue(name) => queues.entry(name).or_default().paused = true,
            Target::Everything => all_paused = true,
            Target::Task(_) | Target::Key(_) => {}
        }
    }
    for node in nodes.iter().filter(|node| node.alive) {
        for queue in &node.info.queues {
            queues.entry(queue.to_string()).or_default().consumers.push(node.id);
        }
    }
    Ok(queues
        .into_iter()
        .map(|(name, view)| QueueView { name, paused: view.paused || all_paused, ..view })
        .collect())
}
