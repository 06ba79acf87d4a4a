//! What becomes of a message before it runs: revoked? expired? readable? known? Pure.

use super::orders::Orders;
use crate::handler::Registry;
use celeriac_core::conclude::is_expired;
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::Failure;
use celeriac_core::retry::RetryOverride;
use celeriac_core::store::Delivery;
use celeriac_wire::{Body, ExceptionInfo, Message, Value, codec};
use jiff::Timestamp;
use std::time::Duration;

/// Run it or not.
#[derive(Debug)]
pub enum Decision {
    /// Run it with these limits.
    Run {
        /// The decoded body.
        body: Body,
        /// The soft time limit.
        soft: Option<Duration>,
        /// The hard time limit.
        hard: Option<Duration>,
    },
    /// No task of its name is registered here.
    Unknown(Body),
    /// Settle it at once; the body is empty when it cannot be read.
    Refuse(Body, Refusal),
}

/// Why a message does not run.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It was revoked while it waited.
    Revoked,
    /// It came too late.
    Expired,
    /// It is of an older protocol, and its time has not come: it waits in the store.
    Early,
    /// It killed its worker too often.
    Poison,
    /// Its worker died after it was acknowledged.
    Lost,
    /// It can never run here: it becomes a dead letter.
    Dead(DeadReason, Failure),
}

impl Refusal {
    fn dead(reason: DeadReason, exc_module: &str, exc_type: &str, text: String) -> Self {
        let exception = ExceptionInfo::new(exc_module, exc_type, vec![Value::from(text)]);
        Self::Dead(reason, Failure::permanent(exception))
    }
}

/// Decides in Celery's order (wire specification 5.9): decode, revoked, expired, known.
///
/// A message of protocol 1, or a hybrid, is replaced by what it is in protocol 2 (1.5).
pub fn decide(
    delivery: &mut Delivery,
    registry: &Registry,
    orders: &Orders,
    now: Timestamp,
) -> Decision {
    let mut read = None;
    // An older message has in its body what is looked at next.
    if !delivery.message.is_protocol_2() {
        match open(delivery, registry, now) {
            Ok(opened) => read = Some(opened),
            Err(refusal) => return Decision::Refuse(Body::default(), refusal),
        }
    }
    if let Err(refusal) = check(&delivery.message) {
        return Decision::Refuse(Body::default(), refusal);
    }
    let opened = match read {
        Some(opened) => Ok(opened),
        // Whoever runs it reads it.
        None if registry.takes_bytes(&delivery.message) => Ok(Opened::default()),
        None => open(delivery, registry, now),
    };
    let Opened { body, upgraded } = match opened {
        Ok(opened) => opened,
        Err(refusal) => return Decision::Refuse(Body::default(), refusal),
    };
    if let Err(refusal) = check(&delivery.message) {
        return Decision::Refuse(body, refusal);
    }
    let headers = &delivery.message.headers;
    if delivery.revoked || orders.is_revoked(headers) {
        return Decision::Refuse(body, Refusal::Revoked);
    }
    if is_expired(headers.expires().ok().flatten(), now) {
        return Decision::Refuse(body, Refusal::Expired);
    }
    // The store could not see the time: it stood in the body.
    if upgraded && headers.eta().ok().flatten().is_some_and(|eta| eta > now) {
        return Decision::Refuse(body, Refusal::Early);
    }
    let name = headers.task().unwrap_or_default();
    let Some(handler) = registry.find(name).filter(|handler| handler.knows(&body)) else {
        return Decision::Unknown(body);
    };
    if let (false, Err(text)) = (handler.takes_bytes(), RetryOverride::of(headers)) {
        let refusal = Refusal::dead(
            DeadReason::Undecodable,
            "celery.exceptions",
            "InvalidTaskError",
            format!("the message cannot be understood: {text}"),
        );
        return Decision::Refuse(body, refusal);
    }
    // They parse, or the check above would have failed.
    let limits = headers.time_limits().unwrap_or_default();
    let own = orders.limits(name, handler.policy());
    Decision::Run {
        body,
        soft: limits.soft.or(own.soft).filter(|limit| !limit.is_zero()),
        hard: limits.hard.or(own.hard).filter(|limit| !limit.is_zero()),
    }
}

fn check(message: &Message) -> Result<(), Refusal> {
    message.check().map_err(|error| {
        // Celery's worker fails to unpack such a limit; running without it would be worse.
        let reason = match message.headers.time_limits() {
            Err(_) => DeadReason::LimitNotEnforceable,
            Ok(_) => DeadReason::Undecodable,
        };
        let text = format!("the message cannot be understood: {error}");
        Refusal::dead(reason, "celery.exceptions", "InvalidTaskError", text)
    })
}

#[derive(Default)]
struct Opened {
    body: Body,
    upgraded: bool,
}

/// Decodes the body, if its type is one that native tasks accept.
fn open(delivery: &mut Delivery, registry: &Registry, now: Timestamp) -> Result<Opened, Refusal> {
    let was_sealed = registry.seals().open(&mut delivery.message, now).map_err(|text| {
        Refusal::dead(DeadReason::Disallowed, "celery.exceptions", "SecurityError", text)
    })?;
    // Whoever sealed it answers for its type (celery 5.7.0 security/serialization.py `force=True`).
    let accept = if was_sealed { codec::Accept::default() } else { registry.accept() };
    let read = codec::read(&delivery.message, accept).map_err(|error| {
        let (reason, name, text) = if error.is_disallowed() {
            (DeadReason::Disallowed, "ContentDisallowed", error.to_string())
        } else {
            let text = format!("the body cannot be decoded: {error}");
            (DeadReason::Undecodable, "DecodeError", text)
        };
        Refusal::dead(reason, "kombu.exceptions", name, text)
    })?;
    let upgraded = read.upgraded.is_some();
    if let Some(message) = read.upgraded {
        delivery.message = message;
    }
    Ok(Opened { body: read.body, upgraded })
}
