//! What is wrong with a store.

use super::Finding;
use crate::store::{Eviction, StoreFacts};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How far clocks may differ, in microseconds.
const CLOCK: i64 = 2_000_000;
/// From which part of its memory on a server is nearly full, in percent.
const FULL: u64 = 90;
/// How many names a sentence has.
const NAMES: usize = 5;

/// Every check of a store at `location`. `asked`: the queues that workers of Celery said they consume,
/// where they were asked.
pub fn check_store(
    store: &StoreFacts,
    location: &str,
    asked: Option<&BTreeSet<String>>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    unusable(store, location, &mut found);
    memory(store, location, &mut found);
    safety(store, location, &mut found);
    queues(store, asked, &mut found);
    unacked(store, &mut found);
    leftovers(store, &mut found);
    found
}

fn unusable(store: &StoreFacts, location: &str, found: &mut Vec<Finding>) {
    if let Some(text) = &store.too_old {
        let fix = "Upgrade the server: Redis 6.2 or newer, or Valkey.";
        found.push(Finding::new("D-BROKER-VERSION", location, text, fix));
    }
    if let Some(text) = &store.format {
        let fix = "Use the celeriac that wrote it, or a newer one.";
        found.push(Finding::new("D-BROKER-FORMAT", location, text, fix));
    }
    if store.replica {
        let fix = "Name the primary, or use sentinel:// with ?master_name=….";
        found.push(Finding::new("D-BROKER-REPLICA", location, "It is a replica.", fix));
    }
    for text in &store.damage {
        let fix = "Stop the workers, make a copy of the files, and run `celeriac store check`.";
        found.push(Finding::new("D-BROKER-DAMAGE", location, text, fix));
    }
}

fn memory(store: &StoreFacts, location: &str, found: &mut Vec<Finding>) {
    let policy = store.policy.as_deref().unwrap_or_default();
    match store.eviction {
        Eviction::Refuses => {}
        Eviction::Results => found.push(Finding::new(
            "D-BROKER-EVICTION-RESULTS",
            location,
            format!("maxmemory-policy is {policy}."),
            "Set maxmemory-policy noeviction: CONFIG SET maxmemory-policy noeviction, and in redis.conf.",
        )),
        Eviction::Messages => found.push(Finding::new(
            "D-BROKER-EVICTION",
            location,
            format!("maxmemory-policy is {policy}."),
            "Set maxmemory-policy noeviction: CONFIG SET maxmemory-policy noeviction, and in redis.conf. \
             Keep caches on another server.",
        )),
    }
    if let Some((used, most)) = store.memory
        && used.saturating_mul(100) >= most.saturating_mul(FULL)
    {
        let what = format!("{used} of {most} bytes are used.");
        let fix =
            "Raise maxmemory, or find out what fills it: `celeriac status`, `redis-cli --bigkeys`.";
        found.push(Finding::new("D-BROKER-MEMORY", location, what, fix));
    }
    if let Some(why) = &store.volatile {
        let fix = "Set appendonly yes, with appendfsync everysec or always.";
        found.push(Finding::new("D-BROKER-PERSISTENCE", location, why, fix));
    }
}

fn safety(store: &StoreFacts, location: &str, found: &mut Vec<Finding>) {
    // On this machine alone it is usual.
    if store.asks_password == Some(false) && !store.local {
        let what = "The server asks for no password.";
        let fix = "Set requirepass, or users with ACL SETUSER, and bind it to the addresses that need it.";
        found.push(Finding::new("D-BROKER-PASSWORD", location, what, fix));
    }
    if !store.local && !store.encrypted {
        let what =
            "The server is on another machine, and the connection is not encrypted or not checked.";
        let fix = "Use rediss:// with ssl_cert_reqs=required, or a private network.";
        found.push(Finding::new("D-BROKER-TLS", location, what, fix));
    }
    if let Some(ahead) = store.clock_ahead.filter(|ahead| ahead.abs() > CLOCK) {
        let (seconds, way) =
            (ahead.unsigned_abs() / 1_000_000, if ahead > 0 { "ahead of" } else { "behind" });
        let what = format!("The store's clock is {seconds} s {way} this machine's.");
        let fix = "Let both machines set their clocks by NTP (timedatectl set-ntp true).";
        found.push(Finding::new("D-BROKER-CLOCK", location, what, fix));
    }
}

fn queues(store: &StoreFacts, asked: Option<&BTreeSet<String>>, found: &mut Vec<Finding>) {
    let waiting = store.queues.iter().filter(|queue| queue.total() > 0);
    let mut unknown = Vec::new();
    for queue in waiting {
        let name = &queue.name;
        if queue.waiting[0] > 0 && queue.waiting[1..].iter().any(|count| *count > 0) {
            let [first, .., last] = queue.waiting;
            let more = queue.total() - first;
            let what = format!(
                "{first} messages without a priority (or with 0 to 2) and {more} with one wait together; \
                 {last} of them run last."
            );
            let fix = "Give all tasks of the queue a priority, or none.";
            found.push(Finding::new("D-BROKER-MIXED-PRIORITY", format!("queue {name}"), what, fix));
        }
        if queue.consumers > 0 || asked.is_some_and(|asked| asked.contains(name)) {
            continue;
        }
        if store.strangers > 0 && asked.is_none() {
            unknown.push(name.as_str());
            continue;
        }
        let what = format!("{} messages wait, and no worker consumes it.", queue.total());
        let fix = format!(
            "Start a worker with -Q {name}; `celeriac queue show {name}` shows what waits."
        );
        found.push(Finding::new("D-BROKER-NO-CONSUMER", format!("queue {name}"), what, fix));
    }
    if !unknown.is_empty() {
        let what = format!(
            "{} that may be workers of Celery listen, and were not asked whether they consume {}.",
            if store.strangers == 1 {
                "1 client".to_owned()
            } else {
                format!("{} clients", store.strangers)
            },
            names(&unknown)
        );
        let fix = "Run it again with --ask.";
        found.push(Finding::new("D-BROKER-WORKERS-UNASKED", "workers", what, fix));
    }
}

fn unacked(store: &StoreFacts, found: &mut Vec<Finding>) {
    let unacked = store.unacked;
    let after = store.redelivers_after.unwrap_or_default().as_secs();
    if unacked.overdue > 0 {
        let mut what = format!(
            "{} of {} messages that workers of Celery hold are older than the visibility timeout of {after} s",
            unacked.overdue, unacked.count
        );
        if let Some(oldest) = unacked.oldest {
            let _infallible =
                write!(what, "; the oldest was taken at {}", oldest.strftime("%F %TZ"));
        }
        what.push('.');
        let fix = "Any running worker gives them back, celeriac's within 10 s; is one running on this database?";
        found.push(Finding::new("D-BROKER-STALE-UNACKED", "unacked", what, fix));
    }
    if unacked.lost > 0 {
        let what = format!("{} held messages are in `unacked` and not in its index.", unacked.lost);
        let fix =
            "Look at them with HGETALL unacked, send again what matters, and remove them by HDEL.";
        found.push(Finding::new("D-BROKER-LOST-UNACKED", "unacked", what, fix));
    }
}

fn leftovers(store: &StoreFacts, found: &mut Vec<Finding>) {
    if store.leftovers.is_empty() {
        return;
    }
    let keys: Vec<&str> = store.leftovers.iter().map(|one| one.key.as_str()).collect();
    let what = format!("{} keys that nobody will read: {}.", keys.len(), names(&keys));
    let fix = "`celeriac doctor --broker URL --clean` lists and removes them.";
    found.push(Finding::new("D-BROKER-LEFTOVERS", "keys", what, fix));
}

fn names(all: &[&str]) -> String {
    let shown = all.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Leftover, QueueFacts, Unacked};
    use std::time::Duration;

    fn codes(store: &StoreFacts, asked: Option<&BTreeSet<String>>) -> Vec<&'static str> {
        check_store(store, "here", asked).iter().map(|finding| finding.code.name).collect()
    }

    fn healthy() -> StoreFacts {
        let queue = QueueFacts { name: "celery".to_owned(), waiting: [3, 0, 0, 0], consumers: 1 };
        StoreFacts {
            local: true,
            asks_password: Some(false),
            clock_ahead: Some(-1_500_000),
            memory: Some((89, 100)),
            queues: vec![queue],
            unacked: Unacked { count: 4, ..Unacked::default() },
            ..StoreFacts::default()
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        assert_eq!(codes(&healthy(), None), Vec::<&str>::new());
    }

    #[test]
    fn each_fact_that_is_wrong_is_one_finding() {
        type Change = fn(&mut StoreFacts);
        let table: [(&str, Change); 15] = [
            ("D-BROKER-VERSION", |store| store.too_old = Some("old.".to_owned())),
            ("D-BROKER-FORMAT", |store| store.format = Some("new.".to_owned())),
            ("D-BROKER-REPLICA", |store| store.replica = true),
            ("D-BROKER-DAMAGE", |store| store.damage = vec!["broken.".to_owned()]),
            ("D-BROKER-EVICTION", |store| store.eviction = Eviction::Messages),
            ("D-BROKER-EVICTION-RESULTS", |store| store.eviction = Eviction::Results),
            ("D-BROKER-MEMORY", |store| store.memory = Some((90, 100))),
            ("D-BROKER-PERSISTENCE", |store| store.volatile = Some("no.".to_owned())),
            ("D-BROKER-CLOCK", |store| store.clock_ahead = Some(-2_500_000)),
            ("D-BROKER-MIXED-PRIORITY", |store| store.queues[0].waiting[3] = 1),
            ("D-BROKER-NO-CONSUMER", |store| store.queues[0].consumers = 0),
            ("D-BROKER-STALE-UNACKED", |store| store.unacked.overdue = 1),
            ("D-BROKER-LOST-UNACKED", |store| store.unacked.lost = 1),
            ("D-BROKER-LEFTOVERS", |store| {
                let idle = Duration::from_hours(1);
                store.leftovers = vec![Leftover { key: "k".to_owned(), what: "replies", idle }];
            }),
            ("D-BROKER-WORKERS-UNASKED", |store| {
                store.queues[0].consumers = 0;
                store.strangers = 1;
            }),
        ];
        for (code, change) in table {
            let mut store = healthy();
            change(&mut store);
            assert_eq!(codes(&store, None), [code]);
        }
        let mut far = healthy();
        far.local = false;
        assert_eq!(codes(&far, None), ["D-BROKER-PASSWORD", "D-BROKER-TLS"]);
        far.encrypted = true;
        far.asks_password = Some(true);
        assert_eq!(codes(&far, None), Vec::<&str>::new());
    }

    #[test]
    fn what_celerys_workers_say_counts() {
        let mut store = healthy();
        store.queues[0].consumers = 0;
        store.strangers = 1;
        assert_eq!(codes(&store, Some(&BTreeSet::from(["celery".to_owned()]))), Vec::<&str>::new());
        let other = BTreeSet::from(["reports".to_owned()]);
        assert_eq!(codes(&store, Some(&other)), ["D-BROKER-NO-CONSUMER"]);
    }
}
