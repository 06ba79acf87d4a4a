//! The store as one simulated node sees it: the real engine behind a link, with everything that
//! matters written down where it is true, and optionally broken on purpose.

use super::link::{Call, Link};
use super::record::Record;
use super::sabotage::Saboteur;
use crate::ledger::What;
use async_trait::async_trait;
use celeriac_core::dead::DeadLetter;
use celeriac_core::exchange::Binding;
use celeriac_core::lease::Lease;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Backup, Begun, Broker, Capabilities, ChordFinisher, Control, DeadFilter, DeadLetters, Delivery,
    EntryRecord, EventStream, Events, FetchRequest, Finding, Fire, Fired, Heartbeat, Inbox,
    Inspect, Lead, LimitView, Mailbox, Maintain, Moves, NodeId, NodeInfo, NodeView, Nodes,
    Occurrence, Outgoing, Page, Pause, Plan, Published, QueueView, Queues, RedBeatKeys,
    RedBeatView, Released, Replay, Requests, ResultRecord, Results, Revoke, Saved, Schedules,
    Settled, Settlement, StalledChord, StampedEvent, Store, Stored, Sweep, TaskFilter, TaskPage,
    TaskView, Throttle,
};
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::{ControlReply, ControlRequest, Event, ReplyTo, State};
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A node's view of the store.
#[derive(Debug)]
pub(crate) struct NodeStore {
    pub(crate) who: String,
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) link: Arc<Link>,
    pub(crate) record: Arc<Record>,
    pub(crate) saboteur: Arc<Saboteur>,
}

/// A call that only passes the link.
macro_rules! pass {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let call = Call::Plain(stringify!($method));
        $self.link.before(call).await?;
        let answer = $self.inner.$method($($argument),*).await?;
        $self.link.after(call).await?;
        Ok(answer)
    }};
}

#[async_trait]
impl Broker for NodeStore {
    async fn publish(
        &self,
        plan: Plan,
        finisher: Option<ChordFinisher>,
    ) -> Result<Published, StoreError> {
        let call = Call::NeedsRoom("publish");
        self.link.before(call).await?;
        let published = self.saboteur.publish(&*self.inner, plan, finisher).await?;
        self.link.after(call).await?;
        Ok(published)
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Vec<Delivery>, StoreError> {
        let call = Call::Plain("fetch");
        self.link.before(call).await?;
        let node = request.node;
        let held = self.saboteur.fetch(&self.inner, request).await?;
        for delivery in &held {
            self.record.leased(&self.who, node, delivery);
        }
        self.link.after(call).await?;
        Ok(held)
    }

    async fn return_strays(&self, node: NodeId, known: Vec<Lease>) -> Result<u64, StoreError> {
        pass!(self.return_strays(node, known))
    }

    async fn mark_started(&self, started: Vec<Begun>) -> Result<(), StoreError> {
        pass!(self.mark_started(started))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError> {
        let call = Call::NeedsRoom("settle");
        self.link.before(call).await?;
        let settled = self.saboteur.settle(&*self.inner, settlements.clone()).await?;
        for (settlement, settled) in settlements.iter().zip(&settled) {
            self.record.settled(&self.who, settlement, *settled);
        }
        self.link.after(call).await?;
        Ok(settled)
    }

    async fn bind(&self, bindings: Vec<Binding>) -> Result<(), StoreError> {
        pass!(self.bind(bindings))
    }

    async fn bindings(&self) -> Result<Vec<Binding>, StoreError> {
        pass!(self.bindings())
    }

    fn changes(&self) -> u64 {
        self.inner.changes()
    }

    async fn wait_change(&self, seen: u64, timeout: Duration) -> u64 {
        if self.link.hears() {
            return self.inner.wait_change(seen, timeout).await;
        }
        tokio::time::sleep(timeout).await;
        self.inner.changes()
    }

    async fn stalled_chords(
        &self,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<StalledChord>, StoreError> {
        pass!(self.stalled_chords(before, count_max))
    }

    async fn next_due(&self, queues: &[QueueName]) -> Result<Option<Timestamp>, StoreError> {
        pass!(self.next_due(queues))
    }
}

#[async_trait]
impl Results for NodeStore {
    async fn store_state(&self, lease: Lease, record: ResultRecord) -> Result<bool, StoreError> {
        let call = Call::Plain("store_state");
        self.link.before(call).await?;
        let accepted = self.inner.store_state(lease, record).await?;
        self.record.state(&self.who, lease, accepted);
        self.link.after(call).await?;
        Ok(accepted)
    }

    async fn result(&self, task_id: &str) -> Result<Option<ResultRecord>, StoreError> {
        pass!(self.result(task_id))
    }

    async fn results(&self, task_ids: &[String]) -> Result<Vec<Option<ResultRecord>>, StoreError> {
        pass!(self.results(task_ids))
    }

    async fn wait_result(
        &self,
        task_id: &str,
        timeout: Duration,
    ) -> Result<Option<ResultRecord>, StoreError> {
        pass!(self.wait_result(task_id, timeout))
    }

    async fn forget(&self, task_id: &str) -> Result<bool, StoreError> {
        pass!(self.forget(task_id))
    }

    async fn expire_results(&self, count_max: usize) -> Result<usize, StoreError> {
        pass!(self.expire_results(count_max))
    }
}

#[async_trait]
impl DeadLetters for NodeStore {
    async fn dead_list(
        &self,
        filter: &DeadFilter,
        page: Page,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        pass!(self.dead_list(filter, page))
    }

    async fn dead_count(&self, filter: &DeadFilter) -> Result<u64, StoreError> {
        let counted: Result<u64, StoreError> = pass!(self.dead_count(filter));
        counted.map(|count| self.saboteur.count(count))
    }

    async fn dead_replay(
        &self,
        filter: &DeadFilter,
        replay: &Replay,
        count_max: usize,
    ) -> Result<Vec<i64>, StoreError> {
        pass!(self.dead_replay(filter, replay, count_max))
    }

    async fn dead_edit(&self, number: i64, outgoing: Outgoing) -> Result<(), StoreError> {
        pass!(self.dead_edit(number, outgoing))
    }

    async fn dead_discard(&self, numbers: &[i64]) -> Result<u64, StoreError> {
        pass!(self.dead_discard(numbers))
    }
}

#[async_trait]
impl Queues for NodeStore {
    async fn peek(&self, queue: &QueueName, page: Page) -> Result<Vec<Stored>, StoreError> {
        pass!(self.peek(queue, page))
    }

    async fn release(&self, queue: &QueueName, count_max: usize) -> Result<Released, StoreError> {
        pass!(self.release(queue, count_max))
    }

    async fn remove(&self, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
        pass!(self.remove(rows))
    }
}

#[async_trait]
impl Moves for NodeStore {
    async fn hold(&self, node: NodeId, rows: &[i64]) -> Result<Vec<Delivery>, StoreError> {
        pass!(self.hold(node, rows))
    }

    async fn forget_once(&self, keys: &[String]) -> Result<(), StoreError> {
        pass!(self.forget_once(keys))
    }
}

#[async_trait]
impl Control for NodeStore {
    async fn revoke(&self, task_ids: &[String], terminate: bool) -> Result<(), StoreError> {
        pass!(self.revoke(task_ids, terminate))
    }

    async fn unrevoke(&self, task_ids: &[String]) -> Result<u64, StoreError> {
        pass!(self.unrevoke(task_ids))
    }

    async fn revokes_since(&self, after: i64) -> Result<Vec<Revoke>, StoreError> {
        pass!(self.revokes_since(after))
    }

    async fn pause(&self, target: &Target, reason: &str) -> Result<(), StoreError> {
        pass!(self.pause(target, reason))
    }

    async fn resume(&self, target: &Target) -> Result<bool, StoreError> {
        pass!(self.resume(target))
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        pass!(self.pauses())
    }
}

#[async_trait]
impl Throttle for NodeStore {
    async fn declare_limits(
        &self,
        tasks: &[String],
        rules: Vec<LimitRule>,
    ) -> Result<(), StoreError> {
        pass!(self.declare_limits(tasks, rules))
    }

    async fn set_limit(&self, rule: LimitRule) -> Result<(), StoreError> {
        pass!(self.set_limit(rule))
    }

    async fn remove_limit(&self, target: &Target, origin: RuleOrigin) -> Result<bool, StoreError> {
        pass!(self.remove_limit(target, origin))
    }

    async fn limits_in_force(&self) -> Result<Vec<LimitView>, StoreError> {
        pass!(self.limits_in_force())
    }
}

#[async_trait]
impl Maintain for NodeStore {
    async fn backup(
        &self,
        target: &Path,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Backup, StoreError> {
        pass!(self.backup(target, progress))
    }

    async fn check(&self, mend: bool) -> Result<Vec<Finding>, StoreError> {
        pass!(self.check(mend))
    }

    async fn compact(&self) -> Result<(u64, u64), StoreError> {
        pass!(self.compact())
    }
}

#[async_trait]
impl Nodes for NodeStore {
    async fn register(&self, info: NodeInfo) -> Result<NodeId, StoreError> {
        let call = Call::Plain("register");
        self.link.before(call).await?;
        let node = self.inner.register(info).await?;
        let line = self.record.line(What::Registered, "-", &self.who).note("node", node.0);
        self.record.append(line);
        self.link.after(call).await?;
        Ok(node)
    }

    async fn heartbeat(&self, node: NodeId, heartbeat: Heartbeat) -> Result<bool, StoreError> {
        pass!(self.heartbeat(node, heartbeat))
    }

    async fn deregister(&self, node: NodeId) -> Result<u64, StoreError> {
        let call = Call::Plain("deregister");
        self.link.before(call).await?;
        let returned = self.inner.deregister(node).await?;
        let line = self.record.line(What::SignedOff, "-", &self.who).note("node", node.0);
        self.record.append(line.note("returned", returned));
        self.link.after(call).await?;
        Ok(returned)
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let call = Call::Plain("sweep");
        self.link.before(call).await?;
        let swept = self.saboteur.sweep(&*self.inner).await?;
        for name in &swept.dead_nodes {
            let line = self.record.line(What::Swept, "-", name).note("by", &self.who);
            self.record.append(line.note("returned", swept.requeued));
        }
        self.link.after(call).await?;
        Ok(swept)
    }

    async fn stands(&self, node: NodeId) -> Result<bool, StoreError> {
        pass!(self.stands(node))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        pass!(self.nodes())
    }

    async fn revise(
        &self,
        node: NodeId,
        queues: &[QueueName],
        concurrency: u32,
    ) -> Result<bool, StoreError> {
        pass!(self.revise(node, queues, concurrency))
    }
}

#[async_trait]
impl Mailbox for NodeStore {
    async fn broadcast(&self, request: &ControlRequest) -> Result<(), StoreError> {
        pass!(self.broadcast(request))
    }

    async fn listen(&self, node: &str) -> Result<Box<dyn Requests>, StoreError> {
        pass!(self.listen(node))
    }

    async fn reply(&self, to: &ReplyTo, reply: &ControlReply) -> Result<(), StoreError> {
        pass!(self.reply(to, reply))
    }

    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError> {
        pass!(self.open_inbox(id))
    }

    fn has_stock_nodes(&self) -> bool {
        self.inner.has_stock_nodes()
    }
}

#[async_trait]
impl Events for NodeStore {
    async fn emit(&self, events: Vec<Event>) -> Result<(), StoreError> {
        pass!(self.emit(events))
    }

    async fn watch_events(&self) -> Result<Box<dyn EventStream>, StoreError> {
        pass!(self.watch_events())
    }

    async fn events_since(
        &self,
        after: i64,
        count_max: usize,
    ) -> Result<Vec<StampedEvent>, StoreError> {
        pass!(self.events_since(after, count_max))
    }

    async fn events_of(&self, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
        pass!(self.events_of(task_id))
    }
}

#[async_trait]
impl Inspect for NodeStore {
    async fn task(&self, task_id: &str) -> Result<TaskView, StoreError> {
        pass!(self.task(task_id))
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        pass!(self.tasks(filter))
    }

    async fn queues(&self) -> Result<Vec<QueueView>, StoreError> {
        pass!(self.queues())
    }
}

#[async_trait]
impl Schedules for NodeStore {
    async fn save_entries(&self, records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError> {
        let call = Call::NeedsRoom("save_entries");
        self.link.before(call).await?;
        let saved = self.inner.save_entries(records).await?;
        self.link.after(call).await?;
        Ok(saved)
    }

    async fn remove_entry(&self, name: &str, version: u64) -> Result<bool, StoreError> {
        pass!(self.remove_entry(name, version))
    }

    async fn entry(&self, name: &str) -> Result<Option<EntryRecord>, StoreError> {
        pass!(self.entry(name))
    }

    async fn entries(&self, after: &str, count_max: usize) -> Result<Vec<EntryRecord>, StoreError> {
        pass!(self.entries(after, count_max))
    }

    async fn entry_count(&self) -> Result<u64, StoreError> {
        pass!(self.entry_count())
    }

    async fn due_entries(
        &self,
        now: Timestamp,
        count_max: usize,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        pass!(self.due_entries(now, count_max))
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        pass!(self.next_wake())
    }

    async fn lead(&self, holder: &str, lease: Duration) -> Result<Lead, StoreError> {
        pass!(self.lead(holder, lease))
    }

    async fn resign(&self, holder: &str, epoch: u64) -> Result<(), StoreError> {
        pass!(self.resign(holder, epoch))
    }

    async fn leader(&self) -> Result<Option<Lead>, StoreError> {
        pass!(self.leader())
    }

    async fn share_redbeat(&self, keys: RedBeatKeys) -> Result<(), StoreError> {
        pass!(self.share_redbeat(keys))
    }

    async fn leave_redbeat(&self) -> Result<bool, StoreError> {
        pass!(self.leave_redbeat())
    }

    async fn redbeat(&self) -> Result<Option<RedBeatView>, StoreError> {
        pass!(self.redbeat())
    }

    async fn fire(&self, epoch: Option<u64>, fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError> {
        let call = Call::NeedsRoom("fire");
        self.link.before(call).await?;
        let answers = self.inner.fire(epoch, fires).await?;
        self.link.after(call).await?;
        Ok(answers)
    }

    async fn occurrences(
        &self,
        name: &str,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<Occurrence>, StoreError> {
        pass!(self.occurrences(name, before, count_max))
    }

    async fn open_occurrences(
        &self,
        after: Timestamp,
        count_max: usize,
    ) -> Result<Vec<(String, Occurrence)>, StoreError> {
        pass!(self.open_occurrences(after, count_max))
    }

    async fn end_occurrences(
        &self,
        ended: Vec<(String, Timestamp, State)>,
    ) -> Result<(), StoreError> {
        pass!(self.end_occurrences(ended))
    }
}

impl Store for NodeStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn limits(&self) -> &StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
