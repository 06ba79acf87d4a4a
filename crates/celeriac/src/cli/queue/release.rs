//! `celeriac queue release`: the way back to stock workers.

use super::super::Session;
use super::super::exit::Failed;
use super::super::output::{object, plural};
use super::super::progress;
use celeriac_core::QueueName;
use celeriac_core::store::{NodeView, Released, Store, Sweep};
use celeriac_wire::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Messages are released so many at a time.
const BATCH: usize = 1000;
/// How often dead workers are looked for while their leases run out.
const LOOK: Duration = Duration::from_millis(200);

/// What was released of one queue, or of all.
#[derive(Default)]
struct Sum {
    released: Released,
    /// Messages of workers that died.
    leased: u64,
}

pub(super) async fn run(session: &Session, queue: Option<QueueName>) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let mut sum = Sum::default();
    let what = "waiting for the leases of dead workers to run out";
    let progress = progress::busy(session.output, what);
    let (returned, living) = bury_the_dead(&*store).await?;
    sum.leased = returned;
    let queues: Vec<QueueName> = if let Some(queue) = queue {
        vec![queue]
    } else {
        let all = store.queues().await?;
        all.iter().filter_map(|view| QueueName::parse(&view.name).ok()).collect()
    };
    for queue in &queues {
        loop {
            let released = store.release(queue, BATCH).await?;
            sum.released.scheduled += released.scheduled;
            sum.released.limited += released.limited;
            sum.released.suspects += released.suspects;
            sum.released.lost += released.lost;
            progress.set_message(format!("{} of {queue}", plural(sum.released.total(), "message")));
            if released.total() == 0 {
                break;
            }
        }
    }
    progress.finish_and_clear();
    report(session, &sum, queues.len(), &living);
    Ok(ExitCode::SUCCESS)
}

/// Waits until every worker that does not beat any more is found dead; returns how many of its
/// messages went back, and the workers that live.
async fn bury_the_dead(store: &dyn Store) -> Result<(u64, Vec<NodeView>), Failed> {
    let alive = |nodes: Vec<NodeView>| nodes.into_iter().filter(|node| node.alive);
    let first: BTreeMap<_, _> =
        alive(store.nodes().await?).map(|node| (node.id, node.seen_at)).collect();
    // What must not run again is counted where it is set aside.
    let back = |swept: Sweep| swept.requeued - swept.lost;
    let mut returned = back(store.sweep().await?);
    loop {
        let living: Vec<NodeView> = alive(store.nodes().await?).collect();
        let silent = living.iter().any(|node| first.get(&node.id) == Some(&node.seen_at));
        if !silent {
            returned += back(store.sweep().await?);
            return Ok((returned, living));
        }
        tokio::time::sleep(LOOK).await;
        returned += back(store.sweep().await?);
    }
}

fn report(session: &Session, sum: &Sum, queues: usize, living: &[NodeView]) {
    let Released { scheduled, limited, suspects, lost } = sum.released;
    let number = |count: u64| Value::from(count);
    let names: Value = living.iter().map(|node| node.info.name.as_str()).collect();
    session.output.value(&object([
        ("queues", number(queues as u64)),
        ("scheduled", number(scheduled)),
        ("limited", number(limited)),
        ("suspects", number(suspects)),
        ("leased", number(sum.leased)),
        ("lost", number(lost)),
        ("living_workers", names),
    ]));
    session.output.line(format!(
        "released {}: {scheduled} scheduled, {limited} limited, {suspects} suspect, \
         {} of dead workers",
        plural(sum.released.total() - lost + sum.leased, "message"),
        sum.leased,
    ));
    if lost > 0 {
        session.output.note(format!(
            "{} of workers that died after acknowledging: dead letters now, see \
             `celeriac dead list --reason worker-lost`",
            plural(lost, "message")
        ));
    }
    for node in living {
        session.output.note(format!(
            "{} still runs and takes messages up again; stop it first",
            node.info.name
        ));
    }
}
