//! Exchanges as kombu keeps them: a set of bindings for each (wire specification 2.3, 2.4).
//!
//! A message for an exchange becomes one message for each queue that takes it, by the bindings that
//! are read just before it is written. A binding that comes or goes between the two may still count, or
//! not yet: kombu's publishers have the same gap. A fanout is PUB/SUB there and goes to its channel in
//! the script of `commit`; it keeps nothing, so no queue can be bound to one here.

use super::Core;
use super::dead::texts;
use super::mailbox::channel;
use celeriac_core::exchange::{Binding, ExchangeKind, check_name, receivers};
use celeriac_core::route::Exchange;
use celeriac_core::store::{Outgoing, Plan, Routed};
use celeriac_core::unique::Unique;
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::control::CONTROL_EXCHANGE;
use celeriac_wire::{Envelope, Message};
use redis::{Pipeline, Value as Answer};
use std::collections::BTreeMap;

/// How many keys one step of the search for exchanges looks at.
const SCAN_COUNT: usize = 1000;
/// The most bindings that are listed.
const LISTED_MAX: usize = 100_000;

fn table_key(core: &Core, exchange: &str) -> String {
    format!("{}_kombu.binding.{exchange}", core.keys.prefix)
}

/// The bindings of exchanges, each table read once.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<String, Vec<Binding>>);

impl Tables {
    async fn of(&mut self, core: &Core, exchange: &str) -> Result<&[Binding], StoreError> {
        if !self.0.contains_key(exchange) {
            let bindings = table(core, exchange).await?;
            self.0.insert(exchange.to_owned(), bindings);
        }
        Ok(self.0.get(exchange).map(Vec::as_slice).unwrap_or_default())
    }

    /// The queues that take a message with this key.
    pub(super) async fn receivers(
        &mut self,
        core: &Core,
        exchange: &str,
        routing_key: &str,
    ) -> Result<Vec<QueueName>, StoreError> {
        Ok(receivers(self.of(core, exchange).await?, routing_key))
    }
}

async fn table(core: &Core, exchange: &str) -> Result<Vec<Binding>, StoreError> {
    let mut members = redis::cmd("SMEMBERS");
    members.arg(table_key(core, exchange));
    let answer = core.link.call("read an exchange's queues", &members).await?;
    // A set has no order of its own.
    let mut bindings: Vec<Binding> = texts(answer)
        .iter()
        .filter_map(|member| Binding::of_member(exchange, member, None))
        .collect();
    bindings.sort();
    Ok(bindings)
}

/// Writes bindings as kombu 5.7 does for queues that do not expire (wire specification 2.3).
pub(super) async fn bind(core: &Core, bindings: &[Binding]) -> Result<(), StoreError> {
    let mut tables = Tables::default();
    let mut pipeline = Pipeline::new();
    for binding in bindings {
        let Binding { exchange, kind, queue, .. } = binding;
        check_name("exchange", exchange)?;
        check_name("routing key", &binding.routing_key)?;
        if *kind == ExchangeKind::Fanout {
            let text = format!(
                "queue {queue} cannot be bound to the fanout exchange {exchange}: on Redis that is \
                 PUB/SUB, which keeps nothing for a worker that is away"
            );
            return Err(StoreError::invalid(text)
                .hint("bind it to a topic exchange with the key #, which loses nothing"));
        }
        let table = tables.of(core, exchange).await?;
        if let Some(other) = table.iter().find(|other| other.kind != *kind) {
            // Nobody has said how this queue is bound: then others know better.
            if *binding == Binding::own(queue) {
                tracing::debug!(%queue, "the exchange of its name is a topic exchange");
                continue;
            }
            let text = format!(
                "queue {queue} cannot be bound to exchange {exchange}, a {kind}: queue {} is bound \
                 to it as to a {}",
                other.queue, other.kind
            );
            return Err(StoreError::new(ErrorKind::Conflict, text).hint(format!(
                "give the exchange one type everywhere, and delete what is left with DEL {0} {0}",
                table_key(core, exchange)
            )));
        }
        let member = binding.member();
        // The sweep of kombu 5.7 keeps the table while this one has members.
        let permanent = format!("{}_kombu.binding_permanent.{exchange}", core.keys.prefix);
        pipeline.cmd("SADD").arg(permanent).arg(&member);
        pipeline.cmd("SADD").arg(table_key(core, exchange)).arg(&member);
    }
    core.link.pipeline("bind queues to exchanges", &pipeline).await.map(drop)
}

/// All bindings of the database, in order.
pub(super) async fn all(core: &Core) -> Result<Vec<Binding>, StoreError> {
    let start = table_key(core, "");
    let mut pattern = String::new();
    for c in start.chars() {
        if r"*?[]\^-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let answer = core.link.call("look for exchanges", &scan).await?;
        let Answer::Array(parts) = answer else { break };
        let mut parts = parts.into_iter();
        if let Some(Answer::BulkString(next)) = parts.next() {
            cursor = String::from_utf8_lossy(&next).into_owned();
        }
        for key in parts.next().map(texts).unwrap_or_default() {
            let exchange = key.strip_prefix(&start);
            if let Some(exchange) = exchange.filter(|name| !is_machinery(name)) {
                found.extend(table(core, exchange).await?);
            }
        }
        if cursor == "0" || found.len() > LISTED_MAX {
            break;
        }
    }
    found.sort();
    // A key may be found twice.
    found.dedup();
    Ok(found)
}

/// Exchanges of remote control and events, which carry no tasks.
fn is_machinery(exchange: &str) -> bool {
    exchange.ends_with(CONTROL_EXCHANGE) || exchange == "celeryev"
}

/// Turns what is for exchanges into messages for queues; only what is for a fanout is left. Returns to
/// which place of `routed` each of the added messages belongs.
///
/// # Errors
/// `NotFound` for a message that no queue takes, `Invalid` for a unique one that several take.
pub(super) async fn route(
    core: &Core,
    tables: &mut Tables,
    plan: &mut Plan,
) -> Result<Vec<usize>, StoreError> {
    let mut places = Vec::new();
    for (place, routed) in std::mem::take(&mut plan.routed).into_iter().enumerate() {
        let Exchange { name, kind, routing_key } = &routed.exchange;
        let unique = Unique::of(&routed.message.headers).is_some();
        if *kind == ExchangeKind::Fanout {
            one_only(unique, name)?;
            plan.routed.push(routed);
            continue;
        }
        let queues = tables.receivers(core, name, routing_key).await?;
        if queues.is_empty() {
            let text =
                format!("exchange {name:?} gives the routing key {routing_key:?} to no queue");
            return Err(StoreError::new(ErrorKind::NotFound, text).hint(
                "start a worker that consumes such a queue, or declare the queue in [task_queues]; \
                 `celeriac list bindings` shows what is bound",
            ));
        }
        one_only(unique && queues.len() > 1, name)?;
        for queue in queues {
            places.push(place);
            plan.publish.push(Outgoing::new(queue, routed.message.clone()));
        }
    }
    Ok(places)
}

fn one_only(several: bool, exchange: &str) -> Result<(), StoreError> {
    if several {
        let text = format!("a unique message cannot go to several queues of exchange {exchange:?}");
        return Err(StoreError::invalid(text).hint("send it to a queue, or drop `unique`"));
    }
    Ok(())
}

/// A fanout as kombu publishes it (wire specification 2.10): channel and payload.
pub(super) fn broadcast(core: &Core, routed: &Routed) -> (String, Vec<u8>) {
    let Exchange { name, routing_key, .. } = &routed.exchange;
    let slash = if routing_key.is_empty() { "" } else { "/" };
    let mut message: Message = routed.message.clone();
    let properties = &mut message.properties;
    if !properties.as_map().contains_key("body_encoding") {
        properties.set_body_encoding("base64");
    }
    properties.set_delivery_tag(&celeriac_core::clock::task_id(&*core.clock, &*core.entropy));
    (channel(core, &format!("{name}{slash}{routing_key}")), Envelope::new(message).to_bytes())
}
