//! The event stream: in order, by task, and bounded.

use super::fixture::{Harness, PATIENCE, START};
use celeriac_core::limits::StoreLimits;
use celeriac_wire::{Event, EventBase, Map, Value};

fn event(kind: &str, uuid: &str, clock: u64) -> Event {
    let base = EventBase {
        hostname: "celery@a".to_owned(),
        pid: 4711,
        utcoffset: 0.0,
        clock,
        timestamp: START.parse().unwrap(),
    };
    Event::new(kind, &base, Map::from([("uuid", Value::from(uuid)), ("x-odd", Value::from(1.0))]))
}

/// Numbers grow, pages follow them, and an event comes back whole.
pub async fn events_come_back_in_order_by_number(harness: &Harness) {
    let fixture = harness.store();
    let sent: Vec<Event> = (0..5).map(|n| event("task-started", &format!("t{n}"), n)).collect();
    fixture.store.emit(sent[..2].to_vec()).await.unwrap();
    fixture.store.emit(Vec::new()).await.unwrap();
    fixture.store.emit(sent[2..].to_vec()).await.unwrap();
    let mut after = 0;
    let mut read = Vec::new();
    loop {
        let events = fixture.store.events_since(after, 2).await.unwrap();
        assert!(events.len() <= 2);
        let Some(last) = events.last() else { break };
        assert!(last.number > after);
        after = last.number;
        read.extend(events.into_iter().map(|stamped| stamped.event));
    }
    assert_eq!(read, sent);
}

/// The story of one task is found without reading the stream.
pub async fn events_of_a_task_are_found_by_its_id(harness: &Harness) {
    let fixture = harness.store();
    let kinds = ["task-received", "task-started", "task-succeeded"];
    for (clock, kind) in (0..).zip(kinds) {
        fixture.store.emit(vec![event(kind, "a", clock), event(kind, "b", clock)]).await.unwrap();
    }
    let events = fixture.store.events_of("a").await.unwrap();
    let read: Vec<_> = events.iter().map(|stamped| stamped.event.kind().unwrap()).collect();
    assert_eq!(read, kinds);
    assert!(fixture.store.events_of("z").await.unwrap().is_empty());
}

/// The oldest events go first; the newest are always there.
pub async fn events_are_bounded(harness: &Harness) {
    let limits = StoreLimits { events_max: 100, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    for batch in 0..60 {
        let events = (0..70).map(|n| event("task-started", "t", batch * 70 + n)).collect();
        fixture.store.emit(events).await.unwrap();
    }
    let kept = fixture.store.events_since(0, 10_000).await.unwrap();
    // A store may delete in steps of a thousand.
    assert!((100..=1100).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().event.clock(), Some(60 * 70 - 1));
    assert!(kept.windows(2).all(|two| two[0].number < two[1].number));
}

/// A watcher hears what is sent after it began, from every sender, in order, and is woken.
pub async fn a_watcher_hears_events_as_they_happen(harness: &Harness) {
    let fixture = harness.store();
    fixture.store.emit(vec![event("task-started", "before", 1)]).await.unwrap();
    let mut watch = fixture.store.watch_events().await.unwrap();
    let sent: Vec<Event> = (0..5).map(|n| event("task-started", &format!("t{n}"), n)).collect();
    let sending = async {
        fixture.store.emit(sent[..2].to_vec()).await.unwrap();
        fixture.store.emit(sent[2..].to_vec()).await.unwrap();
    };
    let hearing = async {
        let mut heard = Vec::new();
        while heard.len() < sent.len() {
            let events = watch.next().await.unwrap();
            assert!(!events.is_empty());
            heard.extend(events);
        }
        heard
    };
    let both = async { tokio::join!(hearing, sending) };
    let (heard, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(heard, sent);
    let more = tokio::time::timeout(std::time::Duration::ZERO, watch.next()).await;
    assert!(more.is_err(), "{more:?}");
}

/// An idle fleet beats for days; the story of its tasks stays.
pub async fn heartbeats_do_not_push_the_history_out(harness: &Harness) {
    let limits = StoreLimits { events_max: 100, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let mut watch = fixture.store.watch_events().await.unwrap();
    fixture.store.emit(vec![event("task-started", "old", 1)]).await.unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 1);
    let beat = |n| {
        let mut beat = event("worker-heartbeat", "", n);
        drop(beat.as_map_mut().remove("uuid"));
        beat
    };
    for n in 0..300 {
        fixture.store.emit(vec![beat(n)]).await.unwrap();
    }
    assert_eq!(fixture.store.events_of("old").await.unwrap().len(), 1);
    // A watcher hears all of them or, if it is slow, the last.
    let last = async {
        loop {
            let last = watch.next().await.unwrap().pop().unwrap();
            assert_eq!(last.kind(), Some("worker-heartbeat"));
            if last.clock() == Some(299) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, last).await.unwrap();
}
