//! The tasks of `interop/canvas/kit/proj.py` in Rust, and the shapes that Rust programs can send.
//!
//! Each run of a task that was given a `tag` appends a line to the file `NOTES`, as the Python tasks do.
//! `interop/canvas/run.py` runs it as a worker of its fleets, and `canvas send` as a sender: that prints
//! one JSON object, the name of each shape to the ids of its result.

use celeriac::prelude::*;
use celeriac::{Call, Chain, Group, Workflow};
use celeriac_wire::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// The file of notes, and how long a task takes.
struct Notes {
    file: File,
    pause: Duration,
    node: String,
}

impl Notes {
    fn from_env() -> Result<Self> {
        let path = std::env::var_os("NOTES").unwrap_or_else(|| "notes.jsonl".into());
        let text = |name: &str| std::env::var_os(name)?.into_string().ok();
        let seconds = text("PAUSE").map_or(Ok(0.005), |text| text.parse())?;
        let node = text("NODE").unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, pause: Duration::try_from_secs_f64(seconds)?, node })
    }

    /// Says that a task runs; one write, so that lines of processes do not mix.
    async fn run(&self, cx: &Context, tag: &Value, args: Vec<Value>) -> Result {
        if tag.is_null() {
            return Ok(());
        }
        tokio::time::sleep(self.pause).await;
        let headers = cx.headers();
        let task = headers.task().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        let mut line = Map::default();
        line.insert("tag", tag.clone());
        line.insert("task", task);
        line.insert("args", args);
        line.insert("id", cx.id());
        line.insert("parent", headers.parent_id().map_or(Value::Null, Value::from));
        line.insert("root", headers.root_id().map_or(Value::Null, Value::from));
        line.insert("group", headers.group().map_or(Value::Null, Value::from));
        line.insert("index", headers.group_index().map_or(Value::Null, Value::from));
        line.insert("retries", u64::from(headers.retries()));
        line.insert("node", self.node.as_str());
        let mut text = Value::Object(line).to_bytes();
        text.push(b'\n');
        Ok((&self.file).write_all(&text)?)
    }
}

#[task(name = "canvas.add", max_retries = 0)]
async fn add(
    cx: Context,
    notes: State<Notes>,
    x: i64,
    #[default(0)] y: i64,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![x.into(), y.into()]).await?;
    Ok(x + y)
}

#[task(name = "canvas.quiet", ignore_result, max_retries = 0)]
async fn quiet(
    cx: Context,
    notes: State<Notes>,
    x: i64,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![x.into()]).await?;
    Ok(x)
}

fn summed(value: &Value) -> i64 {
    match value.as_array() {
        Some(values) => values.iter().map(summed).sum(),
        None => value.as_i64().unwrap_or_default(),
    }
}

#[task(name = "canvas.total", max_retries = 0)]
async fn total(
    cx: Context,
    notes: State<Notes>,
    numbers: Value,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![numbers.clone()]).await?;
    Ok(summed(&numbers))
}

#[task(name = "canvas.echo", max_retries = 0)]
async fn echo(
    cx: Context,
    notes: State<Notes>,
    #[default(Value::Null)] value: Value,
    #[default(Value::Null)] tag: Value,
) -> Result<Value> {
    notes.run(&cx, &tag, vec![value.clone()]).await?;
    Ok(value)
}

#[task(name = "canvas.breaks", max_retries = 0)]
async fn breaks(
    cx: Context,
    notes: State<Notes>,
    #[default(Value::Null)] before: Value,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![before]).await?;
    Err(TaskError::fail("broken"))
}

#[task(name = "canvas.flaky", max_retries = 1)]
async fn flaky(
    cx: Context,
    notes: State<Notes>,
    x: i64,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![x.into()]).await?;
    if cx.attempt() == 1 { Err(TaskError::retry_in(Duration::ZERO, "not yet")) } else { Ok(x) }
}

#[task(name = "canvas.hopeless", max_retries = 1)]
async fn hopeless(
    cx: Context,
    notes: State<Notes>,
    x: i64,
    #[default(Value::Null)] tag: Value,
) -> Result<i64> {
    notes.run(&cx, &tag, vec![x.into()]).await?;
    Err(TaskError::retry_in(Duration::ZERO, "never"))
}

/// A callback, or an errback, which gets an id.
#[task(name = "canvas.told", max_retries = 0)]
async fn told(
    cx: Context,
    notes: State<Notes>,
    #[default(Value::Null)] value: Value,
    #[default(Value::Null)] tag: Value,
) -> Result {
    notes.run(&cx, &tag, vec![value]).await
}

/// An errback that fails.
#[task(name = "canvas.told_badly", max_retries = 0)]
async fn told_badly(
    cx: Context,
    notes: State<Notes>,
    value: Value,
    #[default(Value::Null)] tag: Value,
) -> Result {
    notes.run(&cx, &tag, vec![value]).await?;
    Err(TaskError::fail("the errback is broken"))
}

/// The file in which chords that are counted note their ends.
struct Ends {
    file: Option<File>,
    node: String,
}

impl Ends {
    fn from_env() -> Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let node = std::env::var_os("NODE").and_then(|node| node.into_string().ok());
        let file = std::env::var_os("ENDS").map(open).transpose()?;
        Ok(Self { file, node: node.unwrap_or_default() })
    }

    fn note(&self, number: u64, what: &str, id: &str) -> Result {
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        let who = &self.node;
        Ok(file.write_all(format!("{number} {what} {id} {who}\n").as_bytes())?)
    }
}

/// A member of a chord, see `crates/celeriac/tests/e2e/python/chords.rs`.
#[task(name = "late", max_retries = 0)]
async fn late(number: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(10)).await;
    number
}

/// The same: a Rust task is never acknowledged early.
#[task(name = "early", max_retries = 0)]
async fn early(number: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(10)).await;
    number
}

#[task(name = "body", max_retries = 0)]
async fn body(cx: Context, ends: State<Ends>, mut numbers: Vec<u64>, number: u64) -> Result {
    numbers.sort_unstable();
    let complete = (0..).zip(&numbers).all(|(at, one)| at == *one);
    ends.note(number, if complete { "body" } else { "wrong" }, cx.id())
}

#[task(name = "errback", max_retries = 0)]
async fn errback(ends: State<Ends>, id: String, number: u64) -> Result {
    ends.note(number, "errback", &id)
}

/// Calls that carry the name of their shape.
#[derive(Clone, Copy)]
struct Tasks(&'static str);

impl Tasks {
    fn of<R>(self, task: &str) -> Call<R> {
        Call::remote(&format!("canvas.{task}")).kwarg("tag", self.0)
    }

    /// `x + y`.
    fn add(self, x: i64, y: i64) -> Call<i64> {
        self.of("add").arg(&x).arg(&y)
    }

    /// What came before, and `y`.
    fn plus(self, y: i64) -> Call<i64> {
        self.of("add").arg(&y)
    }

    fn pair(self) -> Group<i64> {
        group([self.add(1, 1), self.add(2, 2)])
    }

    fn sum(self) -> Call<i64> {
        self.of("total")
    }

    fn told(self) -> Call<Value> {
        self.of("told")
    }

    fn breaks(self) -> Call<i64> {
        self.of("breaks")
    }

    fn ten(self, n: i64) -> Chain<i64> {
        chain(self.add(n, n)).then(self.plus(10))
    }
}

/// What is sent: the ids that a Celery client needs to wait for each.
struct Sent {
    client: Client,
    results: Map,
}

impl Sent {
    async fn one<W: Workflow>(&mut self, t: Tasks, work: W) -> Result {
        let job = self.client.send(work).await?;
        self.add(t, vec![vec![Value::from(job.id()), Value::Null].into(), Value::Null].into());
        Ok(())
    }

    async fn group<R>(&mut self, t: Tasks, work: Group<R>) -> Result {
        let sent = self.client.send_group(work).await?;
        let leaf = |id: &str| Value::Array(vec![vec![id.into(), Value::Null].into(), Value::Null]);
        let members: Vec<Value> = sent.jobs().iter().map(|job| leaf(job.id())).collect();
        let own: Value = vec![Value::from(sent.id()), Value::Null].into();
        self.add(t, vec![own, members.into()].into());
        Ok(())
    }

    fn add(&mut self, t: Tasks, result: Value) {
        let mut one = Map::default();
        one.insert("result", result);
        one.insert("needs", "");
        self.results.insert(t.0, Value::Object(one));
    }
}

/// The shapes of `interop/canvas/kit/shapes.py` that the builders of this library have.
async fn send(client: Client) -> Result<Map> {
    let mut sent = Sent { client, results: Map::default() };
    rows_and_groups(&mut sent).await?;
    chords(&mut sent).await?;
    failures(&mut sent).await?;
    Ok(sent.results)
}

async fn rows_and_groups(sent: &mut Sent) -> Result {
    let t = Tasks("task");
    sent.one(t, t.add(1, 2)).await?;
    let t = Tasks("chain");
    sent.one(t, chain(t.add(1, 2)).then(t.plus(10)).then(t.plus(100))).await?;
    let t = Tasks("chain of chains");
    let first = chain(t.add(1, 2)).then(t.plus(10));
    sent.one(t, chain(first).then(chain(t.plus(100)).then(t.plus(1000)))).await?;
    let t = Tasks("immutable steps");
    let steps = chain(t.add(1, 2)).then(t.add(3, 4).immutable()).then(t.plus(10));
    sent.one(t, steps).await?;
    let t = Tasks("group");
    sent.group(t, group((0..3).map(|n| t.add(n, n)))).await?;
    let t = Tasks("group of chains");
    sent.group(t, group((0..2).map(|n| t.ten(n)))).await?;
    let t = Tasks("group then task");
    sent.one(t, chain(t.pair()).then(t.sum())).await?;
    let t = Tasks("group in a chain");
    let pair = group([t.plus(10), t.plus(20)]);
    sent.one(t, chain(t.add(1, 1)).then(pair).then(t.sum()).then(t.plus(100))).await?;
    let t = Tasks("link");
    sent.one(t, t.add(1, 2).link(t.told())).await?;
    let t = Tasks("several links");
    let linked = t.add(1, 2).link(t.told()).link(t.plus(10)).link(t.told().immutable());
    sent.one(t, linked).await?;
    let t = Tasks("ignored step");
    sent.one(t, chain(t.of::<i64>("quiet").arg(&1).ignore_result()).then(t.plus(10))).await?;
    let t = Tasks("retry in a chain");
    sent.one(t, chain(t.of::<i64>("flaky").arg(&1)).then(t.plus(10))).await
}

async fn chords(sent: &mut Sent) -> Result {
    let t = Tasks("chord");
    sent.one(t, chord(group((0..4).map(|n| t.add(n, n)))).then(t.of::<Value>("echo"))).await?;
    let t = Tasks("chord of one");
    sent.one(t, chord(group([t.add(1, 1)])).then(t.of::<Value>("echo"))).await?;
    let t = Tasks("chord with a chain as body");
    let body = chain(t.sum()).then(t.plus(10)).then(t.plus(100));
    sent.one(t, chord(t.pair()).then(body)).await?;
    let t = Tasks("chord in a chain");
    let inner = chord(group([t.plus(10), t.plus(20)])).then(t.sum());
    sent.one(t, chain(t.add(1, 1)).then(inner).then(t.plus(100))).await?;
    let t = Tasks("two chords in a chain");
    let second = chord(group([t.plus(10), t.plus(20)])).then(t.sum());
    sent.one(t, chain(chord(t.pair()).then(t.sum())).then(second)).await?;
    let t = Tasks("chord of chains");
    sent.one(t, chord(group((0..3).map(|n| t.ten(n)))).then(t.of::<Value>("echo"))).await?;
    let t = Tasks("empty header");
    sent.one(t, chord(group(Vec::<Call<i64>>::new())).then(t.of::<Value>("echo"))).await?;
    let t = Tasks("immutable body");
    sent.one(t, chord(t.pair()).then(t.add(5, 5).immutable())).await?;
    let t = Tasks("link in a header");
    let linked = group([t.add(1, 1).link(t.told()), t.add(2, 2)]);
    sent.one(t, chord(linked).then(t.sum())).await?;
    let t = Tasks("group of chords");
    let header = |n: i64| group([t.add(n, 1), t.add(n, 2)]);
    sent.group(t, group((0..2).map(|n| chord(header(n)).then(t.sum())))).await
}

async fn failures(sent: &mut Sent) -> Result {
    let t = Tasks("errback of the old form");
    sent.one(t, t.breaks().link_error(t.told())).await?;
    let t = Tasks("errback that is immutable");
    sent.one(t, t.breaks().link_error(t.told().arg(&7).immutable())).await?;
    let t = Tasks("several errbacks");
    sent.one(t, t.breaks().link_error(t.told()).link_error(t.of::<Value>("told_badly"))).await?;
    let t = Tasks("errback that nobody needs");
    sent.one(t, t.add(1, 2).link_error(t.told())).await?;
    let t = Tasks("failure first in a chain");
    let steps = chain(t.breaks()).then(t.plus(10)).then(t.plus(100));
    sent.one(t, steps.on_error(t.told())).await?;
    let t = Tasks("failure in a chain");
    let steps = chain(t.add(1, 2)).then(t.breaks()).then(t.plus(10)).then(t.plus(100));
    sent.one(t, steps.on_error(t.told())).await?;
    let t = Tasks("failure in a header");
    let header = || group([t.add(1, 1), t.breaks(), t.add(2, 2)]);
    sent.one(t, chord(header()).then(t.sum())).await?;
    let t = Tasks("failure in a header with an errback");
    let header = group([t.add(1, 1), t.breaks(), t.add(2, 2)]);
    sent.one(t, chord(header).then(t.sum().link_error(t.told()))).await?;
    let t = Tasks("failure in a body");
    sent.one(t, chord(t.pair()).then(t.breaks().link_error(t.told()))).await?;
    let t = Tasks("failure in a body that is a chain");
    let body = chain(t.sum()).then(t.breaks()).then(t.plus(10)).on_error(t.told());
    sent.one(t, chord(t.pair()).then(body)).await?;
    let t = Tasks("failure before a body that is a chain");
    let body = chain(t.sum()).then(t.plus(10)).on_error(t.told());
    sent.one(t, chord(group([t.add(1, 1), t.breaks()])).then(body)).await
}

fn main() -> Result<ExitCode> {
    let app = App::from_env()?;
    if std::env::args().nth(1).as_deref() == Some("send") {
        let runtime = tokio::runtime::Runtime::new()?;
        let sent = runtime.block_on(async { send(app.client().await?).await })?;
        let text = Value::Object(sent).to_bytes();
        std::io::stdout().write_all(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(app
        .tasks(tasks![add, quiet, total, echo, breaks, flaky, hopeless, told, told_badly])
        .tasks(tasks![late, early, body, errback])
        .state(Notes::from_env()?)
        .state(Ends::from_env()?)
        .run())
}
