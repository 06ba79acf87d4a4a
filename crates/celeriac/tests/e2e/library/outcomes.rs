//! How tasks end: retries, failures, rejections, and what is stored about them.

use super::each;
use crate::kit::{PATIENCE, Place};
use crate::running::{
    add, apologizes, application, echo, fails, flaky, ignores, later, rejects, start, state_is,
    unstored, waits,
};
use celeriac::prelude::*;
use celeriac::{Client, JobError};
use celeriac_core::dead::{DeadLetter, DeadReason};
use celeriac_core::store::{DeadFilter, Page, Phase, Replay};
use celeriac_wire::{State as TaskState, Value};

fn exception<R: std::fmt::Debug>(outcome: Result<R, JobError>) -> String {
    match outcome {
        Err(JobError::Failed { exception, .. }) => exception,
        other => panic!("{other:?}"),
    }
}

async fn dead_letter(client: &Client, id: &str) -> DeadLetter {
    let filter = DeadFilter { ids: vec![id.to_owned()], ..DeadFilter::default() };
    let page = Page { after: 0, count_max: 2 };
    let mut letters = client.store().dead_list(&filter, page).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters.remove(0)
}

#[tokio::test]
async fn a_passing_fault_is_retried_by_the_schedule() {
    // covers: S2-23
    each(async |client, _| {
        let job = client.send(flaky::call(3)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), 4, "it succeeds in its fourth run");
        let record = job.record().await.unwrap().unwrap();
        assert_eq!(record.retries, 3);
        let hopeless = client.send(flaky::call(9)).await.unwrap();
        assert_eq!(exception(hopeless.get(PATIENCE).await), "TaskFailed('not yet')");
        let letter = dead_letter(client, hopeless.id()).await;
        let outcomes: Vec<&str> = letter.history.iter().map(|one| one.outcome.as_str()).collect();
        assert_eq!(outcomes, ["retry", "retry", "retry", "failed"]);
    })
    .await;
}

#[tokio::test]
async fn a_task_asks_for_its_own_delay() {
    each(async |client, _| {
        assert_eq!(client.send(later::call()).await.unwrap().get(PATIENCE).await.unwrap(), 2);
    })
    .await;
}

/// It may not fail even once, and comes too early three times.
#[tokio::test]
async fn a_task_that_comes_too_early_is_no_failure() {
    each(async |client, _| {
        let job = client.send(waits::call(3)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), (3, 1), "its first attempt still");
        let record = job.record().await.unwrap().unwrap();
        assert_eq!(record.retries, 0);
        let late = client.send(waits::call(1_000).expires_in(200.millis())).await.unwrap();
        assert!(matches!(late.get(PATIENCE).await, Err(JobError::Revoked { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_call_says_how_it_is_retried() {
    each(async |client, _| {
        let patient = flaky::call(5).retry_schedule(vec![1.millis(); 5]);
        assert_eq!(client.send(patient).await.unwrap().get(PATIENCE).await.unwrap(), 6);
        let patient = flaky::call(5).max_retries(5).retry_delay(1.millis());
        assert_eq!(client.send(patient).await.unwrap().get(PATIENCE).await.unwrap(), 6);
        let hasty = client.send(flaky::call(1).max_retries(0)).await.unwrap();
        assert_eq!(exception(hasty.get(PATIENCE).await), "TaskFailed('not yet')");
        let odd = client.send(flaky::call(0).header("celeriac_retry", "often")).await.unwrap();
        assert!(exception(odd.get(PATIENCE).await).contains("header celeriac_retry"));
        assert_eq!(dead_letter(client, odd.id()).await.reason, DeadReason::Undecodable);
    })
    .await;
}

#[tokio::test]
async fn a_permanent_failure_is_a_dead_letter_that_can_be_replayed() {
    each(async |client, _| {
        let job = client.send(fails::call("no rows in \"März\"")).await.unwrap();
        assert_eq!(exception(job.get(PATIENCE).await), "TaskFailed('no rows in \"März\"')");
        assert_eq!(job.state().await.unwrap(), TaskState::Failure);
        let letter = dead_letter(client, job.id()).await;
        assert_eq!(letter.reason, DeadReason::Failed);
        assert_eq!(letter.history.len(), 1, "a permanent failure is not retried");
        let filter = DeadFilter { ids: vec![letter.number.to_string()], ..DeadFilter::default() };
        let replayed = client.store().dead_replay(&filter, &Replay::default(), 9).await.unwrap();
        assert_eq!(replayed, [letter.number]);
        assert_eq!(exception(job.get(PATIENCE).await), "TaskFailed('no rows in \"März\"')");
        let again = dead_letter(client, job.id()).await;
        assert_eq!(again.history.len(), 2, "the history goes on");
    })
    .await;
}

#[tokio::test]
async fn a_rejected_message_goes_back_or_to_the_dead_letters() {
    each(async |client, of| {
        let job = client.send(rejects::call(true)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), "at last");
        assert_eq!(of.diary.read().len(), 2);
    })
    .await;
    each(async |client, of| {
        let job = client.send(rejects::call(false)).await.unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.contains("not mine"), "{text}");
        assert_eq!(dead_letter(client, job.id()).await.reason, DeadReason::Rejected);
        assert_eq!(of.diary.read().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn ignored_results_are_not_stored() {
    each(async |client, of| {
        let ignored = client.send(ignores::call()).await.unwrap();
        let unwanted = client.send(unstored::call()).await.unwrap();
        let of_call = client.send(add::call(1, 2).ignore_result()).await.unwrap();
        // Waits until all three have left their queue.
        for id in [ignored.id(), unwanted.id(), of_call.id()] {
            let gone = async || {
                let phase = client.store().task(id).await.unwrap().phase;
                (phase == Phase::Unknown).then_some(())
            };
            crate::kit::until("the task is over", PATIENCE, gone).await;
            assert_eq!(client.store().result(id).await.unwrap(), None);
        }
        assert_eq!(of.diary.read(), ["unstored"]);
    })
    .await;
}

#[tokio::test]
async fn a_returned_error_is_a_failure() {
    // covers: T-12
    each(async |client, _| {
        let job = client.send(apologizes::call()).await.unwrap();
        assert_eq!(exception(job.get(PATIENCE).await), "TaskReturnedError('no rows')");
        assert!(matches!(job.view().await.unwrap().phase, Phase::Dead { .. }));
    })
    .await;
}

#[tokio::test]
async fn wrong_arguments_fail_in_pythons_words() {
    each(async |client, _| {
        for (call, text) in [
            (Call::named("t.add").arg(&1), "t.add() missing 1 required positional argument: 'y'"),
            (
                Call::named("t.add").arg(&1).arg(&2).arg(&3),
                "t.add() takes 2 positional arguments but 3 were given",
            ),
            (
                Call::named("t.add").arg(&1).arg(&2).kwarg("z", &3),
                "t.add() got an unexpected keyword argument 'z'",
            ),
            (
                Call::named("t.add").arg(&1).arg(&2).kwarg("x", &3),
                "t.add() got multiple values for argument 'x'",
            ),
        ] {
            let job = client.send(call).await.unwrap();
            // Texts in exceptions are quoted as in Celery's argument texts.
            let said = exception(job.get(PATIENCE).await).replace("\\'", "'");
            assert_eq!(said, format!("TypeError('{text}')"));
            assert_eq!(dead_letter(client, job.id()).await.reason, DeadReason::BadArguments);
        }
        let job = client.send(Call::named("t.add").arg(&"one").arg(&2)).await.unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.contains("argument \\'x\\'") && text.contains("one"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_task_is_a_dead_letter_where_that_is_wanted() {
    for place in Place::every() {
        let app = super::application::configured(&place, "unknown_tasks = \"dead-letter\"");
        let running = start(&app.tasks(tasks![add])).await;
        let job = running.client.send(Call::named("t.never_written")).await.unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.contains("NotRegistered") && text.contains("t.never_written"), "{text}");
        assert_eq!(dead_letter(&running.client, job.id()).await.reason, DeadReason::UnknownTask);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_fails_its_task() {
    for place in Place::every() {
        let app = super::application::configured(&place, "result_bytes_max = 4096");
        let running = start(&application(app).app).await;
        let large = Value::from("x".repeat(5000));
        let job = running.client.send(echo::call(large)).await.unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.contains("cannot be stored") && text.contains("4096"), "{text}");
        let fits = running.client.send(add::call(1, 2)).await.unwrap();
        assert_eq!(fits.get(PATIENCE).await.unwrap(), 3, "the worker lives on");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_result_of_another_type_is_an_error_that_says_so() {
    each(async |client, _| {
        let job: Job<String> = client.send(Call::remote("t.add").arg(&1).arg(&2)).await.unwrap();
        let error = job.get(PATIENCE).await.unwrap_err();
        assert!(matches!(error, JobError::Decode { .. }), "{error}");
        let nobody = client.job::<i64>("never-sent").get(1.millis()).await.unwrap_err();
        assert!(matches!(nobody, JobError::Timeout { .. }), "{nobody}");
    })
    .await;
}

#[tokio::test]
async fn a_waiting_task_that_is_cancelled_never_runs() {
    // covers: S2-24
    each(async |client, of| {
        let later = crate::running::note::call("never").countdown(1.hours());
        let job = client.send(later).await.unwrap();
        job.cancel().await.unwrap();
        let soon = crate::running::note::call("never").countdown(100.millis());
        let job = client.send(soon).await.unwrap();
        job.cancel().await.unwrap();
        let error = job.get(PATIENCE).await.unwrap_err();
        assert!(matches!(error, JobError::Revoked { .. }), "{error}");
        assert!(of.diary.read().is_empty());
        state_is(client, &job, &TaskState::Revoked).await;
    })
    .await;
}
