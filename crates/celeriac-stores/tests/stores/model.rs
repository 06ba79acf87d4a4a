//! Random sequences of everything that moves a message, against a model that is simple enough to be
//! believed. A failure names its seed.

use celeriac_core::dead::DeadReason;
use celeriac_core::lease::{Lease, LeaseTimes, Recovery, Suspicion};
use celeriac_core::store::{
    Begun, DeadFilter, Delivery, Fate, FetchRequest, Heartbeat, NodeId, NodeInfo, Outgoing, Page,
    Place, Plan, Replay, Settled, Settlement,
};
use celeriac_core::testing::Seeded;
use celeriac_core::throttle::Target;
use celeriac_core::{Clock as _, Entropy as _, QueueName, priority};
use celeriac_stores::conformance::{Fixture, Harness};
use celeriac_wire::Message;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const QUEUES: [&str; 3] = ["one", "two", "three"];

#[derive(Clone, Debug, PartialEq)]
enum Stand {
    Ready,
    Scheduled(Timestamp),
    Held { node: NodeId, lease: Lease },
    Dead,
    Gone,
}

#[derive(Clone, Debug)]
struct Known {
    queue: &'static str,
    step: u8,
    /// Smaller runs first within queue and step.
    rank: u64,
    stand: Stand,
    due: Option<Timestamp>,
    suspicion: Suspicion,
    lost: usize,
    left_behind: bool,
    /// Its owner has acknowledged it.
    marked: bool,
    /// An owner that had acknowledged it left it behind.
    over: bool,
}

struct Run {
    fixture: Fixture,
    dice: Seeded,
    known: BTreeMap<String, Known>,
    nodes: Vec<NodeId>,
    paused: BTreeSet<&'static str>,
    revoked: BTreeSet<String>,
    stale: Vec<Lease>,
    counter: u64,
}

impl Run {
    async fn new(harness: &Harness, seed: u64) -> Self {
        let mut run = Self {
            fixture: harness.store(),
            dice: Seeded::new(seed),
            known: BTreeMap::new(),
            nodes: Vec::new(),
            paused: BTreeSet::new(),
            revoked: BTreeSet::new(),
            stale: Vec::new(),
            counter: 0,
        };
        for _ in 0..3 {
            run.register().await;
        }
        run
    }

    fn roll(&self, sides: usize) -> usize {
        usize::try_from(self.dice.next_u64() % sides as u64).unwrap()
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    async fn register(&mut self) {
        let info = NodeInfo {
            name: format!("celery@{}", self.next()),
            pid: 1,
            queues: QUEUES.map(|name| QueueName::parse(name).unwrap()).to_vec(),
            concurrency: 4,
            pool: "async".to_owned(),
            times: LeaseTimes::default(),
            tasks: Vec::new(),
        };
        self.nodes.push(self.fixture.store.register(info).await.unwrap());
    }

    async fn publish(&mut self) {
        let mut publish = Vec::new();
        for _ in 0..=self.roll(4) {
            let rank = self.next();
            let id = format!("m{rank:05}");
            let queue = QUEUES[self.roll(3)];
            let mut message = Message::new("app.add", &id, "[[], {}, {}]");
            let number = self.roll(10) as u8;
            message.properties.set_priority(number);
            let mut stand = Stand::Ready;
            if self.roll(4) == 0 {
                let span = Duration::from_secs(self.roll(40) as u64 + 1);
                let due = celeriac_core::clock::after(self.fixture.clock.wall(), span);
                message.headers.set_eta(Some(due));
                stand = Stand::Scheduled(due);
            }
            publish.push(Outgoing::new(QueueName::parse(queue).unwrap(), message));
            let step = priority::step(Some(number));
            let known = Known {
                queue,
                step,
                rank,
                due: match stand {
                    Stand::Scheduled(due) => Some(due),
                    _ => None,
                },
                stand,
                suspicion: Suspicion::default(),
                lost: 0,
                left_behind: false,
                marked: false,
                over: false,
            };
            self.known.insert(id, known);
        }
        self.fixture.store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
    }

    /// What a fetch makes ready first, in the order of the times.
    fn promote(&mut self) {
        let now = self.fixture.clock.wall();
        let mut due: Vec<(Timestamp, u64, String)> = self
            .known
            .iter()
            .filter_map(|(id, known)| match known.stand {
                Stand::Scheduled(at) if at <= now => Some((at, known.rank, id.clone())),
                _ => None,
            })
            .collect();
        due.sort();
        for (_, _, id) in due {
            let rank = self.next();
            let known = self.known.get_mut(&id).unwrap();
            (known.rank, known.stand) = (rank, Stand::Ready);
        }
    }

    /// Ready messages of a queue and step, first to run first.
    fn line(&self, queue: &str, step: u8, suspects: bool) -> Vec<&String> {
        let mut line: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| known.queue == queue && known.step == step)
            .filter(|(_, known)| known.stand == Stand::Ready && !known.over)
            .filter(|(_, known)| known.suspicion.is_suspect() == suspects)
            .collect();
        line.sort_by_key(|(_, known)| known.rank);
        line.into_iter().map(|(id, _)| id).collect()
    }

    async fn fetch(&mut self) {
        let node = self.nodes[self.roll(self.nodes.len())];
        let asked: Vec<&'static str> = QUEUES.into_iter().filter(|_| self.roll(4) > 0).collect();
        let request = FetchRequest {
            node,
            queues: asked.iter().map(|name| QueueName::parse(name).unwrap()).collect(),
            count_max: self.roll(6),
            suspects: self.roll(2) == 0,
            caps: Vec::new(),
        };
        self.promote();
        let over = |known: &&Known| known.over && known.stand == Stand::Ready;
        let here = self.known.values().filter(|known| asked.contains(&known.queue));
        let over = request.count_max.min(here.filter(over).count());
        let open: Vec<_> =
            asked.iter().copied().filter(|name| !self.paused.contains(name)).collect();
        let count = |suspects| -> usize {
            let steps = priority::STEPS.iter();
            steps.flat_map(|step| open.iter().map(|q| self.line(q, *step, suspects).len())).sum()
        };
        let suspects = if request.suspects { count(true).min(1) } else { 0 };
        let expected = over + (request.count_max - over).min(count(false) + suspects);
        let held = self.fixture.store.fetch(request.clone()).await.unwrap();
        assert_eq!(held.len(), expected, "{request:?}");
        let runs = held.iter().filter(|one| !one.acknowledged);
        let among = runs.filter(|one| one.suspicion.is_suspect()).count();
        assert!(among <= suspects, "one suspect, and only when asked for");
        assert_eq!(held.iter().filter(|one| one.acknowledged).count(), over);
        let mut step = 0;
        for delivery in held {
            // What is over is not held by a pause.
            let queues = if delivery.acknowledged { &asked } else { &open };
            step = self.deliver(node, queues, step, &delivery);
        }
    }

    /// Checks one delivery against the model; returns its step.
    fn deliver(&mut self, node: NodeId, open: &[&str], step: u8, delivery: &Delivery) -> u8 {
        let id = delivery.message.headers.id().unwrap().to_owned();
        let known = self.known.get(&id).expect("a message that was sent").clone();
        assert_eq!(known.stand, Stand::Ready, "one owner at a time: {id}");
        assert!(open.contains(&known.queue) && delivery.queue.as_str() == known.queue, "{id}");
        assert_eq!(delivery.acknowledged, known.over, "{id}");
        if !known.over {
            assert!(known.step >= step, "a step goes before the next: {id}");
            let first = self.line(known.queue, known.step, known.suspicion.is_suspect());
            assert_eq!(first[0], &id, "first in, first out");
        }
        assert_eq!(delivery.suspicion, known.suspicion, "{id}");
        assert_eq!(delivery.history.len(), known.lost, "{id}");
        assert_eq!(delivery.redelivered, known.lost > 0 || known.left_behind, "{id}");
        assert_eq!(delivery.revoked, self.revoked.contains(&id), "{id}");
        assert!(!self.stale.contains(&delivery.lease), "a lease is new: {id}");
        self.known.get_mut(&id).unwrap().stand = Stand::Held { node, lease: delivery.lease };
        if known.over { step } else { known.step }
    }

    /// A task begins; most are acknowledged then.
    async fn begin(&mut self) {
        let held = self.held();
        if held.is_empty() {
            return;
        }
        let (id, _, lease) = held[self.roll(held.len())].clone();
        let (at, acknowledged) = (self.fixture.clock.wall(), self.roll(3) > 0);
        let begun = vec![Begun { lease, at, acknowledged }];
        self.fixture.store.mark_started(begun).await.unwrap();
        self.known.get_mut(&id).unwrap().marked |= acknowledged;
    }

    fn held(&self) -> Vec<(String, NodeId, Lease)> {
        let held = self.known.iter().filter_map(|(id, known)| match known.stand {
            Stand::Held { node, lease } => Some((id.clone(), node, lease)),
            _ => None,
        });
        held.collect()
    }

    async fn settle(&mut self) {
        let held = self.held();
        if held.is_empty() {
            return;
        }
        let (id, _, lease) = held[self.roll(held.len())].clone();
        let release = |place| Fate::Release { place, attempt: None };
        let (fate, stand) = match self.roll(6) {
            0 => (release(Place::Head), Stand::Ready),
            1 => (release(Place::Tail), Stand::Ready),
            2 => {
                let (reason, detail) = (DeadReason::Failed, String::new());
                (Fate::Dead { reason, detail, attempt: None }, Stand::Dead)
            }
            _ => (Fate::Done, Stand::Gone),
        };
        let tail = matches!(fate, Fate::Release { place: Place::Tail, .. });
        assert_eq!(self.try_settle(lease, fate).await, Settled::Done, "{id}");
        let rank = if tail { Some(self.next()) } else { None };
        let known = self.known.get_mut(&id).unwrap();
        (known.stand, known.marked) = (stand, false);
        known.rank = rank.unwrap_or(known.rank);
        self.stale.push(lease);
    }

    async fn try_settle(&self, lease: Lease, fate: Fate) -> Settled {
        let settlement = Settlement { lease, fate, plan: Plan::default(), finisher: None };
        self.fixture.store.settle(vec![settlement]).await.unwrap()[0]
    }

    async fn settle_a_stale_lease(&mut self) {
        if !self.stale.is_empty() {
            let lease = self.stale[self.roll(self.stale.len())];
            assert_eq!(self.try_settle(lease, Fate::Done).await, Settled::Fenced);
        }
    }

    /// Time passes; whoever lives renews.
    async fn advance(&mut self, seconds: u64) {
        self.fixture.clock.advance(Duration::from_secs(seconds));
        for node in &self.nodes {
            assert!(self.fixture.store.heartbeat(*node, Heartbeat::default()).await.unwrap());
        }
    }

    async fn die(&mut self) {
        let victim = self.nodes.swap_remove(self.roll(self.nodes.len()));
        self.advance(8).await;
        let (mut requeued, mut poisoned, mut over) = (0, 0, 0);
        for (id, node, lease) in self.held() {
            if node != victim {
                continue;
            }
            self.stale.push(lease);
            let known = self.known.get_mut(&id).unwrap();
            let verdict = known.suspicion.after_worker_death();
            let (Recovery::Requeue(next) | Recovery::Isolate(next) | Recovery::Poison(next)) =
                verdict;
            (known.suspicion, known.stand) = (next, Stand::Ready);
            known.lost += 1;
            known.over |= std::mem::take(&mut known.marked);
            requeued += 1;
            over += u64::from(known.over);
            poisoned += u64::from(!known.over && matches!(verdict, Recovery::Poison(_)));
        }
        let swept = self.fixture.store.sweep().await.unwrap();
        assert_eq!(
            (swept.dead_nodes.len(), swept.requeued, swept.poisoned, swept.lost),
            (1, requeued, poisoned, over)
        );
        self.register().await;
    }

    async fn sign_off(&mut self) {
        let leaver = self.nodes.swap_remove(self.roll(self.nodes.len()));
        let held: Vec<_> = self.held().into_iter().filter(|(_, node, _)| *node == leaver).collect();
        let returned = self.fixture.store.deregister(leaver).await.unwrap();
        assert_eq!(returned, held.len() as u64);
        for (id, _, lease) in held {
            self.stale.push(lease);
            let known = self.known.get_mut(&id).unwrap();
            (known.stand, known.left_behind) = (Stand::Ready, true);
            if std::mem::take(&mut known.marked) && !known.over {
                known.over = true;
                known.lost += 1;
            }
        }
        self.register().await;
    }

    async fn toggle_pause(&mut self) {
        let name = QUEUES[self.roll(3)];
        let queue = QueueName::parse(name).unwrap();
        if self.paused.remove(name) {
            assert!(self.fixture.store.resume(&Target::from(&queue)).await.unwrap());
        } else {
            self.fixture.store.pause(&Target::from(&queue), "model").await.unwrap();
            self.paused.insert(name);
        }
    }

    async fn toggle_revocation(&mut self) {
        let ids: Vec<&String> = self.known.keys().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.roll(ids.len())].clone();
        let now = self.fixture.clock.wall();
        let known = self.known.get_mut(&id).unwrap();
        if self.revoked.remove(&id) {
            let due = known.due.filter(|due| *due > now && !known.over);
            if let (Stand::Ready, Some(due)) = (&known.stand, due) {
                known.stand = Stand::Scheduled(due);
            }
            assert_eq!(self.fixture.store.unrevoke(&[id]).await.unwrap(), 1);
        } else {
            // It becomes ready only to be refused.
            if let Stand::Scheduled(_) = known.stand {
                known.stand = Stand::Ready;
            }
            self.fixture.store.revoke(std::slice::from_ref(&id), false).await.unwrap();
            self.revoked.insert(id);
        }
    }

    async fn replay(&mut self) {
        let filter = DeadFilter::default();
        let page = Page { after: 0, count_max: 2 };
        let letters = self.fixture.store.dead_list(&filter, page).await.unwrap();
        let went = self.fixture.store.dead_replay(&filter, &Replay::default(), 2).await.unwrap();
        assert_eq!(went, letters.iter().map(|letter| letter.number).collect::<Vec<_>>());
        for letter in letters {
            let id = letter.message.headers.id().unwrap().to_owned();
            self.revoked.remove(&id);
            let rank = self.next();
            let known = self.known.get_mut(&id).unwrap();
            assert_eq!(known.stand, Stand::Dead, "{id}");
            (known.stand, known.rank, known.due) = (Stand::Ready, rank, None);
            (known.suspicion, known.left_behind) = (Suspicion::default(), false);
            known.over = false;
            // The history of the first life stays with it, but nobody lost it in this one.
            assert_eq!(letter.history.len(), known.lost, "{id}");
            if known.lost > 0 {
                known.stand = Stand::Gone;
                self.drain_one(&id).await;
            }
        }
    }

    /// Takes a replayed message out: its history and its redelivery flag differ in the new life.
    async fn drain_one(&mut self, id: &str) {
        let queue = QueueName::parse(self.known[id].queue).unwrap();
        let all = Page { after: 0, count_max: 100_000 };
        let stored = self.fixture.store.peek(&queue, all).await.unwrap();
        let rows: Vec<i64> = stored
            .iter()
            .filter(|one| one.outgoing.message.headers.id() == Some(id))
            .map(|one| one.row)
            .collect();
        assert_eq!(self.fixture.store.remove(&rows).await.unwrap(), rows);
        assert_eq!(rows.len(), 1);
    }

    /// The store's own numbers against the model's.
    async fn compare(&self) {
        let views = self.fixture.store.queues().await.unwrap();
        for name in QUEUES {
            let count = |wanted: fn(&Stand) -> bool| {
                let here = self.known.values().filter(|known| known.queue == name);
                here.filter(|known| wanted(&known.stand)).count() as u64
            };
            let view = views.iter().find(|view| view.name == name).unwrap();
            let seen = (view.ready, view.scheduled, view.leased, view.dead);
            let expected = (
                count(|stand| *stand == Stand::Ready),
                count(|stand| matches!(stand, Stand::Scheduled(_))),
                count(|stand| matches!(stand, Stand::Held { .. })),
                count(|stand| *stand == Stand::Dead),
            );
            assert_eq!(seen, expected, "{name}");
            assert_eq!(view.paused, self.paused.contains(name));
        }
    }

    async fn step(&mut self) {
        match self.roll(100) {
            0..25 => self.publish().await,
            25..50 => self.fetch().await,
            50..55 => self.begin().await,
            55..72 => self.settle().await,
            72..76 => self.settle_a_stale_lease().await,
            76..84 => {
                let seconds = self.roll(8) as u64;
                self.advance(seconds).await;
            }
            84..88 => self.die().await,
            88..90 => self.sign_off().await,
            90..93 => self.toggle_pause().await,
            93..96 => self.toggle_revocation().await,
            96..98 => self.replay().await,
            _ => {
                let swept = self.fixture.store.sweep().await.unwrap();
                assert_eq!(swept.requeued, 0, "everybody lives");
            }
        }
    }

    /// Lets everything that is left run; nothing may be missing.
    async fn drain(&mut self) {
        for name in std::mem::take(&mut self.paused) {
            assert!(self.fixture.store.resume(&Target::Queue(name.to_owned())).await.unwrap());
        }
        for (id, _, lease) in self.held() {
            assert_eq!(self.try_settle(lease, Fate::Done).await, Settled::Done);
            self.known.get_mut(&id).unwrap().stand = Stand::Gone;
        }
        self.advance(7).await;
        for _ in 0..10 {
            self.advance(7).await;
        }
        self.promote();
        let node = self.nodes[0];
        loop {
            let queues = QUEUES.map(|name| QueueName::parse(name).unwrap()).to_vec();
            let request =
                FetchRequest { node, queues, count_max: 50, suspects: true, caps: Vec::new() };
            let held = self.fixture.store.fetch(request).await.unwrap();
            if held.is_empty() {
                break;
            }
            let mut step = 0;
            for delivery in &held {
                step = self.deliver(node, &QUEUES, step, delivery);
                assert_eq!(self.try_settle(delivery.lease, Fate::Done).await, Settled::Done);
                let id = delivery.message.headers.id().unwrap();
                self.known.get_mut(id).unwrap().stand = Stand::Gone;
            }
        }
        let left: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| !matches!(known.stand, Stand::Gone | Stand::Dead))
            .collect();
        assert!(left.is_empty(), "lost: {left:?}");
        self.compare().await;
    }
}

async fn explore(harness: fn() -> Harness, seeds: std::ops::Range<u64>, steps: usize) {
    for seed in seeds {
        let run = tokio::spawn(async move {
            // The harness owns the store's folder.
            let harness = harness();
            let mut run = Run::new(&harness, seed).await;
            for _ in 0..steps {
                run.step().await;
                run.compare().await;
            }
            run.drain().await;
        });
        assert!(run.await.is_ok(), "SEED={seed}: see the assertion above");
    }
}

#[tokio::test]
async fn memory_behaves_like_the_model() {
    explore(super::memory::harness, 0..40, 300).await;
}

#[tokio::test]
async fn sqlite_behaves_like_the_model() {
    explore(super::sqlite::harness, 100..103, 150).await;
}
