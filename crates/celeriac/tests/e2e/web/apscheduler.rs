//! A real `APScheduler` 3 beside a beat: each occurrence is run once, by the owner of its entry.

use super::{Place, Ran, Site, ask, until};
use crate::kit::{PATIENCE, command};
use celeriac::schedule::{Occurrence, OccurrenceKind, Schedules};
use celeriac::{App, BeatStatus, BeatStop};
use celeriac_core::Clock as _;
use celeriac_core::QueueName;
use celeriac_core::document::object;
use celeriac_core::store::Page;
use celeriac_runtime::SystemClock;
use celeriac_testkit::process::Process;
use celeriac_testkit::services::python::Python;
use celeriac_web::schema::ScheduleEntry;
use celeriac_wire::Value;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// How many jobs there are.
const JOBS: i64 = 20;
/// How many occurrences of each job either side runs at least.
const EACH: usize = 2;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn python(version: &str, place: &Place) -> Option<Command> {
    let python = Python::with_apscheduler(version)?;
    let mut command = command(python.program(), place.dir());
    command.env("PYTHONPATH", root().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// One job: it is due at `start` and every so many seconds from then on.
struct Job {
    name: String,
    every: i64,
    start: Timestamp,
}

impl Job {
    fn all() -> Vec<Self> {
        let now = Timestamp::from_millisecond(SystemClock.wall().as_millisecond()).unwrap();
        let job = |number: i64| Self {
            name: format!("job/{number}"),
            every: 1 + number % 2,
            start: now + SignedDuration::from_millis(2000 + 50 * number),
        };
        (0..JOBS).map(job).collect()
    }

    /// The entry that goes on from it.
    fn entry(&self) -> String {
        let (name, every, start) = (&self.name, self.every, self.start);
        format!(
            r#"{{"name": "{name}", "task": "legacy.tick", "owner": "apscheduler", "misfire": "all",
                "next": "{start}", "schedule": {{"type": "interval", "every": {every}}}}}"#
        )
    }

    fn path(&self) -> String {
        format!("/api/v1/schedules/{}", self.name.replace('/', "%2F"))
    }

    fn plan(&self) -> Value {
        let start = self.start.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string();
        object([
            ("name", Value::from(self.name.as_str())),
            ("every", Value::from(self.every)),
            ("start", Value::from(start)),
        ])
    }

    /// The earliest first.
    async fn history(&self, schedules: &Schedules) -> Vec<Occurrence> {
        let mut lines = schedules.history(&self.name, 500).await.unwrap();
        lines.reverse();
        lines
    }

    /// Waits until the latest occurrences, and enough of them, have been run by one side.
    async fn runs(&self, schedules: &Schedules, kind: OccurrenceKind) {
        until(&format!("{} is {}", self.name, kind.as_str()), PATIENCE, async || {
            let lines = self.history(schedules).await;
            let latest = lines.iter().rev().take_while(|line| line.kind == kind);
            (latest.count() >= EACH).then_some(())
        })
        .await;
    }

    /// Waits until it is due, while no beat runs.
    async fn is_due(&self, schedules: &Schedules) {
        until(&format!("{} is due", self.name), PATIENCE, async || {
            let due = schedules.status(&self.name).await.unwrap().kept.state.due;
            due.filter(|due| *due <= SystemClock.wall())
        })
        .await;
    }

    /// Gives its entry to another owner, whatever is due.
    async fn give(&self, site: &Site, owner: &str, epoch: u64) {
        let (line, token) = (format!("POST {}/give", self.path()), Some(site.tokens[1].as_str()));
        let body = format!(r#"{{"owner": "{owner}"}}"#);
        let given = ask(site.address, &line, token, Some(&body), "").await.unwrap();
        // One that was brought back at once because it came due has changed hands more often.
        assert!(given.read::<ScheduleEntry>(200).owner_epoch >= epoch);
    }
}

async fn start_beat(app: &App) -> (BeatStop, JoinHandle<BeatStatus>) {
    let beat = app.beat().build().await.unwrap();
    (beat.stop_handle(), tokio::spawn(beat.run()))
}

/// Twenty jobs of 1 or 2 s begin as those of `APScheduler`, beside a beat, become beat's one by one, go back,
/// and become beat's again.
async fn move_to_beat_and_back(version: &str, kind: &str) {
    let place = Place::shared();
    let Some(mut program) = python(version, &place) else { return };
    let app = place.app();
    let (site, schedules) = (Site::start(&app).await, app.schedules().await.unwrap());
    let token = Some(site.tokens[1].as_str());
    let jobs = Job::all();
    for job in &jobs {
        let line = "POST /api/v1/schedules";
        let made = ask(site.address, line, token, Some(&job.entry()), "").await.unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    }
    let (mut stop, mut beating) = start_beat(&app).await;
    let plan = object([
        ("url", Value::from(format!("http://{}", site.address))),
        ("token", Value::from(site.tokens[1].as_str())),
        ("kind", Value::from(kind)),
        ("jobs", Value::Array(jobs.iter().map(Job::plan).collect())),
    ]);
    program.arg(root().join("interop/apscheduler/jobs.py")).arg(plan.to_string());
    program.stdin(std::process::Stdio::piped());
    let mut legacy = Process::spawn(&mut program, place.path("legacy.log"));
    for job in &jobs {
        job.runs(&schedules, OccurrenceKind::Elsewhere).await;
    }
    for job in &jobs {
        job.give(&site, "beat", 2).await;
    }
    for job in &jobs {
        job.runs(&schedules, OccurrenceKind::Sent).await;
    }
    // APScheduler was refused what is due now: the next beat sends it before the entries go back.
    stop.stop();
    beating.await.unwrap();
    for job in &jobs {
        job.is_due(&schedules).await;
    }
    let giving = join_all(jobs.iter().map(|job| job.give(&site, "apscheduler", 3)));
    (_, (stop, beating)) = tokio::join!(giving, start_beat(&app));
    for job in &jobs {
        job.runs(&schedules, OccurrenceKind::Elsewhere).await;
    }
    for job in &jobs {
        job.give(&site, "beat", 4).await;
    }
    for job in &jobs {
        job.runs(&schedules, OccurrenceKind::Sent).await;
    }
    legacy.signal(rustix::process::Signal::TERM);
    legacy.ended_within(PATIENCE).await;
    stop.stop();
    beating.await.unwrap();
    check(&app, &schedules, &jobs, &legacy.log()).await;
}

/// No time is missed, none is run twice, and both sides say the same.
async fn check(app: &App, schedules: &Schedules, jobs: &[Job], log: &str) {
    let (mut sent, mut elsewhere) = (0, 0);
    for job in jobs {
        let lines = job.history(schedules).await;
        let mut due = job.start;
        for line in &lines {
            assert_eq!((line.due, line.count), (due, 1), "{}: {lines:#?}", job.name);
            due += SignedDuration::from_secs(job.every);
        }
        let mut owners: Vec<OccurrenceKind> = lines.iter().map(|line| line.kind).collect();
        owners.dedup();
        let turns = [OccurrenceKind::Elsewhere, OccurrenceKind::Sent].repeat(2);
        assert_eq!(owners, turns, "{lines:#?}");
        let (theirs, ours): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.kind == OccurrenceKind::Elsewhere);
        (sent, elsewhere) = (sent + ours.len(), elsewhere + theirs.len());
        let ran = format!("ran {} ", job.name);
        let ran = log.lines().filter_map(|line| line.strip_prefix(&ran));
        let mut ran: Vec<Timestamp> = ran.map(|at| at.parse().unwrap()).collect();
        ran.sort_unstable();
        let theirs: Vec<Timestamp> = theirs.iter().map(|line| line.due).collect();
        assert_eq!(ran, theirs, "{}: what it ran is what it was given: {log}", job.name);
        let body = format!("body {}", job.name);
        let bodies = log.lines().filter(|line| **line == body).count();
        assert_eq!(bodies, ran.len(), "{}: {log}", job.name);
    }
    assert!(!log.contains("fault "), "{log}");
    assert!(log.contains("belongs to beat, epoch 2"), "it is told why it is refused: {log}");
    let store = app.store().await.unwrap();
    let queue = QueueName::parse("celery").unwrap();
    let messages = store.peek(&queue, Page { after: 0, count_max: 1000 }).await.unwrap();
    let ids = messages.iter().map(|one| one.outgoing.message.headers.id().unwrap().to_owned());
    let mut count = BTreeMap::new();
    ids.for_each(|id| *count.entry(id).or_insert(0) += 1);
    assert!(count.values().all(|count| *count == 1) && count.len() == sent, "{count:?}");
    println!("{elsewhere} runs of APScheduler, {sent} of beat");
}

macro_rules! moves {
    ($($name:ident $version:literal $kind:literal)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                move_to_beat_and_back($version, $kind).await;
            }
        )*
    };
}

moves! {
    jobs_in_threads_of_3_10_become_beats_and_go_back_without_a_gap "3.10" "threads"
    jobs_on_a_loop_of_3_10_become_beats_and_go_back_without_a_gap "3.10" "asyncio"
    jobs_in_threads_of_3_11_become_beats_and_go_back_without_a_gap "3.11" "threads"
    jobs_on_a_loop_of_3_11_become_beats_and_go_back_without_a_gap "3.11" "asyncio"
}

/// `python/apscheduler_tests`: each answer, and none, in each executor.
#[tokio::test]
async fn the_guard_passes_its_own_tests() {
    for version in ["3.10", "3.11"] {
        let place = Place::memory();
        let Some(mut program) = python(version, &place) else { return };
        program.args(["-X", "faulthandler", "-m", "unittest", "discover", "-s"]);
        Ran::new(program.arg(root().join("python/apscheduler_tests"))).await.exits(0);
    }
}
