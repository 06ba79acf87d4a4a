//! Lists tasks by page: messages, dead letters and results, each the newest first.

use super::dead::{self, texts};
use super::packet::Packet;
use super::view::{self, LOOK_MAX, of_letter, of_result};
use super::walk::{self, Entry};
use super::{Core, nodes, results};
use crate::listing::{Found, Marks, Places, foreign, names};
use celeriac_core::store::{DeadFilter, ResultRecord, TaskFilter, TaskPage, TaskView};
use celeriac_core::{QueueName, StoreError};
use jiff::Timestamp;
use redis::Value as Answer;
use std::collections::BTreeSet;

/// The most held messages that a list looks at.
const HELD_MAX: usize = 10_000;
/// How many results are read at once.
const RESULTS_PAGE: usize = 500;

/// Tasks that match, newest first. Ready messages are looked at up to [`LOOK_MAX`] a queue, results among the
/// last 10 000. A task that is in several places is listed by what comes first of them.
pub(super) async fn list(core: &Core, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
    let marks = Marks::of(filter)?;
    let bad = || foreign(filter.after.as_deref().unwrap_or_default());
    let wants = |words: &[&str]| filter.state.as_deref().is_none_or(|state| words.contains(&state));
    let mut places = Places::default();
    let mut newest = Newest::new(filter, marks.message.as_deref()).ok_or_else(bad)?;
    if wants(&["queued", "scheduled", "retry"]) {
        waiting(core, filter, &mut newest).await?;
    }
    if wants(&["reserved", "running"]) {
        let workers = view::names(core).await?;
        for record in nodes::held(core, HELD_MAX).await? {
            let view = view::held(record, &workers);
            if fits(filter, view.task.as_deref(), view.queue.as_deref(), view.phase.as_str()) {
                newest.take(view.enqueued_at, view.task_id.clone(), Message::Held(Box::new(view)));
            } else {
                newest.ids.insert(view.task_id);
            }
        }
    }
    let messages = newest.into_found(core, &mut places.messages).await?;
    if wants(&["dead"]) {
        let below = marks.dead.as_deref().map_or(Ok(i64::MAX), str::parse).map_err(|_| bad())?;
        places.dead = letters(core, filter, below, &messages).await?;
    }
    let is_state = filter.state.as_deref().is_some_and(|s| s.chars().any(char::is_uppercase));
    if wants(&["done"]) || is_state {
        let after = marks.result.as_deref().map(Recorded::parse);
        let after = after.map(|after| after.ok_or_else(bad)).transpose()?;
        places.results = finished(core, filter, after, &messages).await?;
    }
    Ok(places.page(marks, filter.count_max))
}

fn fits(filter: &TaskFilter, task: Option<&str>, queue: Option<&str>, word: &str) -> bool {
    filter.queue.as_deref().is_none_or(|wanted| queue == Some(wanted))
        && filter.task.as_deref().is_none_or(|wanted| names(wanted, task.unwrap_or_default()))
        && filter.state.as_deref().is_none_or(|state| state == word)
}

/// A message that may be on the page.
enum Message {
    Waiting { queue: QueueName, entry: Entry, packet: Box<Packet> },
    Held(Box<TaskView>),
}

/// When a message was enqueued and its id: messages are listed by both, backwards.
type Age = (Option<Timestamp>, String);

/// The newest messages below a mark, as many as a page needs.
struct Newest {
    below: Option<Age>,
    count_max: usize,
    kept: Vec<(Age, Message)>,
    /// The ids of all messages that were looked at.
    ids: BTreeSet<String>,
}

impl Newest {
    fn new(filter: &TaskFilter, mark: Option<&str>) -> Option<Self> {
        let below = match mark.map(|mark| mark.split_once('\n')) {
            None => None,
            Some(None) => return None,
            Some(Some(("", id))) => Some((None, id.to_owned())),
            Some(Some((at, id))) => {
                let at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
                Some((Some(at), id.to_owned()))
            }
        };
        let count_max = filter.count_max.saturating_add(1);
        Some(Self { below, count_max, kept: Vec::new(), ids: BTreeSet::new() })
    }

    fn take(&mut self, at: Option<Timestamp>, id: String, message: Message) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        let age = (at, id);
        if self.below.as_ref().is_none_or(|below| age < *below) {
            self.kept.push((age, message));
            if self.kept.len() > self.count_max.saturating_mul(2) {
                self.trim();
            }
        }
    }

    fn trim(&mut self) {
        self.kept.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        self.kept.truncate(self.count_max);
    }

    /// Says what is true of those of the page, and returns the ids of all.
    async fn into_found(
        mut self,
        core: &Core,
        found: &mut Vec<Found>,
    ) -> Result<BTreeSet<String>, StoreError> {
        self.trim();
        for ((at, id), message) in self.kept {
            let view = match message {
                Message::Held(view) => *view,
                Message::Waiting { queue, entry, packet } => {
                    view::queued(core, &queue, &entry, *packet, None).await?
                }
            };
            let micros = at.map_or(String::new(), |at| at.as_microsecond().to_string());
            found.push(Found { at, mark: format!("{micros}\n{id}"), view });
        }
        Ok(self.ids)
    }
}

async fn waiting(core: &Core, filter: &TaskFilter, newest: &mut Newest) -> Result<(), StoreError> {
    for queue in walk::queues(core).await? {
        // A list of one queue needs no other; their dead letters and results are of this queue too.
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
                    let headers = &packet.message.headers;
                    let id = headers.id().unwrap_or_default().to_owned();
                    let word = view::waits_as(core, &entry, &packet);
                    if !fits(filter, headers.task(), Some(queue.as_str()), word) {
                        newest.ids.insert(id);
                        continue;
                    }
                    let at = packet.notes.enqueued.map(super::micros_to_time);
                    let (queue, packet) = (queue.clone(), Box::new(packet));
                    newest.take(at, id, Message::Waiting { queue, entry, packet });
                }
            }
        }
    }
    Ok(())
}

/// Tasks with dead letters, each by its latest; one that was sent again meanwhile is listed as what it is
/// now, with its message.
async fn letters(
    core: &Core,
    filter: &TaskFilter,
    mut below: i64,
    waits: &BTreeSet<String>,
) -> Result<Vec<Found>, StoreError> {
    let queue = filter.queue.as_deref().map(QueueName::parse).transpose()?;
    let wanted = DeadFilter { task: filter.task.clone(), queue, ..DeadFilter::default() };
    let count_max = filter.count_max.saturating_add(1);
    let mut found = Vec::new();
    while found.len() < count_max {
        let letters = dead::newest(core, &wanted, below, count_max - found.len()).await?;
        let Some(last) = letters.last() else { break };
        below = last.number;
        let id = |letter: &celeriac_core::dead::DeadLetter| {
            letter.message.headers.id().unwrap_or_default().to_owned()
        };
        let ids: Vec<String> = letters.iter().map(id).collect();
        let latest = latest_letters(core, &ids).await?;
        let results = records(core, &ids).await?;
        for (((letter, id), latest), result) in
            letters.into_iter().zip(ids).zip(latest).zip(results)
        {
            if waits.contains(&id) || latest.is_some_and(|number| number != letter.number) {
                continue;
            }
            let (at, mark) = (Some(letter.died_at), letter.number.to_string());
            let view = TaskView { result, ..of_letter(letter, &id) };
            found.push(Found { at, mark, view });
        }
    }
    Ok(found)
}

/// The number of each task's latest dead letter.
async fn latest_letters(core: &Core, ids: &[String]) -> Result<Vec<Option<i64>>, StoreError> {
    let mut numbers = redis::cmd("HMGET");
    numbers.arg(core.keys.own("dead:ids")).arg(ids);
    let Answer::Array(numbers) = core.link.call("look for dead letters", &numbers).await? else {
        return Ok(vec![None; ids.len()]);
    };
    let number = |answer| match answer {
        Answer::BulkString(bytes) => String::from_utf8_lossy(&bytes).parse().ok(),
        _ => None,
    };
    Ok(numbers.into_iter().map(number).collect())
}

/// The result of each task; what cannot be read counts as none.
async fn records(core: &Core, ids: &[String]) -> Result<Vec<Option<ResultRecord>>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for some in ids.chunks(RESULTS_PAGE) {
        let keys = some.iter().map(|id| core.keys.result(id));
        let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        let Answer::Array(answers) = results::call(core, "read results", &words).await? else {
            found.resize(found.len() + some.len(), None);
            continue;
        };
        found.extend(answers.into_iter().map(|answer| match answer {
            Answer::BulkString(bytes) => results::read(&bytes, core.now()).ok(),
            _ => None,
        }));
    }
    Ok(found)
}

/// A place in the list of what was recorded last: an id, and which of its entries it is, from the end.
/// Entries come at the beginning, and a task may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recorded {
    id: String,
    entry: usize,
}

impl Recorded {
    fn parse(mark: &str) -> Option<Self> {
        let (entry, id) = mark.split_once('\n')?;
        Some(Self { id: id.to_owned(), entry: entry.parse().ok()? })
    }

    fn of(ids: &[String], at: usize) -> Self {
        let id = ids[at].clone();
        let entry = ids[at..].iter().filter(|other| **other == id).count();
        Self { id, entry }
    }

    /// Where the list goes on behind it; at its end when the entry is forgotten.
    fn next(&self, ids: &[String]) -> usize {
        let is_it = |(_, other): &(usize, &String)| **other == self.id;
        let entries: Vec<usize> =
            ids.iter().enumerate().rev().filter(is_it).map(|(at, _)| at).collect();
        let at = entries.get(self.entry.saturating_sub(1)).or(entries.last());
        at.map_or(ids.len(), |at| at + 1)
    }
}

async fn finished(
    core: &Core,
    filter: &TaskFilter,
    after: Option<Recorded>,
    waits: &BTreeSet<String>,
) -> Result<Vec<Found>, StoreError> {
    let mut recent = redis::cmd("LRANGE");
    recent.arg(core.keys.own("recent")).arg(0).arg(-1);
    let ids = texts(core.link.call("list results", &recent).await?);
    let start = after.map_or(0, |after| after.next(&ids));
    let mut seen: BTreeSet<&str> = ids[..start].iter().map(String::as_str).collect();
    let rest: Vec<usize> = (start..ids.len()).filter(|at| seen.insert(&ids[*at])).collect();
    let mut found = Vec::new();
    for some in rest.chunks(RESULTS_PAGE) {
        let wanted: Vec<String> = some.iter().map(|at| ids[*at].clone()).collect();
        let results = records(core, &wanted).await?;
        // A dead letter's failed result is the same task: the dead letter says more.
        let dead = match filter.state {
            None => latest_letters(core, &wanted).await?,
            Some(_) => vec![None; wanted.len()],
        };
        for ((at, record), letter) in some.iter().zip(results).zip(dead) {
            let Some(record) = record.filter(|_| letter.is_none() && !waits.contains(&ids[*at]))
            else {
                continue;
            };
            let state = record.meta.state();
            let word = match filter.state.as_deref() {
                None if state.is_ready() => "",
                Some("done") if state.is_ready() => "done",
                Some(wanted) if state.as_str() == wanted => wanted,
                _ => continue,
            };
            if fits(filter, record.task.as_deref(), record.queue.as_deref(), word) {
                let Recorded { id, entry } = Recorded::of(&ids, *at);
                let (written, mark) = (Some(record.written_at), format!("{entry}\n{id}"));
                found.push(Found { at: written, mark, view: of_result(record) });
            }
        }
        if found.len() > filter.count_max {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &str) -> Vec<String> {
        ids.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_place_among_the_recorded_is_found_again() {
        let ids = list("x a b x c");
        let first = Recorded::of(&ids, 0);
        assert_eq!((first.entry, first.next(&ids)), (2, 1));
        assert_eq!(first.next(&list("new x a b x c")), 2, "others came");
        assert_eq!(first.next(&list("x new x a b x c")), 3, "the same came again");
        assert_eq!(first.next(&list("x a b")), 1, "the end was cut off");
        assert_eq!(first.next(&list("new")), 1, "forgotten: the list is over");
        let last = Recorded::of(&ids, 3);
        assert_eq!(last.next(&ids), 4);
    }
}
