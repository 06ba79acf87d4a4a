//! Beats that are killed, frozen and stopped: each occurrence is sent once.

use crate::kit::{self, PATIENCE, Place, until};
use celeriac::schedule::{Entry, Interval, Misfire, Schedules};
use celeriac::{Call, Client};
use celeriac_core::beat::occurrence_id;
use celeriac_core::store::{Lead, OccurrenceKind, Page};
use celeriac_testkit::process::Process;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest that nothing may be sent while the leader changes (P21).
const GAP_MAX: SignedDuration = SignedDuration::from_secs(10);
/// How often the entry of the test is due.
const EVERY: Duration = Duration::from_millis(250);

/// A beat of the ledger's program.
fn beat(place: &Place, name: &str) -> Process {
    let mut command = kit::command(&kit::ledger_program(), place.dir());
    let node = format!("{name}@%h");
    command.args(["-b", place.url(), "beat", "-n", &node, "--lease", "2s"]);
    Process::spawn(&mut command, place.path(&format!("{name}.log")))
}

/// The beat that leads, once one does in an epoch after this one.
async fn leader(client: &Client, after: u64) -> Lead {
    until("a beat leads", PATIENCE, async || {
        client.store().leader().await.unwrap().filter(|lead| lead.epoch > after)
    })
    .await
}

/// Waits until the entry was sent again.
async fn goes_on(schedules: &Schedules, name: &str) {
    let before = schedules.status(name).await.unwrap().kept.state.runs;
    until("something is sent", PATIENCE, async || {
        let runs = schedules.status(name).await.unwrap().kept.state.runs;
        (runs > before + 1).then_some(())
    })
    .await;
}

/// The ids of all messages in the queue, each as often as it is there.
async fn messages(client: &Client) -> BTreeMap<String, usize> {
    let queue = celeriac_core::QueueName::parse("celery").unwrap();
    let (mut ids, mut page) = (BTreeMap::new(), Page { after: 0, count_max: 500 });
    loop {
        let stored = client.store().peek(&queue, page).await.unwrap();
        let Some(last) = stored.last() else { return ids };
        page.after = last.row;
        for one in &stored {
            let id = one.outgoing.message.headers.id().unwrap().to_owned();
            *ids.entry(id).or_default() += 1;
        }
    }
}

fn entry(name: &str, every: Duration) -> Entry {
    Entry::new(name, Interval::new(every, false).unwrap(), Call::named("ledger.work").arg(&0))
        .misfire(Misfire::All(10_000))
}

/// P21: three beats; the leader is killed, or stands still until another leads and comes back.
/// `CELERIAC_BEAT_ROUNDS` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_occurrence_is_sent_once_whoever_leads() {
    // covers: S4-03
    let rounds = std::env::var_os("CELERIAC_BEAT_ROUNDS");
    let rounds = rounds.map_or(4, |text| text.to_str().unwrap().parse().unwrap());
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let schedules = place.app().schedules().await.unwrap();
    let first = schedules.add(entry("often", EVERY)).await.unwrap().state.due.unwrap();
    let names: Vec<String> = (0..3).map(|number| format!("beat{number}")).collect();
    let mut beats: BTreeMap<&str, Process> =
        names.iter().map(|name| (name.as_str(), beat(&place, name))).collect();
    let mut epoch = 0;
    for round in 0..rounds {
        let lead = leader(&client, epoch).await;
        goes_on(&schedules, "often").await;
        let name = names.iter().find(|name| lead.holder.starts_with(&format!("{name}@"))).unwrap();
        epoch = lead.epoch;
        let process = beats.get_mut(name.as_str()).unwrap();
        if round % 2 == 0 {
            process.kill().await;
            leader(&client, epoch).await;
            beats.insert(name, beat(&place, name));
        } else {
            process.signal(Signal::STOP);
            leader(&client, epoch).await;
            goes_on(&schedules, "often").await;
            process.signal(Signal::CONT);
        }
    }
    goes_on(&schedules, "often").await;
    schedules.pause("often").await.unwrap();
    for process in beats.values_mut() {
        process.signal(Signal::TERM);
        assert!(process.ended_within(PATIENCE).await.success(), "{}", process.log());
    }
    let kept = schedules.status("often").await.unwrap().kept;
    let last = kept.state.last_due.unwrap();
    let mut due = first;
    let mut expected = BTreeMap::new();
    while due <= last {
        expected.insert(occurrence_id("often", due), 1);
        due += SignedDuration::try_from(EVERY).unwrap();
    }
    assert_eq!(kept.state.runs, expected.len() as u64);
    assert!(messages(&client).await == expected, "a message for each time, once");
    // The latest lines are kept: none of them, nor the time between two, is longer than allowed.
    let lines = schedules.history("often", 1000).await.unwrap();
    assert!(lines.iter().all(|line| line.kind == OccurrenceKind::Sent));
    let fired: BTreeSet<Timestamp> = lines.iter().map(|line| line.fired).collect();
    let fired: Vec<&Timestamp> = fired.iter().collect();
    let gap = fired.windows(2).map(|pair| pair[1].duration_since(*pair[0])).max().unwrap();
    println!("{rounds} rounds, {} occurrences, longest gap {gap:#}", expected.len());
    assert!(gap <= GAP_MAX, "{gap:#}");
}

/// A change acts in the leader within a second, without a restart; nobody leads after the last has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_acts_on_changes_and_signs_off() {
    // covers: S4-02, S4-05, S4-08, S4-15
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let schedules = place.app().schedules().await.unwrap();
    let mut beat = beat(&place, "one");
    leader(&client, 0).await;
    schedules.add(entry("late", EVERY)).await.unwrap();
    goes_on(&schedules, "late").await;
    assert!(schedules.pause("late").await.unwrap());
    let paused = schedules.status("late").await.unwrap();
    assert_eq!(paused.word, "paused");
    schedules.add(entry("other", EVERY)).await.unwrap();
    goes_on(&schedules, "other").await;
    let still = schedules.status("late").await.unwrap().kept.state.runs;
    assert_eq!(still, paused.kept.state.runs, "nothing is sent while it is paused");
    assert!(schedules.resume("late").await.unwrap());
    goes_on(&schedules, "late").await;
    let names: Vec<String> =
        schedules.list().await.unwrap().into_iter().map(|kept| kept.entry.name).collect();
    assert_eq!(names, ["late", "other"]);
    schedules.remove("late").await.unwrap();
    assert!(schedules.status("late").await.is_err());
    beat.signal(Signal::TERM);
    assert!(beat.ended_within(PATIENCE).await.success(), "{}", beat.log());
    assert_eq!(client.store().leader().await.unwrap(), None);
}

/// A worker with `-B` sends, runs, and its occurrences have outcomes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_runs_what_its_beat_sends() {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let schedules = place.app().schedules().await.unwrap();
    schedules.add(entry("often", EVERY)).await.unwrap();
    let mut worker = kit::Worker::start(&place, client.store(), "one", "8s", &["-B"]).await;
    let ended = until("an occurrence has an outcome", PATIENCE, async || {
        let lines = schedules.history("often", 100).await.unwrap();
        lines.into_iter().find(|line| line.outcome.is_some())
    })
    .await;
    assert_eq!(ended.outcome.unwrap(), celeriac_wire::State::Success);
    let job = schedules.run_now("often").await.unwrap();
    job.get(PATIENCE).await.unwrap();
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success(), "{}", worker.log());
    assert_eq!(client.store().leader().await.unwrap(), None);
}
