//! Encrypted payloads: nothing of them is readable in the store, and workflows and retries work as without.

use crate::kit::{ALL, PATIENCE, Place};
use crate::running::{add, application, flaky, later, note, parent, start, sum};
use celeriac::prelude::*;
use celeriac::seal::Aes256Gcm;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Page};
use celeriac_wire::Value;

/// Stands in arguments and in results.
const SECRET: &str = "Ada Lovelace, room 12";

fn codec(key: u8) -> Aes256Gcm {
    Aes256Gcm::new("test", &[key; 32]).unwrap()
}

#[tokio::test]
async fn workflows_and_retries_go_on_sealed() {
    for place in Place::every() {
        let app = application(place.app()).app.payload_codec(codec(1)).refuse_plain_payloads();
        let running = start(&app).await;
        let client = &running.client;
        let sealed = client.send(note::call(SECRET)).await.unwrap();
        assert_eq!(sealed.get(PATIENCE).await.unwrap(), SECRET);
        assert_eq!(client.send(flaky::call(3)).await.unwrap().get(PATIENCE).await.unwrap(), 4);
        assert_eq!(client.send(later::call()).await.unwrap().get(PATIENCE).await.unwrap(), 2);
        let chained = chain(add::call(1, 2)).then(add::partial(3)).then(add::partial(4));
        assert_eq!(client.send(chained).await.unwrap().get(PATIENCE).await.unwrap(), 10);
        let counted = chord(group((1..5).map(|n| add::call(n, n)))).then(sum::partial());
        assert_eq!(client.send(counted).await.unwrap().get(PATIENCE).await.unwrap(), 20);
        let child = client.send(parent::call()).await.unwrap().get(PATIENCE).await.unwrap();
        client.job::<Value>(&child).get(PATIENCE).await.unwrap();
        running.stop().await;
    }
}

/// Not in messages, results, events or histories, while it waits and when it is done.
#[tokio::test]
async fn nothing_readable_is_stored() {
    for place in Place::every() {
        let app = application(place.app()).app.payload_codec(codec(1));
        let client = app.client().await.unwrap();
        let job = client.send(note::call(SECRET)).await.unwrap();
        let queue = celeriac_core::QueueName::celery();
        let waiting = client.store().peek(&queue, Page { after: 0, count_max: 9 }).await.unwrap();
        let text = format!("{waiting:?}");
        assert!(text.contains("x-celeriac-aes256gcm") && !text.contains("Ada"), "{text}");
        let running = start(&app).await;
        assert_eq!(job.get(PATIENCE).await.unwrap(), SECRET);
        running.stop().await;
        let record = job.record().await.unwrap().unwrap();
        let events = client.store().events_of(job.id()).await.unwrap();
        let text = format!("{record:?} {events:?} {:?}", job.view().await.unwrap());
        assert!(text.contains("celeriac_sealed") && !text.contains("Ada"), "{text}");
    }
}

#[tokio::test]
async fn who_has_no_key_sets_messages_aside_with_the_reason() {
    let place = Place::shared();
    let theirs = application(place.app()).app.payload_codec(codec(1));
    let job = theirs.client().await.unwrap().send(add::call(1, 2)).await.unwrap();
    let ours = application(place.app()).app.payload_codec(codec(2));
    let running = start(&ours).await;
    let error = job.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("SecurityError") && error.contains("does not open it"), "{error}");
    let store = running.client.store();
    let letters = store.dead_list(&DeadFilter::default(), ALL).await.unwrap();
    assert_eq!(letters[0].reason, DeadReason::Disallowed);
    assert_eq!(letters[0].message.content_type, "application/x-celeriac-aes256gcm");
    running.stop().await;
    // A result of theirs is not read as if it were one of ours.
    let running = start(&theirs).await;
    let sum = running.client.send(add::call(1, 2)).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 3);
    let seen: Job<i64> = ours.client().await.unwrap().job(sum.id());
    let error = seen.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("does not open it"), "{error}");
    running.stop().await;
}
