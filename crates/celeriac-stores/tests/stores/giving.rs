//! Entries that are given from one scheduler to another while occurrences are due: each of these has somebody
//! who runs it.

use celeriac_core::beat::{Entry, Owner, look};
use celeriac_core::limits::StoreLimits;
use celeriac_core::operate::entries::{self as operate, Kept, Token};
use celeriac_core::schedule::{Interval, Schedule, Zone};
use celeriac_core::store::{Fire, Fired, Plan, Store};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::{Clock, ErrorKind, StoreError};
use celeriac_stores::{Resources, connect};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// When the entries of the tests are made; they are due a minute later.
const START: &str = "2026-11-22T12:00:00Z";

fn at(seconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// A clock that goes on by so many seconds each time it is read.
#[derive(Debug)]
struct Reads(FixedClock, u64);

impl Clock for Reads {
    fn wall(&self) -> Timestamp {
        let now = self.0.wall();
        self.0.advance(Duration::from_secs(self.1));
        now
    }
    fn boot(&self) -> Duration {
        self.0.boot()
    }
}

/// A store with one entry for every minute.
#[derive(Debug)]
struct Tick(Arc<dyn Store>);

impl Tick {
    async fn new(change: impl FnOnce(&mut Entry)) -> Self {
        let clock = Arc::new(FixedClock::at(START));
        let (entropy, limits) = (Arc::new(Seeded::new(7)), StoreLimits::default());
        let store =
            connect("memory://", Resources { clock, entropy, limits, results: None }).unwrap();
        let every = Schedule::Interval(Interval::new(Duration::from_mins(1), false).unwrap());
        let mut entry = Entry::new("tick", "app.tick", every, Zone::utc()).unwrap();
        change(&mut entry);
        operate::add_entry(&*store, entry, None, at(0)).await.unwrap();
        Self(store)
    }

    /// As `new`, with `aps` as the owner.
    async fn of_aps() -> Self {
        Self::new(|entry| entry.owner = Owner { name: "aps".to_owned(), epoch: 1 }).await
    }

    async fn kept(&self) -> Kept {
        operate::entry(&*self.0, "tick").await.unwrap()
    }

    /// Lets an occurrence wait for an earlier one to end.
    async fn queue(&self, due: i64) {
        let queued = operate::change_entry(&*self.0, "tick", at(0), |kept| {
            kept.state.queued = Some(at(due));
            Ok(())
        });
        queued.await.unwrap();
    }

    async fn give_with(
        &self,
        clock: &dyn Clock,
        owner: &str,
        next: Option<Timestamp>,
    ) -> Result<Kept, StoreError> {
        operate::give_entry(&*self.0, clock, "tick", owner, next).await
    }

    async fn give(&self, now: i64, owner: &str, next: Option<i64>) -> Result<Kept, StoreError> {
        let clock = FixedClock::at(&at(now).to_string());
        self.give_with(&clock, owner, next.map(at)).await
    }

    /// Gives it away in vain; returns what is said.
    async fn refused(&self, now: i64, owner: &str, next: Option<i64>) -> String {
        let before = self.kept().await;
        let error = self.give(now, owner, next).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(self.kept().await, before);
        error.to_string()
    }

    async fn take(&self, due: i64, epoch: u64, now: i64) -> Token {
        let owner = Owner { name: "aps".to_owned(), epoch };
        operate::take_occurrence(&*self.0, "tick", at(due), &owner, at(now)).await.unwrap()
    }

    /// Sends what is due, as a beat does.
    async fn beat(&self, now: i64) -> Vec<Timestamp> {
        let (mut kept, mut sent) = (self.kept().await, Vec::new());
        for step in look(&kept.entry, &kept.state, at(now), &|_| true).steps {
            sent.push(step.occurrence.due);
            let fire = Fire {
                name: "tick".to_owned(),
                version: Some(kept.version),
                wake: step.wake,
                state: step.state.to_value(),
                occurrence: step.occurrence,
                plan: Plan::default(),
            };
            let fired = self.0.fire(None, vec![fire]).await.unwrap();
            let [Fired::Done(version)] = fired[..] else { panic!("{fired:?}") };
            kept.version = version;
        }
        sent
    }
}

#[tokio::test]
async fn beat_keeps_an_entry_until_it_has_sent_what_is_due() {
    let tick = Tick::new(|_| {}).await;
    let said = tick.refused(60, "aps", None).await;
    assert!(said.contains(r#""tick" stays with beat"#), "{said}");
    assert!(said.contains("its occurrence of 2026-11-22T12:01:00Z yet"), "{said}");
    tick.refused(60, "aps", Some(120)).await;
    assert_eq!(tick.beat(60).await, [at(60)]);
    let given = tick.give(60, "aps", None).await.unwrap();
    assert_eq!((given.entry.owner.epoch, given.state.due), (2, Some(at(120))));
    assert_eq!(tick.take(60, 2, 60).await, Token::Already("sent".to_owned()));
    assert_eq!(tick.take(120, 2, 120).await, Token::Run);
}

#[tokio::test]
async fn the_new_owner_gets_what_is_due_if_its_first_time_is_that() {
    let tick = Tick::new(|_| {}).await;
    let given = tick.give(61, "aps", Some(60)).await.unwrap();
    assert_eq!(given.state.due, Some(at(60)));
    assert_eq!(tick.take(60, 2, 61).await, Token::Run);
    assert!(tick.beat(200).await.is_empty());
}

#[tokio::test]
async fn a_time_with_jitter_is_due_before_it_is_sent() {
    let tick = Tick::new(|entry| entry.jitter = Duration::from_hours(1)).await;
    assert!(tick.beat(60).await.is_empty());
    tick.refused(60, "aps", None).await;
}

#[tokio::test]
async fn what_waits_for_an_earlier_one_stays_with_beat() {
    let tick = Tick::new(|_| {}).await;
    tick.queue(0).await;
    tick.refused(1, "aps", None).await;
    tick.refused(1, "aps", Some(60)).await;
    let given = tick.give(1, "aps", Some(0)).await.unwrap();
    assert_eq!((given.state.due, given.state.queued), (Some(at(0)), None));
}

#[tokio::test]
async fn a_paused_entry_changes_hands_at_any_time() {
    let tick = Tick::new(|entry| entry.enabled = false).await;
    assert_eq!(tick.give(61, "aps", None).await.unwrap().entry.owner.epoch, 2);
}

#[tokio::test]
async fn an_entry_that_stays_where_it_is_may_get_another_time() {
    let tick = Tick::new(|_| {}).await;
    let given = tick.give(61, "beat", Some(300)).await.unwrap();
    assert_eq!((given.entry.owner.epoch, given.state.due), (1, Some(at(300))));
}

#[tokio::test]
async fn beat_sends_what_the_former_owner_did_not_ask_for() {
    let tick = Tick::of_aps().await;
    assert_eq!(tick.take(60, 1, 60).await, Token::Run);
    let said = tick.refused(121, "beat", Some(180)).await;
    assert!(said.contains(r#""tick" stays with aps"#), "{said}");
    tick.refused(121, "third", None).await;
    assert_eq!(tick.give(121, "beat", None).await.unwrap().state.due, Some(at(120)));
    let beats = Owner { name: "beat".to_owned(), epoch: 2 };
    assert_eq!(tick.take(120, 1, 121).await, Token::NotOwner(beats));
    assert_eq!(tick.beat(121).await, [at(120)]);
}

/// The new owner asks at the moment between the look and the write, and is refused.
#[tokio::test]
async fn what_comes_due_while_it_is_written_brings_the_entry_back() {
    let tick = Tick::new(|_| {}).await;
    // Read at 58, 59 and, when it is written, at 60.
    let clock = Reads(FixedClock::at(&at(58).to_string()), 1);
    let error = tick.give_with(&clock, "aps", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let kept = tick.kept().await;
    assert_eq!(kept.entry.owner, Owner { name: "beat".to_owned(), epoch: 3 });
    assert_eq!(tick.beat(60).await, [at(60)]);
    assert_eq!(tick.give_with(&clock, "aps", None).await.unwrap().entry.owner.epoch, 4);
    // Also where the next time was another one.
    let clock = Reads(FixedClock::at(&at(118).to_string()), 1);
    let tick = Tick::new(|_| {}).await;
    assert_eq!(tick.beat(60).await, [at(60)]);
    tick.give_with(&clock, "aps", Some(at(500))).await.unwrap_err();
    assert_eq!(tick.beat(120).await, [at(120)]);
}
