//! What is true of tasks and queues.

use super::dead::{self, texts};
use super::nodes::{self, HeldRecord};
use super::packet::{Packet, key_of, split};
use super::walk::{self, Entry, Source};
use super::{Core, limits, micros_to_time, results};
use celeriac_core::QueueName;
use celeriac_core::StoreError;
use celeriac_core::dead::DeadLetter;
use celeriac_core::store::{
    DeadFilter, NodeId, Page, Phase, QueueView, ResultRecord, TaskFilter, TaskView,
};
use celeriac_core::throttle::Target;
use redis::{Pipeline, Value as Answer};
use std::collections::{BTreeMap, BTreeSet};

/// Positions beyond this are not counted.
const POSITION_MAX: usize = 10_000;
/// How many waiting messages of a queue are looked at to find a task, or to list some.
const LOOK_MAX: usize = 100_000;
/// The most held messages that a list looks at.
const HELD_MAX: usize = 10_000;
/// How many results are read at once.
const RESULTS_PAGE: usize = 500;

fn bare(task_id: &str, phase: Phase) -> TaskView {
    TaskView {
        task_id: task_id.to_owned(),
        phase,
        task: None,
        queue: None,
        enqueued_at: None,
        retries: 0,
        message: None,
        result: None,
        history: Vec::new(),
    }
}

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

fn held(record: HeldRecord, names: &BTreeMap<NodeId, String>) -> TaskView {
    let worker = names.get(&NodeId(record.node)).cloned();
    let worker = worker.unwrap_or_else(|| format!("node {}", record.node));
    let phase = match record.started {
        Some(since) => Phase::Running { worker, since: micros_to_time(since) },
        None => Phase::Reserved { worker },
    };
    of_packet(record.packet, &record.queue, phase)
}

fn of_letter(letter: DeadLetter, task_id: &str) -> TaskView {
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

fn of_result(record: ResultRecord) -> TaskView {
    let phase = if record.meta.state().is_ready() { Phase::Done } else { Phase::Unknown };
    TaskView {
        task: record.task.clone(),
        queue: record.queue.clone(),
        enqueued_at: record.enqueued_at,
        retries: record.retries,
        ..bare(record.meta.task_id().unwrap_or_default(), phase)
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

async fn names(core: &Core) -> Result<BTreeMap<NodeId, String>, StoreError> {
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
                None => return Ok(bare(task_id, Phase::Unknown)),
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

/// A message that is ready, or was made ready for its revocation.
async fn queued(
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
    let now = core.now();
    let eta = packet.message.headers.eta().ok().flatten().filter(|eta| *eta > now);
    if matches!(entry.source, Source::Due(_)) || eta.is_some() {
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

fn names_match(filter: &TaskFilter, view: &TaskView) -> bool {
    let task = view.task.as_deref().unwrap_or_default();
    filter.queue.as_ref().is_none_or(|queue| view.queue.as_ref() == Some(queue))
        && filter.task.as_ref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => task.starts_with(prefix),
            None => task == wanted,
        })
}

/// Messages, dead letters and results that match, newest first. Ready messages are looked at up to
/// [`LOOK_MAX`] a queue, results among the last 10 000.
pub(super) async fn tasks(core: &Core, filter: &TaskFilter) -> Result<Vec<TaskView>, StoreError> {
    let mut views = Vec::new();
    let wants = |words: &[&str]| filter.state.as_deref().is_none_or(|state| words.contains(&state));
    if wants(&["queued", "scheduled", "retry"]) {
        list_waiting(core, filter, &mut views).await?;
    }
    if wants(&["reserved", "running"]) {
        let names = names(core).await?;
        let records = nodes::held(core, HELD_MAX).await?;
        views.extend(records.into_iter().map(|record| held(record, &names)));
    }
    let waiting_ids: BTreeSet<String> = views.iter().map(|view| view.task_id.clone()).collect();
    views.retain(|view| {
        names_match(filter, view)
            && filter.state.as_deref().is_none_or(|state| view.phase.as_str() == state)
    });
    if wants(&["dead"]) {
        views.extend(dead_tasks(core, filter, &waiting_ids).await?);
    }
    let is_state = filter.state.as_deref().is_some_and(|s| s.chars().any(char::is_uppercase));
    if wants(&["done"]) || is_state {
        views.extend(finished(core, filter).await?);
    }
    let newest = |view: &TaskView| {
        let written = view.result.as_ref().map(|record| record.written_at);
        std::cmp::Reverse(written.or(view.enqueued_at))
    };
    // A dead letter's failed result is the same task: the dead letter says more.
    views.sort_by_key(|view| matches!(view.phase, Phase::Done));
    let mut seen = BTreeSet::new();
    views.retain(|view| seen.insert(view.task_id.clone()));
    views.sort_by_key(newest);
    views.truncate(filter.count_max);
    Ok(views)
}

async fn list_waiting(
    core: &Core,
    filter: &TaskFilter,
    views: &mut Vec<TaskView>,
) -> Result<(), StoreError> {
    for queue in walk::queues(core).await? {
        if filter.queue.as_ref().is_some_and(|name| name != queue.as_str()) {
            continue;
        }
        for source in walk::places(core, &queue).await? {
            let mut offset = 0;
            loop {
                let chunk = walk::read(core, &source, offset).await?;
                if walk::is_last(&chunk) || offset >= LOOK_MAX {
                    break;
                }
                offset += chunk.len();
                for entry in chunk {
                    let Some(packet) = entry.packet() else { continue };
                    views.push(queued(core, &queue, &entry, packet, None).await?);
                }
            }
        }
    }
    Ok(())
}

/// Tasks with dead letters; one that was sent again meanwhile is listed as what it is now.
async fn dead_tasks(
    core: &Core,
    filter: &TaskFilter,
    waits: &BTreeSet<String>,
) -> Result<Vec<TaskView>, StoreError> {
    let wanted = DeadFilter { task: filter.task.clone(), ..DeadFilter::default() };
    let letters = dead::list(core, &wanted, Page { after: 0, count_max: HELD_MAX }).await?;
    let mut views = Vec::new();
    for letter in letters {
        let id = letter.message.headers.id().unwrap_or_default().to_owned();
        if waits.contains(&id) {
            continue;
        }
        let mut view = of_letter(letter, &id);
        if names_match(filter, &view) {
            view.result = result(core, &id).await?;
            views.push(view);
        }
    }
    Ok(views)
}

async fn finished(core: &Core, filter: &TaskFilter) -> Result<Vec<TaskView>, StoreError> {
    let mut recent = redis::cmd("LRANGE");
    recent.arg(core.keys.own("recent")).arg(0).arg(-1);
    let ids = texts(core.link.call("list results", &recent).await?);
    let mut seen = BTreeSet::new();
    let ids: Vec<String> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
    let mut views = Vec::new();
    for some in ids.chunks(RESULTS_PAGE) {
        let keys = some.iter().map(|id| core.keys.result(id));
        let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        let read = results::call(core, "read results", &words).await?;
        let Answer::Array(found) = read else { break };
        for answer in found {
            let Answer::BulkString(bytes) = answer else { continue };
            let Ok(record) = results::read(&bytes, core.now()) else { continue };
            let state = record.meta.state();
            let fits = match filter.state.as_deref() {
                None | Some("done") => state.is_ready(),
                Some(wanted) => state.as_str() == wanted,
            };
            let view = of_result(record);
            if fits && names_match(filter, &view) {
                views.push(view);
            }
        }
        if views.len() >= filter.count_max {
            break;
        }
    }
    Ok(views)
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
