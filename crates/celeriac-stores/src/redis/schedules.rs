//! Entries that run at their time: one hash of records, beside it a sorted set of names and one of times
//! (`lua/schedule.lua`). What fires is a unit of `lua/commit.lua`, so that the message, the entry's next
//! time and the occurrence's line are one step.

use super::commit::{self, Deed, Limits, Unit, Written};
use super::dead::texts;
use super::exchanges::{self, Tables};
use super::pack::Pack;
use super::redbeat::{self, Shared};
use super::script::SCHEDULE;
use super::{Core, RedisStore, micros_to_time};
use crate::schedules::{SAME_TIME_MAX, TRIM_MAX, lines_max, state_of, texts_of, too_old};
use async_trait::async_trait;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{
    EntryRecord, Fire, Fired, Lead, Occurrence, RedBeatKeys, RedBeatView, Saved, Schedules,
};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{State, Value};
use jiff::Timestamp;
use redis::{Pipeline, Value as Answer};
use std::time::Duration;

/// The most entries, fires or lines of one script or command.
const BATCH_MAX: usize = 200;
/// The most bytes of messages and documents of one script, the last one aside.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What a fire adds to its plan, for `lua/commit.lua`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Firing {
    name: String,
    version: Option<u64>,
    epoch: Option<u64>,
    wake: Option<i64>,
    state: String,
    due: i64,
    fired: i64,
    open: bool,
    line: String,
    /// Of an entry in RedBeat's keys.
    pub(super) shared: Option<Shared>,
}

/// A number as text, `None` as an empty one.
fn told(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

impl Firing {
    pub(super) fn pack(&self) -> Pack {
        let mut pack = Pack::default();
        pack.map(10);
        pack.text("name").text(&self.name);
        pack.text("version").text(&told(self.version));
        pack.text("epoch").text(&told(self.epoch));
        pack.text("wake").text(&told(self.wake));
        pack.text("state").text(&self.state);
        pack.text("due").text(&self.due.to_string());
        pack.text("fired").text(&self.fired.to_string());
        pack.text("open").truth(self.open);
        pack.text("line").text(&self.line);
        redbeat::pack_shared(&mut pack, self.shared.as_ref());
        pack
    }
}

/// How much of what was fired is kept.
pub(super) fn pack_bounds(core: &Core, argument: &mut Pack) {
    let kept = core.limits.occurrence_expires;
    argument.text("history").array(4);
    argument.number(lines_max(&core.limits).into()).number(TRIM_MAX.into());
    let micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    argument.number(kept.as_secs().max(1) as i64).number(micros.min(1 << 52));
}

/// Splits a list where a batch is full.
fn batches<T>(all: Vec<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for one in all {
        bytes += bytes_of(&one);
        batch.push(one);
        if batch.len() >= BATCH_MAX || bytes >= BATCH_BYTES_MAX {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// An error behind a batch that is written: nobody may conclude from it that nothing was.
fn partly(error: StoreError, written: usize) -> StoreError {
    if written == 0 {
        return error;
    }
    let text = format!("{written} of them are written, of the others is not known: {error}");
    StoreError::new(ErrorKind::Unknown, text).because(error)
}

#[async_trait]
impl Schedules for RedisStore {
    async fn save_entries(&self, records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError> {
        let documents = texts_of(&records, &self.core.limits)?;
        if records.iter().any(redbeat::is_shared) {
            return self.save_each(records).await;
        }
        let new = records.iter().filter(|record| record.version == 0);
        let new: Vec<String> = new.map(|record| record.name.clone()).collect();
        let taken = redbeat::taken(&self.core, &new).await?;
        if !taken.is_empty() {
            return self.save_others(records, &taken).await;
        }
        let all = records.into_iter().zip(documents).collect();
        let mut saved = Vec::new();
        for batch in batches(all, |(_, documents)| documents.entry.len() + documents.state.len()) {
            let mut argument = self.argument("save", 1);
            argument.text("records").array(batch.len());
            for (record, documents) in &batch {
                let version = told(Some(record.version).filter(|version| *version > 0));
                let wake = told(record.wake.map(Timestamp::as_microsecond));
                argument.array(5).text(&record.name).text(&version).text(&wake);
                argument.text(&documents.entry).text(&documents.state);
            }
            let answer = self.script("save entries", argument).await;
            let versions = texts(answer.map_err(|error| partly(error, saved.len()))?);
            saved.extend(versions.iter().map(|version| match version.parse() {
                Ok(version) => Saved::Done(version),
                Err(_) => Saved::Conflict,
            }));
        }
        self.core.bell.ring();
        Ok(saved)
    }

    async fn remove_entry(&self, name: &str, version: u64) -> Result<bool, StoreError> {
        let mut argument = self.argument("remove", 2);
        if version >= redbeat::VERSION_MIN {
            return redbeat::remove(&self.core, name, version).await;
        }
        argument.text("name").text(name).text("version").text(&version.to_string());
        let removed = self.script("remove an entry", argument).await? == Answer::Int(1);
        self.core.bell.ring();
        Ok(removed)
    }

    async fn entry(&self, name: &str) -> Result<Option<EntryRecord>, StoreError> {
        match records(&self.core, vec![name.to_owned()]).await?.pop() {
            Some(own) => Ok(Some(own)),
            None => redbeat::entry(&self.core, name).await,
        }
    }

    async fn entries(&self, after: &str, count_max: usize) -> Result<Vec<EntryRecord>, StoreError> {
        let mut found: Vec<EntryRecord> = Vec::new();
        let mut behind = after.to_owned();
        while found.len() < count_max {
            let from = if behind.is_empty() { "-".to_owned() } else { format!("({behind}") };
            let mut page = redis::cmd("ZRANGEBYLEX");
            page.arg(self.key("names")).arg(from).arg("+").arg("LIMIT").arg(0);
            page.arg(BATCH_MAX.min(count_max - found.len()));
            let names = texts(self.core.link.call("list entries", &page).await?);
            let Some(last) = names.last() else { break };
            behind.clone_from(last);
            // One may have gone since.
            found.extend(records(&self.core, names).await?);
        }
        let theirs = redbeat::entries(&self.core, after, count_max).await?;
        let is_new = |one: &EntryRecord| !found.iter().any(|own| own.name == one.name);
        let theirs: Vec<EntryRecord> = theirs.into_iter().filter(is_new).collect();
        if !theirs.is_empty() {
            found.extend(theirs);
            found.sort_by(|one, other| one.name.cmp(&other.name));
            found.truncate(count_max);
        }
        Ok(found)
    }

    async fn entry_count(&self) -> Result<u64, StoreError> {
        let mut count = redis::cmd("HLEN");
        count.arg(self.key("entries"));
        match self.core.link.call("count entries", &count).await? {
            Answer::Int(count) => Ok(count.unsigned_abs() + redbeat::count(&self.core).await?),
            _ => Ok(0),
        }
    }

    async fn due_entries(
        &self,
        now: Timestamp,
        count_max: usize,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        let mut due = redis::cmd("ZRANGEBYSCORE");
        due.arg(self.key("due")).arg("-inf").arg(now.as_microsecond());
        due.arg("LIMIT").arg(0).arg(count_max);
        let names = texts(self.core.link.call("look for due entries", &due).await?);
        let mut found = records(&self.core, names).await?;
        // Another beat may have fired one since.
        found.retain(|record| record.wake.is_some_and(|wake| wake <= now));
        // What is wrong with RedBeat's keys holds up nothing of our own.
        match redbeat::due(&self.core, now, count_max).await {
            Ok(theirs) => found.extend(theirs),
            Err(error) => redbeat::failed(&self.core, now, &error),
        }
        Ok(found)
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut first = redis::cmd("ZRANGE");
        first.arg(self.key("due")).arg(0).arg(0).arg("WITHSCORES");
        let answer = texts(self.core.link.call("look for the next entry", &first).await?);
        let wake = answer.get(1).and_then(|score| score.parse::<f64>().ok());
        let own = wake.map(|wake| micros_to_time(wake as i64));
        Ok(own.into_iter().chain(redbeat::wake(&self.core)).min())
    }

    async fn lead(&self, holder: &str, span: Duration) -> Result<Lead, StoreError> {
        let mut argument = self.argument("lead", 2);
        let lease = i64::try_from(span.as_micros()).unwrap_or(i64::MAX).min(1 << 52);
        argument.text("holder").text(holder).text("lease").number(lease);
        let lead = lead_of(self.script("lead", argument).await?);
        let none = || StoreError::new(ErrorKind::Internal, "lead: the script gave no leader");
        let lead = lead.ok_or_else(none)?;
        if lead.holder == holder {
            redbeat::lead(&self.core, &lead, span).await;
        }
        Ok(lead)
    }

    async fn resign(&self, holder: &str, epoch: u64) -> Result<(), StoreError> {
        let mut argument = self.argument("resign", 2);
        argument.text("holder").text(holder).text("epoch").text(&epoch.to_string());
        let theirs = redbeat::resign(&self.core, epoch).await;
        self.script("resign", argument).await?;
        self.core.bell.ring();
        theirs
    }

    async fn leader(&self) -> Result<Option<Lead>, StoreError> {
        Ok(lead_of(self.script("ask who leads", self.argument("leader", 0)).await?))
    }

    async fn fire(&self, epoch: Option<u64>, fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError> {
        fire(&self.core, epoch, fires).await
    }

    async fn occurrences(
        &self,
        name: &str,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<Occurrence>, StoreError> {
        let old = too_old(self.core.now(), &self.core.limits);
        let mut found: Vec<Occurrence> = Vec::new();
        let mut before = before;
        while found.len() < count_max {
            let wanted = BATCH_MAX.min(count_max - found.len());
            let mut page = redis::cmd("ZREVRANGEBYSCORE");
            page.arg(past(&self.core, name)).arg(format!("({}", before.as_microsecond()));
            page.arg("-inf").arg("LIMIT").arg(0).arg(wanted);
            let lines = texts(self.core.link.call("list occurrences", &page).await?);
            let is_last = lines.len() < wanted;
            for line in lines {
                let occurrence = occurrence_of(name, &line)?;
                before = occurrence.due;
                if occurrence.fired > old {
                    found.push(occurrence);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    async fn open_occurrences(
        &self,
        after: Timestamp,
        count_max: usize,
    ) -> Result<Vec<(String, Occurrence)>, StoreError> {
        open(&self.core, after, count_max).await
    }

    async fn end_occurrences(
        &self,
        ended: Vec<(String, Timestamp, State)>,
    ) -> Result<(), StoreError> {
        for batch in batches(ended, |_| 0) {
            let mut argument = self.argument("end", 1);
            argument.text("ended").array(batch.len());
            for (name, due, state) in &batch {
                let due = due.as_microsecond().to_string();
                argument.array(3).text(name).text(&due).text(state.as_str());
            }
            self.script("note how occurrences ended", argument).await?;
        }
        Ok(())
    }

    async fn share_redbeat(&self, keys: RedBeatKeys) -> Result<(), StoreError> {
        redbeat::share(&self.core, keys).await
    }

    async fn leave_redbeat(&self) -> Result<bool, StoreError> {
        redbeat::leave(&self.core).await
    }

    async fn redbeat(&self) -> Result<Option<RedBeatView>, StoreError> {
        redbeat::view(&self.core).await
    }
}

impl RedisStore {
    fn key(&self, name: &str) -> String {
        self.core.keys.own(&format!("schedule:{name}"))
    }

    /// Writes entries one by one, some of which are in RedBeat's keys.
    async fn save_each(&self, records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError> {
        let mut saved = Vec::with_capacity(records.len());
        for record in records {
            if redbeat::is_shared(&record) {
                saved.push(redbeat::save(&self.core, &record).await?);
            } else {
                saved.extend(self.save_entries(vec![record]).await?);
            }
        }
        Ok(saved)
    }

    /// Writes entries but for those whose names are taken in RedBeat's keys.
    async fn save_others(
        &self,
        records: Vec<EntryRecord>,
        taken: &[String],
    ) -> Result<Vec<Saved>, StoreError> {
        let is_taken = |record: &EntryRecord| record.version == 0 && taken.contains(&record.name);
        let free = records.iter().filter(|record| !is_taken(record)).cloned().collect();
        let mut free = self.save_entries(free).await?.into_iter();
        let answer = |record: &EntryRecord| {
            let saved = if is_taken(record) { None } else { free.next() };
            saved.unwrap_or(Saved::Conflict)
        };
        Ok(records.iter().map(answer).collect())
    }

    /// The argument of `lua/schedule.lua`, so many fields follow.
    fn argument(&self, op: &str, fields: usize) -> Pack {
        let mut argument = Pack::default();
        argument.map(3 + fields);
        self.core.pack_head(&mut argument);
        argument.text("op").text(op);
        argument
    }

    async fn script(&self, what: &str, argument: Pack) -> Result<Answer, StoreError> {
        self.core.link.script(what, &SCHEDULE, argument.into_bytes()).await
    }
}

/// Where an entry's lines are.
fn past(core: &Core, name: &str) -> String {
    core.keys.own(&format!("schedule:past:{name}"))
}

/// The entries of these names that are there, in their order.
async fn records(core: &Core, names: Vec<String>) -> Result<Vec<EntryRecord>, StoreError> {
    let mut found = Vec::with_capacity(names.len());
    for batch in batches(names, |_| 0) {
        let mut read = redis::cmd("HMGET");
        read.arg(core.keys.own("schedule:entries")).arg(&batch);
        let Answer::Array(answers) = core.link.call("read entries", &read).await? else { continue };
        for (name, answer) in batch.into_iter().zip(answers) {
            if let Answer::BulkString(bytes) = answer {
                found.push(record_of(name, &bytes)?);
            }
        }
    }
    Ok(found)
}

/// Reads a record: version, time, length of the document, document and state.
fn record_of(name: String, bytes: &[u8]) -> Result<EntryRecord, StoreError> {
    let parts = || {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(4, '\n');
        let (version, wake) = (parts.next()?.parse().ok()?, parts.next()?);
        let wake = match wake {
            "" => None,
            wake => Some(Timestamp::from_microsecond(wake.parse().ok()?).ok()?),
        };
        let length = parts.next()?.parse().ok()?;
        let (entry, state) = parts.next()?.split_at_checked(length)?;
        let document = |text: &str| Value::parse(text.as_bytes()).ok();
        Some((version, wake, document(entry)?, document(state)?))
    };
    let Some((version, wake, entry, state)) = parts() else {
        let text = format!("the entry {name:?} cannot be read");
        return Err(StoreError::new(ErrorKind::Corrupt, text));
    };
    Ok(EntryRecord { name, version, wake, entry, state })
}

/// Reads a line: when it was due, length of the outcome, outcome and document.
fn occurrence_of(name: &str, line: &str) -> Result<Occurrence, StoreError> {
    let parts = || {
        let mut parts = line.splitn(3, '\n');
        let (_due, length) = (parts.next()?, parts.next()?.parse().ok()?);
        let (outcome, document) = parts.next()?.split_at_checked(length)?;
        let occurrence = Occurrence::from_value(&Value::parse(document.as_bytes()).ok()?)?;
        let outcome = (length > 0).then(|| State::parse(outcome)).or(occurrence.outcome);
        Some(Occurrence { outcome, ..occurrence })
    };
    parts().ok_or_else(|| {
        let text = format!("an occurrence of the entry {name:?} cannot be read");
        StoreError::new(ErrorKind::Corrupt, text)
    })
}

fn lead_of(answer: Answer) -> Option<Lead> {
    let [holder, epoch, until] = <[String; 3]>::try_from(texts(answer)).ok()?;
    let until = micros_to_time(until.parse().ok()?);
    Some(Lead { holder, epoch: epoch.parse().ok()?, until })
}

async fn fire(core: &Core, epoch: Option<u64>, fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError> {
    reach(Step::FireBegins);
    let mut tables = Tables::default();
    let mut units = Vec::with_capacity(fires.len());
    let mut shared = redbeat::shared(core, &fires).await?;
    for (index, one) in fires.into_iter().enumerate() {
        let state = state_of(&one, &core.limits)?;
        let Fire { name, version, wake, occurrence, mut plan, .. } = one;
        exchanges::route(core, &mut tables, &mut plan).await?;
        let firing = Firing {
            name,
            version,
            epoch,
            wake: wake.map(Timestamp::as_microsecond),
            state,
            due: occurrence.due.as_microsecond(),
            fired: occurrence.fired.as_microsecond(),
            open: occurrence.is_open(),
            line: occurrence.to_value().to_string(),
            shared: shared.remove(&index),
        };
        let deed = Deed::Fire(Box::new(firing));
        units.push((version, Unit { held: None, deed, plan, finisher: None }));
    }
    // What one of them is refused for has to be known before the first is written.
    commit::check_units(core, units.iter().map(|(_, unit)| unit))?;
    let mut answers = Vec::with_capacity(units.len());
    let bytes_of = |unit: &Unit| -> usize {
        unit.plan.publish.iter().map(|outgoing| outgoing.message.body.len()).sum()
    };
    for batch in batches(units, |(_, unit)| bytes_of(unit)) {
        let (versions, batch): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let written = commit::write(core, batch, Limits::NoDepth).await;
        let written = written.map_err(|error| partly(error, answers.len()))?;
        answers.extend(versions.into_iter().zip(written).map(|(version, written)| {
            let version = version.map_or(0, |version| version + 1);
            match written {
                Written::Done(duplicates) => match duplicates.into_iter().next() {
                    Some(other) => Fired::Held { version, holder: other.task_id },
                    None => Fired::Done(version),
                },
                Written::Unheard => Fired::Done(version),
                Written::Taken => Fired::Taken(version),
                Written::Changed => Fired::Changed,
                Written::Fenced => Fired::Fenced,
            }
        }));
    }
    reach(Step::FireCommitted);
    core.bell.ring();
    Ok(answers)
}

/// Occurrences whose end is not known, to the end of those that were fired at one time; less than asked for
/// only where there are no more.
async fn open(
    core: &Core,
    after: Timestamp,
    count_max: usize,
) -> Result<Vec<(String, Occurrence)>, StoreError> {
    let after = after.max(too_old(core.now(), &core.limits)).as_microsecond();
    let mut from = format!("({after}");
    let mut found = Vec::new();
    while found.len() < count_max {
        let wanted = count_max - found.len();
        let (members, last) = open_members(core, &from, wanted).await?;
        let is_last = members.len() < wanted;
        for batch in batches(members, |_| 0) {
            found.extend(open_lines(core, &batch).await?);
        }
        match last {
            Some(last) if !is_last => from = format!("({last}"),
            _ => break,
        }
    }
    Ok(found)
}

/// So many members of the set of open occurrences, and those fired at the time of the last of them; and
/// that time.
async fn open_members(
    core: &Core,
    from: &str,
    count_max: usize,
) -> Result<(Vec<String>, Option<String>), StoreError> {
    const WHAT: &str = "list open occurrences";
    let key = core.keys.own("schedule:open");
    let mut page = redis::cmd("ZRANGEBYSCORE");
    page.arg(&key).arg(from).arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(count_max);
    let mut members = texts(core.link.call(WHAT, &page).await?);
    let last = members.pop();
    let mut members: Vec<String> = members.into_iter().step_by(2).collect();
    if let Some(time) = last.as_ref().filter(|_| members.len() == count_max) {
        let mut same = redis::cmd("ZRANGEBYSCORE");
        same.arg(&key).arg(time).arg(time).arg("LIMIT").arg(0).arg(SAME_TIME_MAX);
        let same = texts(core.link.call(WHAT, &same).await?);
        // They are in the order of their bytes; the last of the page may have gone since.
        let behind = members.last().cloned().unwrap_or_default();
        members.extend(same.into_iter().filter(|one| *one > behind));
    }
    Ok((members, last))
}

/// The occurrences of these members; what has ended or gone since is left out.
async fn open_lines(
    core: &Core,
    members: &[String],
) -> Result<Vec<(String, Occurrence)>, StoreError> {
    let places: Vec<(&str, &str)> =
        members.iter().filter_map(|member| member.split_once('\n')).collect();
    let mut pipeline = Pipeline::new();
    for (due, name) in &places {
        pipeline.cmd("ZRANGEBYSCORE").arg(past(core, name)).arg(*due).arg(*due);
    }
    let answers = core.link.pipeline("read open occurrences", &pipeline).await?;
    let mut found = Vec::with_capacity(places.len());
    for ((due, name), answer) in places.into_iter().zip(answers) {
        let is_it = |line: &String| line.split('\n').next() == Some(due);
        if let Some(line) = texts(answer).into_iter().find(is_it) {
            let occurrence = occurrence_of(name, &line)?;
            if occurrence.is_open() {
                found.push((name.to_owned(), occurrence));
            }
        }
    }
    Ok(found)
}
