//! The children of one worker: who is idle, who is busy, who has to be started or ended.
//!
//! [`Crew`] is the shared table; the supervisor and the attendants (`supervisor`) change it from one
//! side, runs (`run`) from the other. Nothing here waits with the table locked.

use super::Bounds;
use super::kind::Kind;
use super::output::{Output, Speaker};
use super::policy::{self, Backoff, Exit, FAILED_STARTS_MAX, Killed, Standing};
use super::process::{Process, Vitals, memory_now};
use crate::worker::control::ProcessView;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// A run waits so long for a child; then its message goes back. Only a child that died between a
/// fetch and its run makes a run wait.
pub(super) const TAKE_PATIENCE: Duration = Duration::from_secs(2);
/// A busy child that is stopped by a signal for so long is replaced.
const STOPPED_PATIENCE: Duration = Duration::from_secs(5);
/// How much of a failed child's stderr an error shows.
const SHOWN_BYTES_MAX: usize = 2 << 10;

/// Whether this worker ever had a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Startup {
    Pending,
    Ready,
    Failed(String),
}

#[derive(Debug)]
enum Phase<C> {
    Starting,
    Idle(C),
    Busy,
    /// It is to be asked to end.
    Leaving(C),
    Ending,
    /// Its process has ended.
    Over,
}

#[derive(Debug)]
struct Member<C> {
    /// A number from 0 that no other child has.
    place: usize,
    phase: Phase<C>,
    process: Option<Arc<Process>>,
    output: Option<Arc<Output>>,
    taken: u64,
    last_taken: u64,
    /// The task that it has, or had last.
    task_id: String,
    /// It ends after its task: it holds too much memory, or is to be replaced.
    heavy: bool,
    stopped_since: Option<Instant>,
}

#[derive(Debug)]
struct Table<C> {
    members: BTreeMap<u64, Member<C>>,
    next: u64,
    runs: u64,
    backoff: Backoff,
    stopping: bool,
    /// How many tasks are to run at once.
    slots: usize,
    /// The supervisor knows that somebody is busy and looks at them.
    watched: bool,
}

impl<C> Table<C> {
    /// The children as the reckoning of starts sees them.
    fn standings(&self, tasks_max: Option<u64>) -> impl Iterator<Item = Standing> {
        let counted = self.members.values().filter(|member| !matches!(member.phase, Phase::Over));
        counted.map(move |member| Standing {
            left: policy::tasks_left(member.taken, tasks_max),
            leaving: member.heavy || matches!(member.phase, Phase::Ending | Phase::Leaving(_)),
        })
    }

    /// A successor is ready: an idle child that was to be replaced goes.
    fn dismiss_retired(&mut self) {
        let idle = |one: &&mut Member<C>| one.heavy && matches!(one.phase, Phase::Idle(_));
        if let Some(member) = self.members.values_mut().find(idle)
            && let Phase::Idle(channel) = std::mem::replace(&mut member.phase, Phase::Ending)
        {
            member.phase = Phase::Leaving(channel);
        }
    }

    /// The lowest place that nobody has.
    fn free_place(&self) -> usize {
        let taken: BTreeSet<usize> = self.members.values().map(|member| member.place).collect();
        (0..=taken.len()).find(|place| !taken.contains(place)).unwrap_or(taken.len())
    }
}

/// The children of one worker.
#[derive(Debug)]
pub(super) struct Crew<K: Kind> {
    /// How its children are made.
    pub(super) kind: K,
    pub(super) bounds: Bounds,
    table: Mutex<Table<K::Channel>>,
    began: Instant,
    /// Wakes the supervisor.
    pub(super) changed: Notify,
    /// Wakes a run that waits for a child.
    freed: Notify,
    ready: watch::Sender<usize>,
    population: watch::Sender<usize>,
    startup: watch::Sender<Startup>,
}

/// What the supervisor has to do.
#[derive(Debug)]
pub(super) struct Deeds<C> {
    /// Start children of these numbers, in these places.
    pub(super) start: Vec<(u64, usize)>,
    /// Ask these to end.
    pub(super) end: Vec<(Arc<Process>, C)>,
    /// Look again after this time.
    pub(super) wait: Option<Duration>,
    /// Somebody runs a task.
    pub(super) busy: bool,
}

/// A child that a run has for itself; dropped without [`Held::give_back`] it is killed.
#[derive(Debug)]
pub(super) struct Held<K: Kind> {
    crew: Arc<Crew<K>>,
    /// The number of the child.
    pub(super) number: u64,
    /// The number of the run on this child.
    pub(super) run: u64,
    pub(super) process: Arc<Process>,
    pub(super) output: Arc<Output>,
    /// Gone when the child was given back.
    pub(super) channel: Option<K::Channel>,
}

impl<K: Kind> Held<K> {
    /// The task has ended, the child is free.
    pub(super) fn give_back(mut self) {
        if let Some(channel) = self.channel.take() {
            self.output.end();
            self.crew.give_back(self.number, &self.process, channel);
        }
    }

    /// The task has ended, and the child ends by itself.
    pub(super) fn let_go(mut self) {
        if self.channel.take().is_some() {
            self.process.ask();
            self.output.end();
            self.crew.let_go(self.number);
        }
    }
}

impl<K: Kind> Drop for Held<K> {
    fn drop(&mut self) {
        if self.channel.is_some() {
            self.process.kill(Killed::Aborted);
        }
    }
}

impl<K: Kind> Crew<K> {
    pub(super) fn new(kind: K, bounds: Bounds) -> Self {
        let table = Table {
            members: BTreeMap::new(),
            next: 0,
            runs: 0,
            backoff: Backoff::default(),
            stopping: false,
            slots: bounds.slots,
            watched: false,
        };
        Self {
            kind,
            bounds,
            table: Mutex::new(table),
            began: Instant::now(),
            changed: Notify::new(),
            freed: Notify::new(),
            ready: watch::Sender::new(0),
            population: watch::Sender::new(0),
            startup: watch::Sender::new(Startup::Pending),
        }
    }

    /// How many children have a task or could take one.
    pub(super) fn ready(&self) -> watch::Receiver<usize> {
        self.ready.subscribe()
    }

    /// The same, now.
    pub(super) fn count_ready(&self) -> usize {
        *self.ready.borrow()
    }

    pub(super) fn startup(&self) -> watch::Receiver<Startup> {
        self.startup.subscribe()
    }

    fn table(&self) -> MutexGuard<'_, Table<K::Channel>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells who waits what the table says now.
    fn publish(&self, table: &Table<K::Channel>) {
        let at_work = |member: &&Member<K::Channel>| match member.phase {
            Phase::Idle(_) => !member.heavy,
            Phase::Busy => true,
            _ => false,
        };
        let set = |sender: &watch::Sender<usize>, count: usize| {
            sender.send_if_modified(|old| std::mem::replace(old, count) != count);
        };
        set(&self.ready, table.members.values().filter(at_work).count());
        set(&self.population, table.members.len());
    }

    /// Takes an idle child: one that has few tasks left before others, so that it makes room for
    /// its successor; then the one used last, whose memory is warm. Cancel safe.
    pub(super) async fn take(
        self: &Arc<Self>,
        speaker: &Speaker,
        patience: Duration,
    ) -> Option<Held<K>> {
        let deadline = Instant::now() + patience;
        loop {
            let freed = self.freed.notified();
            if let Some(held) = self.try_take(speaker) {
                return Some(held);
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return self.try_take(speaker);
            }
        }
    }

    fn try_take(self: &Arc<Self>, speaker: &Speaker) -> Option<Held<K>> {
        let mut table = self.table();
        table.runs += 1;
        let (runs, watched) = (table.runs, table.watched);
        let tasks_max = self.bounds.tasks_max;
        let is_idle = |member: &Member<K::Channel>| {
            let lives = member.process.as_ref().is_some_and(|process| !process.is_over());
            lives && !member.heavy && matches!(member.phase, Phase::Idle(_))
        };
        let (number, member) =
            table.members.iter_mut().filter(|(_, member)| is_idle(member)).min_by_key(
                |(_, member)| {
                    let left = policy::tasks_left(member.taken, tasks_max);
                    (left, Reverse(member.last_taken))
                },
            )?;
        let process = Arc::clone(member.process.as_ref()?);
        let output = Arc::clone(member.output.as_ref()?);
        let channel = match std::mem::replace(&mut member.phase, Phase::Busy) {
            Phase::Idle(channel) => channel,
            other => {
                member.phase = other;
                return None;
            }
        };
        member.taken += 1;
        member.task_id.clone_from(&speaker.task_id);
        member.last_taken = runs;
        member.stopped_since = None;
        let (number, run) = (*number, member.taken);
        if !watched || policy::tasks_left(run, tasks_max) <= 1 {
            self.changed.notify_one();
        }
        drop(table);
        output.begin(speaker.clone());
        let crew = Arc::clone(self);
        Some(Held { crew, number, run, process, output, channel: Some(channel) })
    }

    fn give_back(&self, number: u64, process: &Process, mut channel: K::Channel) {
        // One that is over the hard limit goes as well: its next task would be blamed for it.
        let bounds = [self.bounds.memory_recycle, self.bounds.memory_max];
        let bound = bounds.into_iter().flatten().min();
        let heavy = bound.is_some_and(|max| memory_now(process) > max);
        let tasks_max = self.bounds.tasks_max;
        self.kind.rest(&mut channel);
        let mut table = self.table();
        let too_many = policy::surplus(table.slots, table.standings(tasks_max)) > 0;
        let stopping = table.stopping || too_many;
        // Old children say nothing about whether new ones can start.
        if table.members.get(&number).is_some_and(|member| member.taken == 1) {
            table.backoff.succeeded();
        }
        let Some(member) = table.members.get_mut(&number) else { return };
        if matches!(member.phase, Phase::Over) {
            return;
        }
        member.heavy |= heavy;
        let left = policy::tasks_left(member.taken, tasks_max);
        if stopping || member.heavy || left == 0 {
            member.phase = Phase::Leaving(channel);
            self.changed.notify_one();
        } else {
            member.phase = Phase::Idle(channel);
            self.freed.notify_one();
        }
        self.publish(&table);
    }

    fn let_go(&self, number: u64) {
        let mut table = self.table();
        if let Some(member) = table.members.get_mut(&number)
            && matches!(member.phase, Phase::Busy)
        {
            member.phase = Phase::Ending;
        }
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
    }

    /// Lets a busy child end after what it does now; its successor starts at once.
    pub(super) fn retire(&self, number: u64) {
        if let Some(member) = self.table().members.get_mut(&number) {
            member.heavy = true;
        }
        self.changed.notify_one();
    }

    /// Has every child replaced: none of them takes another task. A busy one ends after its task, an idle
    /// one when a successor is ready.
    pub(super) fn renew(&self) {
        let mut table = self.table();
        for member in table.members.values_mut() {
            member.heavy = true;
        }
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
    }

    /// Whether a child ends after what it does now.
    pub(super) fn is_retired(&self, number: u64) -> bool {
        self.table().members.get(&number).is_none_or(|member| member.heavy)
    }

    /// Has so many slots from now on.
    pub(super) fn resize(&self, slots: usize) {
        let mut table = self.table();
        table.slots = slots;
        let mut surplus = policy::surplus(slots, table.standings(self.bounds.tasks_max));
        for member in table.members.values_mut() {
            if surplus == 0 {
                break;
            }
            match std::mem::replace(&mut member.phase, Phase::Ending) {
                Phase::Idle(channel) => {
                    member.phase = Phase::Leaving(channel);
                    surplus -= 1;
                }
                other => member.phase = other,
            }
        }
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
    }

    /// The children that could take a task or have one.
    pub(super) fn processes(&self) -> Vec<ProcessView> {
        let table = self.table();
        let members = table.members.values();
        members
            .filter_map(|member| {
                let busy = matches!(member.phase, Phase::Busy);
                let at_work = busy || matches!(member.phase, Phase::Idle(_));
                let process = member.process.as_ref().filter(|_| at_work)?;
                let pid = u32::try_from(process.pid()).ok()?;
                Some(ProcessView { pid, taken: member.taken, busy })
            })
            .collect()
    }

    /// The process ids of busy children by their task.
    pub(super) fn busy(&self) -> BTreeMap<String, u32> {
        let table = self.table();
        let busy = table.members.values().filter(|one| matches!(one.phase, Phase::Busy));
        busy.filter_map(|one| {
            let pid = u32::try_from(one.process.as_ref()?.pid()).ok()?;
            Some((one.task_id.clone(), pid))
        })
        .collect()
    }

    /// What has to be done now; children to start are in the table already.
    pub(super) fn deeds(&self) -> Deeds<K::Channel> {
        let tasks_max = self.bounds.tasks_max;
        let mut guard = self.table();
        let table = &mut *guard;
        let mut deeds = Deeds { start: Vec::new(), end: Vec::new(), wait: None, busy: false };
        for member in table.members.values_mut() {
            deeds.busy |= matches!(member.phase, Phase::Busy);
            match std::mem::replace(&mut member.phase, Phase::Ending) {
                Phase::Leaving(channel) => {
                    deeds.end.extend(member.process.clone().map(|process| (process, channel)));
                }
                other => member.phase = other,
            }
        }
        table.watched = deeds.busy;
        let failed = matches!(*self.startup.borrow(), Startup::Failed(_));
        if table.stopping || failed {
            return deeds;
        }
        let count = policy::starts(table.slots, table.standings(tasks_max));
        // Before the first child, failed starts are repeated at once: so many and the worker ends.
        let patient = *self.startup.borrow() == Startup::Ready;
        if count > 0 && patient {
            deeds.wait = table.backoff.wait(self.now());
            if deeds.wait.is_some() {
                return deeds;
            }
        }
        for _ in 0..count {
            table.next += 1;
            let place = table.free_place();
            deeds.start.push((table.next, place));
            let member = Member {
                place,
                phase: Phase::Starting,
                process: None,
                output: None,
                taken: 0,
                last_taken: 0,
                task_id: String::new(),
                heavy: false,
                stopped_since: None,
            };
            table.members.insert(table.next, member);
        }
        self.publish(table);
        deeds
    }

    /// A child has a process; `false`: it is not wanted any more.
    pub(super) fn spawned(
        &self,
        number: u64,
        process: &Arc<Process>,
        output: &Arc<Output>,
    ) -> bool {
        let mut table = self.table();
        let stopping = table.stopping;
        let Some(member) = table.members.get_mut(&number) else { return false };
        member.process = Some(Arc::clone(process));
        member.output = Some(Arc::clone(output));
        !stopping
    }

    /// A child can take tasks.
    pub(super) fn is_ready(&self, number: u64, channel: K::Channel) {
        let tasks_max = self.bounds.tasks_max;
        let mut table = self.table();
        let too_many = policy::surplus(table.slots, table.standings(tasks_max)) > 0;
        let stopping = table.stopping || too_many;
        let Some(member) = table.members.get_mut(&number) else { return };
        if stopping {
            member.phase = Phase::Leaving(channel);
        } else {
            member.phase = Phase::Idle(channel);
            self.freed.notify_one();
            table.dismiss_retired();
        }
        self.changed.notify_one();
        self.startup.send_if_modified(|startup| {
            let first = *startup == Startup::Pending;
            if first {
                *startup = Startup::Ready;
            }
            first
        });
        self.publish(&table);
    }

    /// Its process has ended: it counts no more. Returns whether nobody expected it.
    pub(super) fn is_over(&self, number: u64) -> bool {
        let mut table = self.table();
        let Some(member) = table.members.get_mut(&number) else { return false };
        let was = std::mem::replace(&mut member.phase, Phase::Over);
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
        matches!(was, Phase::Idle(_))
    }

    /// Forgets a child. `fault` says why it never became ready, or that it died idle.
    pub(super) fn gone(&self, number: u64, fault: Option<Fault>) {
        let mut table = self.table();
        table.members.remove(&number);
        if let Some(fault) = fault
            && !table.stopping
        {
            let now = self.now();
            let failures = table.backoff.failed(now);
            let pause = table.backoff.wait(now).unwrap_or_default();
            self.tell(&fault, failures, pause);
        }
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
    }

    fn tell(&self, fault: &Fault, failures: u32, pause: Duration) {
        let text = fault.text();
        let mut first = false;
        self.startup.send_if_modified(|startup| {
            first = *startup == Startup::Pending;
            let over = first && failures >= FAILED_STARTS_MAX;
            if over {
                *startup = Startup::Failed(text.clone());
            }
            over
        });
        if first {
            tracing::warn!(failures, "a child did not start: {text}");
        } else {
            tracing::error!(failures, ?pause, "a child did not start, trying again: {text}");
        }
    }

    /// Looks at the busy children: memory, and whether they stand still.
    pub(super) fn examine(&self) {
        let busy: Vec<(u64, Arc<Process>)> = {
            let table = self.table();
            let busy = table.members.iter().filter(|(_, one)| matches!(one.phase, Phase::Busy));
            busy.filter_map(|(number, one)| Some((*number, Arc::clone(one.process.as_ref()?))))
                .collect()
        };
        for (number, process) in busy {
            let vitals = Vitals::of(&process);
            if let Some(limit) = self.bounds.memory_max.filter(|max| vitals.memory > *max) {
                let held = vitals.memory;
                tracing::warn!(child = process.pid(), held, limit, "a child holds too much memory");
                process.kill(Killed::Memory { held, limit });
                continue;
            }
            let heavy = self.bounds.memory_recycle.is_some_and(|max| vitals.memory > max);
            let mut table = self.table();
            let Some(member) = table.members.get_mut(&number) else { continue };
            if heavy && !member.heavy {
                member.heavy = true;
                self.changed.notify_one();
            }
            if !vitals.stopped {
                member.stopped_since = None;
            } else if member.stopped_since.get_or_insert_with(Instant::now).elapsed()
                >= STOPPED_PATIENCE
            {
                process.kill(Killed::Stopped);
            }
        }
    }

    /// Takes no more tasks: idle children end, starting ones are killed.
    pub(super) fn stop(&self) {
        let mut table = self.table();
        table.stopping = true;
        for member in table.members.values_mut() {
            match std::mem::replace(&mut member.phase, Phase::Ending) {
                Phase::Idle(channel) => member.phase = Phase::Leaving(channel),
                Phase::Starting => {
                    member.phase = Phase::Starting;
                    if let Some(process) = &member.process {
                        process.kill(Killed::Aborted);
                    }
                }
                other => member.phase = other,
            }
        }
        self.publish(&table);
        drop(table);
        self.changed.notify_one();
    }

    /// Kills every child.
    pub(super) fn kill_all(&self) {
        let mut table = self.table();
        table.stopping = true;
        for process in table.members.values().filter_map(|member| member.process.as_ref()) {
            process.kill(Killed::Aborted);
        }
    }

    /// Waits until there is no child any more, at most so long.
    pub(super) async fn empty(&self, limit: Duration) -> bool {
        let mut population = self.population.subscribe();
        tokio::time::timeout(limit, population.wait_for(|count| *count == 0)).await.is_ok()
    }
}

/// Why a child is no good.
#[derive(Debug)]
pub(super) struct Fault {
    /// What it said, or what is known.
    pub(super) text: String,
    /// How it ended, where nothing better is known.
    pub(super) exit: Option<Exit>,
    /// What it wrote to stderr.
    pub(super) stderr: String,
}

impl Fault {
    fn text(&self) -> String {
        let text = &self.text;
        let exit =
            self.exit.as_ref().map_or_else(String::new, |exit| format!(": {}", exit.reason()));
        let stderr = self.stderr.trim();
        if stderr.is_empty() {
            return format!("{text}{exit}");
        }
        format!("{text}{exit}\nits stderr:\n{}", excerpt(stderr))
    }
}

/// The beginning and the end of a long text: a panic begins with its message and ends in its backtrace.
fn excerpt(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.to_owned();
    }
    let half = SHOWN_BYTES_MAX / 2;
    let head = (0..=half).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let tail = text.len() - half;
    let tail = (tail..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{}\n…\n{}", &text[..head], &text[tail..])
}
