//! Schedules between processes: who fires at the same time, who is killed while it fires, and a great
//! number of entries.
//!
//! `CELERIAC_ENTRIES=1000000` is the run of the promise; the default is made for CI.

#![expect(clippy::print_stdout, reason = "the figures of a run by hand")]

use super::{celery, open};
use celeriac_core::ErrorKind;
use celeriac_core::exchange::ExchangeKind;
use celeriac_core::limits::StoreLimits;
use celeriac_core::route::Exchange;
use celeriac_core::store::{
    EntryRecord, Fire, Fired, Occurrence, OccurrenceKind, Outgoing, Page, Plan, Routed, Saved,
    Store,
};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_stores::{Resources, connect};
use celeriac_testkit::process::{Process, bind_to_us};
use celeriac_testkit::redis_or_skip;
use celeriac_wire::{Message, Value};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_mins(1);
/// Names of the entries that several processes fire.
const ENTRIES: u64 = 20;
/// Where the process of the test that is killed finds its store.
const PLACE: &str = "CELERIAC_FIRES";

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// The time of an occurrence.
fn due(number: u64) -> Timestamp {
    start() + SignedDuration::from_secs(number.cast_signed())
}

fn entry(name: &str, wake: Timestamp) -> EntryRecord {
    EntryRecord {
        name: name.to_owned(),
        version: 0,
        wake: Some(wake),
        entry: Value::from("{\"task\": \"app.add\", \"args\": [1, 2], \"every\": \"1s\"}"),
        state: Value::from(0),
    }
}

/// The occurrence with this number, after which the entry waits for the next one.
fn fire(name: &str, version: Option<u64>, number: u64, id: &str) -> Fire {
    let message = Message::new("app.add", id, "[[], {}, {}]");
    Fire {
        name: name.to_owned(),
        version,
        wake: Some(due(number + 1)),
        state: Value::from(number + 1),
        occurrence: Occurrence {
            due: due(number),
            fired: due(number),
            kind: OccurrenceKind::Sent,
            task_id: Some(id.to_owned()),
            count: 1,
            note: String::new(),
            outcome: None,
        },
        plan: Plan { publish: vec![Outgoing::new(celery(), message)], ..Plan::default() },
    }
}

/// The store at a URL, with a history that loses nothing in these tests.
fn store_at(url: &str, seed: u64) -> Arc<dyn Store> {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let limits = StoreLimits {
        occurrences_max: 1_000_000,
        occurrence_expires: Duration::from_hours(24 * 3650),
        ..StoreLimits::default()
    };
    let resources =
        Resources { clock, entropy: Arc::new(Seeded::new(seed)), limits, results: None };
    connect(url, resources).unwrap()
}

/// The ids of everything that waits.
async fn sent(store: &dyn Store) -> Vec<String> {
    let stored = store.peek(&celery(), Page { after: 0, count_max: 1_000_000 }).await.unwrap();
    let id = |one: &Outgoing| one.message.headers.id().unwrap().to_owned();
    stored.iter().map(|one| id(&one.outgoing)).collect()
}

async fn lines(store: &dyn Store, name: &str) -> Vec<Occurrence> {
    store.occurrences(name, Timestamp::MAX, 1_000_000).await.unwrap()
}

/// Two stores fire a hundred occurrences at the same moment, with and without a version.
async fn race(stores: [Arc<dyn Store>; 2]) {
    let saved = stores[0].save_entries(vec![entry("a", due(0))]).await.unwrap();
    let [Saved::Done(first)] = saved[..] else { panic!("{saved:?}") };
    for number in 0..100 {
        let mut racers = JoinSet::new();
        for (who, store) in stores.iter().enumerate() {
            for (name, version) in [("a", Some(first + number)), ("by hand", None)] {
                let id = format!("{name} {number} by {who}");
                let (store, one) = (Arc::clone(store), fire(name, version, number, &id));
                racers.spawn(async move { (name, store.fire(None, vec![one]).await.unwrap()) });
            }
        }
        let mut done = Vec::new();
        for (name, fired) in racers.join_all().await {
            match fired[..] {
                [Fired::Done(_)] => done.push(name),
                [Fired::Changed] => assert_eq!(name, "a"),
                [Fired::Taken(0)] => assert_eq!(name, "by hand"),
                _ => panic!("{name}: {fired:?}"),
            }
        }
        done.sort_unstable();
        assert_eq!(done, ["a", "by hand"], "{number}");
    }
    assert_eq!(sent(&*stores[0]).await.len(), 200);
    for name in ["a", "by hand"] {
        assert_eq!(lines(&*stores[1], name).await.len(), 100);
    }
    assert_eq!(stores[1].entry("a").await.unwrap().unwrap().version, first + 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_fire_each_occurrence_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("queue.db").display());
    race([store_at(&url, 1), store_at(&url, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_redis_fire_each_occurrence_once() {
    let redis = redis_or_skip!();
    race([store_at(&redis.url(), 1), store_at(&redis.url(), 2)]).await;
}

/// Fires what is due of all entries for ever, in batches of several occurrences of each.
async fn fire_for_ever(store: &dyn Store) {
    let who = std::process::id();
    loop {
        let mut fires = Vec::new();
        for record in store.due_entries(Timestamp::MAX, ENTRIES as usize).await.unwrap() {
            let next = record.state.as_u64().unwrap();
            for ahead in 0..3 {
                let (number, version) = (next + ahead, Some(record.version + ahead));
                let id = format!("{}:{number}:{who}", record.name);
                fires.push(fire(&record.name, version, number, &id));
            }
        }
        let answers = store.fire(None, fires).await.unwrap();
        let known = |one: &Fired| matches!(one, Fired::Done(_) | Fired::Changed);
        assert!(answers.iter().all(known), "{answers:?}");
    }
}

/// The process of the tests below: it fires until it is killed. Run as a test it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_fires_until_it_is_killed() {
    let Some(url) = std::env::var_os(PLACE) else { return };
    let store = store_at(url.to_str().unwrap(), std::process::id().into());
    fire_for_ever(&*store).await;
}

fn firing_process(url: &str, folder: &Path, number: u64) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "schedules::a_process_fires_until_it_is_killed", "--nocapture"]);
    command.env(PLACE, url);
    bind_to_us(&mut command);
    Process::spawn(&mut command, folder.join(format!("beat-{number}.log")))
}

/// How many occurrences the entries have seen together.
async fn progress(store: &dyn Store) -> u64 {
    let entries = store.entries("", 1000).await.unwrap();
    entries.iter().map(|entry| entry.state.as_u64().unwrap()).sum()
}

/// Three processes fire the same entries; again and again one of them is killed at a random point.
async fn kill_while_they_fire(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (store, dice) = (store_at(url, 1), celeriac_testkit::dice::Dice::new(4711, 0));
    let names: Vec<String> = (0..ENTRIES).map(|number| format!("entry {number}")).collect();
    let entries = names.iter().map(|name| entry(name, due(0))).collect();
    let saved = store.save_entries(entries).await.unwrap();
    let mut beats: Vec<Process> = (0..3).map(|n| firing_process(url, folder.path(), n)).collect();
    let mut seen = 0;
    for kills in 0..12 {
        let enough = seen + dice.between(1, 400);
        let deadline = Instant::now() + PATIENCE;
        while seen < enough {
            let changes = store.changes();
            seen = progress(&*store).await;
            let logs: Vec<String> = beats.iter().map(Process::log).collect();
            assert!(Instant::now() < deadline, "nobody fires: {logs:#?}");
            store.wait_change(changes, Duration::from_millis(100)).await;
        }
        let victim = dice.roll(3) as usize;
        assert!(!beats[victim].is_over(), "{}", beats[victim].log());
        beats[victim].kill().await;
        beats[victim] = firing_process(url, folder.path(), 3 + kills);
    }
    for beat in &mut beats {
        assert!(!beat.is_over(), "{}", beat.log());
        beat.kill().await;
    }
    let messages = sent(&*store).await;
    let once: BTreeSet<&str> = messages.iter().map(String::as_str).collect();
    assert_eq!(once.len(), messages.len(), "a message was sent twice");
    let mut noted = BTreeSet::new();
    for (name, saved) in names.iter().zip(saved) {
        let lines = lines(&*store, name).await;
        let record = store.entry(name).await.unwrap().unwrap();
        let fired = record.state.as_u64().unwrap();
        assert_eq!(lines.len() as u64, fired, "{name}");
        assert_eq!(saved, Saved::Done(record.version - fired), "{name}");
        for (line, number) in lines.iter().zip((0..fired).rev()) {
            assert_eq!((line.due, line.kind), (due(number), OccurrenceKind::Sent));
        }
        noted.extend(lines.into_iter().filter_map(|line| line.task_id));
    }
    let noted: BTreeSet<&str> = noted.iter().map(String::as_str).collect();
    assert_eq!(noted, once, "a line without its message, or a message without its line");
    println!("{} occurrences, 15 processes killed", once.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_while_they_fire_on_a_file_send_each_message_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let _made = open(&path, 1);
    kill_while_they_fire(&format!("sqlite://{}", path.display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_while_they_fire_on_redis_send_each_message_once() {
    let redis = redis_or_skip!();
    kill_while_they_fire(&redis.url()).await;
}

/// Redis keeps nothing of a fanout, so nobody is told that nobody heard it: the time has come all the same.
#[tokio::test]
async fn a_fanout_without_listeners_is_fired_on_redis() {
    let redis = redis_or_skip!();
    let store = store_at(&redis.url(), 1);
    let exchange = Exchange {
        name: "news".to_owned(),
        kind: ExchangeKind::Fanout,
        routing_key: String::new(),
    };
    let message = Message::new("app.add", "told", "[[], {}, {}]");
    let mut one = fire("a", None, 0, "told");
    one.plan = Plan { routed: vec![Routed { exchange, message }], ..Plan::default() };
    assert_eq!(store.fire(None, vec![one.clone()]).await.unwrap(), [Fired::Done(0)]);
    assert_eq!(store.fire(None, vec![one.clone()]).await.unwrap(), [Fired::Taken(0)]);
    one.occurrence.due = due(1);
    one.plan.routed[0].exchange.kind = ExchangeKind::Direct;
    let refused = store.fire(None, vec![fire("b", None, 0, "b"), one]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "no queue takes it");
    assert!(sent(&*store).await.is_empty() && lines(&*store, "b").await.is_empty());
}

/// Keys of lines go with time, though nobody fires any more.
#[tokio::test]
async fn lines_on_redis_have_a_time_to_live() {
    let redis = redis_or_skip!();
    let store = store_at(&redis.url(), 1);
    assert_eq!(store.fire(None, vec![fire("a\n*", None, 0, "1")]).await.unwrap(), [Fired::Done(0)]);
    for key in ["celeriac:schedule:past:a\n*", "celeriac:schedule:open"] {
        let left = redis.cli(&["TTL", key]).await.int();
        assert!((1..=3650 * 86_400).contains(&left), "{key}: {left}");
    }
}

fn count() -> u64 {
    let given = std::env::var_os("CELERIAC_ENTRIES");
    given.map_or(5_000, |count| count.to_str().unwrap().parse().unwrap())
}

/// Inserts entries by the thousand, looks for those that are due, and fires a few thousand.
async fn a_great_number(store: &dyn Store, what: &str) {
    let begun = Instant::now();
    for batch in 0..count() / 1000 {
        let entries = batch * 1000..(batch + 1) * 1000;
        let entries = entries.map(|number| entry(&format!("entry {number:07}"), due(number)));
        let saved = store.save_entries(entries.collect()).await.unwrap();
        assert!(saved.iter().all(|saved| matches!(saved, Saved::Done(_))));
    }
    println!("{what}: {} entries inserted in {:?}", count(), begun.elapsed());
    assert_eq!(store.entry_count().await.unwrap(), count());
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.next_wake().await.unwrap(), Some(due(0)));
    }
    println!("{what}: next_wake {:?}", begun.elapsed() / 100);
    let begun = Instant::now();
    for _ in 0..100 {
        let found = store.due_entries(due(count()), 200).await.unwrap();
        assert_eq!((found.len(), found[199].wake), (200, Some(due(199))));
    }
    println!("{what}: due_entries, 200 of all {:?}", begun.elapsed() / 100);
    let begun = Instant::now();
    let all = count().min(20_000);
    for batch in 0..all / 200 {
        let found = store.due_entries(due(count()), 200).await.unwrap();
        let fires = found.iter().zip(batch * 200..).map(|(record, number)| {
            let mut one = fire(&record.name, Some(record.version), number, &format!("id{number}"));
            one.wake = Some(due(count() + number));
            one
        });
        let answers = store.fire(None, fires.collect()).await.unwrap();
        assert!(answers.iter().all(|one| matches!(one, Fired::Done(_))), "{answers:?}");
    }
    let rate = all as f64 / begun.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} fires a second in batches of 200, the look for them included");
    let begun = Instant::now();
    let open = store.open_occurrences(Timestamp::MIN, 500).await.unwrap();
    println!("{what}: open_occurrences, 500 of {all} {:?}", begun.elapsed());
    assert_eq!(open.len(), 500);
    assert_eq!(open[499].1.task_id.as_deref(), Some("id499"));
}

#[tokio::test]
async fn a_great_number_of_entries_on_a_file_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (store, _) = open(&path, 1);
    a_great_number(&*store, "SQLite").await;
    println!("SQLite: {} MiB", std::fs::metadata(&path).unwrap().len() >> 20);
}

#[tokio::test]
async fn a_great_number_of_entries_on_redis_is_served() {
    let redis = redis_or_skip!();
    a_great_number(&*store_at(&redis.url(), 1), "Redis").await;
    let info = redis.cli(&["INFO", "memory"]).await.text();
    println!("Redis: {}", info.lines().find(|line| line.starts_with("used_memory_human")).unwrap());
}
