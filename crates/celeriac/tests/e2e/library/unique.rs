//! Unique tasks with a real worker.

use crate::kit::{PATIENCE, Place};
use crate::running::{Diary, Gate, start};
use celeriac::prelude::*;
use celeriac::{SendError, Unique};
use std::sync::Arc;

#[task(name = "unique.report", unique)]
async fn report(
    diary: State<Arc<Diary>>,
    gate: State<Arc<Gate>>,
    id: i64,
    #[default("pdf".to_owned())] kind: String,
) -> Result<String> {
    diary.note(format!("{id} {kind}"));
    gate.0.acquire().await?.forget();
    Ok(kind)
}

#[task(name = "unique.sync", unique = "account", unique_until = "started")]
async fn sync(diary: State<Arc<Diary>>, gate: State<Arc<Gate>>, account: String, n: i64) -> Result {
    diary.note(format!("{account} {n}"));
    gate.0.acquire().await?.forget();
    Ok(())
}

#[task(name = "unique.hourly", unique, unique_for = "1h")]
async fn hourly(diary: State<Arc<Diary>>) {
    diary.note("hourly");
}

fn application(place: &Place) -> (App, Arc<Diary>, Arc<Gate>) {
    let (diary, gate) = (Arc::new(Diary::default()), Arc::new(Gate::shut()));
    let app = place.app().tasks(tasks![report, sync, hourly]);
    (app.state(Arc::clone(&diary)).state(Arc::clone(&gate)), diary, gate)
}

#[tokio::test]
async fn a_second_call_is_the_first_ones_job() {
    for place in Place::every() {
        let (app, diary, gate) = application(&place);
        let client = app.client().await.unwrap();
        let first = client.send(report::call(7, "pdf")).await.unwrap();
        let jobs = client.send_all([report::call(7, "pdf"), report::call(8, "pdf")]).await.unwrap();
        assert_eq!(jobs[0].id(), first.id());
        let duplicates = [&first, &jobs[0], &jobs[1]].map(Job::is_duplicate);
        assert_eq!(duplicates, [false, true, false]);
        let running = start(&app).await;
        gate.0.add_permits(2);
        assert_eq!(jobs[0].get(PATIENCE).await.unwrap(), "pdf", "the result is the first one's");
        assert_eq!(jobs[1].get(PATIENCE).await.unwrap(), "pdf");
        let mut ran = diary.read();
        ran.sort_unstable();
        assert_eq!(ran, ["7 pdf", "8 pdf"]);
        // It has ended, so the key is free.
        assert!(!client.send(report::call(7, "pdf")).await.unwrap().is_duplicate());
        gate.0.add_permits(1);
        running.stop().await;
    }
}

#[tokio::test]
async fn until_started_lets_the_next_one_wait() {
    let place = Place::memory();
    let (app, diary, gate) = application(&place);
    let running = start(&app).await;
    let client = &running.client;
    let first = client.send(sync::call("acme", 1)).await.unwrap();
    crate::kit::until("it runs", PATIENCE, async || (diary.read().len() == 1).then_some(())).await;
    let second = client.send(sync::call("acme", 2)).await.unwrap();
    assert!(!second.is_duplicate(), "what runs may have read too early");
    gate.0.add_permits(2);
    first.get(PATIENCE).await.unwrap();
    second.get(PATIENCE).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_window_and_explicit_keys() {
    let place = Place::memory();
    let (app, diary, _gate) = application(&place);
    let running = start(&app).await;
    let client = &running.client;
    let first = client.send(hourly::call()).await.unwrap();
    first.get(PATIENCE).await.unwrap();
    let again = client.send(hourly::call()).await.unwrap();
    assert_eq!((again.id(), again.is_duplicate()), (first.id(), true), "within the hour");
    assert_eq!(diary.read(), ["hourly"]);
    let named = |key: &str| Call::named("nobody.knows").queue("other").unique(key);
    assert!(!client.send(named("k")).await.unwrap().is_duplicate());
    assert!(client.send(named("k")).await.unwrap().is_duplicate());
    let error = client.send(named("")).await.unwrap_err();
    assert!(matches!(error, SendError::Invalid(_)), "{error}");
    let long = Call::named("t").unique_as(&Unique::new("x".repeat(256)));
    assert!(client.send(long).await.is_err());
    running.stop().await;
}

/// A key that comes from the task before is not known when the chain is sent.
#[tokio::test]
async fn a_key_of_a_later_step_has_to_be_given() {
    let place = Place::memory();
    let (app, ..) = application(&place);
    let client = app.client().await.unwrap();
    let steps = || chain(report::call(1, "pdf")).then(sync::partial(1));
    let error = client.send(steps()).await.unwrap_err();
    assert!(error.to_string().contains("parameter `account`"), "{error}");
    let given = chain(report::call(1, "pdf")).then(sync::partial(1).unique("sync of 1"));
    client.send(given).await.unwrap();
}
