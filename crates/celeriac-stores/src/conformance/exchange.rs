//! What exchanges do with messages. A store without them has to refuse them.

use super::fixture::{Fixture, Harness, ids, message, outgoing, queue, settlement};
use ExchangeKind::{Direct, Fanout, Topic};
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::limits::StoreLimits;
use celeriac_core::route::Exchange;
use celeriac_core::store::{Fate, Plan, Routed, Settled};
use celeriac_core::unique::{UNIQUE_HEADER, Unique};
use celeriac_core::{ErrorKind, StoreError};

fn binding(exchange: &str, kind: ExchangeKind, routing_key: &str, to: &str) -> Binding {
    let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
    Binding { exchange, kind, routing_key, queue: queue(to) }
}

fn routed(exchange: &str, kind: ExchangeKind, routing_key: &str, id: &str) -> Routed {
    let (name, routing_key) = (exchange.to_owned(), routing_key.to_owned());
    let exchange = Exchange { name, kind, routing_key };
    Routed { exchange, message: message("app.add", id) }
}

fn plan(routed: Vec<Routed>) -> Plan {
    Plan { routed, ..Plan::default() }
}

/// Whether the store has exchanges; one without refuses every use of them in words.
async fn has_exchanges(fixture: &Fixture) -> bool {
    if fixture.store.capabilities().exchanges {
        return true;
    }
    let refused = |error: StoreError| {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("no exchanges"), "{error}");
    };
    refused(fixture.store.bind(vec![binding("x", Topic, "#", "celery")]).await.unwrap_err());
    let sent = plan(vec![routed("x", Topic, "a", "a")]);
    refused(fixture.store.publish(sent, None).await.unwrap_err());
    assert!(fixture.store.bindings().await.unwrap().is_empty());
    false
}

async fn bind(fixture: &Fixture, bindings: Vec<Binding>) {
    fixture.store.bind(bindings).await.unwrap();
}

async fn send(fixture: &Fixture, sent: Vec<Routed>) {
    fixture.store.publish(plan(sent), None).await.unwrap();
}

/// A direct exchange goes by the whole key, and a queue may have several.
pub async fn a_direct_exchange_goes_by_the_key(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    bind(
        &fixture,
        vec![
            binding("d", Direct, "one", "celery"),
            binding("d", Direct, "two", "celery"),
            binding("d", Direct, "two", "reports"),
        ],
    )
    .await;
    send(&fixture, vec![routed("d", Direct, "one", "a"), routed("d", Direct, "two", "b")]).await;
    assert_eq!(ids(&fixture.fetch_from(node, &["celery"], 9).await), ["a", "b"]);
    assert_eq!(ids(&fixture.fetch_from(node, &["reports"], 9).await), ["b"]);
}

/// A topic exchange goes by words; a queue gets a message once, whatever it is bound with.
pub async fn a_topic_exchange_goes_by_words(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    bind(
        &fixture,
        vec![
            binding("t", Topic, "a.*", "celery"),
            binding("t", Topic, "a.#", "celery"),
            binding("t", Topic, "#.z", "reports"),
        ],
    )
    .await;
    let sent = ["a.b", "a.b.z", "q.z"];
    send(&fixture, sent.iter().map(|key| routed("t", Topic, key, key)).collect()).await;
    assert_eq!(ids(&fixture.fetch_from(node, &["celery"], 9).await), ["a.b", "a.b.z"]);
    assert_eq!(ids(&fixture.fetch_from(node, &["reports"], 9).await), ["a.b.z", "q.z"]);
}

/// Each queue's copy is a message of its own, with the same body and where it was sent to.
pub async fn each_copy_is_settled_for_itself(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    let bindings = ["celery", "reports"].map(|to| binding("t", Topic, "#", to));
    bind(&fixture, bindings.to_vec()).await;
    send(&fixture, vec![routed("t", Topic, "k", "a")]).await;
    let held = fixture.fetch_from(node, &["celery", "reports"], 9).await;
    assert_eq!(held.len(), 2);
    assert_eq!(held[0].message.body, held[1].message.body);
    assert_ne!((held[0].lease, &held[0].queue), (held[1].lease, &held[1].queue));
    assert_eq!(fixture.settle(held[0].lease, Fate::Done).await, Settled::Done);
    fixture.lapse(&[]).await;
    let other = fixture.node("celery@b").await;
    let again = fixture.fetch_from(other, &["celery", "reports"], 9).await;
    assert_eq!(ids(&again), ["a"]);
    assert_eq!(again[0].queue, held[1].queue);
}

/// What no queue takes is refused with everything that goes with it: it would be lost.
pub async fn a_message_without_a_queue_is_refused(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    bind(&fixture, vec![binding("d", Direct, "k", "celery")]).await;
    for (exchange, key) in [("d", "other"), ("unknown", "k")] {
        let sent = Plan {
            publish: vec![outgoing("celery", "a")],
            routed: vec![routed("d", Direct, "k", "b"), routed(exchange, Direct, key, "c")],
            ..Plan::default()
        };
        let error = fixture.store.publish(sent, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(exchange) && error.hint_text().is_some(), "{error}");
    }
    assert_eq!(fixture.waiting().await, 0);
    // A worker's message, too: its delivery stays, and can end otherwise.
    fixture.send(&["d"]).await;
    let held = fixture.take(node).await;
    let sent = plan(vec![routed("d", Direct, "other", "e")]);
    let refused = fixture.store.settle(vec![settlement(held.lease, Fate::Done, sent)]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    let sent = plan(vec![routed("d", Direct, "k", "e")]);
    let settled = fixture.settle_with(settlement(held.lease, Fate::Done, sent)).await;
    assert_eq!(settled, Settled::Done);
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["e"]);
}

/// Bindings are seen by everybody; made again, they are there once.
pub async fn bindings_are_listed_once(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let mut wanted = vec![
        binding("celery", Direct, "celery", "celery"),
        binding("t", Topic, "a_b.#", "celery"),
        binding("t", Topic, "#", "reports"),
    ];
    bind(&fixture, wanted.clone()).await;
    bind(&fixture, wanted.clone()).await;
    wanted.sort();
    assert_eq!(fixture.store.bindings().await.unwrap(), wanted);
}

/// One exchange has one type. A queue that nobody has declared stays out of its way.
pub async fn an_exchange_has_one_type(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let first = binding("news", Topic, "a.#", "celery");
    bind(&fixture, vec![first.clone()]).await;
    let error = fixture.store.bind(vec![binding("news", Direct, "k", "reports")]).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("topic") && error.hint_text().is_some(), "{error}");
    // kombu takes a plain member of a topic exchange for one that takes everything.
    bind(&fixture, vec![Binding::own(&queue("news"))]).await;
    assert_eq!(fixture.store.bindings().await.unwrap(), [first]);
}

/// The depth of each queue counts, and a message that waits for its time does so in each.
pub async fn copies_are_counted_and_scheduled_by_queue(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 1, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    let bindings = ["celery", "reports"].map(|to| binding("t", Topic, "#", to));
    bind(&fixture, bindings.to_vec()).await;
    let mut later = routed("t", Topic, "k", "later");
    later.message.headers.set_eta(Some(fixture.at(60)));
    send(&fixture, vec![later]).await;
    let error = fixture.store.publish(plan(vec![routed("t", Topic, "k", "b")]), None).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Full);
    assert!(fixture.fetch_from(node, &["celery", "reports"], 9).await.is_empty());
    fixture.clock.advance(std::time::Duration::from_secs(61));
    let node = fixture.node("celery@a").await;
    let due = fixture.fetch_from(node, &["celery", "reports"], 9).await;
    assert_eq!(ids(&due), ["later", "later"]);
}

/// A unique message has one queue, and a second one is named as the duplicate that it is.
pub async fn a_unique_message_goes_to_one_queue(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    bind(
        &fixture,
        vec![binding("t", Topic, "#", "celery"), binding("t", Topic, "both", "reports")],
    )
    .await;
    let unique = |key: &str, id: &str| {
        let mut one = routed("t", Topic, key, id);
        one.message.headers.insert(UNIQUE_HEADER, Unique::new("k").to_value());
        one
    };
    let error = fixture.store.publish(plan(vec![unique("both", "a")]), None).await.unwrap_err();
    assert!(error.to_string().contains("several queues"), "{error}");
    let sent = plan(vec![routed("t", Topic, "both", "p"), unique("one", "b"), unique("one", "c")]);
    let published = fixture.store.publish(sent, None).await.unwrap();
    let left_out: Vec<(usize, &str)> =
        published.duplicates.iter().map(|one| (one.index, one.task_id.as_str())).collect();
    assert_eq!(left_out, [(2, "b")]);
}

/// Where a fanout reaches only who listens, a queue of one is refused, and so is a message that
/// nobody hears.
pub async fn a_fanout_is_not_a_queue_that_it_cannot_be(harness: &Harness) {
    let fixture = harness.store();
    if !has_exchanges(&fixture).await {
        return;
    }
    let node = fixture.node("celery@a").await;
    let all = ["celery", "reports"].map(|to| binding("f", Fanout, "", to));
    let bound = fixture.store.bind(all.to_vec()).await;
    let sent = Plan {
        publish: vec![outgoing("celery", "a")],
        routed: vec![routed("f", Fanout, "k", "b")],
        ..Plan::default()
    };
    let published = fixture.store.publish(sent, None).await;
    if fixture.store.capabilities().fanout_queues {
        bound.unwrap();
        published.unwrap();
        assert_eq!(fixture.fetch_from(node, &["celery", "reports"], 9).await.len(), 3);
        return;
    }
    let error = bound.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("fanout") && error.hint_text().is_some(), "{error}");
    assert_eq!(published.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.waiting().await, 0, "nothing of the refused plan is there");
}
