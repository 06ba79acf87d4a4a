//! What the API does to tasks, queues and dead letters, read into the types of its document.

use super::{Place, Site, until};
use crate::kit::PATIENCE;
use crate::running::{Gate, add, start};
use celeriac::prelude::*;
use celeriac_web::schema;
use celeriac_wire::Value;
use std::sync::Arc;

#[task(name = "web.fails", max_retries = 0)]
async fn fails() -> Result {
    Err(TaskError::fail("broken"))
}

#[task(name = "web.waits", max_retries = 0)]
async fn waits(gate: State<Arc<Gate>>) -> Result {
    gate.0.acquire().await?.forget();
    Ok(())
}

fn app(place: &Place) -> App {
    place.app().tasks(tasks![add, fails, waits]).state(Arc::new(Gate::shut()))
}

#[tokio::test]
async fn a_task_is_sent_seen_and_its_result_read() {
    for place in Place::every() {
        let app = app(&place);
        let (site, worker) = (Site::start(&app).await, start(&app).await);
        let body =
            r#"{"task": "t.add", "args": [123456789012345678901234567890, 1], "kwargs": {}}"#;
        // Larger than any integer of Rust's: the worker refuses it, the way there does not change it.
        let sent: schema::SentTask = site.post("/api/v1/tasks", body).await.read(201);
        let path = format!("/api/v1/tasks/{}/result?wait=20", sent.task_id);
        let result = site.get(&path).await;
        assert!(
            result.body.contains("FAILURE")
                && result.body.contains("123456789012345678901234567890"),
            "{result:?}"
        );
        let answer = site.post("/api/v1/tasks", r#"{"task": "t.add", "args": [2, 3]}"#).await;
        assert!(answer.header("location").unwrap().starts_with("/api/v1/tasks/"));
        let sent: schema::SentTask = answer.read(201);
        assert!(!sent.replayed);
        let result = site.get(&format!("/api/v1/tasks/{}/result?wait=20", sent.task_id)).await;
        assert_eq!(result.json().get("result"), Some(&Value::from(5)), "{result:?}");
        let task: schema::Task =
            site.get(&format!("/api/v1/tasks/{}", sent.task_id)).await.read(200);
        assert_eq!((task.phase.as_str(), task.task.as_deref()), ("done", Some("t.add")));
        let list: schema::TaskList =
            site.get("/api/v1/tasks?state=SUCCESS&limit=1").await.read(200);
        assert_eq!((list.items.len(), &list.next), (1, &None));
        let workers: schema::WorkerList = site.get("/api/v1/workers").await.read(200);
        assert_eq!(
            (workers.items[0].software.as_str(), workers.items[0].alive),
            ("celeriac", true)
        );
        let replies: schema::Replies =
            site.post("/api/v1/inspect/ping", r#"{"timeout": 2}"#).await.read(200);
        assert_eq!(replies.replies.len(), 1);
        let status: schema::Status = site.get("/api/v1/status").await.read(200);
        assert_eq!((status.workers, status.role.as_str()), (1, "admin"));
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_repeated_request_sends_nothing_and_another_body_is_refused() {
    for place in Place::every() {
        let app = app(&place);
        let site = Site::start(&app).await;
        let send = async |body: &str, key: &str| {
            let more = format!("Idempotency-Key: {key}\r\n");
            site.post_with("/api/v1/tasks", body, &more).await
        };
        let body = r#"{"task": "t.add", "args": [1, 1]}"#;
        let first: schema::SentTask = send(body, "order-7").await.read(201);
        let again: schema::SentTask = send(body, "order-7").await.read(200);
        assert_eq!((again.task_id.as_str(), again.replayed), (first.task_id.as_str(), true));
        let other = send(r#"{"task": "t.add", "args": [1, 2]}"#, "order-7").await;
        assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-key-reused"));
        let free: schema::SentTask = send(body, "order-8").await.read(201);
        assert_ne!(free.task_id, first.task_id);
        let queue: schema::Queue = site.get("/api/v1/queues/celery").await.read(200);
        assert_eq!(queue.ready, 2);
        // The key stays taken when the task has ended.
        let worker = start(&app).await;
        site.get(&format!("/api/v1/tasks/{}/result?wait=20", first.task_id)).await;
        let again: schema::SentTask = send(body, "order-7").await.read(200);
        assert_eq!(again.task_id, first.task_id);
        worker.stop().await;
        assert_eq!(send(body, "a b").await.problem(), "bad-request");
        let both = send(r#"{"task": "t.add", "task_id": "mine"}"#, "order-9").await;
        assert_eq!(both.problem(), "invalid");
    }
}

#[tokio::test]
async fn tasks_are_cancelled_and_retried() {
    for place in Place::every() {
        let app = app(&place);
        let (site, worker) = (Site::start(&app).await, start(&app).await);
        let send = async |body: &str| {
            site.post("/api/v1/tasks", body).await.read::<schema::SentTask>(201).task_id
        };
        let running = send(r#"{"task": "web.waits"}"#).await;
        let path = format!("/api/v1/tasks/{running}");
        until("it runs", PATIENCE, async || {
            let task: schema::Task = site.get(&path).await.read(200);
            (task.phase == "running").then_some(())
        })
        .await;
        let deed: schema::Deed = site.post(&format!("{path}/cancel"), "{}").await.read(200);
        assert_eq!(deed.note, "is told to stop");
        let result = site.get(&format!("{path}/result?wait=20")).await.json();
        assert_eq!(result.get("status"), Some(&Value::from("REVOKED")));
        assert_eq!(site.post(&format!("{path}/cancel"), "{}").await.problem(), "conflict");
        let failed = send(r#"{"task": "web.fails"}"#).await;
        site.get(&format!("/api/v1/tasks/{failed}/result?wait=20")).await;
        let letters: schema::DeadList = site.get("/api/v1/dead?reason=failed").await.read(200);
        assert_eq!(
            (letters.total, letters.items[0].task_id.as_deref()),
            (1, Some(failed.as_str()))
        );
        let number = letters.items[0].number;
        let letter: schema::DeadLetter =
            site.get(&format!("/api/v1/dead/{number}")).await.read(200);
        assert_eq!(letter.history.len(), 1);
        let retry = format!("/api/v1/tasks/{failed}/retry");
        let deed: schema::Deed = site.post(&retry, "{}").await.read(200);
        assert!(deed.note.contains("back in its queue"), "{}", deed.note);
        let later = send(r#"{"task": "t.add", "args": [1, 1], "countdown": 3600}"#).await;
        let deed: schema::Deed =
            site.post(&format!("/api/v1/tasks/{later}/retry"), "{}").await.read(200);
        assert!(deed.note.contains("as soon as"), "{}", deed.note);
        let result = site.get(&format!("/api/v1/tasks/{later}/result?wait=20")).await.json();
        assert_eq!(result.get("result"), Some(&Value::from(2)));
        assert_eq!(site.post("/api/v1/tasks/nobody/retry", "{}").await.problem(), "not-found");
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_limit_and_a_pause_of_a_task_hold_its_tasks_until_they_are_lifted() {
    for place in Place::every() {
        let app = app(&place);
        let (site, worker) = (Site::start(&app).await, start(&app).await);
        let add = r#"{"task": "t.add", "args": [2, 3]}"#;
        let pause = r#"{"kind": "task", "name": "t.add", "reason": "migration"}"#;
        let done: schema::TargetDeed = site.post("/api/v1/pauses", pause).await.read(200);
        assert_eq!((done.kind.as_str(), done.name.as_str()), ("task", "t.add"));
        let sent: schema::SentTask = site.post("/api/v1/tasks", add).await.read(201);
        let path = format!("/api/v1/tasks/{}", sent.task_id);
        let held: schema::Task = site.get(&path).await.read(200);
        assert_eq!((held.phase.as_str(), held.paused), ("queued", Some(true)));
        let pauses: schema::PauseList = site.get("/api/v1/pauses").await.read(200);
        assert_eq!((pauses.items[0].kind.as_str(), pauses.items.len()), ("task", 1));

        let limit =
            r#"{"kind": "task", "name": "t.add", "rates": ["1/h", "9/d burst"], "concurrency": 3}"#;
        site.post("/api/v1/limits", limit).await.read::<schema::TargetDeed>(200);
        let limits: schema::LimitList = site.get("/api/v1/limits").await.read(200);
        let [one] = &limits.items[..] else { panic!("{limits:?}") };
        assert_eq!((one.rates.join(", "), one.concurrency), ("1/h, 9/d burst".to_owned(), Some(3)));
        assert_eq!((one.origin.as_str(), one.in_force), ("operator", true));

        let target = r#"{"kind": "task", "name": "t.add"}"#;
        site.post("/api/v1/pauses/resume", target).await.read::<schema::TargetDeed>(200);
        assert_eq!(site.post("/api/v1/pauses/resume", target).await.problem(), "conflict");
        assert!(site.get(&format!("{path}/result?wait=20")).await.body.contains("SUCCESS"));
        let second: schema::SentTask = site.post("/api/v1/tasks", add).await.read(201);
        let second = format!("/api/v1/tasks/{}", second.task_id);
        until("the rate holds the second", PATIENCE, async || {
            let held: schema::Task = site.get(&second).await.read(200);
            (held.limited == Some(true)).then_some(())
        })
        .await;
        site.post("/api/v1/limits/remove", target).await.read::<schema::TargetDeed>(200);
        assert_eq!(site.post("/api/v1/limits/remove", target).await.problem(), "conflict");
        assert!(site.get(&format!("{second}/result?wait=20")).await.body.contains("SUCCESS"));
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_limit_or_a_pause_that_makes_no_sense_is_refused() {
    let place = Place::memory();
    let app = app(&place);
    let site = Site::start(&app).await;
    for (path, body, why) in [
        ("limits", r#"{"kind": "tasks", "name": "t", "rates": ["1/s"]}"#, "queue, task, key or"),
        ("limits", r#"{"kind": "task", "rates": ["1/s"]}"#, "has no name"),
        ("limits", r#"{"kind": "everything", "name": "t", "rates": ["1/s"]}"#, "has no name"),
        ("limits", r#"{"kind": "task", "name": "t", "rates": ["ten"]}"#, "is no rate"),
        ("limits", r#"{"kind": "task", "name": "t"}"#, "lets nothing run"),
        ("limits", r#"{"kind": "task", "name": "t", "concurrency": 0}"#, "lets nothing run"),
        ("limits", r#"{"kind": "queue", "name": "celeriac:x", "concurrency": 1}"#, "reserved"),
        ("pauses", r#"{"kind": "key", "name": "*"}"#, "name one key"),
        ("pauses", r#"{"kind": "task", "name": "a\u0000b"}"#, "control characters"),
        ("dead/1/edit", "{}", "nothing to edit"),
        ("dead/1/edit", r#"{"args": {}}"#, "not as expected"),
    ] {
        let answer = site.post(&format!("/api/v1/{path}"), body).await;
        assert_eq!(answer.problem(), "invalid", "{path} {body}: {answer:?}");
        assert!(answer.body.contains(why), "{path} {body}: {answer:?}");
    }
    assert_eq!(site.post("/api/v1/dead/1/edit", r#"{"args": []}"#).await.problem(), "not-found");
}

#[tokio::test]
async fn an_edited_dead_letter_runs_with_its_new_arguments() {
    for place in Place::every() {
        let app = app(&place);
        let (site, worker) = (Site::start(&app).await, start(&app).await);
        let body = r#"{"task": "t.add", "args": ["two", 3], "task_id": "edited"}"#;
        site.post("/api/v1/tasks", body).await.read::<schema::SentTask>(201);
        site.get("/api/v1/tasks/edited/result?wait=20").await;
        let dead: schema::DeadList = site.get("/api/v1/dead").await.read(200);
        let path = format!("/api/v1/dead/{}/edit", dead.items[0].number);
        let changed: schema::DeadLetter =
            site.post(&path, r#"{"args": [123456789012, 3]}"#).await.read(200);
        assert!(changed.body.starts_with("[[123456789012, 3], {}"), "{changed:?}");
        let replay = r#"{"ids": ["edited"]}"#;
        site.post("/api/v1/dead/replay", replay).await.read::<schema::DeadDeed>(200);
        let result = site.get("/api/v1/tasks/edited/result?wait=20").await;
        assert_eq!(
            result.json().get("result"),
            Some(&Value::from(123_456_789_015_i64)),
            "{result:?}"
        );
        worker.stop().await;
    }
}

#[tokio::test]
async fn queues_are_paged_paused_and_purged_and_dead_letters_discarded() {
    for place in Place::every() {
        let app = app(&place);
        let site = Site::start(&app).await;
        for _ in 0..5 {
            site.post("/api/v1/tasks", r#"{"task": "web.fails", "queue": "q/1"}"#).await;
        }
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/queues/q%2F1/messages?limit=2{cursor}");
            let page: schema::MessageList = site.get(&path).await.read(200);
            rows.extend(page.items.iter().map(|one| one.row));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        rows.dedup();
        assert_eq!(rows.len(), 5);
        let (mut ids, mut cursor) = (std::collections::BTreeSet::new(), String::new());
        let mut pages = Vec::new();
        loop {
            let path = format!("/api/v1/tasks?queue=q/1&limit=2{cursor}");
            let page: schema::TaskList = site.get(&path).await.read(200);
            pages.push(page.items.len());
            ids.extend(page.items.into_iter().map(|one| one.task_id));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((pages, ids.len()), (vec![2, 2, 1], 5), "each task once");
        let state: schema::QueueState =
            site.post("/api/v1/queues/q%2F1/pause", r#"{"reason": "night"}"#).await.read(200);
        assert!(state.paused);
        let pauses: schema::PauseList = site.get("/api/v1/pauses").await.read(200);
        assert_eq!(
            (pauses.items[0].name.as_str(), pauses.items[0].reason.as_str()),
            ("q/1", "night")
        );
        let state: schema::QueueState =
            site.post("/api/v1/queues/q%2F1/resume", "{}").await.read(200);
        assert!(!state.paused);
        assert_eq!(site.post("/api/v1/queues/q%2F1/resume", "{}").await.problem(), "conflict");
        let purge = "/api/v1/queues/q%2F1/purge";
        assert_eq!(site.post(purge, r#"{"expected": 4}"#).await.problem(), "conflict");
        let purged: schema::Purged = site.post(purge, r#"{"expected": 5}"#).await.read(200);
        assert_eq!((purged.purged, purged.left), (5, 0));
        let worker = start(&app).await;
        let sent: schema::SentTask =
            site.post("/api/v1/tasks", r#"{"task": "web.fails"}"#).await.read(201);
        site.get(&format!("/api/v1/tasks/{}/result?wait=20", sent.task_id)).await;
        worker.stop().await;
        assert_eq!(site.post("/api/v1/dead/discard", "{}").await.problem(), "invalid");
        let deed: schema::DeadDeed =
            site.post("/api/v1/dead/replay", r#"{"all": true, "to": "later"}"#).await.read(200);
        assert_eq!((deed.numbers.len(), deed.left), (1, 0));
        let queues: schema::QueueList = site.get("/api/v1/queues").await.read(200);
        assert!(queues.items.iter().any(|queue| queue.queue == "later" && queue.ready == 1));
        let deed: schema::DeadDeed =
            site.post("/api/v1/dead/discard", r#"{"all": true}"#).await.read(200);
        assert_eq!((deed.numbers.len(), deed.left), (0, 0));
        for (path, problem) in [
            ("/api/v1/queues/none", "not-found"),
            ("/api/v1/queues/q%2F1/messages?limit=0", "bad-request"),
            ("/api/v1/queues/q%2F1/messages?cursor=x", "bad-request"),
            ("/api/v1/tasks?cursor=x", "invalid"),
            ("/api/v1/tasks?limit=0", "bad-request"),
            ("/api/v1/tasks?state=odd", "bad-request"),
            ("/api/v1/tasks?limit=1001", "bad-request"),
            ("/api/v1/tasks?stat=done", "bad-request"),
            ("/api/v1/dead?reason=odd", "invalid"),
            ("/api/v1/dead/9", "not-found"),
            ("/api/v1/dead/x", "not-found"),
            ("/api/v1/tasks/none", "not-found"),
            ("/api/v1/tasks/%00", "bad-request"),
            ("/api/v1/tasks/x/result?wait=26", "bad-request"),
        ] {
            assert_eq!(site.get(path).await.problem(), problem, "{path}");
        }
    }
}
