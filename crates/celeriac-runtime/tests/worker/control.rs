//! Answers of a node, compared with those of real Celery workers key by key.

use crate::{delivery, registry};
use celeriac_core::QueueName;
use celeriac_core::control::COMMANDS;
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::route::Router;
use celeriac_core::store::Delivery;
use celeriac_runtime::Autoscale;
use celeriac_runtime::worker::control::{
    Deed, PoolView, ProcessView, Running, Scheduled, Snapshot, answer,
};
use celeriac_runtime::worker::orders::{Limits, Orders};
use celeriac_runtime::{ControlOptions, TaskPolicy};
use celeriac_wire::{Body, ControlRequest, Map, Message, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ID: &str = "36dbad1e-4501-41cd-9a7f-d05c5a01ed06";

fn message(id: &str) -> Message {
    let kwargs = Map::from([("k", "v")]);
    let mut message = Message::new("t.known", id, Body::new(vec![150.into()], kwargs).to_bytes());
    message.headers.set_arguments_text(&[150.into()], &Map::from([("k", "v")]));
    message.headers.insert("stamps", Map::from([("header", "value")]));
    message
}

/// An application with a queue of a topic exchange.
fn router() -> Router {
    let mut router = Router::new(QueueName::celery());
    router.declare(topic("news", "world", "news.#")).unwrap();
    router
}

fn topic(queue: &str, exchange: &str, routing_key: &str) -> Binding {
    let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
    let queue = QueueName::parse(queue).unwrap();
    Binding { exchange, kind: ExchangeKind::Topic, routing_key, queue }
}

/// A process worker with one busy and one idle child.
fn snapshot() -> Snapshot {
    let running = Delivery { message: message(ID), ..delivery(1) };
    let child = |pid, taken, busy| ProcessView { pid, taken, busy };
    let options = ControlOptions {
        conf: Map::from([("broker_url", "redis://:**@h/0")]),
        conf_defaults: Map::from([("task_default_queue", "celery"), ("broker_url", "other")]),
        report: "\nsoftware -> celeriac".to_owned(),
        broker: broker(),
        ..ControlOptions::default()
    };
    Snapshot {
        node: Arc::from("w@h"),
        pid: 1896,
        clock: 28,
        uptime: Duration::from_millis(10_700),
        options: Arc::new(options),
        registry: registry(TaskPolicy::default()),
        queues: vec![Binding::own(&QueueName::celery())],
        router: Arc::new(router()),
        pool: PoolView {
            kind: "process",
            slots: 2,
            processes: vec![child(1899, 2, true), child(2016, 1, false)],
            tasks_max: None,
        },
        running: vec![Running {
            delivery: Arc::new(running),
            started_at: "2026-11-21T02:00:29.5Z".parse().unwrap(),
            pid: Some(1899),
        }],
        totals: BTreeMap::from([("t.known".to_owned(), 3)]),
        rates: BTreeMap::from([("t.known".to_owned(), "2/s".parse().unwrap())]),
        autoscale: None,
        orders: Orders::new(Limits { soft: None, hard: Some(Duration::from_secs(9)) }),
        task_events: true,
        scheduled: vec![Scheduled {
            until: Timestamp::UNIX_EPOCH,
            queue: "celery".to_owned(),
            message: message("later"),
        }],
        revoked: vec!["gone".to_owned()],
        rusage: captured("stats", "rusage"),
        memory: Some(62_377_000),
        samples: vec!["59.03MB".to_owned()],
    }
}

fn broker() -> Map {
    captured("stats", "broker").as_object().unwrap().clone()
}

/// The captured replies of a command, by node.
fn replies(name: &str) -> Vec<Value> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../celeriac-wire/testdata/5.7/control");
    let text = std::fs::read(folder.join(format!("control_{name}.json"))).unwrap();
    let capture = Value::parse(&text).unwrap();
    let replies = capture.get("reply").unwrap().as_array().unwrap();
    replies
        .iter()
        .map(|reply| reply.as_object().unwrap().values().next().unwrap().clone())
        .collect()
}

fn captured(name: &str, field: &str) -> Value {
    replies(name)[0].get(field).unwrap().clone()
}

fn ask_with(snapshot: &Snapshot, name: &str, arguments: &str) -> (Option<Value>, Vec<Deed>) {
    let arguments = Value::parse(arguments.as_bytes()).unwrap().as_object().unwrap().clone();
    let answer = answer(&ControlRequest::new(name, arguments), snapshot);
    (answer.reply, answer.deeds)
}

fn ask(name: &str, arguments: &str) -> (Value, Vec<Deed>) {
    let (reply, deeds) = ask_with(&snapshot(), name, arguments);
    (reply.unwrap(), deeds)
}

fn reply(name: &str, arguments: &str) -> String {
    ask(name, arguments).0.to_string()
}

/// The keys and kinds of a value: what a monitor that reads it relies on.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(items) => format!("[{}]", items.first().map(shape).unwrap_or_default()),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", shape(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// One captured reply of the longest shape: some nodes had nothing to list.
fn longest(name: &str) -> Value {
    replies(name).into_iter().max_by_key(|reply| shape(reply).len()).unwrap()
}

#[test]
fn lists_have_the_shape_of_celerys() {
    for name in ["active", "active_queues", "scheduled"] {
        let ours = ask(name, "{}").0;
        let theirs =
            longest(name).to_string().replace("\"kwargs\": {}", "\"kwargs\": {\"k\": \"v\"}");
        assert_eq!(shape(&ours), shape(&Value::parse(theirs.as_bytes()).unwrap()), "{name}");
    }
    let ours = ask("stats", "{}").0;
    let theirs = replies("stats").into_iter().find(|reply| {
        reply.get("pool").unwrap().get("writes").is_some() && reply.get("autoscaler").is_none()
    });
    let theirs = shape(&theirs.unwrap()).replace("protoapp.sleep", "t.known");
    // A pool whose slots guard its children says so; Celery's prefork lets messages run ahead.
    assert_eq!(shape(&ours), theirs);
    let pool = ours.get("pool").unwrap();
    assert_eq!(
        pool.get("writes").unwrap().to_string(),
        "{\"total\": 3, \"avg\": \"0.50\", \"all\": \"0.67, 0.33\", \"raw\": \"2, 1\", \
         \"strategy\": \"fair\", \"inqueues\": {\"total\": 2, \"active\": 1}}"
    );
    assert_eq!(pool.get("timeouts").unwrap().to_string(), "[0, 9]");
    assert_eq!(ours.get("uptime").unwrap().to_string(), "10");
}

#[test]
fn short_answers_are_those_of_celery() {
    for name in ["ping", "heartbeat", "election", "memsample", "memdump"] {
        let arguments =
            if name == "election" { "{\"id\": \"e1\", \"topic\": \"task\"}" } else { "{}" };
        assert_eq!(shape(&ask(name, arguments).0), shape(&replies(name)[0]), "{name}");
    }
    for (name, arguments, at) in [
        ("ping", "{}", 0),
        ("autoscale", "{\"max\": 4, \"min\": 1}", 0),
        ("nosuch", "{}", 0),
        ("add_consumer", "{\"queue\": \"newq\"}", 0),
        ("cancel_consumer", "{\"queue\": \"newq\"}", 0),
        ("disable_events", "{}", 0),
        ("pool_grow", "{\"n\": 1}", 1),
        ("rate_limit", "{\"task_name\": \"t.known\", \"rate_limit\": \"10/m\"}", 0),
        ("revoke", "{\"task_id\": [\"some-id\"]}", 0),
        ("revoke_by_stamped_headers", "{\"headers\": {\"header\": [\"value\"]}}", 0),
        (
            "terminate",
            "{\"task_id\": [\"36dbad1e-4501-41cd-9a7f-d05c5a01ed06\"], \"signal\": \"SIGTERM\"}",
            2,
        ),
        ("terminate", "{\"task_id\": [\"other\"], \"signal\": \"SIGTERM\"}", 0),
        ("time_limit", "{\"task_name\": \"t.known\", \"soft\": 5, \"hard\": 10}", 0),
    ] {
        assert_eq!(ask(name, arguments).0, replies(name)[at], "{name}");
    }
    assert_eq!(reply("clock", "{}"), "{\"clock\": 28}");
    assert_eq!(reply("revoked", "{}"), "[\"gone\"]");
    assert_eq!(reply("reserved", "{}"), "[]");
    assert_eq!(reply("registered", "{}"), "[\"t.known [rate_limit=2/s]\"]");
    let items = "{\"taskinfoitems\": [\"time_limit\", \"ignore_result\", \"_x\", \"max_retries\"]}";
    assert_eq!(
        reply("registered", items),
        "[\"t.known [time_limit=9 ignore_result=False max_retries=3]\"]"
    );
    assert_eq!(reply("report", "{}"), "{\"ok\": \"\\nsoftware -> celeriac\"}");
    assert_eq!(reply("conf", "{}"), "{\"broker_url\": \"redis://:**@h/0\"}");
    assert_eq!(
        reply("dump_conf", "{\"with_defaults\": true}"),
        "{\"broker_url\": \"redis://:**@h/0\", \"task_default_queue\": \"celery\"}"
    );
    assert_eq!(
        reply("pool_restart", "{}"),
        "{\"error\": \"ValueError('Pool restarts not enabled')\"}"
    );
    assert!(reply("objgraph", "{}").contains("NotImplementedError"));
}

#[test]
fn every_command_is_answered() {
    for command in COMMANDS {
        let arguments: Map = command.required.iter().map(|name| (*name, "x")).collect();
        let answer = answer(&ControlRequest::new(command.name, arguments), &snapshot());
        let unknown = format!("{{\"error\": \"KeyError('{}')\"}}", command.name);
        assert_ne!(answer.reply.map(|reply| reply.to_string()), Some(unknown), "{command:?}");
    }
}

#[test]
fn tasks_are_found_by_id_and_shown_safely() {
    let found = ask("query_task", &format!("{{\"ids\": [\"{ID}\", \"unknown\"]}}")).0;
    let found = found.as_object().unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [ID]);
    assert!(found.get(ID).unwrap().to_string().starts_with("[\"active\", {\"id\": "));
    let safe = ask("active", "{\"safe\": true}").0.as_array().unwrap()[0].clone();
    assert_eq!(safe.get("args").unwrap().as_str(), Some("(150,)"));
    assert_eq!(safe.get("kwargs").unwrap().as_str(), Some("{'k': 'v'}"));
    assert_eq!(safe.get("worker_pid").unwrap().as_u64(), Some(1899));
    assert_eq!(safe.get("time_start").unwrap().to_string(), "1795226429.5");
}

#[test]
fn orders_lead_to_deeds() {
    let only = |name: &str, arguments: &str| {
        let (_, mut deeds) = ask_with(&snapshot(), name, arguments);
        assert_eq!(deeds.len(), 1, "{name}");
        deeds.remove(0)
    };
    let revoke = |ids: &[&str], terminate, signal| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        Deed::Revoke { ids, terminate, signal }
    };
    assert_eq!(only("revoke", "{\"task_id\": \"a\"}"), revoke(&["a"], false, None));
    let usr1 = "{\"task_id\": \"a\", \"terminate\": true, \"signal\": \"SIGUSR1\"}";
    assert_eq!(only("revoke", usr1), revoke(&["a"], true, Some(10)));
    let number = "{\"task_id\": \"a\", \"terminate\": true, \"signal\": 15}";
    assert_eq!(only("revoke", number), revoke(&["a"], true, Some(15)));
    let ids = "{\"task_id\": [\"b\", \"a\", \"b\"], \"terminate\": true, \"signal\": \"KILL\"}";
    assert_eq!(only("revoke", ids), revoke(&["a", "b"], true, Some(9)));
    assert_eq!(only("pool_grow", "{\"n\": 3}"), Deed::Resize(5));
    assert_eq!(only("pool_shrink", "{}"), Deed::Resize(1));
    assert_eq!(only("disable_events", "{}"), Deed::TaskEvents(false));
    assert_eq!(only("heartbeat", "{}"), Deed::Beat);
    assert_eq!(only("shutdown", "{\"msg\": \"x\"}"), Deed::Shutdown);
    assert_eq!(ask_with(&snapshot(), "shutdown", "{}").0, None);
    let (task, second) = ("t.known".to_owned(), Duration::from_secs);
    assert_eq!(
        only("time_limit", "{\"task_name\": \"t.known\", \"soft\": 1.5, \"hard\": null}"),
        Deed::Limits {
            task: task.clone(),
            limits: Limits { soft: Some(second(3) / 2), hard: None }
        }
    );
    let rate = Some("10/m".parse().unwrap());
    assert_eq!(
        only("rate_limit", "{\"task_name\": \"t.known\", \"rate_limit\": \"10/m\"}"),
        Deed::Rate { task: task.clone(), rate }
    );
    let off = "{\"task_name\": \"t.known\", \"rate_limit\": 0}";
    assert_eq!(only("rate_limit", off), Deed::Rate { task, rate: None });
    assert_eq!(reply("rate_limit", off), "{\"ok\": \"rate limit disabled successfully\"}");
    let (shown, deeds) = ask("pool_shrink", "{\"n\": 2}");
    assert_eq!(shown, replies("pool_shrink")[2]);
    assert_eq!(deeds, [Deed::Resize(1)], "the idle one goes all the same");
}

#[test]
fn stamps_are_revoked_and_their_tasks_terminated() {
    let (_, deeds) = ask("revoke_by_stamped_headers", "{\"headers\": [\"header=x\", \"b=y\"]}");
    let stamps = |header: &str, stamp: &str| Deed::RevokeStamps {
        header: header.to_owned(),
        stamps: vec![stamp.to_owned()],
    };
    assert_eq!(deeds, [stamps("b", "y"), stamps("header", "x")]);
    let both = "{\"headers\": {\"header\": [\"x\", \"value\"]}, \"terminate\": true}";
    let (shown, deeds) = ask("revoke_by_stamped_headers", both);
    let text = "{\"ok\": \"headers defaultdict(<class 'set'>, {'header': {'value'}}) revoked\"}";
    assert_eq!(shown.to_string(), text);
    let revoked = Deed::Revoke { ids: vec![ID.to_owned()], terminate: true, signal: None };
    assert_eq!(deeds[1], revoked);
    let none = "{\"headers\": {\"header\": \"x\"}, \"terminate\": true}";
    assert_eq!(
        reply("revoke_by_stamped_headers", none),
        "{\"ok\": \"headers {'header': 'x'} were not terminated\"}"
    );
}

#[test]
fn hello_exchanges_revocations_and_is_silent_to_itself() {
    assert_eq!(reply("hello", "{\"from_node\": \"w@h\"}"), "null");
    let (shown, deeds) = ask("hello", "{\"from_node\": \"x@y\", \"revoked\": [\"gone\", \"new\"]}");
    assert_eq!(shown.to_string(), "{\"revoked\": [\"gone\"], \"clock\": 28}");
    let known = Deed::Revoke { ids: vec!["new".to_owned()], terminate: false, signal: None };
    assert_eq!(deeds, [known]);
    // Celery 5.6 sends ids with their times.
    let (_, deeds) = ask("hello", "{\"from_node\": \"x@y\", \"revoked\": {\"old\": 1.5}}");
    assert_eq!(deeds.len(), 1);
    assert_eq!(shape(&replies("hello")[0]), "{revoked: [], clock: number}");
}

#[test]
fn what_cannot_be_done_is_refused_in_celerys_words() {
    for (name, arguments, expected) in [
        ("rate_limit", "{\"task_name\": \"nix\", \"rate_limit\": \"1/s\"}", "unknown task"),
        ("time_limit", "{\"task_name\": \"nix\"}", "unknown task"),
        (
            "rate_limit",
            "{\"task_name\": \"t.known\", \"rate_limit\": \"abc\"}",
            "Invalid rate limit string: ValueError(\"could not convert string to float: 'abc'\")",
        ),
        ("rate_limit", "{\"task_name\": \"t.known\", \"rate_limit\": \"1/x\"}", "KeyError('x')"),
        (
            "terminate",
            "{\"task_id\": \"a\", \"signal\": \"term\"}",
            "TypeError('signal name must be uppercase string.')",
        ),
        (
            "terminate",
            "{\"task_id\": \"a\", \"signal\": \"FOO\"}",
            "AttributeError(\"module 'signal' has no attribute 'SIGFOO'\")",
        ),
        ("pool_grow", "{\"n\": 10000}", "ValueError('a worker has at most 10000 slots')"),
        ("pool_grow", "{\"n\": -1}", "TypeError('n is a whole number, not the integer -1')"),
        (
            "active_queues",
            "{\"x\": 1}",
            "TypeError(\"active_queues() got an unexpected keyword argument 'x'\")",
        ),
    ] {
        let (shown, deeds) = ask(name, arguments);
        assert_eq!(shown.get("error").unwrap().as_str(), Some(expected), "{name} {arguments}");
        assert!(deeds.is_empty(), "{name} {arguments}");
    }
    for (arguments, expected) in [
        ("{\"queue\": \"q\"}", Binding::own(&QueueName::parse("q").unwrap())),
        (
            "{\"queue\": \"q\", \"exchange\": \"x\", \"exchange_type\": \"topic\"}",
            topic("q", "x", "q"),
        ),
        (
            "{\"queue\": \"q\", \"exchange\": \"x\", \"exchange_type\": \"topic\", \"routing_key\": \"a.*\"}",
            topic("q", "x", "a.*"),
        ),
        // What is declared wins, as in Celery.
        ("{\"queue\": \"news\", \"exchange\": \"x\"}", topic("news", "world", "news.#")),
    ] {
        assert_eq!(ask("add_consumer", arguments).1, [Deed::Consume(expected)], "{arguments}");
    }
    let wrong = "{\"queue\": \"q\", \"exchange\": \"x\", \"exchange_type\": \"headers\"}";
    assert!(reply("add_consumer", wrong).contains("use direct, topic or fanout"));
    let wrong = "{\"queue\": \"q\", \"exchange\": \"a\\u0006b\"}";
    assert!(reply("add_consumer", wrong).contains("control characters"));
    assert!(reply("add_consumer", "{\"queue\": \"\"}").contains("ValueError"));
    let same = "{\"queue\": \"q\", \"exchange\": \"q\", \"exchange_type\": \"direct\"}";
    assert_eq!(reply("add_consumer", same), "{\"ok\": \"add consumer q\"}");
}

#[test]
fn a_worker_whose_slots_follow_its_load_is_told_its_bounds() {
    let keepalive = Duration::from_secs(30);
    let scaled =
        Snapshot { autoscale: Some(Autoscale { max: 10, min: 3, keepalive }), ..snapshot() };
    let told = |arguments: &str| {
        let (reply, deeds) = ask_with(&scaled, "autoscale", arguments);
        (reply.unwrap().to_string(), deeds)
    };
    let (reply, deeds) = told("{\"max\": 4, \"min\": 1}");
    assert_eq!(reply, "{\"ok\": \"autoscale now max=4 min=1\"}");
    assert_eq!(deeds, [Deed::Autoscale { max: 4, min: 1 }]);
    assert_eq!(told("{\"max\": 12}").1, [Deed::Autoscale { max: 12, min: 3 }]);
    for wrong in ["{\"max\": 2}", "{\"min\": 11}", "{\"max\": \"many\"}", "{\"max\": 100000}"] {
        let (reply, deeds) = told(wrong);
        assert!(reply.contains("ValueError") && deeds.is_empty(), "{wrong}: {reply}");
    }
    for command in ["pool_grow", "pool_shrink"] {
        let (reply, deeds) = ask_with(&scaled, command, "{\"n\": 1}");
        let text = format!(
            "{{\"error\": \"{command} is not supported with autoscale. Adjust autoscale range instead.\"}}"
        );
        assert_eq!((reply.unwrap().to_string(), deeds.len()), (text, 0));
    }
    let (stats, _) = ask_with(&scaled, "stats", "{}");
    let shown = stats.as_ref().unwrap().get("autoscaler").unwrap();
    assert_eq!(shown.get("max").unwrap().as_u64(), Some(10));
    assert_eq!(shown.get("current").unwrap().as_u64(), Some(scaled.pool.slots as u64));
}
