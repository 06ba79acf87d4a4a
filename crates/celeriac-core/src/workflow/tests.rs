//! Unrolling against captures of real Celery, and what follows each end of a task.

mod follow;
mod random;
mod unroll;

use super::*;
use crate::queue::QueueName;
use crate::record::Recorder;
use crate::store::{ChordDone, ChordPart};
use celeriac_wire::{Envelope, ExceptionInfo, State};
use std::path::Path;

/// Ids that count up, a router with one route, a clock that stands.
struct Bench {
    router: Router,
    ids: u32,
}

impl Bench {
    fn new() -> Self {
        let mut router = Router::new(QueueName::celery());
        router.add("app.report", QueueName::parse("reports").unwrap()).unwrap();
        Self { router, ids: 0 }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Sender<'_>) -> T) -> T {
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            format!("id{ids}")
        };
        let mut sender =
            Sender { router: &self.router, new_id: &mut new_id, now: now(), origin: "gen1@vm" };
        work(&mut sender)
    }

    fn apply(&mut self, signature: Signature) -> Applied {
        self.with(|sender| apply(signature, &[], Lineage::default(), sender)).unwrap()
    }
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn add(args: &[i64]) -> Signature {
    task("protoapp.add", args)
}

fn task(name: &str, args: &[i64]) -> Signature {
    Signature::new(name).with_args(args.iter().copied().map(Value::from).collect())
}

fn xsum() -> Signature {
    Signature::new("protoapp.xsum")
}

fn id_of(outgoing: &Outgoing) -> &str {
    outgoing.message.headers.id().unwrap()
}

fn body_of(outgoing: &Outgoing) -> Body {
    Body::parse(&outgoing.message.body).unwrap()
}

fn recorder() -> Recorder<'static> {
    Recorder {
        worker: "celery@a",
        queue: "celery",
        enqueued_at: Some(now()),
        started_at: Some(now()),
        now: now(),
        children: Vec::new(),
        arguments: None,
    }
}

/// The messages of a capture, in the order of their group indices, as Celery sent them.
fn captured(name: &str) -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../celeriac-wire/testdata/5.7");
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let fixture = Value::parse(&text).unwrap();
    let queue = fixture.get("queues").unwrap().get("celery").unwrap().as_array().unwrap();
    let mut messages: Vec<Message> = queue
        .iter()
        .map(|text| Envelope::parse(text.as_str().unwrap().as_bytes()).unwrap().message)
        .collect();
    messages.sort_by_key(|message| message.headers.group_index());
    messages
}
