//! What happens in the demo, in order, and what is printed about it.

use super::tasks::{
    ReportFiles, TableFacts, archive, ask_service, column, inspect, report, wait_for_cancel,
};
use super::{Place, Refused, watch};
use crate::app::App;
use crate::canvas::{chord, group};
use crate::client::Client;
use crate::error::{Result, TaskError};
use crate::job::{Job, JobError};
use celeriac_core::store::{DeadFilter, Page, Phase, Replay, TaskFilter};
use celeriac_wire::State;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

/// Exit code of a demo whose file cannot be profiled.
const NO: u8 = 5;

struct Story<'a> {
    client: Client,
    place: &'a Place,
    deadline: Instant,
    began: Instant,
}

/// Tells the whole story.
pub(super) async fn tell(app: &App, place: &Place, timeout: Duration) -> Result<ExitCode> {
    let began = Instant::now();
    let story = Story { client: app.client().await?, place, deadline: began + timeout, began };
    say(&format!("celeriac demo · {} · store {}", place.shown, place.url()));
    say("");
    let Some(facts) = story.inspect().await? else { return Ok(ExitCode::from(NO)) };
    let passing =
        story.client.send(ask_service::call(place.socket().display().to_string())).await?;
    let endless = story.client.send(wait_for_cancel::call()).await?;
    let files = story.profile(&facts).await?;
    story.passing_fault(&passing).await?;
    story.cancel(&endless).await?;
    story.dead_letter(&files).await?;
    story.end(&facts, &files).await?;
    Ok(ExitCode::SUCCESS)
}

impl Story<'_> {
    /// The time left of the demo's timeout.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn inspect(&self) -> Result<Option<TableFacts>> {
        let job = self.client.send(inspect::call(self.place.input())).await?;
        match job.get(self.left()).await {
            Ok(facts) => {
                say(&format!(
                    "1 · read       {} rows, {} columns, {}, fields separated by {:?}",
                    facts.rows,
                    facts.header.len(),
                    facts.encoding,
                    facts.delimiter
                ));
                Ok(Some(facts))
            }
            Err(JobError::Failed { exception, .. }) => {
                self.refused(&job, &exception).await?;
                Ok(None)
            }
            Err(error) => Err(self.not_done(error)),
        }
    }

    /// A file that is no table: the task has failed for good and its message is kept.
    async fn refused(&self, job: &Job<TableFacts>, exception: &str) -> Result<()> {
        warn(&format!("error: {exception}"));
        if let Phase::Dead { number, .. } = job.view().await?.phase {
            warn(&format!(
                "hint: mend the file and replay dead letter {number}:\n  celeriac -b {} dead show {number}",
                self.place.url()
            ));
        }
        Ok(())
    }

    fn not_done(&self, error: JobError) -> TaskError {
        match error {
            JobError::Timeout { id, waited, .. } => Refused::NotReady(format!(
                "task {id} was not done within {:.1} s; is a worker running on {}?",
                waited.as_secs_f64(),
                self.place.url()
            ))
            .into(),
            error => error.into(),
        }
    }

    /// One task a column, and a body that writes the report when all are done.
    async fn profile(&self, facts: &TableFacts) -> Result<ReportFiles> {
        let count = facts.header.len();
        say(&format!(
            "2 · profile    {count} tasks, one a column, and a chord that writes the report"
        ));
        let ids: Vec<String> = (0..count).map(|index| format!("demo-column-{index:04}")).collect();
        let header = group(
            ids.iter()
                .enumerate()
                .map(|(index, id)| column::call(self.place.input(), index).task_id(id)),
        );
        let dir = self.place.dir.display().to_string();
        let body = report::partial(facts.clone(), self.place.shown.clone(), dir);
        let job = self.client.send(chord(header).then(body)).await?;
        let bars = watch::columns(&self.client, &ids, &facts.header, facts.rows);
        tokio::time::timeout(self.left(), bars).await.map_err(|_| {
            too_late("the columns were not profiled in time; is a worker running?")
        })??;
        job.get(self.left()).await.map_err(|error| self.not_done(error))
    }

    /// The service comes up only after the task has met its absence.
    async fn passing_fault(&self, job: &Job<String>) -> Result<()> {
        let first = self.wait_for(job, |state| *state == State::Retry || state.is_ready()).await?;
        let listener = tokio::net::UnixListener::bind(self.place.socket())?;
        let serving = tokio::spawn(async move {
            if let Ok((mut stream, _)) = listener.accept().await {
                // The task reads to the end; what it makes of it is its result.
                let _sent = stream.write_all(b"I am up now").await;
            }
        });
        let answer = job.get(self.left()).await.map_err(|error| self.not_done(error))?;
        serving.abort();
        say(&format!("3 · retry      a service was down ({first}); the retry got {answer:?}"));
        Ok(())
    }

    async fn cancel(&self, job: &Job<()>) -> Result<()> {
        self.wait_for(job, |state| state.as_str() == "PROGRESS" || state.is_ready()).await?;
        job.cancel().await?;
        match job.get(self.left()).await {
            Err(JobError::Revoked { .. }) => {
                say("4 · cancel     a running task was told to stop, and did");
                Ok(())
            }
            Ok(()) => Err(TaskError::fail("the endless task ended by itself")),
            Err(error) => Err(self.not_done(error)),
        }
    }

    async fn dead_letter(&self, files: &ReportFiles) -> Result<()> {
        let folder = self.place.archive();
        let call = archive::call(files.json.clone(), folder.display().to_string());
        let job = self.client.send(call).await?;
        let exception = match job.get(self.left()).await {
            Err(JobError::Failed { exception, .. }) => exception,
            Err(error) => return Err(self.not_done(error)),
            Ok(copy) => {
                return Err(TaskError::fail(format!("{copy} was written into a missing folder")));
            }
        };
        let filter = DeadFilter { ids: vec![job.id().to_owned()], ..DeadFilter::default() };
        let store = self.client.store();
        let letters = store.dead_list(&filter, Page { after: 0, count_max: 1 }).await?;
        let number = letters
            .first()
            .map(|letter| letter.number)
            .ok_or_else(|| TaskError::fail("the failed task left no dead letter"))?;
        say(&format!("5 · dead       {exception}: dead letter {number}"));
        tokio::fs::create_dir(&folder).await?;
        store.dead_replay(&filter, &Replay::default(), 1).await?;
        let copy = job.get(self.left()).await.map_err(|error| self.not_done(error))?;
        say(&format!("    replay     the folder was made, the dead letter replayed: {copy}"));
        Ok(())
    }

    /// Waits until the state of a job is one that `wanted` accepts; returns what is stored then.
    async fn wait_for<R>(&self, job: &Job<R>, wanted: impl Fn(&State) -> bool) -> Result<String> {
        loop {
            let seen = self.client.store().changes();
            if let Some(record) = job.record().await?.filter(|record| wanted(&record.meta.state()))
            {
                let exception = record.meta.exception().ok().flatten();
                return Ok(exception.map_or_else(String::new, |exception| exception.summary()));
            }
            if self.left().is_zero() {
                return Err(too_late(&format!("task {} did not begin in time", job.id())));
            }
            self.client.store().wait_change(seen, Duration::from_millis(100)).await;
        }
    }

    async fn end(&self, facts: &TableFacts, files: &ReportFiles) -> Result<()> {
        let filter = TaskFilter { count_max: 10_000, ..TaskFilter::default() };
        let tasks = self.client.store().tasks(&filter).await?.views;
        let ended = |state: State| {
            let is = |view: &&celeriac_core::store::TaskView| {
                view.result.as_ref().is_some_and(|record| record.meta.state() == state)
            };
            tasks.iter().filter(is).count()
        };
        say("");
        say(&format!(
            "{} tasks succeeded, {} was cancelled, 1 was retried, 1 was replayed: {} cells in {:.1} s",
            ended(State::Success),
            ended(State::Revoked),
            facts.rows * facts.header.len(),
            self.began.elapsed().as_secs_f64()
        ));
        say(&format!("report  {}\n        {}", files.html, files.json));
        say(&format!("store   {}", self.place.url()));
        say("");
        say("Try:");
        for command in ["task list", "task show demo-column-0000", "worker"] {
            say(&format!("  celeriac -b {} {command}", self.place.url()));
        }
        Ok(())
    }
}

fn too_late(text: &str) -> TaskError {
    Refused::NotReady(text.to_owned()).into()
}

/// A closed pipe ends the output, not the demo.
fn say(text: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{text}");
}

fn warn(text: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
}
