//! What the invariants are checked against: the ledger, what was expected, and the store at the end.

use crate::ledger::{Line, What};
use celeriac_core::StoreError;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Phase, QueueView, Store};
use celeriac_runtime::WorkerReport;
use celeriac_wire::{State, value_repr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Faults of a single call: refused before it was done, or done with its answer lost.
pub const CALL_FAULTS: [&str; 2] = ["error", "lost"];

/// What a test expects of one task.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The final states that are right.
    pub states: Vec<State>,
    /// How often it runs without any fault: retries and its own rejections included.
    pub runs: u32,
    /// Whether its result is kept.
    pub result: bool,
    /// The tasks that must have succeeded before it begins.
    pub after: Vec<String>,
    /// The line of tasks that begin in the order in which they were sent, if it is in one.
    pub line: Option<String>,
}

impl Expected {
    /// A task that runs once and ends in this state.
    pub fn once(state: State) -> Self {
        Self { states: vec![state], runs: 1, result: true, after: Vec::new(), line: None }
    }
}

/// How one task stands at the end.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Where it is.
    pub phase: Phase,
    /// The state of its result.
    pub state: Option<State>,
    /// Its result as Python prints it.
    pub value: Option<String>,
}

/// The store at the end.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every task that was sent, or may have been.
    pub tasks: BTreeMap<String, Standing>,
    /// The queues.
    pub queues: Vec<QueueView>,
    /// How many dead letters the store counts.
    pub dead: u64,
    /// The names of the workers that are alive by the store's word.
    pub alive: BTreeSet<String>,
    /// What the store's own check says of its counters and of what belongs together.
    pub findings: Vec<String>,
}

impl View {
    /// Looks at these tasks.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(
        store: &dyn Store,
        ids: impl IntoIterator<Item = &String>,
    ) -> Result<Self, StoreError> {
        let mut tasks = BTreeMap::new();
        for id in ids {
            let view = store.task(id).await?;
            let meta = view.result.as_ref().map(|record| &record.meta);
            let standing = Standing {
                phase: view.phase,
                state: meta.map(celeriac_wire::ResultMeta::state),
                value: meta.map(|meta| value_repr(meta.result())),
            };
            tasks.insert(id.clone(), standing);
        }
        let nodes = store.nodes().await?;
        let alive = nodes.into_iter().filter(|node| node.alive).map(|node| node.info.name);
        let alive = alive.collect();
        let dead = store.dead_count(&DeadFilter::default()).await?;
        let findings = store.check(false).await?;
        let findings = findings.into_iter().map(|one| format!("{}: {}", one.place, one.what));
        let findings = findings.collect();
        Ok(Self { tasks, queues: store.queues().await?, dead, alive, findings })
    }

    /// Why a task is a dead letter, if it is one.
    pub fn dead_reason(&self, id: &str) -> Option<DeadReason> {
        match self.tasks.get(id)?.phase {
            Phase::Dead { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// What a run of the system holds on to after it has ended.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is counted: `file descriptors`, `tasks of the runtime` …
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// How many there may be.
    pub max: u64,
}

/// Everything that is known of one run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What happened, in order.
    pub ledger: Vec<Line>,
    /// The tasks, by id; others are not judged.
    pub expected: BTreeMap<String, Expected>,
    /// The store at the end.
    pub view: View,
    /// What workers said of themselves.
    pub reports: Vec<(String, WorkerReport)>,
    /// How long after a fault a lost worker's leases may stay with it.
    pub recovery_max: Duration,
    /// What is left in memory and descriptors.
    pub held: Vec<Held>,
}

/// A fault that was injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: String,
    /// Whom it hits; `*` is everybody.
    pub who: String,
    /// When it began, in the ledger's microseconds.
    pub from: i64,
    /// When it ended.
    pub until: i64,
    /// The call that it hit, if it is one of [`CALL_FAULTS`].
    pub call: Option<String>,
}

impl Fault {
    /// Whether it hits this worker.
    pub fn hits(&self, who: &str) -> bool {
        self.who == "*" || self.who == who
    }

    /// Whether it keeps a worker from watching over others.
    pub(crate) fn blinds(&self) -> bool {
        let harmless = |call: &String| !matches!(call.as_str(), "heartbeat" | "sweep" | "register");
        !self.call.as_ref().is_some_and(harmless)
    }
}

/// One ownership of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The owner.
    pub who: String,
    /// Since when.
    pub from: i64,
    /// Until when: an accepted settlement, or the next owner; for ever when neither was.
    pub until: i64,
}

impl Evidence {
    /// The faults, in order.
    pub fn faults(&self) -> Vec<Fault> {
        let of = |line: &Line| Fault {
            kind: line.id.clone(),
            who: line.who.clone(),
            from: line.micros,
            until: line.get("until").and_then(|text| text.parse().ok()).unwrap_or(line.micros),
            call: line.get("call").map(str::to_owned),
        };
        self.lines(&What::Fault).map(of).collect()
    }

    /// All lines of one kind.
    pub fn lines<'a, 'w>(
        &'a self,
        what: &'w What,
    ) -> impl DoubleEndedIterator<Item = &'a Line> + use<'a, 'w> {
        self.ledger.iter().filter(move |line| line.what == *what)
    }

    /// The ids that the store confirmed, in order.
    pub fn confirmed(&self) -> Vec<&str> {
        self.lines(&What::Enqueued).map(|line| line.id.as_str()).collect()
    }

    /// Who held each task, and when. A ledger without leases (one that tasks of processes wrote)
    /// has a hold for each run, which ends never: a process that was killed after the end of a run
    /// may not have settled it.
    pub fn holds(&self) -> BTreeMap<&str, Vec<Hold>> {
        let leases = self.lines(&What::Leased).next().is_some();
        let begins = if leases { What::Leased } else { What::Started };
        let mut ends: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for line in self.lines(&What::Settled).filter(|line| line.says("accepted")) {
            ends.insert((&line.id, line.get("token").unwrap_or_default()), line.micros);
        }
        let mut holds: BTreeMap<&str, Vec<Hold>> = BTreeMap::new();
        for line in self.lines(&begins) {
            let token = line.get("token").unwrap_or_default();
            let until = ends.get(&(line.id.as_str(), token)).copied().unwrap_or(i64::MAX);
            let hold = Hold { who: line.who.clone(), from: line.micros, until };
            let before = holds.entry(&line.id).or_default();
            if let Some(last) = before.last_mut().filter(|_| leases) {
                last.until = last.until.min(line.micros);
            }
            before.push(hold);
        }
        holds
    }

    /// How many faults could touch each task: those that hit an owner while it held the task. One
    /// failed call ([`CALL_FAULTS`]) is tried again and makes nobody lose a lease.
    pub fn touched(&self) -> BTreeMap<&str, u32> {
        let mut faults = self.faults();
        faults.retain(|fault| !CALL_FAULTS.contains(&fault.kind.as_str()));
        let count = |hold: &Hold| {
            let touches = |fault: &&Fault| {
                fault.hits(&hold.who) && fault.from <= hold.until && fault.until >= hold.from
            };
            faults.iter().filter(touches).count() as u32
        };
        let holds = self.holds();
        holds.into_iter().map(|(id, holds)| (id, holds.iter().map(count).sum())).collect()
    }
}
