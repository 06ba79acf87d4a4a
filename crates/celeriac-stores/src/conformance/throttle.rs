//! Clauses of limits: rates, concurrency, keys, lanes.

use super::fixture::{Fixture, Harness, ids, outgoing, queue, request, sorted, the_queue};
use celeriac_core::lease::Lease;
use celeriac_core::store::{
    Delivery, Fate, FetchRequest, NodeId, Outgoing, Phase, Settled, TaskCap,
};
use celeriac_core::throttle::{KEY_HEADER, LimitRule, RuleOrigin, Target, parse_rates};
use std::time::Duration;

/// A message of a task, perhaps with a key.
fn of_task(task: &str, id: &str, key: Option<&str>) -> Outgoing {
    let mut outgoing = outgoing("celery", id);
    outgoing.message.headers.set_task(task);
    if let Some(key) = key {
        outgoing.message.headers.insert(KEY_HEADER, key);
    }
    outgoing
}

fn rule(target: Target, rates: &str, concurrency: Option<u32>) -> LimitRule {
    let rates = if rates.is_empty() { Vec::new() } else { parse_rates(rates).unwrap() };
    LimitRule { target, per_key: false, rates, concurrency, origin: RuleOrigin::Operator }
}

fn task(name: &str) -> Target {
    Target::Task(name.to_owned())
}

async fn done(fixture: &Fixture, lease: Lease) {
    assert_eq!(fixture.settle(lease, Fate::Done).await, Settled::Done);
}

async fn waiting(fixture: &Fixture, id: &str) -> (bool, bool) {
    match fixture.store.task(id).await.unwrap().phase {
        Phase::Queued { paused, limited, .. } => (paused, limited),
        other => panic!("{id} is {other:?}"),
    }
}

/// A limited task takes its turns by its rate; what stands behind it does not wait.
pub async fn a_rate_spreads_a_task_and_holds_up_nobody(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.store.set_limit(rule(task("slow"), "2/s", None)).await.unwrap();
    fixture.publish((0..5).map(|n| of_task("slow", &format!("s{n}"), None)).collect()).await;
    fixture.publish(vec![of_task("free", "f", None)]).await;
    assert_eq!(sorted(&fixture.fetch(node, 9).await), ["f", "s0"]);
    assert_eq!(waiting(&fixture, "s1").await, (false, true));
    let next = fixture.store.next_due(&[queue("celery")]).await.unwrap().unwrap();
    assert!(next > fixture.now() && next <= fixture.at(1), "the next turn is known: {next}");
    assert!(fixture.fetch(node, 9).await.is_empty());
    for expected in ["s1", "s2", "s3", "s4"] {
        fixture.clock.advance(Duration::from_millis(505));
        assert_eq!(ids(&fixture.fetch(node, 9).await), [expected]);
    }
}

/// Many workers that ask all the time get no more together than the rate, in any window.
pub async fn a_rate_holds_for_all_workers_together(harness: &Harness) {
    let fixture = harness.store();
    let nodes = [fixture.node("a").await, fixture.node("b").await, fixture.node("c").await];
    fixture.store.set_limit(rule(task("t"), "50/s", None)).await.unwrap();
    fixture.publish((0..200).map(|n| of_task("t", &format!("{n}"), None)).collect()).await;
    let mut starts = Vec::new();
    for step in 0..3000usize {
        for _ in fixture.fetch(nodes[step % 3], 4).await {
            starts.push(step);
        }
        fixture.clock.advance(Duration::from_millis(1));
    }
    let worst = starts.windows(51).map(|window| window[50] - window[0]).min().unwrap();
    assert!(worst >= 1000, "51 starts within {worst} ms");
    assert!(starts.len() >= 143, "only {} of 150 in 3 s", starts.len());
}

/// Several windows hold together; a burst may use one up at once.
pub async fn rates_with_bursts_hold_together(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let rates = "5/s burst, 8/10s burst";
    fixture.store.set_limit(rule(Target::Key("*".into()), rates, None)).await.unwrap();
    let keyed = |n: u32, key| of_task("t", &format!("{key}{n}"), Some(key));
    fixture.publish((0..20).map(|n| keyed(n, "a")).collect()).await;
    fixture.publish((0..2).map(|n| keyed(n, "b")).collect()).await;
    assert_eq!(ids(&fixture.fetch(node, 50).await), ["a0", "a1", "a2", "a3", "a4", "b0", "b1"]);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(ids(&fixture.fetch(node, 50).await), ["a5", "a6", "a7"]);
    fixture.clock.advance(Duration::from_millis(8999));
    assert!(fixture.fetch(node, 50).await.is_empty(), "8 in 10 s are gone");
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(ids(&fixture.fetch(node, 50).await), ["a8", "a9", "a10", "a11", "a12"]);
}

/// A concurrency limit is counted from the leases, so it ends with them.
pub async fn concurrency_is_counted_from_the_leases(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("one").await, fixture.node("two").await);
    fixture.store.set_limit(rule(task("t"), "", Some(2))).await.unwrap();
    fixture.publish((0..5).map(|n| of_task("t", &format!("{n}"), None)).collect()).await;
    let first = fixture.fetch(one, 9).await;
    assert_eq!(ids(&first), ["0", "1"]);
    assert!(fixture.fetch(two, 9).await.is_empty());
    done(&fixture, first[0].lease).await;
    assert_eq!(ids(&fixture.fetch(two, 9).await), ["2"]);
    // The worker signs off: what it held goes back, and so does its share.
    fixture.store.deregister(one).await.unwrap();
    assert_eq!(ids(&fixture.fetch(two, 9).await), ["1"]);
    let views = fixture.store.limits_in_force().await.unwrap();
    assert_eq!((views.len(), views[0].running, views[0].in_force), (1, 2, true));
}

/// Each key has its own limit; one key's flood does not touch another.
pub async fn keys_are_limited_each_for_itself(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let each = LimitRule { per_key: true, ..rule(task("t"), "", Some(1)) };
    fixture.store.set_limit(each).await.unwrap();
    for key in ["acme", "acme", "acme", "blue"] {
        let id = format!("{key}{}", fixture.now().as_microsecond());
        fixture.publish(vec![of_task("t", &id, Some(key))]).await;
        fixture.clock.advance(Duration::from_micros(1));
    }
    let keys = |taken: &[Delivery]| -> Vec<String> {
        let key = |one: &Delivery| one.message.headers.get(KEY_HEADER)?.as_str().map(str::to_owned);
        taken.iter().filter_map(key).collect()
    };
    let taken = fixture.fetch(node, 9).await;
    assert_eq!(keys(&taken), ["acme", "blue"]);
    done(&fixture, taken[1].lease).await;
    assert!(fixture.fetch(node, 9).await.is_empty());
    done(&fixture, taken[0].lease).await;
    assert_eq!(keys(&fixture.fetch(node, 9).await), ["acme"]);
}

/// What was sent before the limit stands in nobody's way either.
pub async fn a_limit_sets_apart_what_waits_already(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.publish((0..50).map(|n| of_task("slow", &format!("s{n}"), None)).collect()).await;
    fixture.publish(vec![of_task("free", "f", None)]).await;
    fixture.store.set_limit(rule(task("slow"), "", Some(1))).await.unwrap();
    assert_eq!(sorted(&fixture.fetch(node, 4).await), ["f", "s0"]);
    assert!(fixture.store.remove_limit(&task("slow"), RuleOrigin::Operator).await.unwrap());
    assert!(!fixture.store.remove_limit(&task("slow"), RuleOrigin::Operator).await.unwrap());
    assert_eq!(ids(&fixture.fetch(node, 3).await), ["s1", "s2", "s3"], "and in their old order");
}

/// Queues and everything can be limited as well.
pub async fn a_queue_can_be_limited(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.store.set_limit(rule(the_queue("celery"), "", Some(1))).await.unwrap();
    fixture.send(&["a", "b"]).await;
    fixture.send_to("other", &["c", "d"]).await;
    let taken = fixture.fetch_from(node, &["celery", "other"], 9).await;
    let mut names = ids(&taken);
    names.sort_unstable();
    assert_eq!(names, ["a", "c", "d"]);
}

/// The operator's rule stands before the application's, which comes back when it goes.
pub async fn operators_override_applications(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let own = LimitRule { origin: RuleOrigin::Application, ..rule(task("t"), "", Some(1)) };
    let tasks = ["t".to_owned(), "u".to_owned()];
    fixture.store.declare_limits(&tasks, vec![own]).await.unwrap();
    fixture.store.set_limit(rule(task("t"), "", Some(3))).await.unwrap();
    fixture.publish((0..9).map(|n| of_task("t", &format!("{n}"), None)).collect()).await;
    assert_eq!(ids(&fixture.fetch(node, 9).await).len(), 3);
    let views = fixture.store.limits_in_force().await.unwrap();
    let in_force: Vec<_> = views.iter().map(|view| (view.rule.origin, view.in_force)).collect();
    assert_eq!(in_force, [(RuleOrigin::Application, false), (RuleOrigin::Operator, true)]);
    // A worker whose tasks have no limit any more takes its rules away.
    fixture.store.declare_limits(&tasks, Vec::new()).await.unwrap();
    assert_eq!(fixture.store.limits_in_force().await.unwrap().len(), 1);
}

/// A worker's own rate: it takes only so many of a task, another worker takes the rest.
pub async fn a_worker_takes_no_more_of_a_task_than_it_may(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("one").await, fixture.node("two").await);
    let local = LimitRule { origin: RuleOrigin::Application, ..rule(task("t"), "", None) };
    fixture.store.declare_limits(&["t".to_owned()], vec![local]).await.unwrap();
    fixture.publish((0..4).map(|n| of_task("t", &format!("t{n}"), None)).collect()).await;
    fixture.publish(vec![of_task("free", "f", None)]).await;
    let capped = |node: NodeId, count_max| FetchRequest {
        caps: vec![TaskCap { task: "t".to_owned(), count_max }],
        ..request(node, vec![queue("celery")], 9)
    };
    let taken = fixture.store.fetch(capped(one, 1)).await.unwrap();
    assert_eq!(sorted(&taken), ["f", "t0"]);
    assert!(fixture.store.fetch(capped(one, 0)).await.unwrap().is_empty());
    assert_eq!(ids(&fixture.store.fetch(capped(two, 2)).await.unwrap()), ["t1", "t2"]);
    // An older program that knows the task without a rate does not lift the rate of this one.
    fixture.store.declare_limits(&["t".to_owned()], Vec::new()).await.unwrap();
    fixture.publish((4..8).map(|n| of_task("t", &format!("t{n}"), None)).collect()).await;
    assert_eq!(ids(&fixture.store.fetch(capped(one, 1)).await.unwrap()), ["t3"]);
    assert!(fixture.store.fetch(capped(one, 0)).await.unwrap().is_empty());
    assert_eq!(ids(&fixture.store.fetch(capped(two, 2)).await.unwrap()), ["t4", "t5"]);
}

/// A clock that is set back by a day neither closes a rate for a day nor opens it wide.
pub async fn rates_survive_a_clock_that_is_set_back(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.store.set_limit(rule(task("t"), "1/s", None)).await.unwrap();
    fixture.store.set_limit(rule(task("b"), "1/s burst", None)).await.unwrap();
    fixture.publish((0..4).map(|n| of_task("t", &format!("t{n}"), None)).collect()).await;
    fixture.publish((0..4).map(|n| of_task("b", &format!("b{n}"), None)).collect()).await;
    assert_eq!(sorted(&fixture.fetch(node, 9).await), ["b0", "t0"]);
    let yesterday = fixture.now() - jiff::SignedDuration::from_hours(24);
    fixture.clock.jump_wall(yesterday);
    assert!(fixture.fetch(node, 9).await.is_empty());
    fixture.clock.advance(Duration::from_millis(1011));
    assert_eq!(sorted(&fixture.fetch(node, 9).await), ["b1", "t1"]);
}

/// A lane in which nothing stands any more leaves nothing behind.
pub async fn a_thousand_keys_are_served_and_forgotten(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let keyed = |n: u32| of_task("t", &format!("{n}"), Some(&format!("key {n}")));
    fixture.publish((0..1000).map(keyed).collect()).await;
    let mut served = 0;
    for _ in 0..1000 {
        let taken = fixture.fetch(node, 100).await;
        if taken.is_empty() {
            break;
        }
        served += taken.len();
        for one in taken {
            done(&fixture, one.lease).await;
        }
    }
    assert_eq!(served, 1000);
    assert_eq!(fixture.store.next_due(&[queue("celery")]).await.unwrap(), None);
}

/// Suspects keep to limits like everything else.
pub async fn a_limit_holds_for_suspects(harness: &Harness) {
    let fixture = harness.store();
    fixture.store.set_limit(rule(task("t"), "", Some(1))).await.unwrap();
    fixture.publish((0..2).map(|n| of_task("t", &format!("{n}"), None)).collect()).await;
    for name in ["first", "second"] {
        let doomed = fixture.node(name).await;
        assert_eq!(ids(&fixture.fetch(doomed, 9).await), ["0"]);
        fixture.clock.advance(super::fixture::EXPIRY * 2);
        assert_eq!(fixture.store.sweep().await.unwrap().requeued, 1);
    }
    let node = fixture.node("w").await;
    let suspect = fixture.fetch(node, 9).await;
    assert_eq!(ids(&suspect), ["0"], "the suspect goes first and is the only one");
    assert!(suspect[0].suspicion.is_suspect());
    done(&fixture, suspect[0].lease).await;
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["1"]);
}

/// New lanes that share a rate with others do not loosen it.
pub async fn a_rate_that_many_lanes_share_holds(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.store.set_limit(rule(the_queue("celery"), "50/s", None)).await.unwrap();
    let mut starts = Vec::new();
    for step in 0..2000usize {
        let key = format!("key {step}");
        fixture.publish(vec![of_task("t", &format!("{step}"), Some(&key))]).await;
        for one in fixture.fetch(node, 4).await {
            starts.push(step);
            done(&fixture, one.lease).await;
        }
        fixture.clock.advance(Duration::from_millis(1));
    }
    let worst = starts.windows(51).map(|window| window[50] - window[0]).min().unwrap();
    assert!(worst >= 1000, "51 starts within {worst} ms; {} in 2 s", starts.len());
}

/// What is shown of a rule for one key is of this key.
pub async fn a_rule_shows_what_it_counts(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let key = |name: &str| Target::Key(name.to_owned());
    fixture.store.set_limit(rule(key("*"), "", Some(9))).await.unwrap();
    fixture.store.set_limit(rule(key("a"), "1/s", Some(9))).await.unwrap();
    fixture.store.set_limit(rule(key("b"), "", Some(9))).await.unwrap();
    let keyed = |n: u32| of_task("t", &format!("{n}"), Some(if n == 0 { "a" } else { "b" }));
    fixture.publish((0..4).map(keyed).collect()).await;
    assert_eq!(fixture.fetch(node, 9).await.len(), 4);
    let views = fixture.store.limits_in_force().await.unwrap();
    let shown: Vec<_> =
        views.iter().map(|view| (view.rule.target.name(), view.running, view.next_at)).collect();
    assert_eq!(shown[0], ("*", 4, None));
    assert!(matches!(shown[1], ("a", 1, Some(_))), "{shown:?}");
    assert_eq!(shown[2], ("b", 3, None));
}

/// A rule for each key and one for this key hold side by side, and each message counts once.
pub async fn a_start_counts_once_under_two_rules(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    for name in ["*", "a"] {
        let key = Target::Key(name.to_owned());
        fixture.store.set_limit(rule(key, "4/s burst, 2/s", Some(4))).await.unwrap();
    }
    fixture.publish((0..8).map(|n| of_task("t", &format!("{n}"), Some("a"))).collect()).await;
    for step in 0..3 {
        assert_eq!(ids(&fixture.fetch(node, 9).await), [step.to_string()]);
        fixture.clock.advance(Duration::from_millis(505));
    }
    for name in ["*", "a"] {
        let key = Target::Key(name.to_owned());
        fixture.store.set_limit(rule(key, "5/m burst", Some(4))).await.unwrap();
    }
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["3"], "4 run at once");
}

/// A lane with a ready message is found at once, however many lanes have nothing ready.
pub async fn lanes_without_ready_messages_hide_nothing(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let later = |n: u32| {
        let mut one = of_task("t", &format!("{n}"), Some(&format!("key {n}")));
        one.message.headers.set_eta(Some(fixture.at(3600)));
        one
    };
    fixture.publish((0..2000).map(later).collect()).await;
    assert!(fixture.fetch(node, 9).await.is_empty());
    fixture.publish(vec![of_task("t", "now", Some("key 1999"))]).await;
    let taken = fixture.fetch(node, 9).await;
    assert_eq!(ids(&taken), ["now"]);
    fixture.release(taken[0].lease, celeriac_core::store::Place::Head).await;
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["now"], "also when it comes back");
    // When their time has come, all of them are served.
    fixture.clock.advance(Duration::from_secs(3601));
    let mut served = 0;
    for _ in 0..200 {
        served += fixture.fetch(node, 50).await.len();
    }
    assert_eq!(served, 2000);
}

/// A concurrency limit counts what ran before it was set.
pub async fn what_runs_already_counts_for_a_new_limit(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    fixture.publish((0..4).map(|n| of_task("t", &format!("t{n}"), None)).collect()).await;
    let running = fixture.fetch(node, 2).await;
    assert_eq!(running.len(), 2);
    fixture.store.set_limit(rule(task("t"), "", Some(1))).await.unwrap();
    assert!(fixture.fetch(node, 9).await.is_empty());
    for one in running {
        done(&fixture, one.lease).await;
    }
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["t2"]);
}
