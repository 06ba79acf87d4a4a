//! `celeriac::test`: calls run without a broker and without waiting.

use crate::running::{
    Diary, Gate, Shared, add, fails, flaky, later, lineage, note, parent, sum, waits,
};
use celeriac::prelude::*;
use celeriac::test::{self, TestApp};
use celeriac::{JobError, Priority};
use celeriac_wire::Value;

fn tested() -> TestApp {
    test::app()
        .tasks(tasks![add, fails, flaky, later, lineage, note, parent, sum, waits])
        .state(Shared::new(Diary::default()))
        .state(Shared::new(Gate::shut()))
}

/// Waits for weeks between its runs, and reports.
#[task(name = "t.patient", retry_schedule = ["60s", "1d"])]
async fn patient(cx: Context) -> Result<String> {
    cx.progress(cx.attempt() as usize, 3, "a step").await;
    if cx.attempt() < 3 {
        return Err(TaskError::retry("not yet"));
    }
    Ok(cx.now().to_string())
}

#[tokio::test]
async fn no_test_waits_for_a_retry() {
    let run = tested().tasks(tasks![patient]).run(patient::call()).await;
    assert_eq!(run.retries(), [1.mins(), 24.hours()]);
    assert_eq!(run.result().unwrap(), "2026-01-02T00:01:00Z", "the clock went with it");
    let steps: Vec<usize> = run.progress().iter().map(|step| step.current).collect();
    assert_eq!(steps, [1, 2, 3]);
}

#[tokio::test]
async fn failures_and_snoozes_are_seen() {
    let test = tested();
    let run = test.run(waits::call(2)).await;
    assert_eq!((run.snoozes(), run.retries()), (&[10.millis(); 2][..], &[][..]));
    assert_eq!(run.into_result().unwrap(), (2, 1));
    let run = test.run(fails::call("no rows")).await;
    assert!(
        matches!(run.result(), Err(JobError::Failed { exception, .. }) if exception.contains("no rows"))
    );
    let run = test.run(flaky::call(9)).await;
    assert_eq!(run.retries(), [10.millis(), 20.millis(), 30.millis()]);
    assert!(run.result().is_err());
}

#[tokio::test]
async fn what_a_body_sends_is_listed_and_runs() {
    let test = tested();
    let run = test.run(parent::call()).await;
    let [child] = run.published() else { panic!("{:?}", run.published()) };
    assert_eq!((child.name(), child.queue()), ("t.lineage", "celery"));
    assert_eq!(child.id(), run.result().unwrap());
    let client = test.client().await;
    let parents: Value = client.job(child.id()).get(0.secs()).await.unwrap();
    assert_eq!(parents, Value::from(vec![Value::from(run.id()), Value::from(run.id())]));
}

#[tokio::test]
async fn workflows_run_to_their_end() {
    let test = tested();
    let run = test.run(chord(group((1..4).map(|n| add::call(n, n)))).then(sum::partial())).await;
    assert_eq!(run.result().unwrap(), &12);
    let run = test.run(chain(add::call(1, 2).countdown(3.hours())).then(add::partial(4))).await;
    assert_eq!(run.result().unwrap(), &7);
    assert_eq!(test.now().to_string(), "2026-01-01T03:00:00Z");
}

#[tokio::test]
async fn time_passes_when_the_test_says_so() {
    let test = tested().starts_at("2027-03-28T00:30:00Z".parse().unwrap());
    let client = test.client().await;
    let job =
        client.send(add::call(1, 2).countdown(1.hours()).priority(Priority::Low)).await.unwrap();
    test.advance(59.mins()).await;
    assert!(matches!(job.get(0.secs()).await, Err(JobError::Timeout { .. })));
    test.advance(1.mins()).await;
    assert_eq!(job.get(0.secs()).await.unwrap(), 3);
    assert_eq!(test.now().to_string(), "2027-03-28T01:30:00Z");
}

/// Remote tasks are not run; neither is the test.
#[tokio::test]
async fn what_is_not_registered_waits() {
    let test = tested();
    let run = test.run(Call::named("app.mail.send").arg(&"a@b.c")).await;
    assert!(matches!(run.result(), Err(JobError::Timeout { state, .. }) if state == "PENDING"));
}

/// What a body sleeps passes at once, and its limits hold.
#[tokio::test(start_paused = true)]
async fn a_paused_runtime_sleeps_in_no_time() {
    #[task(name = "t.sleeps", soft_time_limit = "2m", time_limit = "3m")]
    async fn sleeps(cx: Context, minutes: u64) -> Result<u64> {
        tokio::select! {
            () = tokio::time::sleep(minutes.mins()) => Ok(minutes),
            error = cx.cancelled() => Err(error),
        }
    }
    let test = tested().tasks(tasks![sleeps]).in_paused_runtime();
    assert_eq!(test.run(sleeps::call(1)).await.result().unwrap(), &1);
    let late = test.run(sleeps::call(5).max_retries(0)).await;
    assert!(late.result().unwrap_err().to_string().contains("SoftTimeLimitExceeded"));
}
