//! `celeriac queue move`, and `celeriac migrate` as Celery calls it.

use super::super::Session;
use super::super::exit::Failed;
use super::super::output::{Output, object, plural};
use super::super::progress;
use super::{BATCH, waiting};
use crate::moving::{Moved, Mover, Order, Target};
use celeriac_core::QueueName;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::pattern::Patterns;
use celeriac_core::store::{Page, Store};
use celeriac_wire::Value;
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const MOVE_EXAMPLES: &str = "Examples:
  celeriac queue move reports reports-slow
  celeriac queue move celery celery --to redis://broker:6379/0
  celeriac queue move celery slow -T 'reports.*' -n 1000
  celeriac queue move celery slow -T reports.monthly --dry-run

Ready and scheduled messages go, with every byte and the time that they wait for; what workers run stays.
A message that is moved is held: no worker runs it meanwhile. The command may be cut off at any moment and
given again; nothing is lost or sent twice.";

/// How long `migrate` waits between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    /// The queue that messages leave
    from: String,
    /// The queue that they go to
    to: String,
    /// The store of the queue that they go to, if it is another
    #[arg(long = "to", value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    choice: Choice,
    /// Only say how many messages would go
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Choice {
    /// Only tasks of these names, separated by commas; `reports.*` and `/regex/` do too
    #[arg(short = 'T', long, value_name = "TASKS", value_delimiter = ',')]
    tasks: Vec<String>,
    /// The most messages
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<u64>,
}

impl Choice {
    fn patterns(&self) -> Result<Option<Patterns<()>>, Failed> {
        let mut patterns = Patterns::default();
        for task in &self.tasks {
            patterns.add("the task", task, ())?;
        }
        Ok((!self.tasks.is_empty()).then_some(patterns))
    }
}

const MIGRATE_EXAMPLES: &str = "Examples:
  celeriac migrate redis://old:6379/0 redis://new:6379/0
  celeriac migrate redis://old:6379/0 sqlite://queue.db -Q celery,reports
  celeriac migrate redis://a/0 redis://b/0 -Q celery:default -T 'reports.*' -n 1000
  celeriac migrate redis://a/0 redis://b/0 --forever     # until Ctrl-C, while producers change over

Unlike Celery's, it moves every queue of the source (not only those of an app), scheduled messages and all
priorities, takes a message off the source only once it is at the destination, and can be given again.
Results, schedules and dead letters stay where they are.";

#[derive(Debug, Args)]
#[command(after_help = MIGRATE_EXAMPLES)]
pub(in crate::cli) struct MigrateArgs {
    /// The store that messages leave
    source: String,
    /// The store that they go to
    destination: String,
    #[command(flatten)]
    choice: Choice,
    /// Only these queues, separated by commas; `from:to` for another name at the destination
    #[arg(short = 'Q', long, value_name = "QUEUES", value_delimiter = ',')]
    queues: Vec<String>,
    /// End when nothing came for so many seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 0.0)]
    timeout: f64,
    /// As Celery calls what always holds here: what has arrived is taken off the source
    #[arg(short = 'a', long)]
    ack_messages: bool,
    /// Go on until Ctrl-C
    #[arg(short = 'F', long)]
    forever: bool,
    /// Only say how many messages would go
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(session: &Session, args: MoveArgs) -> Result<ExitCode, Failed> {
    let (from, to) = (QueueName::parse(&args.from)?, QueueName::parse(&args.to)?);
    let own = &session.app.settings().broker_url.value;
    let source = session.app.store().await?;
    let elsewhere = args.store.as_deref().filter(|url| *url != own.as_str());
    if elsewhere.is_none() && from == to {
        return Err(Failed::usage(format!("queue {from} is where it is"))
            .hint("name another queue, or the store to move it to with --to"));
    }
    let target = match elsewhere {
        None => Target::Here,
        Some(url) => elsewhere_at(session, own, url)?,
    };
    let order = Order { from, to, tasks: args.choice.patterns()?, count_max: args.choice.limit };
    if args.dry_run {
        let count = matching(&*source, &order).await?;
        session.output.value(&object([("would_move", Value::from(count))]));
        let (from, to) = (&order.from, &order.to);
        session.output.line(format!("{} would move from {from} to {to}", plural(count, "message")));
        return Ok(ExitCode::SUCCESS);
    }
    let carrier = sign_on(session, &source).await?;
    let moved = interruptible(move_one(session.output, &*source, &carrier, &target, &order)).await;
    carrier.stop().await?;
    let moved = moved?;
    let stays = waiting(&*source, &order.from).await?;
    report(session, &[(order, moved, stays)]);
    Ok(ExitCode::SUCCESS)
}

async fn sign_on(session: &Session, source: &Arc<dyn Store>) -> Result<Mover, Failed> {
    let times = LeaseTimes::with_expiry(session.app.settings().lease_expiry.value);
    Ok(Mover::start(Arc::clone(source), session.app.host(), times).await?)
}

/// The other store; opened, so that a wrong URL is known before anything is held.
fn elsewhere_at(session: &Session, source: &str, url: &str) -> Result<Target, Failed> {
    for (one, what) in [(source, "out of"), (url, "into")] {
        if one.starts_with("memory:") {
            return Err(Failed::usage(format!("nothing can be moved {what} memory://"))
                .hint("it is in the memory of one process; name a store that others can open"));
        }
    }
    let store = session.app.connect_to(url, None)?;
    Ok(Target::Elsewhere { store, source: celeriac_stores::redacted(source) })
}

async fn move_one(
    output: Output,
    source: &dyn Store,
    carrier: &Mover,
    target: &Target,
    order: &Order,
) -> Result<Moved, Failed> {
    let count = waiting(source, &order.from).await?;
    let most = order.count_max.map_or(count, |max| max.min(count));
    let bar = progress::bar(output, most);
    let moved = carrier.run(target, order, |sum| bar.set_position(sum.moved)).await;
    bar.finish_and_clear();
    Ok(moved?)
}

/// Ends with Ctrl-C, so that what is held goes back at once.
async fn interruptible<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Failed::no("interrupted; what was held is back")
            .hint("give the same command again to go on")),
    }
}

/// How many messages an order is about.
async fn matching(store: &dyn Store, order: &Order) -> Result<u64, Failed> {
    let mut page = Page { after: 0, count_max: BATCH };
    let mut count = 0;
    loop {
        let stored = store.peek(&order.from, page).await?;
        let Some(last) = stored.last() else { break };
        page.after = last.row;
        count += stored.iter().filter(|one| order.wants(&one.outgoing)).count() as u64;
    }
    Ok(order.count_max.map_or(count, |max| max.min(count)))
}

/// `celeriac migrate`.
pub(in crate::cli) async fn migrate(
    session: &Session,
    args: MigrateArgs,
) -> Result<ExitCode, Failed> {
    if args.source == args.destination {
        return Err(Failed::usage("source and destination are the same store")
            .hint("`celeriac queue move FROM TO` moves between queues of one store"));
    }
    if celeriac_stores::exists(&args.source) == Some(false) {
        let shown = celeriac_stores::redacted(&args.source);
        return Err(Failed::unavailable(format!("there is no store at {shown}")));
    }
    let timeout = Duration::try_from_secs_f64(args.timeout)
        .map_err(|_| Failed::usage("--timeout is no number of seconds"))?;
    let source = session.app.connect_to(&args.source, None)?;
    let target = elsewhere_at(session, &args.source, &args.destination)?;
    let tasks = args.choice.patterns()?;
    let carrier = if args.dry_run { None } else { Some(sign_on(session, &source).await?) };
    let work = async {
        let mut orders: Vec<(Order, Moved, u64)> = Vec::new();
        let mut quiet_since = Instant::now();
        loop {
            for (from, to) in queues(&*source, &args.queues).await? {
                let before: u64 = orders.iter().map(|(_, moved, _)| moved.moved).sum();
                let count_max = args.choice.limit.map(|max| max.saturating_sub(before));
                let order = Order { from, to, tasks: tasks.clone(), count_max };
                let moved = if let Some(carrier) = &carrier {
                    move_one(session.output, &*source, carrier, &target, &order).await?
                } else {
                    let moved = matching(&*source, &order).await?;
                    Moved { moved, ..Moved::default() }
                };
                if moved.moved > 0 {
                    quiet_since = Instant::now();
                }
                let stays = waiting(&*source, &order.from).await?;
                add(&mut orders, order, moved, stays);
            }
            let sum: u64 = orders.iter().map(|(_, moved, _)| moved.moved).sum();
            let enough = args.choice.limit.is_some_and(|max| sum >= max) || carrier.is_none();
            if enough || (!args.forever && quiet_since.elapsed() >= timeout) {
                return Ok(orders);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let done = interruptible(work).await;
    if let Some(carrier) = carrier {
        carrier.stop().await?;
    }
    report(session, &done?);
    if args.dry_run {
        session.output.note("nothing was moved: --dry-run");
    }
    Ok(ExitCode::SUCCESS)
}

fn add(orders: &mut Vec<(Order, Moved, u64)>, order: Order, moved: Moved, stays: u64) {
    match orders.iter_mut().find(|(one, ..)| one.from == order.from) {
        Some((_, sum, left)) => {
            sum.moved += moved.moved;
            sum.known += moved.known;
            *left = stays;
        }
        None => orders.push((order, moved, stays)),
    }
}

/// The queues that were named, or all that hold anything.
async fn queues(
    store: &dyn Store,
    named: &[String],
) -> Result<Vec<(QueueName, QueueName)>, Failed> {
    if named.is_empty() {
        let all = store.queues().await?;
        let all = all.iter().filter(|view| view.ready + view.scheduled > 0);
        return Ok(all
            .filter_map(|view| QueueName::parse(&view.name).ok())
            .map(|queue| (queue.clone(), queue))
            .collect());
    }
    let pair = |text: &String| -> Result<_, Failed> {
        let (from, to) = text.split_once(':').unwrap_or((text, text));
        Ok((QueueName::parse(from)?, QueueName::parse(to)?))
    };
    named.iter().map(pair).collect()
}

fn report(session: &Session, orders: &[(Order, Moved, u64)]) {
    let number = |count: u64| Value::from(count);
    let rows = orders
        .iter()
        .map(|(order, moved, stays)| {
            let cells = vec![
                order.from.to_string(),
                order.to.to_string(),
                moved.moved.to_string(),
                moved.known.to_string(),
                stays.to_string(),
            ];
            let value = object([
                ("from", Value::from(order.from.as_str())),
                ("to", Value::from(order.to.as_str())),
                ("moved", number(moved.moved)),
                ("known", number(moved.known)),
                ("waiting", number(*stays)),
            ]);
            (cells, value)
        })
        .collect();
    let header = ["FROM", "TO", "MOVED", "OF THESE KNOWN", "STILL WAITING"];
    session.output.list(&header, rows, "no queue has a message");
}
