//! Entries in RedBeat's keys: who fires them, and what a stock RedBeat finds afterwards. With the real one:
//! `celeriac`'s `e2e python::redbeat`.

use super::celery;
use celeriac_core::beat::{Entry, EntryState, SourceKind, look};
use celeriac_core::limits::StoreLimits;
use celeriac_core::operate::entries as operate;
use celeriac_core::schedule::Zone;
use celeriac_core::store::{
    EntryRecord, Fire, Fired, Outgoing, Page, Plan, RedBeatHolder, RedBeatKeys, Saved, Store,
};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_stores::{Resources, connect};
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use celeriac_wire::{Message, Value};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_mins(1);

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn store(url: &str) -> Arc<dyn Store> {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let entropy = Arc::new(Seeded::new(7));
    connect(url, Resources { clock, entropy, limits: StoreLimits::default(), results: None })
        .unwrap()
}

fn keys() -> RedBeatKeys {
    RedBeatKeys {
        url: None,
        prefix: "redbeat:".to_owned(),
        lock: "redbeat::lock".to_owned(),
        zone: Zone::named("Europe/Berlin").unwrap(),
    }
}

/// A store that shares RedBeat's keys and leads, with the epoch.
async fn shared(redis: &Redis) -> (Arc<dyn Store>, u64) {
    let store = store(&redis.url());
    store.share_redbeat(keys()).await.unwrap();
    let lead = store.lead("one", LEASE).await.unwrap();
    (store, lead.epoch)
}

/// `schedule` of RedBeat for every so many seconds.
fn every(seconds: u32) -> String {
    format!(r#"{{"__type__": "interval", "every": {seconds}.0, "relative": false}}"#)
}

/// Writes an entry as RedBeat's `save` does; it ran last at noon.
async fn save(redis: &Redis, name: &str, schedule: &str, due: i64) {
    let key = format!("redbeat:{name}");
    let definition = format!(
        r#"{{"name": "{name}", "task": "app.add", "args": [1], "kwargs": {{}}, "options": {{}}, "schedule": {schedule}, "enabled": true, "team": "billing"}}"#
    );
    let meta = r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 21, "hour": 13, "minute": 0, "second": 0, "microsecond": 0, "timezone": "Europe/Berlin"}, "total_run_count": 4}"#;
    redis.cli(&["HSET", &key, "definition", &definition]).await;
    redis.cli(&["HSETNX", &key, "meta", meta]).await;
    redis.cli(&["ZADD", "redbeat::schedule", &at(due).as_second().to_string(), &key]).await;
}

async fn text(redis: &Redis, command: &[&str]) -> String {
    redis.cli(command).await.text()
}

async fn score(redis: &Redis, name: &str) -> i64 {
    let key = format!("redbeat:{name}");
    text(redis, &["ZSCORE", "redbeat::schedule", &key]).await.parse::<f64>().unwrap() as i64
}

fn read(record: &EntryRecord) -> (Entry, EntryState) {
    let entry = Entry::from_value(&record.entry, &Zone::utc()).unwrap();
    (entry, EntryState::from_value(&record.state).unwrap())
}

/// What a beat writes for an entry now.
fn fires(record: &EntryRecord, now: Timestamp) -> Vec<Fire> {
    let (entry, state) = read(record);
    let steps = look(&entry, &state, now, &|_| true).steps;
    let fires = steps.into_iter().zip(record.version..).map(|(step, version)| {
        let id = step.occurrence.task_id.clone().unwrap_or_default();
        let message = Message::new("app.add", &id, "[[1], {}, {}]");
        Fire {
            name: record.name.clone(),
            version: Some(version),
            wake: step.wake,
            state: step.state.to_value(),
            occurrence: step.occurrence,
            plan: Plan { publish: vec![Outgoing::new(celery(), message)], ..Plan::default() },
        }
    });
    fires.collect()
}

async fn due(store: &dyn Store, now: Timestamp) -> Vec<EntryRecord> {
    store.due_entries(now, 100).await.unwrap()
}

async fn sent(store: &dyn Store) -> usize {
    store.peek(&celery(), Page { after: 0, count_max: 1000 }).await.unwrap().len()
}

#[tokio::test]
async fn an_occurrence_is_written_into_redbeats_keys_with_its_message() {
    let redis = redis_or_skip!();
    save(&redis, "often", &every(10), 10).await;
    save(&redis, "later", &every(3600), 3600).await;
    let (store, epoch) = shared(&redis).await;
    assert!(due(&*store, at(9)).await.is_empty());
    let found = due(&*store, at(12)).await;
    let [record] = &found[..] else { panic!("{found:?}") };
    let (entry, state) = read(record);
    assert_eq!((entry.task.as_str(), entry.zone.name()), ("app.add", "Europe/Berlin"));
    assert_eq!(entry.source.kind, SourceKind::RedBeat);
    assert_eq!((state.due, state.runs), (Some(at(10)), 4));

    let again = fires(record, at(12));
    let fired = store.fire(Some(epoch), again.clone()).await.unwrap();
    assert_eq!(fired, [Fired::Done(record.version + 1)]);
    assert_eq!(sent(&*store).await, 1);
    // RedBeat goes on from the time at which it was due, and keeps what it does not know.
    assert_eq!(score(&redis, "often").await, at(20).as_second());
    let meta = text(&redis, &["HGET", "redbeat:often", "meta"]).await;
    assert!(
        meta.contains(r#""minute": 0, "second": 10"#) && meta.contains(r#"count": 5"#),
        "{meta}"
    );
    let definition = text(&redis, &["HGET", "redbeat:often", "definition"]).await;
    assert!(definition.contains(r#""team": "billing""#), "{definition}");
    let lines = store.occurrences("often", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.due).collect::<Vec<_>>(), [at(10)]);

    // What was decided before it was written is refused, and so is the same time under another version.
    assert_eq!(store.fire(Some(epoch), again.clone()).await.unwrap(), [Fired::Changed]);
    let version = store.entry("often").await.unwrap().unwrap().version;
    let late = Fire { version: Some(version), ..again[0].clone() };
    assert_eq!(store.fire(Some(epoch), vec![late]).await.unwrap(), [Fired::Taken(version + 1)]);
    assert_eq!(sent(&*store).await, 1);
    assert!(due(&*store, at(13)).await.is_empty());
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_not_fired() {
    let redis = redis_or_skip!();
    save(&redis, "often", &every(10), 10).await;
    let (store, epoch) = shared(&redis).await;
    let record = due(&*store, at(12)).await.remove(0);
    let decided = fires(&record, at(12));
    save(&redis, "often", &every(30), 30).await;
    assert_eq!(store.fire(Some(epoch), decided.clone()).await.unwrap(), [Fired::Changed]);
    assert!(due(&*store, at(13)).await.is_empty(), "it is due at 30 s now");
    let record = due(&*store, at(30)).await.remove(0);
    let decided = fires(&record, at(30));
    redis.cli(&["DEL", "redbeat:often"]).await;
    assert_eq!(store.fire(Some(epoch), decided).await.unwrap(), [Fired::Changed]);
    assert_eq!(sent(&*store).await, 0);
    assert!(due(&*store, at(32)).await.is_empty());
    assert!(redis.cli(&["ZSCORE", "redbeat::schedule", "redbeat:often"]).await.is_nil());
}

#[tokio::test]
async fn without_redbeats_lock_nothing_of_it_is_fired() {
    let redis = redis_or_skip!();
    save(&redis, "often", &every(10), 10).await;
    redis.cli(&["SET", "redbeat::lock", "theirs"]).await;
    let (store, epoch) = shared(&redis).await;
    let view = store.redbeat().await.unwrap().unwrap();
    assert_eq!(view.holder, RedBeatHolder::Other("theirs".to_owned()));
    assert!(due(&*store, at(12)).await.is_empty());
    assert_eq!(store.entries("", 9).await.unwrap().len(), 1, "it is shown all the same");

    // The other one ends: the lock is ours with the next renewal of the lead.
    redis.cli(&["DEL", "redbeat::lock"]).await;
    store.lead("one", LEASE).await.unwrap();
    let view = store.redbeat().await.unwrap().unwrap();
    assert_eq!((view.holder, view.count), (RedBeatHolder::Us, 1));
    assert!(view.left.unwrap() <= LEASE);
    let record = due(&*store, at(14)).await.remove(0);
    // It is lost before the write.
    redis.cli(&["SET", "redbeat::lock", "theirs"]).await;
    let fired = store.fire(Some(epoch), fires(&record, at(14))).await.unwrap();
    assert_eq!(fired, [Fired::Changed]);
    assert_eq!(sent(&*store).await, 0);
    store.resign("one", epoch).await.unwrap();
    assert_eq!(text(&redis, &["GET", "redbeat::lock"]).await, "theirs");
}

#[tokio::test]
async fn the_lock_goes_with_the_lead() {
    let redis = redis_or_skip!();
    let (one, epoch) = shared(&redis).await;
    one.resign("one", epoch).await.unwrap();
    assert!(redis.cli(&["GET", "redbeat::lock"]).await.is_nil());
    // A leader that died, and the next one of ours, which does not know that the keys are shared.
    let before = one.lead("one", LEASE).await.unwrap().epoch;
    redis.cli(&["HSET", "celeriac:schedule:leader", "until", "0"]).await;
    let two = store(&redis.url());
    let after = two.lead("two", LEASE).await.unwrap().epoch;
    assert!(after > before);
    assert_eq!(text(&redis, &["GET", "redbeat::lock"]).await, format!("celeriac:0::{after}"));
    // The former one does not take it away.
    one.resign("one", before).await.unwrap();
    assert_eq!(two.redbeat().await.unwrap().unwrap().holder, RedBeatHolder::Us);
    // Other keys are shared: this lock is nobody's any more.
    let other = RedBeatKeys { lock: "redbeat::other".to_owned(), ..keys() };
    two.share_redbeat(other).await.unwrap();
    assert!(redis.cli(&["GET", "redbeat::lock"]).await.is_nil());
    two.lead("two", LEASE).await.unwrap();
    assert_eq!(text(&redis, &["GET", "redbeat::other"]).await, format!("celeriac:0::{after}"));
    assert!(two.leave_redbeat().await.unwrap());
    assert!(redis.cli(&["GET", "redbeat::other"]).await.is_nil());
    assert!(two.redbeat().await.unwrap().is_none() && !two.leave_redbeat().await.unwrap());
}

#[tokio::test]
async fn entries_are_changed_where_redbeat_keeps_them() {
    let redis = redis_or_skip!();
    save(&redis, "often", &every(10), 10).await;
    let (store, _) = shared(&redis).await;
    let now = at(1);
    assert!(operate::enable_entry(&*store, "often", false, now).await.unwrap());
    let definition = text(&redis, &["HGET", "redbeat:often", "definition"]).await;
    assert!(definition.contains(r#""enabled": false"#), "{definition}");
    assert!(definition.contains(r#""team": "billing""#), "{definition}");
    assert!(due(&*store, at(12)).await.is_empty(), "it is paused");

    let changed = operate::change_entry(&*store, "often", now, |kept| {
        kept.entry.enabled = true;
        kept.entry.description = "of ours".to_owned();
        Ok(())
    });
    changed.await.unwrap();
    let kept = operate::entry(&*store, "often").await.unwrap();
    assert_eq!((kept.entry.description.as_str(), kept.entry.enabled), ("of ours", true));
    assert_eq!(kept.state.due, Some(at(10)), "what was not changed goes on");
    let clock = FixedClock::at("2026-11-21T12:00:01Z");
    let given = operate::give_entry(&*store, &clock, "often", "apscheduler", None).await;
    assert!(given.unwrap_err().to_string().contains("belongs to RedBeat"));

    // Names are unique over both.
    let both = vec![own("a"), own("often"), own("z")];
    let saved = store.save_entries(both).await.unwrap();
    assert!(matches!(saved[..], [Saved::Done(_), Saved::Conflict, Saved::Done(_)]), "{saved:?}");
    let names = |all: Vec<EntryRecord>| all.into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names(store.entries("", 9).await.unwrap()), ["a", "often", "z"]);
    assert_eq!(names(store.entries("a", 1).await.unwrap()), ["often"]);
    assert_eq!(names(store.entries("often", 9).await.unwrap()), ["z"]);
    assert_eq!(store.entry_count().await.unwrap(), 3);
    redis.cli(&["ZADD", "redbeat::schedule", "-1", "redbeat:b", "-1", "redbeat:c"]).await;
    let fresh = self::store(&redis.url());
    assert_eq!(
        names(fresh.entries("a", 2).await.unwrap()),
        ["often", "z"],
        "nothing is behind b and c"
    );

    operate::remove_entry(&*store, "often").await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", "redbeat:often"]).await.int(), 0);
    assert!(redis.cli(&["ZSCORE", "redbeat::schedule", "redbeat:often"]).await.is_nil());
    assert!(store.entry("often").await.unwrap().is_none());
}

/// An entry of the store itself.
fn own(name: &str) -> EntryRecord {
    let schedule = Value::parse(br#"{"type": "interval", "every": 60}"#).unwrap();
    let schedule = celeriac_core::schedule::Schedule::from_value(&schedule).unwrap();
    let entry = Entry::new(name, "app.add", schedule, Zone::utc()).unwrap();
    operate::Kept::new(entry, None, start()).record()
}

#[tokio::test]
async fn keys_in_another_database_are_shared_too() {
    let redis = redis_or_skip!();
    let (store, epoch) = {
        let store = store(&redis.url());
        let keys = RedBeatKeys { url: Some(redis.url_of(1)), ..keys() };
        store.share_redbeat(keys).await.unwrap();
        let lead = store.lead("one", LEASE).await.unwrap();
        (store, lead.epoch)
    };
    let mut entry = read(&own("often")).0;
    entry.source.kind = SourceKind::RedBeat;
    let record = operate::Kept::new(entry, Some(at(10)), start()).record();
    let saved = store.save_entries(vec![record]).await.unwrap();
    assert!(matches!(saved[..], [Saved::Done(_)]), "{saved:?}");
    let record = due(&*store, at(12)).await.remove(0);
    let fired = store.fire(Some(epoch), fires(&record, at(12))).await.unwrap();
    assert!(matches!(fired[..], [Fired::Done(_)]), "{fired:?}");
    assert_eq!(sent(&*store).await, 1);
    assert_eq!(redis.cli(&["EXISTS", "redbeat:often", "redbeat::lock"]).await.int(), 0);
    let mut other = redis.connect().await;
    other.call(&["SELECT", "1"]).await.unwrap();
    let found = other.call(&["ZSCORE", "redbeat::schedule", "redbeat:often"]).await.unwrap();
    assert_eq!(found.text().parse::<f64>().unwrap() as i64, at(70).as_second());
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused_with_the_reason() {
    let redis = redis_or_skip!();
    save(&redis, "ruled", r#"{"__type__": "rrule", "freq": 3}"#, 10).await;
    let store = store(&redis.url());
    let text = store.share_redbeat(keys()).await.unwrap_err().to_string();
    assert!(text.contains("ruled: its schedule is an rrule"), "{text}");
    assert!(store.redbeat().await.unwrap().is_none(), "nothing changed");
    redis.cli(&["DEL", "redbeat:ruled"]).await;

    let other = redis_or_skip!();
    let elsewhere = RedBeatKeys { url: Some(other.url()), ..keys() };
    let text = store.share_redbeat(elsewhere).await.unwrap_err().to_string();
    assert!(text.contains("another server"), "{text}");
    let nameless = RedBeatKeys { lock: String::new(), ..keys() };
    assert!(store.share_redbeat(nameless).await.is_err());

    // Names are unique over both, from the beginning.
    save(&redis, "mine", &every(10), 10).await;
    store.save_entries(vec![own("mine")]).await.unwrap().iter().for_each(|saved| {
        assert!(matches!(saved, Saved::Done(_)));
    });
    let text = store.share_redbeat(keys()).await.unwrap_err().to_string();
    assert!(text.contains("mine: an entry of the store has its name"), "{text}");
    operate::remove_entry(&*store, "mine").await.unwrap();
    redis.cli(&["DEL", "redbeat:mine"]).await;
    // So is what has a name that no entry may have.
    let long = "n".repeat(201);
    save(&redis, &long, &every(10), 10).await;
    let text = store.share_redbeat(keys()).await.unwrap_err().to_string();
    assert!(text.contains("at most 200"), "{text}");
    redis.cli(&["DEL", &format!("redbeat:{long}")]).await;

    // One that comes later is shown with the reason, and holds up nobody.
    store.share_redbeat(keys()).await.unwrap();
    store.lead("one", LEASE).await.unwrap();
    save(&redis, "ruled", r#"{"__type__": "rrule", "freq": 3}"#, 10).await;
    save(&redis, "often", &every(10), 10).await;
    let found = due(&*store, at(12)).await;
    assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["often"]);
    let text = operate::entry(&*store, "ruled").await.unwrap_err().to_string();
    assert!(text.contains("its schedule is an rrule"), "{text}");
    // Not even a start.
    self::store(&redis.url()).share_redbeat(keys()).await.unwrap();
    operate::remove_entry(&*store, "ruled").await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_in_redbeats_keys_holds_up_nothing_else() {
    let redis = redis_or_skip!();
    let (store, _) = shared(&redis).await;
    save(&redis, "often", &every(10), 10).await;
    let saved = store.save_entries(vec![own("mine")]).await.unwrap();
    assert!(matches!(saved[..], [Saved::Done(_)]));
    // A key of another kind, and a field of ours that is none.
    redis.cli(&["SET", "redbeat:text", "x"]).await;
    redis.cli(&["ZADD", "redbeat::schedule", "1", "redbeat:text"]).await;
    redis.cli(&["HSET", "redbeat:often", "celeriac", "what"]).await;
    let names = |all: Vec<EntryRecord>| all.into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names(due(&*store, at(70)).await), ["mine", "often"]);
    assert_eq!(names(store.entries("", 9).await.unwrap()), ["mine", "often", "text"]);
    operate::remove_entry(&*store, "text").await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", "redbeat:text"]).await.int(), 1, "it is somebody's");
    // All of it cannot be read.
    redis.cli(&["SET", "redbeat::schedule", "x"]).await;
    assert_eq!(names(due(&*store, at(72)).await), ["mine"]);
}

#[tokio::test]
async fn a_waiting_occurrence_is_looked_at_each_second() {
    let redis = redis_or_skip!();
    save(&redis, "daily", &every(86_400), 10).await;
    let (store, epoch) = shared(&redis).await;
    let changed = operate::change_entry(&*store, "daily", at(1), |kept| {
        kept.entry.overlap = celeriac_core::beat::Overlap::QueueOne;
        kept.state.due = Some(at(10));
        kept.state.open = vec!["runs".to_owned()];
        Ok(())
    });
    changed.await.unwrap();
    let record = due(&*store, at(10)).await.remove(0);
    let (entry, state) = read(&record);
    let waits = look(&entry, &state, at(10), &|_| false);
    assert!(waits.steps.is_empty() && waits.state.queued == Some(at(10)));
    let idle = EntryRecord { wake: waits.wake, state: waits.state.to_value(), ..record };
    assert!(matches!(store.save_entries(vec![idle]).await.unwrap()[..], [Saved::Done(_)]));
    let record = due(&*store, at(12)).await.remove(0);
    let fired = store.fire(Some(epoch), fires(&record, at(12))).await.unwrap();
    assert!(matches!(fired[..], [Fired::Done(_)]), "{fired:?}");
    let lines = store.occurrences("daily", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.due).collect::<Vec<_>>(), [at(10)]);
    assert_eq!(score(&redis, "daily").await, at(86_400).as_second());
}

#[tokio::test]
async fn an_entry_that_is_moved_back_runs_once_more() {
    let redis = redis_or_skip!();
    let minutely = r#"{"__type__": "crontab", "minute": "*", "hour": "*"}"#;
    save(&redis, "minutely", minutely, 60).await;
    let (store, epoch) = shared(&redis).await;
    let record = due(&*store, at(61)).await.remove(0);
    assert!(matches!(
        store.fire(Some(epoch), fires(&record, at(61))).await.unwrap()[..],
        [Fired::Done(_)]
    ));
    // RedBeat's `reschedule`: an hour before.
    let meta = r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 21, "hour": 12, "minute": 0, "second": 0, "timezone": "Europe/Berlin"}}"#;
    redis.cli(&["HSET", "redbeat:minutely", "meta", meta]).await;
    redis
        .cli(&["ZADD", "redbeat::schedule", &at(65).as_second().to_string(), "redbeat:minutely"])
        .await;
    let record = due(&*store, at(66)).await.remove(0);
    assert!(matches!(
        store.fire(Some(epoch), fires(&record, at(66))).await.unwrap()[..],
        [Fired::Done(_)]
    ));
    let lines = store.occurrences("minutely", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.due).collect::<Vec<_>>(), [at(66), at(60)]);
    assert_eq!(score(&redis, "minutely").await, at(120).as_second());
}

#[tokio::test]
async fn paused_entries_are_passed_over_and_found_again() {
    let redis = redis_or_skip!();
    for number in 0..300 {
        let name = format!("paused{number}");
        save(&redis, &name, &every(10), 10).await;
        let off = text(&redis, &["HGET", &format!("redbeat:{name}"), "definition"]).await;
        let off = off.replace(r#""enabled": true"#, r#""enabled": false"#);
        redis.cli(&["HSET", &format!("redbeat:{name}"), "definition", &off]).await;
    }
    let (store, _) = shared(&redis).await;
    assert!(due(&*store, at(20)).await.is_empty());
    save(&redis, "new", &every(10), 21).await;
    assert_eq!(due(&*store, at(21)).await.len(), 1);
    // Enabled by somebody who leaves its time as it is: found with the next look at everything.
    let on = text(&redis, &["HGET", "redbeat:paused7", "definition"]).await;
    let on = on.replace(r#""enabled": false"#, r#""enabled": true"#);
    redis.cli(&["HSET", "redbeat:paused7", "definition", &on]).await;
    let names: Vec<String> = due(&*store, at(26)).await.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["paused7", "new"]);
}
