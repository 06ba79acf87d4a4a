//! What a call can say, and what reaches the task.

use super::each;
use crate::kit::{PATIENCE, Place};
use crate::running::{
    Person, add, application, big, echo, float, greet, header, lineage, note, parent, start,
};
use celeriac::prelude::*;
use celeriac::{JobError, SendError};
use celeriac_core::store::Phase;
use celeriac_wire::{State as TaskState, Value};

#[tokio::test]
async fn arguments_and_results_keep_their_types() {
    // covers: S2-19, S2-21
    each(async |client, _| {
        assert_eq!(client.send(add::call(2, 3)).await.unwrap().get(PATIENCE).await.unwrap(), 5);
        let ada = || Person { name: "Ada ✓".to_owned(), age: Some(36) };
        let greeting = client.send(greet::call(ada(), "Grüß Gott")).await.unwrap();
        assert_eq!(greeting.get(PATIENCE).await.unwrap(), "Grüß Gott, Ada ✓");
        let by_default: String = client
            .send(Call::remote("t.greet").arg(&ada()))
            .await
            .unwrap()
            .get(PATIENCE)
            .await
            .unwrap();
        assert_eq!(by_default, "Hello, Ada ✓");
    })
    .await;
}

#[tokio::test]
async fn a_call_by_name_takes_positional_and_keyword_arguments() {
    each(async |client, _| {
        let call = Call::named("t.add").arg(&40).kwarg("y", &2);
        assert_eq!(client.send(call).await.unwrap().get(PATIENCE).await.unwrap(), Value::from(42));
        let call = Call::named("t.add").kwarg("y", &2).kwarg("x", &1);
        assert_eq!(client.send(call).await.unwrap().get(PATIENCE).await.unwrap(), Value::from(3));
    })
    .await;
}

#[tokio::test]
async fn numbers_survive_that_other_systems_lose() {
    each(async |client, _| {
        let nan = client.send(float::call(f64::NAN)).await.unwrap().get(PATIENCE).await.unwrap();
        assert!(nan.is_nan());
        let infinite = client.send(float::call(f64::NEG_INFINITY)).await.unwrap();
        assert!(infinite.get(PATIENCE).await.unwrap().is_infinite());
        let large = 2i128.pow(100);
        assert_eq!(
            client.send(big::call(large)).await.unwrap().get(PATIENCE).await.unwrap(),
            large + 1
        );
        for text in
            ["123456789012345678901234567890", "1.10", "-0.0", "1e400", "\"\\u0000\\ud83d\\ude00\""]
        {
            let value = Value::parse(text.as_bytes()).unwrap();
            let job = client.send(echo::call(value.clone())).await.unwrap();
            assert_eq!(job.get(PATIENCE).await.unwrap(), value, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_waits_for_its_time() {
    each(async |client, _| {
        for wait in [0, 1] {
            let begun = client.now();
            let call = add::call(1, 1);
            let at = begun + std::time::Duration::from_millis(150);
            let call = if wait == 0 { call.countdown(150.millis()) } else { call.eta(at) };
            let job = client.send(call).await.unwrap();
            assert!(matches!(
                job.view().await.unwrap().phase,
                Phase::Scheduled { retry: false, .. }
            ));
            assert_eq!(job.get(PATIENCE).await.unwrap(), 2);
            assert!(job.record().await.unwrap().unwrap().started_at.unwrap() >= at);
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_that_comes_too_late_is_dropped_as_expired() {
    each(async |client, of| {
        let past = client.now() - std::time::Duration::from_secs(1);
        let late = client.send(note::call("late").expires_at(past)).await.unwrap();
        let error = late.get(PATIENCE).await.unwrap_err();
        assert!(
            matches!(&error, JobError::Revoked { reason, .. } if reason.contains("expired")),
            "{error}"
        );
        let early = client.send(note::call("early").expires_in(1.hours())).await.unwrap();
        early.get(PATIENCE).await.unwrap();
        assert_eq!(of.diary.read(), ["early"]);
    })
    .await;
}

#[tokio::test]
async fn ids_and_headers_are_the_callers() {
    each(async |client, _| {
        let call = header::call("trace").task_id("my-id").header("trace", &"abc-1");
        let job = client.send(call).await.unwrap();
        assert_eq!(job.id(), "my-id");
        assert_eq!(job.get(PATIENCE).await.unwrap(), Value::from("abc-1"));
        assert_eq!(client.job::<Value>("my-id").get(PATIENCE).await.unwrap(), Value::from("abc-1"));
        assert!(job.forget().await.unwrap() && !job.forget().await.unwrap());
        assert_eq!(job.state().await.unwrap(), TaskState::Pending);
    })
    .await;
}

#[tokio::test]
async fn what_a_task_sends_names_its_parent_and_its_root() {
    each(async |client, _| {
        let job = client.send(parent::call()).await.unwrap();
        let child = job.get(PATIENCE).await.unwrap();
        let lines =
            client.job::<(Option<String>, Option<String>)>(&child).get(PATIENCE).await.unwrap();
        assert_eq!(lines, (Some(job.id().to_owned()), Some(job.id().to_owned())));
        let alone = client.send(lineage::call()).await.unwrap();
        let own = Some(alone.id().to_owned());
        assert_eq!(alone.get(PATIENCE).await.unwrap(), (own, None));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_cannot_be_encoded_is_refused_with_its_argument() {
    let client = application(Place::memory().app()).app.client().await.unwrap();
    let wrong = std::collections::BTreeMap::from([((1, 2), "a key that is no text")]);
    let error = client.send(Call::named("t.echo").kwarg("value", &wrong)).await.unwrap_err();
    assert!(
        matches!(&error, SendError::Invalid(text) if text.contains("argument 'value'")),
        "{error}"
    );
}

#[tokio::test]
async fn many_calls_are_sent_together_or_not_at_all() {
    each(async |client, _| {
        let jobs = client.send_all((0..100).map(|n| add::call(n, n))).await.unwrap();
        for (n, job) in jobs.iter().enumerate() {
            assert_eq!(job.get(PATIENCE).await.unwrap(), 2 * n as i64);
        }
    })
    .await;
    for place in Place::every() {
        let toml = "message_bytes_max = 4096";
        let under_test = application(crate::library::application::configured(&place, toml));
        let client = under_test.app.client().await.unwrap();
        let calls = [note::call("small"), note::call("x".repeat(5000)), note::call("small")];
        let error = client.send_all(calls).await.unwrap_err();
        assert!(matches!(&error, SendError::Refused(_)), "{error}");
        assert!(error.to_string().contains("4096"), "the limit is named: {error}");
        let ready: u64 =
            client.store().queues().await.unwrap().iter().map(|queue| queue.ready).sum();
        assert_eq!(ready, 0, "none of them was sent");
    }
}

#[tokio::test]
async fn two_applications_share_one_store() {
    let place = Place::shared();
    let worker = start(&application(place.app()).app).await;
    let elsewhere = place.app().client().await.unwrap();
    let job = elsewhere.send(Call::<i64>::remote("t.add").arg(&1).arg(&2)).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), 3);
    worker.stop().await;
    let separate = Place::memory();
    let (one, other) =
        (separate.app().client().await.unwrap(), separate.app().client().await.unwrap());
    one.send(add::call(1, 2)).await.unwrap();
    assert_eq!(one.store().queues().await.unwrap().len(), 1);
    assert_eq!(other.store().queues().await.unwrap().len(), 0, "each has its own memory");
}
