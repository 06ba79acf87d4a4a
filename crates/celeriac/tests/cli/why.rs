//! `why`: the truth about a thousand tasks in every state, and about those that Celery's workers hold.

use crate::kit::{PATIENCE, Place, Worker, command, ledger_program, until};
use crate::{celeriac, text};
use celeriac::Call;
use celeriac_core::store::TaskFilter;
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_wire::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Sends tasks and notes what will be true of them.
struct Scene {
    place: Place,
    /// Divides the numbers of tasks.
    part: usize,
    expected: BTreeMap<String, &'static str>,
}

impl Scene {
    async fn send(&mut self, number: usize, truth: &'static str, make: impl Fn() -> Call<Value>) {
        let client = self.place.app().client().await.unwrap();
        let number = number.div_ceil(self.part);
        let jobs = client.send_all((0..number).map(|_| make())).await.unwrap();
        assert_eq!(jobs.len(), number);
        self.expected.extend(jobs.iter().map(|job| (job.id().to_owned(), truth)));
    }

    fn ids(&self, truth: &str) -> Vec<&str> {
        self.expected.iter().filter(|(_, one)| **one == truth).map(|(id, _)| id.as_str()).collect()
    }

    async fn tell(&self, args: &[&str]) {
        celeriac(&self.place, args).await.exits(0);
    }
}

fn work(name: &str) -> Call<Value> {
    let call = Call::named(name);
    if name == "ledger.work" { call.arg(&0) } else { call }
}

/// 1,000 tasks, or that part of them, each in one of twelve states.
async fn a_thousand_tasks(place: Place, part: usize) {
    let mut scene = Scene { place, part, expected: BTreeMap::new() };
    let store = scene.place.app().store().await.unwrap();
    scene.send(150, "finished", || work("ledger.work")).await;
    scene.send(100, "dead", || work("ledger.fails")).await;
    let mut done = command(&ledger_program(), scene.place.dir());
    done.args(["-b", scene.place.url(), "worker", "-c", "8", "--stop-when-idle", "10ms"]);
    crate::kit::Ran::new(&mut done).await.exits(0);
    let worker =
        Worker::start(&scene.place, &store, "w1@here", "8s", &["-c", "2", "-Q", "celery,held,odd"])
            .await;
    scene.send(2 * part, "running", || work("ledger.until_told")).await;
    let state = Some("running".to_owned());
    let running = TaskFilter { state, count_max: 10, ..TaskFilter::default() };
    until("both run", PATIENCE, async || {
        (store.tasks(&running).await.unwrap().views.len() == 2).then_some(())
    })
    .await;
    scene.tell(&["pause", "--queue", "held", "--reason", "a test"]).await;
    scene.tell(&["limit", "set", "--task", "ledger.until_told", "--concurrency", "2"]).await;
    scene.send(100, "paused", || work("ledger.work").queue("held")).await;
    scene.send(100, "limited", || work("ledger.until_told")).await;
    scene.send(100, "waiting", || work("ledger.work")).await;
    scene.send(98, "unregistered", || work("no.such").queue("odd")).await;
    scene.send(100, "no-consumer", || work("ledger.work").queue("nobody")).await;
    scene.send(100, "eta", || work("ledger.work").countdown(Duration::from_hours(1))).await;
    scene.send(50, "revoked", || work("ledger.work").queue("nobody")).await;
    let mut cancel = vec!["task", "cancel"];
    cancel.extend(scene.ids("revoked"));
    scene.tell(&cancel).await;
    scene
        .send(50, "expired", || {
            work("ledger.work").queue("nobody").expires_in(Duration::from_millis(1))
        })
        .await;
    scene.expected.extend((0..50 / part).map(|number| (format!("made-up-{number}"), "unknown")));
    let all = scene.expected.len();
    assert!(all >= 1000 / part, "{all}");

    let mut args = vec!["--json", "why"];
    args.extend(scene.expected.keys().map(String::as_str));
    let ran = celeriac(&scene.place, &args).await.exits(5);
    let answers = Value::parse(ran.stdout.trim().as_bytes()).unwrap();
    let wrong: Vec<String> = answers
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| text(one, "cause") != scene.expected[text(one, "task_id")])
        .map(|one| format!("{} is {one}", scene.expected[text(one, "task_id")]))
        .collect();
    assert_eq!(answers.as_array().unwrap().len(), all);
    assert!(wrong.is_empty(), "{} are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_truth_is_told_of_a_thousand_tasks() {
    // covers: S3-25 S5-37 T-37
    a_thousand_tasks(Place::sqlite(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_truth_is_told_of_a_hundred_tasks_on_redis() {
    a_thousand_tasks(Place::redis(), 10).await;
}

#[tokio::test]
async fn people_read_a_verdict_its_evidence_and_the_next_step() {
    let place = crate::store().await;
    let id = crate::call(&place, &["mail", "--queue", "post"]).await;
    celeriac(&place, &["why", &id]).await.exits(0).says(&[
        &format!("{id}: No worker consumes the queue post."),
        "no worker is there at all",
        "next: celeriac worker -Q post",
    ]);
    celeriac(&place, &["why", "nothing"]).await.exits(5).says(&["Nobody knows it"]);
}

const APP: &str = "import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 2
@app.task(name='hold')
def hold():
    open(os.environ['BEGUN'], 'w').close()
    time.sleep(600)
";

/// What a worker of Celery holds is not in the queue, and neither running nor waiting to the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_celerys_workers_hold_is_told_by_their_word_and_after_their_death() {
    // covers: S3-25
    let Some(redis) = Redis::options().start_if_there().await else { return };
    let Some(python) = Python::with_celery("5.7") else { return };
    let begun = redis.folder().join("begun");
    let url = redis.url();
    let app = python.app(APP, &[("URL", &url), ("BEGUN", begun.to_str().unwrap())]);
    let place = Place::at(&url);
    let mut stock = app.worker("stock", &["-c", "1", "--without-mingle", "--without-gossip"]).await;
    let send = async |args: &[&str]| {
        let mut all = vec!["hold"];
        all.extend(args);
        crate::call(&place, &all).await
    };
    let running = send(&[]).await;
    until("it runs", PATIENCE, async || begun.exists().then_some(())).await;
    let (ahead, later) = (send(&[]).await, send(&["--countdown", "1h"]).await);
    let why = async |id: &str| {
        let ran = celeriac(&place, &["--json", "why", id]).await.exits(0);
        let answers = Value::parse(ran.stdout.trim().as_bytes()).unwrap();
        let one = answers.as_array().unwrap()[0].clone();
        (text(&one, "cause").to_owned(), one.to_string())
    };
    for (id, cause) in [(&running, "running"), (&ahead, "prefetched"), (&later, "eta")] {
        until(&format!("{cause} is told"), PATIENCE, async || {
            let (told, answer) = why(id).await;
            (told == cause && answer.contains("stock")).then_some(())
        })
        .await;
    }
    // The same workers are asked by the doctor, if it may.
    crate::call(&place, &["hold", "--queue", "reports"]).await;
    let doctor = async |more: &[&str]| {
        let mut all = vec!["doctor"];
        all.extend(more);
        celeriac(&place, &all).await.exits(0)
    };
    doctor(&[]).await.says(&["D-BROKER-WORKERS-UNASKED", "1 client that may be workers of Celery"]);
    let asked = doctor(&["--ask"]).await.says(&["D-BROKER-NO-CONSUMER  queue reports"]);
    assert!(!asked.stdout.contains("UNASKED"), "{asked:#?}");
    // A queue that no celeriac has ever used is looked for by its key.
    let script = "import proj\nprint(proj.hold.apply_async(queue='elsewhere').id)";
    let theirs = app.script(script).await.trim().to_owned();
    let (told, answer) = why(&theirs).await;
    assert_eq!(told, "no-consumer", "{answer}");
    assert!(answer.contains("\"elsewhere\""), "{answer}");
    stock.kill9().await;
    // Acknowledged early: its message is gone, and its state was not written.
    assert_eq!(why_code(&place, &running).await, 5);
    let (told, answer) = why(&ahead).await;
    assert_eq!(told, "worker-silent", "{answer}");
    assert!(answer.contains("gives it back at"), "{answer}");
}

async fn why_code(place: &Place, id: &str) -> i32 {
    celeriac(place, &["why", id]).await.code
}
