//! Entries, looks and sources.

use super::*;
use crate::schedule::{Crontab, Interval, Schedule, Zone};
use celeriac_wire::Value;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}Z").parse().unwrap()
}

fn every(seconds: u64) -> Schedule {
    Schedule::Interval(Interval::new(Duration::from_secs(seconds), false).unwrap())
}

fn entry(schedule: Schedule) -> Entry {
    Entry::new("nightly", "app.report", schedule, Zone::utc()).unwrap()
}

fn document(fields: &str) -> String {
    let schedule = r#""schedule": {"type": "interval", "every": 60}"#;
    format!(r#"{{"name": "a", "task": "t", {schedule}{fields}}}"#)
}

fn parsed(text: &str) -> Result<Entry, EntryError> {
    Entry::from_value(&Value::parse(text.as_bytes()).unwrap(), &Zone::utc())
}

/// What was done at a look: kind, time of day and count.
fn lines(look: &Look) -> Vec<String> {
    let line = |step: &Step| {
        let one = &step.occurrence;
        let time = one.due.strftime("%H:%M:%S");
        format!("{} {time} ×{}", one.kind.as_str(), one.count)
    };
    look.steps.iter().map(line).collect()
}

const RUNNING: fn(&str) -> bool = |_| false;
const ENDED: fn(&str) -> bool = |_| true;

#[test]
fn an_entry_is_first_due_after_one_interval() {
    let entry = entry(every(60));
    let state = EntryState::new(&entry, at("12:00:00"));
    assert_eq!(state.wake(&entry), Some(at("12:01:00")));
    let early = look(&entry, &state, at("12:00:59"), &ENDED);
    assert_eq!((early.steps.len(), early.wake), (0, Some(at("12:01:00"))));
    let look = look(&entry, &state, at("12:01:00"), &ENDED);
    assert_eq!(lines(&look), ["sent 12:01:00 ×1"]);
    assert_eq!(look.wake, Some(at("12:02:00")));
    assert_eq!(look.state.runs, 1);
    assert_eq!(look.state.last_due, Some(at("12:01:00")));
}

#[test]
fn what_is_due_and_not_run_is_outstanding() {
    let mut entry = entry(every(60));
    let mut state = EntryState::new(&entry, at("12:00:00"));
    assert_eq!(state.outstanding(&entry, at("12:00:59")), None);
    assert_eq!(state.outstanding(&entry, at("12:01:00")), Some(at("12:01:00")));
    state = look(&entry, &state, at("12:01:00"), &ENDED).state;
    assert_eq!(state.outstanding(&entry, at("12:01:59")), None);
    state.queued = Some(at("12:01:00"));
    assert_eq!(state.outstanding(&entry, at("12:01:30")), state.queued, "it waits for its turn");
    // That is the business of a beat alone.
    entry.owner.name = "aps".to_owned();
    assert_eq!(state.outstanding(&entry, at("12:01:30")), None);
    assert_eq!(state.outstanding(&entry, at("12:02:00")), Some(at("12:02:00")));
    entry.enabled = false;
    assert_eq!(state.outstanding(&entry, at("12:02:00")), None);
}

#[test]
fn the_grid_does_not_drift_when_a_beat_is_late() {
    let entry = entry(every(60));
    let state = EntryState::new(&entry, at("12:00:00"));
    let look = look(&entry, &state, at("12:01:07"), &ENDED);
    assert_eq!(lines(&look), ["sent 12:01:00 ×1"]);
    assert_eq!(look.steps[0].occurrence.drift(), Duration::from_secs(7));
    assert_eq!(look.wake, Some(at("12:02:00")));
}

#[test]
fn what_a_fail_over_holds_up_is_sent_one_by_one() {
    let entry = entry(every(2));
    let state = EntryState::new(&entry, at("12:00:00"));
    let look = look(&entry, &state, at("12:00:09"), &ENDED);
    let sent: Vec<String> = (1..5).map(|n| format!("sent 12:00:0{} ×1", 2 * n)).collect();
    assert_eq!(lines(&look), sent);
    let last = look.steps.last().unwrap();
    assert_eq!((&last.state, last.wake), (&look.state, look.wake));
}

/// Three hours without a beat, as `docs/reference/schedules.md` has it.
#[test]
fn missed_occurrences_follow_the_rule() {
    for (misfire, grace, expected) in [
        (Misfire::Once, 15, vec!["sent 15:00:00 ×18"]),
        (Misfire::Skip, 15, vec!["skipped 14:50:00 ×17", "sent 15:00:00 ×1"]),
        (Misfire::All(100), 15, (1..=18).map(|_| "sent").collect()),
        (
            Misfire::All(3),
            15,
            vec![
                "skipped 14:20:00 ×14",
                "sent 14:30:00 ×1",
                "sent 14:40:00 ×1",
                "sent 14:50:00 ×1",
                "sent 15:00:00 ×1",
            ],
        ),
        // Whoever allows for being late by four hours has missed nothing.
        (Misfire::Skip, 4 * 3600, (1..=18).map(|_| "sent").collect()),
    ] {
        let mut entry = entry(every(600));
        entry.misfire = misfire;
        entry.misfire_grace = Duration::from_secs(grace);
        let state = EntryState::new(&entry, at("12:00:00"));
        let look = look(&entry, &state, at("15:00:05"), &ENDED);
        let lines = lines(&look);
        assert_eq!(lines.len(), expected.len(), "{misfire:?}: {lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{misfire:?}: {lines:?}");
        }
        assert_eq!(look.wake, Some(at("15:10:00")), "{misfire:?}");
    }
}

#[test]
fn a_long_backlog_is_made_up_for_in_pieces() {
    let mut entry = entry(every(60));
    entry.misfire = Misfire::All(250);
    let mut state = EntryState::new(&entry, at("00:00:00"));
    let now = at("12:00:30");
    let mut all = Vec::new();
    loop {
        let look = look(&entry, &state, now, &ENDED);
        assert!(look.steps.len() <= FIRES_MAX);
        if look.steps.is_empty() {
            break;
        }
        all.extend(lines(&look));
        state = look.state;
    }
    assert_eq!(all[0], "skipped 07:50:00 ×470");
    assert_eq!(all.len(), 251);
    assert_eq!(all[250], "sent 12:00:00 ×1");
}

#[test]
fn an_overlap_follows_the_rule() {
    for (overlap, expected, revoked) in [
        (Overlap::Allow, "sent 12:01:00 ×1", 0),
        (Overlap::Skip, "skipped 12:01:00 ×1", 0),
        (Overlap::CancelPrevious, "sent 12:01:00 ×1", 1),
    ] {
        let mut entry = entry(every(30));
        entry.overlap = overlap;
        let state = EntryState::new(&entry, at("12:00:00"));
        let first = look(&entry, &state, at("12:00:30"), &RUNNING);
        assert_eq!(lines(&first), ["sent 12:00:30 ×1"], "{overlap:?}");
        let second = look(&entry, &first.state, at("12:01:00"), &RUNNING);
        assert_eq!(lines(&second), [expected], "{overlap:?}");
        assert_eq!(second.steps[0].revoke.len(), revoked);
        let after = look(&entry, &second.state, at("12:01:30"), &ENDED);
        assert_eq!(lines(&after), ["sent 12:01:30 ×1"], "{overlap:?}");
    }
}

#[test]
fn one_may_wait_for_the_end_of_another() {
    let mut entry = entry(every(30));
    entry.overlap = Overlap::QueueOne;
    let state = EntryState::new(&entry, at("12:00:00"));
    let first = look(&entry, &state, at("12:00:30"), &RUNNING);
    let second = look(&entry, &first.state, at("12:01:00"), &RUNNING);
    assert_eq!(lines(&second), [""; 0]);
    assert_eq!(second.state.queued, Some(at("12:01:00")));
    assert_eq!(second.wake, Some(at("12:01:01")), "it is looked at every second");
    let third = look(&entry, &second.state, at("12:01:30"), &RUNNING);
    assert_eq!(lines(&third), ["skipped 12:01:30 ×1"]);
    let ended = look(&entry, &third.state, at("12:01:44"), &ENDED);
    assert_eq!(lines(&ended), ["sent 12:01:00 ×1"]);
    assert_eq!(ended.wake, Some(at("12:02:00")));
}

#[test]
fn so_many_may_run_at_a_time() {
    let mut entry = entry(every(30));
    entry.max_instances = Some(2);
    let state = EntryState::new(&entry, at("12:00:00"));
    let look = look(&entry, &state, at("12:01:40"), &RUNNING);
    // Three are due within the grace or missed: with `once` the missed ones are one.
    assert_eq!(lines(&look), ["sent 12:01:30 ×3"]);
    let mut state = look.state;
    for (time, expected) in [("12:02:00", "sent"), ("12:02:30", "skipped")] {
        let look = super::look(&entry, &state, at(time), &RUNNING);
        assert!(lines(&look)[0].starts_with(expected), "{time}");
        state = look.state;
    }
}

#[test]
fn jitter_is_the_same_on_every_beat_and_within_its_bound() {
    let mut entry = entry(every(600));
    entry.jitter = Duration::from_mins(2);
    let state = EntryState::new(&entry, at("12:00:00"));
    let wake = state.wake(&entry).unwrap();
    assert_eq!(state.wake(&entry), Some(wake));
    let late = wake.duration_since(at("12:10:00"));
    assert!(late > SignedDuration::ZERO && late < SignedDuration::from_mins(2), "{late}");
    let look = look(&entry, &state, wake, &ENDED);
    assert_eq!(lines(&look), ["sent 12:10:00 ×1"]);
    entry.name = "other".to_owned();
    assert_ne!(state.wake(&entry), Some(wake));
}

#[test]
fn an_entry_runs_between_its_start_and_its_end() {
    let mut entry = entry(Schedule::Crontab(Crontab::from_string("*/10 * * * *").unwrap()));
    entry.start = Some(at("12:30:00"));
    entry.end = Some(at("12:50:00"));
    let mut state = EntryState::new(&entry, at("12:00:00"));
    let mut all = Vec::new();
    for minute in 0..120 {
        let now = at("12:00:00") + SignedDuration::from_mins(minute);
        let look = look(&entry, &state, now, &ENDED);
        all.extend(lines(&look));
        state = look.state;
    }
    assert_eq!(all, ["sent 12:30:00 ×1", "sent 12:40:00 ×1", "sent 12:50:00 ×1"]);
    assert_eq!(state.wake(&entry), None);
}

#[test]
fn a_moment_comes_once() {
    let entry = entry(Schedule::Once(at("12:30:00")));
    let state = EntryState::new(&entry, at("12:00:00"));
    let look = look(&entry, &state, at("18:00:00"), &ENDED);
    assert_eq!(lines(&look), ["sent 12:30:00 ×1"]);
    assert_eq!(look.wake, None);
}

#[test]
fn nobody_looks_at_what_is_paused_or_belongs_to_another_scheduler() {
    let mut paused = entry(every(60));
    let state = EntryState::new(&paused, at("12:00:00"));
    paused.enabled = false;
    let mut foreign = entry(every(60));
    foreign.owner = Owner { name: "apscheduler".to_owned(), epoch: 2 };
    for entry in [&paused, &foreign] {
        assert_eq!(state.wake(entry), None);
        let look = look(entry, &state, at("13:00:00"), &ENDED);
        assert_eq!((look.steps.len(), look.wake), (0, None));
    }
    paused.enabled = true;
    let look = look(&paused, &state, at("13:00:00"), &ENDED);
    assert_eq!(lines(&look), ["sent 13:00:00 ×60"], "what was missed in between is made up for");
}

/// An hour that comes again is not run again: each occurrence is an instant.
#[test]
fn a_clock_that_is_set_back_runs_nothing_twice() {
    let entry = entry(every(600));
    let state = EntryState::new(&entry, at("12:00:00"));
    let first = look(&entry, &state, at("12:10:00"), &ENDED);
    let back = look(&entry, &first.state, at("11:10:00"), &ENDED);
    assert_eq!((back.steps.len(), back.wake), (0, Some(at("12:20:00"))));
}

#[test]
fn an_edit_of_the_times_counts_from_now() {
    let old = entry(every(60));
    let state = EntryState::new(&old, at("12:00:00"));
    let state = look(&old, &state, at("12:01:00"), &ENDED).state;
    let mut new = old.clone();
    new.args = vec![Value::from(1)];
    assert_eq!(state.of_changed(&old, &new, at("12:01:20")), state);
    new.schedule = every(10);
    let changed = state.of_changed(&old, &new, at("12:01:23"));
    assert_eq!((changed.due, changed.runs), (Some(at("12:01:33")), 1));
}

#[test]
fn a_state_is_as_precise_as_it_is_kept() {
    let now = at("12:00:00") + SignedDuration::from_nanos(123_456_789);
    let state = EntryState::new(&entry(every(60)), now);
    assert_eq!(EntryState::from_value(&state.to_value()), Some(state));
}

#[test]
fn ids_are_those_of_the_entry_and_the_time() {
    let one = occurrence_id("a", at("12:00:00"));
    assert_eq!(one, occurrence_id("a", at("12:00:00")));
    assert_ne!(one, occurrence_id("a", at("12:00:01")));
    assert_ne!(one, occurrence_id("b", at("12:00:00")));
    assert_eq!(one.len(), 36);
}

#[test]
fn documents_come_back_as_they_were() {
    let mut entry = entry(Schedule::Crontab(Crontab::from_string("*/5 8-18 * * mon-fri").unwrap()));
    for zone in ["UTC", "Europe/Berlin"] {
        entry.zone = Zone::named(zone).unwrap();
        let back = Entry::from_value(&entry.to_value(), &Zone::utc()).unwrap();
        assert_eq!(back, entry);
        entry.misfire = Misfire::All(7);
        entry.overlap = Overlap::QueueOne;
        entry.max_instances = Some(3);
        entry.jitter = Duration::from_millis(1500);
        entry.start = Some(at("12:00:00"));
        entry.end = Some(at("13:00:00"));
        entry.description = "für Köln".to_owned();
        entry.enabled = false;
        entry.source.kind = SourceKind::App;
        entry.source.original = Some(Box::new(Value::Object(entry.definition())));
        entry.owner = Owner { name: "apscheduler".to_owned(), epoch: 9 };
        entry.options.insert("queue", "reports");
    }
    let state =
        EntryState { queued: Some(at("12:00:00")), ..EntryState::new(&entry, at("12:00:00")) };
    assert_eq!(EntryState::from_value(&state.to_value()), Some(state));
}

#[test]
fn what_is_wrong_is_named() {
    assert!(parsed(&document("")).is_ok());
    for (text, said) in [
        ("[]".to_owned(), "an entry is an object"),
        (r#"{"name": "a", "task": "t"}"#.to_owned(), "an entry needs a schedule"),
        (document(r#", "tsk": 1"#), "tsk: an entry has no such field"),
        (document(r#", "args": 1"#), "args: a list is expected"),
        (document(r#", "kwargs": []"#), "kwargs: an object is expected"),
        (document(r#", "zone": "Europe/Berln""#), "Europe/Berlin"),
        (document(r#", "start": "soon""#), "start: an instant"),
        (document(r#", "jitter": -1"#), "jitter: a number of seconds"),
        (document(r#", "misfire": "later""#), "one of skip, once, all"),
        (document(r#", "misfire_limit": 3"#), "only goes with misfire = all"),
        (document(r#", "overlap": "no""#), "one of allow, skip, queue-one, cancel-previous"),
        (document(r#", "max_instances": 0"#), "max_instances: a number from 1"),
        (document(r#", "enabled": "yes""#), "enabled: true or false"),
        (document(r#", "options": {"task_id": "x"}"#), "an id of its own"),
        (
            document(r#", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z""#),
            "before its start",
        ),
    ] {
        let error = parsed(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    let long = "n".repeat(ENTRY_NAME_BYTES_MAX + 1);
    for (name, said) in [("", "is missing"), ("a\nb", "control characters"), (&long, "201 bytes")] {
        let error = Entry::new(name, "t", every(1), Zone::utc()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_message_says_what_sent_it() {
    let mut entry = entry(every(60));
    entry.options.insert("queue", "reports");
    entry.options.insert("headers", Value::parse(br#"{"tenant": "acme"}"#).unwrap());
    let signature = entry.signature("id-1");
    let options = Value::Object(signature.options().clone());
    assert_eq!(
        options.to_string(),
        r#"{"queue": "reports", "headers": {"tenant": "acme", "celery_beat_task": true, "celeriac_entry": "nightly"}, "task_id": "id-1"}"#
    );
}

fn given(name: &str, seconds: u64) -> Entry {
    Entry::new(name, "t", every(seconds), Zone::utc()).unwrap()
}

/// The entries after the changes.
fn applied(stored: Vec<Entry>, changes: Vec<Change>) -> Vec<Entry> {
    let mut stored = stored;
    for change in changes {
        match change {
            Change::Add(entry) => stored.push(*entry),
            Change::Replace(entry) => {
                stored.retain(|old| old.name != entry.name);
                stored.push(*entry);
            }
            Change::Remove(name) => stored.retain(|old| old.name != name),
            Change::Keep(..) => {}
        }
    }
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    stored
}

#[test]
fn a_source_gives_and_changes_and_takes_away() {
    let kind = SourceKind::App;
    let by_hand = given("c", 5);
    let stored = applied(
        vec![by_hand.clone()],
        reconcile(&[by_hand], vec![given("a", 10), given("b", 20)], kind),
    );
    assert_eq!(stored.len(), 3);
    assert!(reconcile(&stored, vec![given("a", 10), given("b", 20)], kind).is_empty());
    let changes = reconcile(&stored, vec![given("a", 11)], kind);
    let stored = applied(stored, changes);
    let names: Vec<&str> = stored.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(stored[0].schedule, every(11));
}

#[test]
fn what_was_changed_here_is_not_overwritten() {
    let kind = SourceKind::App;
    let mut stored = applied(Vec::new(), reconcile(&[], vec![given("a", 10)], kind));
    // A pause is no edit: it outlives the source's change.
    stored[0].enabled = false;
    let changes = reconcile(&stored, vec![given("a", 20)], kind);
    assert!(matches!(&changes[..], [Change::Replace(entry)] if !entry.enabled));
    stored[0].schedule = every(15);
    assert!(reconcile(&stored, vec![given("a", 10)], kind).is_empty(), "the source is as it was");
    let changes = reconcile(&stored, vec![given("a", 20)], kind);
    assert_eq!(changes, [Change::Keep("a".to_owned(), Reason::Edited)]);
    let changes = reconcile(&stored, Vec::new(), kind);
    assert_eq!(changes, [Change::Keep("a".to_owned(), Reason::EditedAndGone)]);
    let changes = reconcile(&stored, vec![given("a", 20)], SourceKind::Config);
    assert_eq!(changes, [Change::Keep("a".to_owned(), Reason::Taken(kind))]);
}
