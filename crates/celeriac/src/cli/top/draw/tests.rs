use super::super::state::{Look, Sort};
use super::*;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::store::{Heartbeat, NodeId, NodeInfo, NodeView, Phase, QueueView, TaskView};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::{Event, Map, Value};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_226_400 + second).unwrap()
}

fn queue(name: &str, ready: u64, dead: u64) -> QueueView {
    QueueView { name: name.to_owned(), ready, dead, ..QueueView::default() }
}

fn node(name: &str, alive: bool) -> NodeView {
    NodeView {
        id: NodeId(1),
        info: NodeInfo {
            name: name.to_owned(),
            pid: 41,
            queues: vec![QueueName::parse("mail").unwrap()],
            concurrency: 8,
            pool: "async".to_owned(),
            times: LeaseTimes::default(),
            tasks: Vec::new(),
        },
        heartbeat: Heartbeat { active: 3, processed: 1234 },
        started_at: at(-65),
        seen_at: at(0),
        alive,
    }
}

fn running(id: &str) -> TaskView {
    TaskView {
        task_id: id.to_owned(),
        phase: Phase::Running { worker: "ours@h".to_owned(), since: at(-12) },
        task: Some("app.send".to_owned()),
        queue: Some("mail".to_owned()),
        enqueued_at: None,
        retries: 0,
        message: None,
        result: None,
        history: Vec::new(),
    }
}

fn look(second: i64, queues: Vec<QueueView>) -> Look {
    Look {
        at: at(second),
        location: "sqlite:///srv/queue.db".to_owned(),
        queues,
        nodes: vec![node("ours@h", true), node("gone@h", false)],
        running: vec![running("id-1")],
        pauses: Vec::new(),
    }
}

fn event(kind: &str, fields: &[(&str, &str)]) -> Event {
    let mut map = Map::default();
    map.insert("type", kind);
    map.insert("hostname", "stock@h");
    map.insert("timestamp", at(0).as_second() as f64);
    map.insert("utcoffset", 0);
    map.insert("pid", 77);
    for (name, value) in fields {
        map.insert(*name, *value);
    }
    Event::from_map(map)
}

/// Two looks two seconds apart, and what a stock worker tells meanwhile.
fn seen() -> Top {
    let mut top = Top::new(0.0);
    top.looked(look(0, vec![queue("mail", 10, 0), queue("reports", 2, 7)]));
    top.heard(&event("worker-heartbeat", &[]), at(1));
    top.heard(&event("task-received", &[("uuid", "id-2"), ("name", "app.build")]), at(1));
    top.heard(&event("task-started", &[("uuid", "id-2")]), at(1));
    // What ours tell is in the store already.
    top.looked(look(2, vec![queue("mail", 16, 0), queue("reports", 2, 7)]));
    top
}

fn drawn(top: &Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, top, at(2))).unwrap();
    terminal.backend().to_string()
}

#[track_caller]
fn line<'a>(screen: &'a str, begin: &str) -> &'a str {
    let mut lines = screen.lines().map(|line| line.trim_matches('"'));
    lines
        .find(|line| line.starts_with(begin))
        .unwrap_or_else(|| panic!("no line {begin} in\n{screen}"))
}

#[test]
fn a_frame_shows_queues_workers_and_tasks() {
    let screen = drawn(&seen(), 100, 30);
    line(&screen, "18 ready, 0 scheduled, 0 leased, 7 dead  received 0.5/s  succeeded 0.0/s");
    assert!(line(&screen, "mail ").contains("+3.0/s"), "{screen}");
    assert!(line(&screen, "reports ").contains("+0.0/s"), "{screen}");
    let ours: Vec<&str> = line(&screen, "ours@h").split_whitespace().collect();
    assert_eq!(ours[1..], ["41", "async", "1m07s", "3/8", "1234", "mail"], "{screen}");
    assert!(line(&screen, "stock@h").contains("Celery's"), "{screen}");
    assert!(!screen.contains("gone@h"), "{screen}");
    assert!(line(&screen, "14.0s").contains("app.send   ours@h   mail   id-1"), "{screen}");
    assert!(line(&screen, "2.0s").contains("app.build  stock@h         id-2"), "{screen}");
    line(&screen, "q quit");
}

#[test]
fn keys_sort_queues() {
    let mut top = seen();
    let first = |top: &Top| top.sections(at(2))[0].rows[0][0].clone();
    assert_eq!(first(&top), "mail");
    top.sort_by(Sort::Dead);
    assert_eq!(first(&top), "reports");
    top.sort_by(Sort::Ready);
    assert_eq!(first(&top), "mail");
}

#[test]
fn a_small_terminal_shows_what_fits_and_says_so() {
    let mut top = Top::new(0.0);
    top.looked(look(0, (0..50).map(|n| queue(&format!("q{n:02}"), n, 0)).collect()));
    let screen = drawn(&top, 60, 24);
    assert!(line(&screen, "50 queues").contains("not shown"), "{screen}");
    for shown in ["q00", "ours@h", "14.0s"] {
        line(&screen, shown);
    }
    for (width, height) in [(1, 1), (10, 3), (80, 5), (300, 100)] {
        drawn(&top, width, height);
    }
}

#[test]
fn a_store_that_is_silent_leaves_what_it_said_last() {
    let mut top = seen();
    top.failed(&StoreError::new(ErrorKind::Unavailable, "no answer in 2s"));
    let screen = drawn(&top, 100, 30);
    assert!(line(&screen, "as of 0ms ago: ").contains("no answer in 2s"), "{screen}");
    line(&screen, "mail");
    top.looked(look(4, vec![queue("mail", 1, 0)]));
    line(&drawn(&top, 100, 30), "sqlite:///srv/queue.db");
    assert!(drawn(&Top::new(0.0), 80, 24).contains("waiting for the store"));
}

#[test]
fn programs_get_numbers() {
    let document = seen().document(at(2));
    let list = |name: &str| document.get(name).and_then(Value::as_array).unwrap().to_vec();
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64);
    assert_eq!(number(&list("queues")[0], "change_per_second"), Some(3.0));
    assert_eq!(number(document.get("per_second").unwrap(), "received"), Some(0.5));
    let workers = list("workers");
    assert_eq!(workers[1].get("celerys").and_then(Value::as_bool), Some(true));
    assert_eq!(number(&workers[0], "concurrency"), Some(8.0));
    assert_eq!(list("running").len(), 2);
}
