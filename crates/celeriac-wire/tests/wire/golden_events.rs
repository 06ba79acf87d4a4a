//! Events of real Celery, byte by byte, and rebuilt with our constructors.

use celeriac_wire::event::{TaskReceived, TaskRevoked, TaskSent, WorkerStatus};
use celeriac_wire::{Envelope, Event, EventBase, Map, Value};

use crate::fixtures;

fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for fixture in fixtures::all() {
        for raw in fixture.events() {
            let body = Envelope::parse(raw.as_bytes()).expect(&fixture.name).message.body;
            let read = Event::parse_many(&body).expect(&fixture.name);
            let printed = match read.as_slice() {
                [single] if body.starts_with(b"{") => single.to_bytes(),
                list => Event::list_to_bytes(list),
            };
            assert_eq!(printed, body, "{}", fixture.name);
            events.extend(read);
        }
    }
    let by_type = fixtures::one("events_by_type");
    let types = by_type.get("types").and_then(Value::as_object).expect("types").clone();
    for (kind, event) in types {
        let event = Event::from_map(event.as_object().expect("an event").clone());
        assert_eq!(event.kind(), Some(kind.as_str()));
        events.push(event);
    }
    events
}

fn rebuild(event: &Event) -> Option<Event> {
    let kind = event.kind()?;
    let uuid = event.uuid().unwrap_or_default();
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let required = |name: &str| text(name).unwrap_or_else(|| panic!("{kind}: {name}"));
    let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
    let float = |name: &str| event.get(name).and_then(Value::as_f64).expect("a float");
    let flag = |name: &str| event.get(name).and_then(Value::as_bool).expect("a flag");
    let base = EventBase {
        hostname: event.hostname()?.to_owned(),
        utcoffset: float("utcoffset"),
        pid: event.pid()?.try_into().ok()?,
        clock: event.clock()?,
        timestamp: event.instant()?,
    };
    Some(match kind {
        "task-received" => {
            let received = TaskReceived {
                uuid,
                name: required("name"),
                args: required("args"),
                kwargs: required("kwargs"),
                root_id: text("root_id"),
                parent_id: text("parent_id"),
                retries: number("retries") as u32,
                eta: text("eta"),
                expires: text("expires"),
            };
            Event::task_received(&base, &received)
        }
        "task-started" => Event::task_started(&base, uuid),
        "task-succeeded" => {
            Event::task_succeeded(&base, uuid, required("result"), float("runtime"))
        }
        "task-failed" => Event::task_failed(&base, uuid, required("exception"), text("traceback")),
        "task-retried" => {
            Event::task_retried(&base, uuid, required("exception"), required("traceback"))
        }
        "task-rejected" => Event::task_rejected(&base, uuid, flag("requeue")),
        "task-revoked" => {
            let revoked = TaskRevoked {
                terminated: flag("terminated"),
                signum: event.get("signum").cloned().unwrap_or_default(),
                expired: flag("expired"),
            };
            Event::task_revoked(&base, uuid, &revoked)
        }
        "task-cancelled" => Event::task_cancelled(&base, uuid),
        "worker-online" | "worker-heartbeat" | "worker-offline" => {
            let load = event.get("loadavg").and_then(Value::as_array)?;
            let load: Vec<f64> = load.iter().filter_map(Value::as_f64).collect();
            let status = WorkerStatus {
                freq: float("freq"),
                active: number("active"),
                processed: number("processed"),
                loadavg: load.try_into().ok()?,
                sw_ident: required("sw_ident").to_owned(),
                sw_ver: required("sw_ver").to_owned(),
                sw_sys: required("sw_sys").to_owned(),
            };
            match kind {
                "worker-online" => Event::worker_online(&base, &status),
                "worker-offline" => Event::worker_offline(&base, &status),
                _ => Event::worker_heartbeat(&base, &status),
            }
        }
        _ => return None,
    })
}

#[test]
fn constructors_write_what_celery_wrote() {
    let mut kinds = Vec::new();
    for event in events() {
        let Some(mut built) = rebuild(&event) else {
            // Gossip elections (spec 6.3) are not sent by us.
            assert!(event.kind().expect("a type").starts_with("worker-elect"), "{event:?}");
            continue;
        };
        let (ours, theirs) = (built.timestamp().expect("time"), event.timestamp().expect("time"));
        assert!((ours - theirs).abs() < 2e-6, "{ours} {theirs}");
        // A float of seconds holds more than the microseconds of the instant read from it.
        built.insert("timestamp", event.get("timestamp").expect("time").clone());
        let (ours, theirs) = (built.to_bytes(), event.to_bytes());
        assert_eq!(String::from_utf8(ours), String::from_utf8(theirs));
        let kind = event.kind().expect("a type").to_owned();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "task-failed",
            "task-received",
            "task-rejected",
            "task-retried",
            "task-revoked",
            "task-started",
            "task-succeeded",
            "worker-heartbeat",
            "worker-offline",
            "worker-online",
        ]
    );
}

#[test]
fn task_sent_has_the_fields_of_celery() {
    // From the MONITOR line of event_task_sent; its body is the only base64 text that starts so.
    let fixture = fixtures::one("event_task_sent");
    let lines = fixture.get("monitor").and_then(Value::as_array).expect("monitor");
    let publish = lines
        .iter()
        .filter_map(Value::as_str)
        .find(|line| line.contains("celeryev/task.sent"))
        .expect("a PUBLISH");
    let text = publish.split_once("\" \"{").expect("an envelope").1;
    let text = format!("{{{}", text.trim_end_matches('"').replace("\\\"", "\""));
    let body = Envelope::parse(text.as_bytes()).expect("valid").message.body;
    let [event] = <[Event; 1]>::try_from(Event::parse_many(&body).expect("valid")).expect("one");
    let base = EventBase {
        hostname: event.hostname().expect("name").to_owned(),
        utcoffset: 0.0,
        pid: 27950,
        clock: 1,
        timestamp: event.instant().expect("time"),
    };
    let uuid = event.uuid().expect("uuid");
    let sent = TaskSent {
        uuid,
        root_id: Some(uuid),
        name: "protoapp.add",
        args: "(1, 1)",
        kwargs: "{}",
        queue: "celery",
        routing_key: "celery",
        ..TaskSent::default()
    };
    let mut built = Event::task_sent(&base, &sent);
    built.insert("timestamp", event.get("timestamp").expect("time").clone());
    assert_eq!(built.to_bytes(), body);
    assert_eq!(built.routing_key().as_deref(), Some("task.sent"));
}

#[test]
fn odd_events_are_read_or_refused() {
    assert_eq!(Event::parse_many(b"[]"), Ok(Vec::new()));
    let error = Event::parse_many(b"[{}, 1]").expect_err("not an event");
    assert_eq!(error.to_string(), "event[1]: expected an object, found the integer 1");
    for timestamp in ["NaN", "1e300", "\"x\"", "null", "-Infinity"] {
        let text = format!("{{\"timestamp\": {timestamp}}}");
        let events = Event::parse_many(text.as_bytes()).expect("an object");
        assert_eq!(events.first().and_then(Event::instant), None, "{timestamp}");
    }
    assert_eq!(Event::from_map(Map::new()).kind(), None);
}
