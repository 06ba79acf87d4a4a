//! Entries over HTTP: made, changed, run, and given to another scheduler.

use super::{Answer, Place, Site, ask, until};
use crate::kit::PATIENCE;
use crate::running::{add, start};
use celeriac_core::Clock as _;
use celeriac_runtime::SystemClock;
use celeriac_web::schema::{
    Fired, NextTimes, OccurrenceList, RunSent, ScheduleEntry, ScheduleList,
};
use celeriac_wire::Value;
use jiff::{SignedDuration, Timestamp};

/// A name as people give them, and as a path has it.
const NAME: &str = "reports/night ü";
const PATH: &str = "/api/v1/schedules/reports%2Fnight%20%C3%BC";
const NIGHTLY: &str = r#"{"name": "reports/night ü", "task": "t.add", "args": [2, 3],
    "schedule": {"type": "crontab", "minute": "30", "hour": "2"}, "zone": "Europe/Berlin",
    "misfire": "all", "misfire_limit": 3, "description": "for the board"}"#;

/// As precise as it is kept.
fn now() -> Timestamp {
    Timestamp::from_microsecond(SystemClock.wall().as_microsecond()).unwrap()
}

impl Site {
    async fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let token = Some(self.tokens[1].as_str());
        ask(self.address, &format!("{method} {path}"), token, body, "").await.unwrap()
    }

    async fn add(&self, body: &str) -> Answer {
        self.send("POST", "/api/v1/schedules", Some(body)).await
    }

    async fn entry(&self, path: &str) -> ScheduleEntry {
        self.send("GET", path, None).await.read(200)
    }

    async fn fire(&self, path: &str, due: &str, owner: &str) -> Answer {
        let body = format!(r#"{{"scheduled_for": "{due}", {owner}}}"#);
        self.send("POST", &format!("{path}/fire"), Some(&body)).await
    }
}

#[tokio::test]
async fn an_entry_is_made_listed_changed_and_removed() {
    for place in Place::every() {
        let site = Site::start(&place.app()).await;
        let made: ScheduleEntry = site.add(NIGHTLY).await.read(201);
        assert_eq!((made.name.as_str(), made.status.as_str()), (NAME, "scheduled"));
        assert_eq!((made.misfire_limit, made.owner_epoch), (Some(3), 1));
        let again = site.add(NIGHTLY).await;
        assert_eq!((again.status, again.problem().as_str()), (409, "conflict"));

        let shown = site.entry(PATH).await;
        assert_eq!((&shown.next, shown.edited), (&made.next, Some(false)));
        assert!(shown.latest.is_none() && shown.leader.is_none());
        let patched = r#"{"args": [5], "misfire": "skip", "description": null}"#;
        let patched: ScheduleEntry = site.send("PATCH", PATH, Some(patched)).await.read(200);
        assert_eq!((patched.args.len(), patched.misfire.as_str()), (1, "skip"));
        assert_eq!((patched.zone.as_str(), patched.description.as_str()), ("Europe/Berlin", ""));
        assert_eq!(patched.next, made.next, "its times did not change");

        let paused: ScheduleEntry =
            site.send("POST", &format!("{PATH}/pause"), None).await.read(200);
        assert_eq!((paused.status.as_str(), paused.next), ("paused", None));
        let put = r#"{"task": "t.other", "schedule": {"type": "interval", "every": 60}}"#;
        let put: ScheduleEntry = site.send("PUT", PATH, Some(put)).await.read(200);
        assert_eq!((put.task.as_str(), put.zone.as_str(), put.enabled), ("t.other", "UTC", false));
        assert!(put.args.is_empty() && put.version > made.version);
        let resumed: ScheduleEntry =
            site.send("POST", &format!("{PATH}/resume"), None).await.read(200);
        assert!(resumed.enabled && resumed.next.is_some());

        assert_eq!(site.send("DELETE", PATH, None).await.status, 204);
        assert_eq!(site.send("DELETE", PATH, None).await.problem(), "not-found");
        assert_eq!(site.send("GET", PATH, None).await.problem(), "not-found");
    }
}

#[tokio::test]
async fn entries_are_listed_page_by_page() {
    for place in Place::every() {
        let site = Site::start(&place.app()).await;
        for name in ["c", "a", "b/1"] {
            let entry = format!(
                r#"{{"name": "{name}", "task": "t.add", "schedule": {{"type": "interval", "every": 60}}}}"#
            );
            assert_eq!(site.add(&entry).await.status, 201);
        }
        let page: ScheduleList =
            site.send("GET", "/api/v1/schedules?limit=2", None).await.read(200);
        let names: Vec<&str> = page.items.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names, page.total, page.next.as_deref()), (vec!["a", "b/1"], 3, Some("b/1")));
        let rest = site.send("GET", "/api/v1/schedules?limit=2&after=b%2F1", None).await;
        let rest: ScheduleList = rest.read(200);
        assert_eq!((rest.items[0].name.as_str(), rest.items.len(), &rest.next), ("c", 1, &None));
        assert!(rest.leader.is_none() && rest.unreadable.is_empty());
        for query in ["limit=0", "limit=501", "cursor=1"] {
            let answer = site.send("GET", &format!("/api/v1/schedules?{query}"), None).await;
            assert_eq!(answer.problem(), "bad-request", "{query}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_entry_is_said() {
    let site = Site::start(&Place::memory().app()).await;
    assert_eq!(site.add(NIGHTLY).await.status, 201);
    let give = format!("{PATH}/give");
    let fire = format!("{PATH}/fire");
    let long = format!(r#"{{"owner": "{}"}}"#, "x".repeat(201));
    for (method, path, body, said) in [
        ("POST", "/api/v1/schedules", r#"{"name": "x", "task": "t"}"#, "needs a schedule"),
        (
            "POST",
            "/api/v1/schedules",
            r#"{"name": "x", "task": "t", "when": 1}"#,
            "when: an entry has no",
        ),
        ("POST", "/api/v1/schedules", r#"{"owner_epoch": 7}"#, "owner_epoch: "),
        ("POST", "/api/v1/schedules", r#"{"next": "soon"}"#, "next: \\\"soon\\\" is no instant"),
        ("PUT", PATH, r#"{"name": "other", "task": "t"}"#, "keeps its name"),
        ("PUT", PATH, r#"{"task": "t", "next": "2030-01-01T00:00:00Z"}"#, "next: "),
        ("PATCH", PATH, r#"{"owner": "beat"}"#, "/give"),
        ("PATCH", PATH, r#"{"schedule": {"type": "crontab", "minute": "61"}}"#, "61"),
        ("PATCH", PATH, r#"{"zone": "Mars/Base"}"#, "Mars/Base"),
        ("POST", give.as_str(), r#"{"owner": ""}"#, "an owner's name is missing"),
        ("POST", give.as_str(), long.as_str(), "at most 200"),
        ("POST", give.as_str(), r#"{"owner": "beat", "next": "x"}"#, "is no instant"),
        ("POST", fire.as_str(), r#"{"scheduled_for": "x", "owner": "aps"}"#, "scheduled_for: "),
        (
            "POST",
            fire.as_str(),
            r#"{"scheduled_for": "2020-01-01T00:00:00Z", "owner": "beat"}"#,
            "beat",
        ),
        (
            "POST",
            fire.as_str(),
            r#"{"scheduled_for": "2990-01-01T00:00:00Z", "owner": "aps"}"#,
            "ahead",
        ),
    ] {
        let answer = site.send(method, path, Some(body)).await;
        assert!(answer.body.contains(said), "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.problem(), "invalid", "{method} {path} {body}");
    }
    for (method, path) in [
        ("GET", "/api/v1/schedules/nobody/next"),
        ("GET", "/api/v1/schedules/nobody/history"),
        ("POST", "/api/v1/schedules/nobody/pause"),
        ("POST", "/api/v1/schedules/nobody/run"),
    ] {
        assert_eq!(site.send(method, path, None).await.problem(), "not-found", "{method} {path}");
    }
    for query in ["next?count=0", "next?tz=Mars", "history?before=x", "history?limit=0"] {
        let answer = site.send("GET", &format!("{PATH}/{query}"), None).await;
        assert_eq!(answer.problem(), "bad-request", "{query}");
    }
}

#[tokio::test]
async fn an_entry_runs_now_and_its_times_and_history_are_shown() {
    for place in Place::every() {
        let app = place.app().tasks(celeriac::tasks![add]);
        let (site, worker) = (Site::start(&app).await, start(&app).await);
        let made: ScheduleEntry = site.add(NIGHTLY).await.read(201);
        let sent: RunSent = site.send("POST", &format!("{PATH}/run"), None).await.read(202);
        assert_eq!(sent.name, NAME);
        let result =
            site.get(&format!("/api/v1/tasks/{}/result?wait=20", sent.task_id)).await.json();
        assert_eq!(result.get("result"), Some(&Value::from(5)), "{result:?}");
        let shown = site.entry(PATH).await;
        assert_eq!(shown.next, made.next, "the schedule goes on as it was");
        let latest = shown.latest.unwrap();
        assert_eq!((latest.kind.as_str(), latest.note.as_deref()), ("manual", Some("run by hand")));
        assert_eq!((latest.task_id, latest.phase.as_deref()), (Some(sent.task_id), Some("done")));

        site.send("POST", &format!("{PATH}/run"), None).await.read::<RunSent>(202);
        let first = site.send("GET", &format!("{PATH}/history?limit=1"), None).await;
        let first: OccurrenceList = first.read(200);
        let before = first.next.unwrap();
        assert_eq!(before, first.items[0].due);
        let path = format!("{PATH}/history?limit=2&before={before}").replace('+', "%2B");
        let rest: OccurrenceList = site.send("GET", &path, None).await.read(200);
        assert_eq!((rest.items.len(), &rest.next, &rest.items[0].due), (1, &None, &latest.due));

        let times = site.send("GET", &format!("{PATH}/next?count=2"), None).await;
        let times: NextTimes = times.read(200);
        assert_eq!((times.items.len(), times.zone.as_str()), (2, "Europe/Berlin"));
        assert!(times.items[0].local.contains("T02:30:00+0"), "{times:?}");
        assert_eq!(Some(&times.items[0].utc), made.next.as_ref());
        let there = site.send("GET", &format!("{PATH}/next?tz=Asia/Kolkata"), None).await;
        let there: NextTimes = there.read(200);
        assert!(there.items[9].local.ends_with("+05:30"), "{there:?}");
        worker.stop().await;
    }
}

#[tokio::test]
async fn another_scheduler_gets_each_occurrence_once_and_only_as_the_owner() {
    for place in Place::every() {
        let site = Site::start(&place.app()).await;
        let due = now() - SignedDuration::from_secs(5);
        let entry = format!(
            r#"{{"name": "tick", "task": "t.add", "owner": "aps", "next": "{due}",
                "schedule": {{"type": "interval", "every": 60}}}}"#
        );
        let made: ScheduleEntry = site.add(&entry).await.read(201);
        assert_eq!((made.status.as_str(), made.owner_epoch), ("elsewhere", 1));
        let (path, due) = ("/api/v1/schedules/tick", due.to_string());
        let (any, first) = (r#""owner": "aps""#, r#""owner": "aps", "owner_epoch": 1"#);
        let run: Fired = site.fire(path, &due, first).await.read(201);
        assert_eq!((run.owner.as_str(), run.owner_epoch), ("aps", 1));
        let shown = site.entry(path).await;
        assert_eq!((shown.runs, shown.latest.unwrap().kind.as_str()), (1, "elsewhere"));
        let next: Timestamp = shown.next.unwrap().parse().unwrap();
        assert_eq!(next, due.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(1));

        let again = site.fire(path, &due, any).await;
        assert_eq!((again.status, again.problem().as_str()), (409, "already-run"));
        assert!(again.body.contains("run by aps"), "{again:?}");
        // One that was late moves nothing back.
        let late = (due.parse::<Timestamp>().unwrap() - SignedDuration::from_secs(7)).to_string();
        assert_eq!(site.fire(path, &late, any).await.status, 201);
        assert_eq!(site.entry(path).await.next.unwrap().parse::<Timestamp>().unwrap(), next);
        let stranger = site.fire(path, &due, r#""owner": "other""#).await;
        assert_eq!((stranger.status, stranger.problem().as_str()), (410, "not-owner"));

        let due_now = now().to_string();
        site.send("POST", &format!("{path}/pause"), None).await.read::<ScheduleEntry>(200);
        let paused = site.fire(path, &due_now, any).await;
        assert_eq!((paused.status, paused.problem().as_str()), (423, "paused"));
        site.send("POST", &format!("{path}/resume"), None).await.read::<ScheduleEntry>(200);

        let give = format!("{path}/give");
        let given = site.send("POST", &give, Some(r#"{"owner": "beat"}"#)).await;
        let given: ScheduleEntry = given.read(200);
        assert_eq!((given.status.as_str(), given.owner_epoch), ("scheduled", 2));
        assert_eq!(given.next.unwrap().parse::<Timestamp>().unwrap(), next);
        let late = site.fire(path, &due_now, first).await;
        assert_eq!(late.problem(), "not-owner");
        assert!(late.body.contains("belongs to beat, epoch 2"), "{late:?}");
        // Given back: the former time of the owner has gone by, the owner itself has not.
        site.send("POST", &give, Some(r#"{"owner": "aps"}"#)).await.read::<ScheduleEntry>(200);
        assert_eq!(site.fire(path, &due_now, first).await.problem(), "not-owner");
        assert_eq!(site.fire(path, &due_now, any).await.status, 201);
        assert_eq!(
            site.fire("/api/v1/schedules/nobody", &due_now, any).await.problem(),
            "not-found"
        );
    }
}

/// What is due is sent before another scheduler gets the entry.
#[tokio::test]
async fn an_entry_is_given_away_between_its_times() {
    for place in Place::every() {
        let app = place.app();
        let site = Site::start(&app).await;
        let due = now() - SignedDuration::from_secs(5);
        let entry = format!(
            r#"{{"name": "tick", "task": "t.add", "next": "{due}",
                "schedule": {{"type": "interval", "every": 60}}}}"#
        );
        assert_eq!(site.add(&entry).await.status, 201);
        let (path, give) = ("/api/v1/schedules/tick", "/api/v1/schedules/tick/give");
        // Nobody sends it: it is waited for in vain.
        let refused = site.send("POST", give, Some(r#"{"owner": "aps"}"#)).await;
        assert_eq!((refused.status, refused.problem().as_str()), (409, "conflict"));
        assert!(refused.body.contains("stays with beat"), "{refused:?}");
        assert!(refused.body.contains("pause the entry first"), "{refused:?}");
        assert_eq!(site.entry(path).await.owner, "beat");

        let giving = site.send("POST", give, Some(r#"{"owner": "aps"}"#));
        let beat = app.beat().build().await.unwrap();
        let stop = beat.stop_handle();
        let running = tokio::spawn(beat.run());
        let given: ScheduleEntry = giving.await.read(200);
        assert_eq!((given.owner.as_str(), given.owner_epoch, given.runs), ("aps", 2, 1));
        let next: Timestamp = given.next.unwrap().parse().unwrap();
        assert_eq!(next, due + SignedDuration::from_mins(1));
        let again = site.fire(path, &due.to_string(), r#""owner": "aps""#).await;
        assert_eq!(again.problem(), "already-run");
        stop.stop();
        running.await.unwrap();

        site.send("POST", give, Some(r#"{"owner": "beat"}"#)).await.read::<ScheduleEntry>(200);
        let schedules = app.schedules().await.unwrap();
        let past = now() - SignedDuration::from_secs(1);
        // Its owner's next time is what somebody says.
        schedules.give("tick", "beat", Some(past)).await.unwrap();
        let given = schedules.give("tick", "aps", Some(past)).await.unwrap();
        assert_eq!((given.entry.owner.epoch, given.state.due), (4, Some(past)));
    }
}

#[tokio::test]
async fn the_schedule_is_measured() {
    for place in Place::every() {
        let app = place.app();
        let site = Site::start(&app).await;
        site.measures(&["celeriac_beat_leader 0", "celeriac_schedule_entries 0"]).await;
        let past = now() - SignedDuration::from_secs(100);
        let entry = format!(
            r#"{{"name": "late", "task": "t.add", "next": "{past}",
                "schedule": {{"type": "interval", "every": 3600}}}}"#
        );
        assert_eq!(site.add(&entry).await.status, 201);
        let text = site.measures(&["celeriac_schedule_entries 1"]).await;
        let overdue =
            text.lines().find_map(|line| line.strip_prefix("celeriac_schedule_next_seconds "));
        let overdue: f64 = overdue.unwrap().parse().unwrap();
        assert!((100.0..160.0).contains(&overdue), "{overdue}");
        let beat = app.beat().build().await.unwrap();
        let stop = beat.stop_handle();
        let running = tokio::spawn(beat.run());
        site.measures(&["celeriac_beat_leader 1", "celeriac_schedule_next_seconds 0.0"]).await;
        until("the list names the leader", PATIENCE, async || {
            let list: ScheduleList = site.get("/api/v1/schedules").await.read(200);
            list.leader.filter(|leader| leader.epoch == 1)
        })
        .await;
        stop.stop();
        running.await.unwrap();
    }
}
