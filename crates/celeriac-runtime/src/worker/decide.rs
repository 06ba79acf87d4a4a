//! What becomes of a message before it runs: revoked? expired? readable? known? Pure.

use super::orders::Orders;
use crate::handler::Registry;
use celeriac_core::conclude::is_expired;
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::Failure;
use celeriac_core::store::Delivery;
use celeriac_wire::{Body, ExceptionInfo, Value};
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
    /// It killed its worker too often.
    Poison,
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
pub fn decide(
    delivery: &Delivery,
    registry: &Registry,
    orders: &Orders,
    now: Timestamp,
) -> Decision {
    let message = &delivery.message;
    if let Err(error) = message.check() {
        // Celery's worker fails to unpack such a limit; running without it would be worse.
        let reason = match message.headers.time_limits() {
            Err(_) => DeadReason::LimitNotEnforceable,
            Ok(_) => DeadReason::Undecodable,
        };
        let text = format!("the message cannot be understood: {error}");
        let refusal = Refusal::dead(reason, "celery.exceptions", "InvalidTaskError", text);
        return Decision::Refuse(Body::default(), refusal);
    }
    let body = match readable(delivery) {
        Ok(body) => body,
        Err(refusal) => return Decision::Refuse(Body::default(), refusal),
    };
    if delivery.revoked || orders.is_revoked(&message.headers) {
        return Decision::Refuse(body, Refusal::Revoked);
    }
    if is_expired(message.headers.expires().ok().flatten(), now) {
        return Decision::Refuse(body, Refusal::Expired);
    }
    let name = message.headers.task().unwrap_or_default();
    let Some(handler) = registry.find(name) else {
        let exception = ExceptionInfo::not_registered(name);
        let refusal = Refusal::Dead(DeadReason::UnknownTask, Failure::permanent(exception));
        return Decision::Refuse(body, refusal);
    };
    // They parse, or the check above would have failed.
    let limits = message.headers.time_limits().unwrap_or_default();
    let own = orders.limits(name, handler.policy());
    Decision::Run {
        body,
        soft: limits.soft.or(own.soft).filter(|limit| !limit.is_zero()),
        hard: limits.hard.or(own.hard).filter(|limit| !limit.is_zero()),
    }
}

/// Decodes the body, if its type is one that native tasks accept.
fn readable(delivery: &Delivery) -> Result<Body, Refusal> {
    let message = &delivery.message;
    if let Some(compression) = message.headers.compression() {
        return Err(Refusal::dead(
            DeadReason::Disallowed,
            "kombu.exceptions",
            "ContentDisallowed",
            format!("the body is compressed with {compression}, which this worker does not read"),
        ));
    }
    if message.content_type != "application/json" {
        return Err(Refusal::dead(
            DeadReason::Disallowed,
            "kombu.exceptions",
            "ContentDisallowed",
            format!(
                "the body has content type {}, native tasks accept application/json",
                message.content_type
            ),
        ));
    }
    Body::parse(&message.body).map_err(|error| {
        Refusal::dead(
            DeadReason::Undecodable,
            "kombu.exceptions",
            "DecodeError",
            format!("the body cannot be decoded: {error}"),
        )
    })
}
