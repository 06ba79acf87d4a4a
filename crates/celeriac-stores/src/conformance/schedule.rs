//! Entries that run at their time, who fires them, and what was fired.

use super::fixture::{Fixture, Harness, outgoing, queue, results};
use celeriac_core::ErrorKind;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    ChordPart, ChordStart, EntryRecord, Fire, Fired, Lead, Occurrence, OccurrenceKind, Outgoing,
    Plan, Saved,
};
use celeriac_core::unique::{UNIQUE_HEADER, Unique};
use celeriac_wire::{Map, Signature, State, Value};
use jiff::Timestamp;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(10);

fn entry(name: &str, wake: Option<Timestamp>) -> EntryRecord {
    EntryRecord {
        name: name.to_owned(),
        version: 0,
        wake,
        entry: Value::from(Map::from([("task", "app.add"), ("text", "\u{6}é\n\"1.50")])),
        state: Value::from(Map::from([("number", Value::from(1.50)), ("none", Value::Null)])),
    }
}

fn occurrence(due: Timestamp, task_id: Option<&str>) -> Occurrence {
    Occurrence {
        due,
        fired: due,
        kind: if task_id.is_some() { OccurrenceKind::Sent } else { OccurrenceKind::Skipped },
        task_id: task_id.map(str::to_owned),
        count: 1,
        note: String::new(),
        outcome: None,
    }
}

/// The occurrence of an entry at a time, whose message has this id, and after it the entry sleeps.
fn fire(name: &str, version: Option<u64>, due: Timestamp, id: &str) -> Fire {
    Fire {
        name: name.to_owned(),
        version,
        wake: None,
        state: Value::from(id),
        occurrence: occurrence(due, Some(id)),
        plan: Plan { publish: vec![outgoing("celery", id)], ..Plan::default() },
    }
}

impl Fixture {
    async fn save(&self, record: EntryRecord) -> Saved {
        let saved = self.store.save_entries(vec![record]).await.unwrap();
        assert_eq!(saved.len(), 1);
        saved[0]
    }

    /// Saves a new entry and gives its version.
    async fn add(&self, name: &str, wake: Option<Timestamp>) -> u64 {
        match self.save(entry(name, wake)).await {
            Saved::Done(version) => version,
            Saved::Conflict => panic!("{name} is there already"),
        }
    }

    async fn fired(&self, epoch: Option<u64>, fires: Vec<Fire>) -> Vec<Fired> {
        self.store.fire(epoch, fires).await.unwrap()
    }

    /// The ids that wait in `celery`, in order.
    async fn sent(&self) -> Vec<String> {
        let stored = self.store.peek(&queue("celery"), super::fixture::ALL).await.unwrap();
        let id = |outgoing: &Outgoing| outgoing.message.headers.id().unwrap().to_owned();
        stored.iter().map(|one| id(&one.outgoing)).collect()
    }

    async fn dues(&self, name: &str) -> Vec<Timestamp> {
        let lines = self.store.occurrences(name, Timestamp::MAX, 10_000).await.unwrap();
        lines.into_iter().map(|line| line.due).collect()
    }

    async fn names(&self, after: &str, count_max: usize) -> Vec<String> {
        let page = self.store.entries(after, count_max).await.unwrap();
        page.into_iter().map(|entry| entry.name).collect()
    }
}

/// Documents come back as they went, and every write has a version of its own.
pub async fn an_entry_is_kept_as_it_was_saved(harness: &Harness) {
    let fixture = harness.store();
    let mut record = entry("a", Some(fixture.at(5)));
    record.version = fixture.add("a", Some(fixture.at(5))).await;
    assert!(record.version > 0);
    assert_eq!(fixture.store.entry("a").await.unwrap(), Some(record.clone()));
    assert_eq!(fixture.store.entry("b").await.unwrap(), None);
    let (was, changed) = (record.version, Value::from(vec![Value::from("changed")]));
    record.wake = None;
    record.entry = changed;
    let Saved::Done(now) = fixture.save(record.clone()).await else {
        panic!("it had this version")
    };
    assert!(now > was);
    record.version = now;
    assert_eq!(fixture.store.entry("a").await.unwrap(), Some(record));
    assert_eq!(fixture.store.entry_count().await.unwrap(), 1);
}

/// Who writes on an old version, on none or on what is gone, writes nothing.
pub async fn a_write_on_another_version_is_a_conflict(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", None).await;
    let stale = EntryRecord { version: version + 1, ..entry("a", Some(fixture.now())) };
    let again = entry("a", Some(fixture.now()));
    let gone = EntryRecord { version: 7, ..entry("b", Some(fixture.now())) };
    let new = entry("c", Some(fixture.now()));
    let saved = fixture.store.save_entries(vec![stale, again, gone, new]).await.unwrap();
    assert_eq!(saved[..3], [Saved::Conflict; 3]);
    assert!(matches!(saved[3], Saved::Done(_)));
    assert_eq!(fixture.store.entry("a").await.unwrap().unwrap().wake, None);
    assert_eq!(fixture.names("", 9).await, ["a", "c"]);
    assert!(!fixture.store.remove_entry("a", version + 1).await.unwrap());
    assert!(fixture.store.remove_entry("a", version).await.unwrap());
    assert!(!fixture.store.remove_entry("a", version).await.unwrap());
    assert_eq!(fixture.store.entry("a").await.unwrap(), None);
    assert_eq!(fixture.names("", 9).await, ["c"]);
    assert_eq!(fixture.store.entry_count().await.unwrap(), 1);
}

/// A version says of which entry of its name it is.
pub async fn a_version_is_never_used_again(harness: &Harness) {
    let fixture = harness.store();
    let mut seen = Vec::new();
    for round in 0..5u64 {
        let mut version = fixture.add("a", None).await;
        seen.push(version);
        for write in 0..round * 3 {
            let due = fixture.at(round * 100 + write);
            let id = format!("{round}-{write}");
            let fired = fixture.fired(None, vec![fire("a", Some(version), due, &id)]).await;
            assert_eq!(fired, [Fired::Done(version + 1)]);
            version += 1;
            seen.push(version);
        }
        fixture.add(&format!("other {round}"), None).await;
        assert!(fixture.store.remove_entry("a", version).await.unwrap());
    }
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
}

/// Any text that is not empty is a name; names are in the order of their bytes.
pub async fn entries_are_paged_by_name(harness: &Harness) {
    let fixture = harness.store();
    let long = "x".repeat(200);
    let mut names = vec![
        " ",
        "\n",
        "a",
        "a\n1",
        "a\nb",
        "A",
        "é",
        "日本",
        "z:*?[]",
        "\u{1F600}",
        "ab",
        "+",
        "(",
        "[a",
        "a\0b",
        &long,
    ];
    for name in &names {
        fixture.add(name, Some(fixture.now())).await;
    }
    names.sort_unstable();
    assert_eq!(fixture.names("", 100).await, names);
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = fixture.names(&after, 3).await;
        assert!(page.len() <= 3);
        let Some(last) = page.last().cloned() else { break };
        paged.extend(page);
        after = last;
    }
    assert_eq!(paged, names);
    assert_eq!(fixture.names("a0", 1).await, ["ab"], "from behind a name that is none");
    assert_eq!(fixture.store.entry_count().await.unwrap(), names.len() as u64);
    let due = fixture.store.due_entries(fixture.now(), 100).await.unwrap();
    assert_eq!(due.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), names);
    for name in names {
        let version = fixture.store.entry(name).await.unwrap().unwrap().version;
        let one = fire(name, Some(version), fixture.now(), &format!("of {}", name.len()));
        assert_eq!(fixture.fired(None, vec![one]).await, [Fired::Done(version + 1)]);
        assert_eq!(fixture.dues(name).await, [fixture.now()], "{name:?}");
    }
}

/// A refused entry takes its whole call with it.
pub async fn entries_without_a_name_or_too_large_are_refused(harness: &Harness) {
    let limits = StoreLimits { message_bytes_max: 4096, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let mut large = entry("large", None);
    large.state = Value::from("x".repeat(5000));
    let long = "x".repeat(201);
    for (bad, kind) in [
        (entry("", None), ErrorKind::Invalid),
        (entry(&long, None), ErrorKind::Invalid),
        (large.clone(), ErrorKind::TooLarge),
    ] {
        let refused = fixture.store.save_entries(vec![entry("good", None), bad]).await;
        assert_eq!(refused.unwrap_err().kind(), kind);
    }
    assert_eq!(fixture.store.entry_count().await.unwrap(), 0);
    let version = fixture.add("a", None).await;
    let good = fire("a", Some(version), fixture.now(), "1");
    let mut bad = fire("a", Some(version + 1), fixture.at(1), "2");
    bad.state = large.state;
    let refused = fixture.store.fire(None, vec![good.clone(), bad]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    let mut bad = fire("a", Some(version + 1), fixture.at(1), "2");
    bad.plan.publish[0].message.body = vec![b'x'; 8000].into();
    let refused = fixture.store.fire(None, vec![good.clone(), bad]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // However many come before it.
    let mut fires: Vec<Fire> =
        (0..500).map(|n| fire("many", None, fixture.at(n), &format!("m{n}"))).collect();
    fires.push(fire("", None, fixture.now(), "nameless"));
    let refused = fixture.store.fire(None, fires.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    "named".clone_into(&mut fires[500].name);
    fires[500].plan.publish[0].message.body = vec![b'x'; 8000].into();
    let refused = fixture.store.fire(None, fires).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(fixture.sent().await.is_empty());
    assert!(fixture.dues("a").await.is_empty() && fixture.dues("many").await.is_empty());
    assert_eq!(fixture.fired(None, vec![good]).await, [Fired::Done(version + 1)]);
}

/// What is due comes earliest first, and what never wakes not at all.
pub async fn due_entries_come_in_the_order_of_their_times(harness: &Harness) {
    let fixture = harness.store();
    assert_eq!(fixture.store.next_wake().await.unwrap(), None);
    let times = [("b", 3), ("a", 5), ("e", 1), ("d", 3), ("later", 9)];
    let records = times.map(|(name, at)| entry(name, Some(fixture.at(at))));
    let saved = fixture.store.save_entries(records.to_vec()).await.unwrap();
    assert!(saved.iter().all(|saved| matches!(saved, Saved::Done(_))));
    fixture.add("never", None).await;
    let due = async |at, count_max| {
        let due = fixture.store.due_entries(fixture.at(at), count_max).await.unwrap();
        due.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert!(due(0, 9).await.is_empty());
    assert_eq!(due(5, 9).await, ["e", "b", "d", "a"]);
    assert_eq!(due(5, 2).await, ["e", "b"]);
    assert_eq!(fixture.store.next_wake().await.unwrap(), Some(fixture.at(1)));
    let first = fixture.store.entry("e").await.unwrap().unwrap();
    let one =
        Fire { wake: Some(fixture.at(7)), ..fire("e", Some(first.version), fixture.at(1), "1") };
    assert_eq!(fixture.fired(None, vec![one]).await, [Fired::Done(first.version + 1)]);
    assert_eq!(fixture.store.next_wake().await.unwrap(), Some(fixture.at(3)));
    assert_eq!(due(8, 9).await, ["b", "d", "a", "e"]);
    let paused = fixture.store.entry("b").await.unwrap().unwrap();
    assert!(matches!(fixture.save(EntryRecord { wake: None, ..paused }).await, Saved::Done(_)));
    let removed = fixture.store.entry("d").await.unwrap().unwrap();
    assert!(fixture.store.remove_entry("d", removed.version).await.unwrap());
    assert_eq!(due(8, 9).await, ["a", "e"]);
    assert_eq!(fixture.store.next_wake().await.unwrap(), Some(fixture.at(5)));
}

/// Message, line, and the entry's next time are one step.
pub async fn a_fire_sends_notes_and_advances(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let next = fixture.at(60);
    let mut one = fire("a", Some(version), fixture.now(), "1");
    one.wake = Some(next);
    "as told é\n".clone_into(&mut one.occurrence.note);
    one.occurrence.count = 3;
    one.plan.extend(results(vec![super::fixture::record("r", &State::Started, fixture.now())]));
    assert_eq!(fixture.fired(None, vec![one.clone()]).await, [Fired::Done(version + 1)]);
    assert_eq!(fixture.sent().await, ["1"]);
    assert_eq!(fixture.state_of("r").await, Some(State::Started));
    let now = fixture.store.entry("a").await.unwrap().unwrap();
    let expected = EntryRecord {
        version: version + 1,
        wake: Some(next),
        state: Value::from("1"),
        ..entry("a", None)
    };
    assert_eq!(now, expected);
    let lines = fixture.store.occurrences("a", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines, [one.occurrence]);
}

/// One time of an entry is one line and one message, whoever comes second.
pub async fn a_time_is_fired_once(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let by_hand = fire("a", None, fixture.now(), "1");
    assert_eq!(fixture.fired(None, vec![by_hand.clone()]).await, [Fired::Done(0)]);
    let second =
        Fire { wake: Some(fixture.at(60)), ..fire("a", Some(version), fixture.now(), "2") };
    assert_eq!(fixture.fired(None, vec![second]).await, [Fired::Taken(version + 1)]);
    assert_eq!(fixture.fired(None, vec![by_hand]).await, [Fired::Taken(0)]);
    assert_eq!(fixture.sent().await, ["1"]);
    let now = fixture.store.entry("a").await.unwrap().unwrap();
    let advanced = (now.version, now.wake, now.state);
    assert_eq!(advanced, (version + 1, Some(fixture.at(60)), Value::from("2")));
    let lines = fixture.store.occurrences("a", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.task_id.as_deref()).collect::<Vec<_>>(), [Some("1")]);
}

/// What was decided by an entry that has changed since is not done.
pub async fn a_fire_of_a_changed_entry_writes_nothing(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let fires = vec![
        fire("a", Some(version + 1), fixture.now(), "1"),
        fire("gone", Some(version), fixture.now(), "2"),
        fire("a", Some(version), fixture.now(), "3"),
        fire("a", Some(version), fixture.at(1), "4"),
    ];
    let answers = fixture.fired(None, fires).await;
    let expected = [Fired::Changed, Fired::Changed, Fired::Done(version + 1), Fired::Changed];
    assert_eq!(answers, expected);
    assert_eq!(fixture.sent().await, ["3"]);
    assert_eq!(fixture.dues("a").await, [fixture.now()]);
    assert!(fixture.dues("gone").await.is_empty());
    assert_eq!(fixture.store.entry("gone").await.unwrap(), None);
}

/// Several times of one entry go in one call.
pub async fn fires_of_one_entry_follow_each_other(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let one = |n: u64| fire("a", Some(version + n), fixture.at(n), &n.to_string());
    let fired = fixture.fired(None, (0..500).map(one).collect()).await;
    let expected: Vec<Fired> = (1..=500).map(|n| Fired::Done(version + n)).collect();
    assert_eq!(fired, expected);
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(fixture.sent().await, sent);
    assert_eq!(fixture.store.entry("a").await.unwrap().unwrap().version, version + 500);
}

/// What somebody runs by hand, or has no entry, changes no entry.
pub async fn a_fire_without_a_version_leaves_the_entry(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let before = fixture.store.entry("a").await.unwrap();
    let skipped = Fire {
        occurrence: occurrence(fixture.at(3), None),
        plan: Plan::default(),
        ..fire("a", None, fixture.at(3), "")
    };
    let fires = vec![
        fire("a", None, fixture.at(1), "1"),
        fire("nobody", None, fixture.at(2), "2"),
        skipped,
    ];
    assert_eq!(fixture.fired(None, fires).await, [Fired::Done(0), Fired::Done(0), Fired::Done(0)]);
    assert_eq!(fixture.sent().await, ["1", "2"]);
    assert_eq!(fixture.store.entry("a").await.unwrap(), before);
    assert_eq!(fixture.store.entry("nobody").await.unwrap(), None);
    assert_eq!(fixture.dues("nobody").await, [fixture.at(2)]);
    assert_eq!(fixture.dues("a").await, [fixture.at(3), fixture.at(1)]);
    assert!(version > 0);
}

/// A chord that a plan completes holds up nothing that comes behind it.
pub async fn a_fire_may_complete_a_chord(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let chord = |group: &str| {
        let chords = vec![ChordStart { group: group.to_owned(), size: 1 }];
        let part = ChordPart {
            group: group.to_owned(),
            index: 0,
            task_id: format!("member of {group}"),
            state: State::Success,
            result: Value::from(1),
            body: Signature::new("app.sum"),
        };
        Plan { chords, parts: vec![part], ..Plan::default() }
    };
    let mut fires: Vec<Fire> =
        (0..4).map(|n| fire("a", Some(version + n), fixture.at(n), &n.to_string())).collect();
    fires[1].plan.extend(chord("g"));
    fires[2].plan.extend(chord("h"));
    let expected: Vec<Fired> = (1..5).map(|n| Fired::Done(version + n)).collect();
    assert_eq!(fixture.fired(None, fires).await, expected);
    assert_eq!(fixture.sent().await, ["0", "1", "2", "3"]);
    assert_eq!(fixture.dues("a").await.len(), 4);
}

/// A full queue does not hold up what is due.
pub async fn fires_are_not_refused_for_depth(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 1, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    fixture.send(&["first"]).await;
    let fires = vec![fire("a", None, fixture.now(), "1"), fire("b", None, fixture.now(), "2")];
    assert_eq!(fixture.fired(None, fires).await, [Fired::Done(0), Fired::Done(0)]);
    assert_eq!(fixture.sent().await, ["first", "1", "2"]);
}

/// A unique message is left out while another holds its key; the occurrence is noted all the same.
pub async fn fires_keep_to_unique_keys(harness: &Harness) {
    let fixture = harness.store();
    let unique = |name: &str, id: &str| {
        let mut fire = fire(name, None, fixture.now(), id);
        let wish = Unique::new("report").to_value();
        fire.plan.publish[0].message.headers.insert(UNIQUE_HEADER, wish);
        fire
    };
    let answers = fixture.fired(None, vec![unique("a", "1"), unique("b", "2")]).await;
    assert_eq!(answers, [Fired::Done(0), Fired::Held { version: 0, holder: "1".to_owned() }]);
    assert_eq!(fixture.sent().await, ["1"]);
    let lines = fixture.store.occurrences("b", Timestamp::MAX, 9).await.unwrap();
    assert_eq!(lines.len(), 1);
}

/// One beat leads until its lease ends or it gives the lead back.
pub async fn one_beat_leads(harness: &Harness) {
    let fixture = harness.store();
    let store = &fixture.store;
    assert_eq!(store.leader().await.unwrap(), None);
    let first = store.lead("a", LEASE).await.unwrap();
    assert_eq!((first.holder.as_str(), first.until), ("a", fixture.at(10)));
    assert_eq!(store.lead("b", LEASE).await.unwrap(), first);
    fixture.clock.advance(Duration::from_secs(6));
    let renewed = store.lead("a", LEASE).await.unwrap();
    assert_eq!(renewed, Lead { until: fixture.at(10), ..first.clone() });
    assert_eq!(store.leader().await.unwrap(), Some(renewed.clone()));
    fixture.clock.advance(Duration::from_secs(9));
    assert_eq!(store.lead("b", LEASE).await.unwrap(), renewed);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(store.leader().await.unwrap(), None);
    let second = store.lead("b", LEASE).await.unwrap();
    assert_eq!(second.holder, "b");
    assert!(second.epoch > first.epoch);
    fixture.clock.advance(LEASE);
    let again = store.lead("b", LEASE).await.unwrap();
    assert!(again.epoch > second.epoch, "what has ended is taken anew");
    store.resign("b", second.epoch).await.unwrap();
    store.resign("a", again.epoch).await.unwrap();
    assert_eq!(store.leader().await.unwrap(), Some(again.clone()));
    store.resign("b", again.epoch).await.unwrap();
    assert_eq!(store.leader().await.unwrap(), None);
    let last = store.lead("a", LEASE).await.unwrap();
    assert!(last.holder == "a" && last.epoch > again.epoch);
}

/// Whoever thinks that it still leads writes nothing.
pub async fn a_former_leader_is_fenced(harness: &Harness) {
    let fixture = harness.store();
    let version = fixture.add("a", Some(fixture.now())).await;
    let one = |id: &str| vec![fire("a", Some(version), fixture.now(), id)];
    assert_eq!(fixture.fired(Some(1), one("nobody")).await, [Fired::Fenced], "nobody leads");
    let former = fixture.store.lead("a", LEASE).await.unwrap().epoch;
    fixture.clock.advance(LEASE);
    let leader = fixture.store.lead("b", LEASE).await.unwrap().epoch;
    let mut fires = one("former");
    fires.push(fire("other", None, fixture.now(), "by hand"));
    assert_eq!(fixture.fired(Some(former), fires).await, [Fired::Fenced, Fired::Fenced]);
    assert!(fixture.sent().await.is_empty());
    assert!(fixture.dues("a").await.is_empty() && fixture.dues("other").await.is_empty());
    assert_eq!(fixture.store.entry("a").await.unwrap().unwrap().version, version);
    assert_eq!(fixture.fired(Some(leader), one("leader")).await, [Fired::Done(version + 1)]);
    fixture.store.resign("b", leader).await.unwrap();
    let more = vec![fire("a", Some(version + 1), fixture.at(1), "resigned")];
    assert_eq!(fixture.fired(Some(leader), more).await, [Fired::Fenced]);
    assert_eq!(fixture.sent().await, ["leader"]);
}

/// The latest lines stay, in order, and can be paged.
pub async fn an_entrys_history_is_bounded_and_latest_first(harness: &Harness) {
    let limits = StoreLimits { occurrences_max: 5, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    for n in 0..9 {
        let fires = vec![
            fire("a", None, fixture.at(n), &format!("a{n}")),
            fire("b\nb", None, fixture.at(n), &format!("b{n}")),
        ];
        assert_eq!(fixture.fired(None, fires).await, [Fired::Done(0), Fired::Done(0)]);
    }
    let expected: Vec<Timestamp> = (4..9).rev().map(|n| fixture.at(n)).collect();
    assert_eq!(fixture.dues("a").await, expected);
    assert_eq!(fixture.dues("b\nb").await, expected);
    let page = fixture.store.occurrences("a", fixture.at(7), 2).await.unwrap();
    let page: Vec<_> = page.iter().map(|line| line.due).collect();
    assert_eq!(page, [fixture.at(6), fixture.at(5)]);
    let open = fixture.store.open_occurrences(Timestamp::MIN, 100).await.unwrap();
    assert_eq!(open.len(), 10, "what is trimmed is not open");
}

/// Nothing is kept for ever.
pub async fn occurrences_go_with_age(harness: &Harness) {
    let limits =
        StoreLimits { occurrence_expires: Duration::from_hours(1), ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let version = fixture.add("a", None).await;
    let old = fire("a", Some(version), fixture.now(), "1");
    assert_eq!(fixture.fired(None, vec![old]).await, [Fired::Done(version + 1)]);
    fixture.clock.advance(Duration::from_mins(59));
    assert_eq!(fixture.dues("a").await.len(), 1);
    let young = fixture.now();
    let second = fire("a", Some(version + 1), young, "2");
    assert_eq!(fixture.fired(None, vec![second]).await, [Fired::Done(version + 2)]);
    fixture.clock.advance(Duration::from_mins(1));
    let open = |open: Vec<(String, Occurrence)>| {
        open.into_iter().map(|(_, line)| line.due).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(fixture.dues("a").await, [young]);
        let lines = fixture.store.open_occurrences(Timestamp::MIN, 9).await.unwrap();
        assert_eq!(open(lines), [young]);
        fixture.store.expire_results(100).await.unwrap();
    }
    fixture.clock.advance(Duration::from_mins(59));
    fixture.store.expire_results(100).await.unwrap();
    assert!(fixture.dues("a").await.is_empty());
    assert!(fixture.store.open_occurrences(Timestamp::MIN, 9).await.unwrap().is_empty());
}

/// What has a task and no end is found in the order in which it was fired.
pub async fn open_occurrences_are_found_until_they_end(harness: &Harness) {
    let fixture = harness.store();
    let late = |name: &str, due: u64, fired: u64, id: &str| {
        let mut one = fire(name, None, fixture.at(due), id);
        one.occurrence.fired = fixture.at(fired);
        one
    };
    let mut skipped = late("c", 4, 4, "");
    (skipped.occurrence.task_id, skipped.plan) = (None, Plan::default());
    let fires =
        vec![late("a", 1, 20, "3"), late("b\n1", 2, 10, "1"), late("c", 3, 15, "2"), skipped];
    assert_eq!(fixture.fired(None, fires).await.len(), 4);
    let open = async |after, count_max| {
        let open = fixture.store.open_occurrences(after, count_max).await.unwrap();
        open.into_iter().map(|(name, line)| (name, line.task_id.unwrap())).collect::<Vec<_>>()
    };
    let one = |name: &str, id: &str| (name.to_owned(), id.to_owned());
    let all = [one("b\n1", "1"), one("c", "2"), one("a", "3")];
    assert_eq!(open(Timestamp::MIN, 9).await, all);
    assert_eq!(open(Timestamp::MIN, 2).await, all[..2]);
    assert_eq!(open(fixture.at(15), 9).await, all[2..]);
    let ended = vec![
        ("c".to_owned(), fixture.at(3), State::Success),
        ("b\n1".to_owned(), fixture.at(2), State::parse("MY\nOWN")),
        ("gone".to_owned(), fixture.at(3), State::Failure),
    ];
    fixture.store.end_occurrences(ended).await.unwrap();
    assert_eq!(open(Timestamp::MIN, 9).await, all[2..]);
    let outcomes = async |name: &str| {
        let lines = fixture.store.occurrences(name, Timestamp::MAX, 9).await.unwrap();
        lines.into_iter().map(|line| line.outcome).collect::<Vec<_>>()
    };
    assert_eq!(outcomes("c").await, [None, Some(State::Success)]);
    assert_eq!(outcomes("b\n1").await, [Some(State::parse("MY\nOWN"))]);
    assert_eq!(outcomes("a").await, [None]);
    assert!(outcomes("gone").await.is_empty());
}

/// Occurrences that were fired at one time are not torn apart: paging by time would lose some.
pub async fn a_page_of_open_occurrences_ends_between_times(harness: &Harness) {
    let fixture = harness.store();
    let due = fixture.now();
    let fires = (0..50).map(|n| fire(&format!("e{n:02}"), None, due, &n.to_string()));
    fixture.fired(None, fires.collect()).await;
    fixture.fired(None, vec![fire("later", None, fixture.at(1), "later")]).await;
    let page = fixture.store.open_occurrences(Timestamp::MIN, 7).await.unwrap();
    assert_eq!(page.len(), 50);
    let names: std::collections::BTreeSet<_> = page.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 50);
    let rest = fixture.store.open_occurrences(due, 7).await.unwrap();
    assert_eq!(rest.len(), 1);
}

/// What others wait for is heard.
pub async fn changes_of_entries_wake_a_waiter(harness: &Harness) {
    let fixture = harness.store();
    let store = &fixture.store;
    let woken = async |what: &str, seen: u64| {
        let now = store.wait_change(seen, super::fixture::PATIENCE).await;
        assert_ne!(now, seen, "{what}");
    };
    let seen = store.changes();
    let version = fixture.add("a", Some(fixture.now())).await;
    woken("a new entry", seen).await;
    let seen = store.changes();
    fixture.fired(None, vec![fire("a", Some(version), fixture.now(), "1")]).await;
    woken("an occurrence", seen).await;
    let seen = store.changes();
    assert!(store.remove_entry("a", version + 1).await.unwrap());
    woken("a removal", seen).await;
    let epoch = store.lead("a", LEASE).await.unwrap().epoch;
    let seen = store.changes();
    store.resign("a", epoch).await.unwrap();
    woken("a leader that has gone", seen).await;
}
