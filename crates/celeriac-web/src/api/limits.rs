//! Looks at limits and pauses, sets and lifts them.

use super::send::checked;
use crate::extract::{Document, Json};
use crate::problem::Problem;
use crate::schema::{LimitList, LimitRequest, PauseList, PauseTarget, TargetDeed, TargetRequest};
use crate::server::Shared;
use axum::extract::State;
use celeriac_core::document::{self, object};
use celeriac_core::operate;
use celeriac_core::throttle::{LimitRule, RATES_MAX, RuleOrigin, Target, parse_rates};
use celeriac_wire::Value;
use std::sync::Arc;

/// The longest reason of a pause, in bytes.
const REASON_BYTES_MAX: usize = 4000;

/// Refuses a reason that nobody reads to its end.
pub(super) fn reason(text: &str) -> Result<(), Problem> {
    if text.len() > REASON_BYTES_MAX {
        return Err(Problem::invalid(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn target(kind: &str, name: &str) -> Result<Target, Problem> {
    let target = Target::named(kind, name).map_err(Problem::invalid)?;
    if target != Target::Everything {
        checked("name", name)?;
    }
    Ok(target)
}

fn deed(target: &Target, note: &str) -> Document {
    let mut fields = document::target(target);
    fields.insert("note", note);
    Document::ok(Value::Object(fields))
}

/// List pauses
#[utoipa::path(
    get, path = "/api/v1/pauses", tag = "limits", security(("token" = ["viewer"])),
    responses((status = 200, description = "What is paused", body = PauseList))
)]
pub(crate) async fn pauses(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    let pauses = shared.parts.store.pauses().await?;
    let items = pauses.iter().map(document::pause).collect();
    Ok(Document::ok(object([("items", Value::Array(items))])))
}

/// Pause a queue, a task, a key or everything
///
/// No worker takes such messages; what runs goes on. Workers that start later keep the pause too.
#[utoipa::path(
    post, path = "/api/v1/pauses", tag = "limits", security(("token" = ["operator"])),
    request_body = PauseTarget,
    responses((status = 200, description = "It is paused", body = TargetDeed))
)]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Json { value: request, .. }: Json<PauseTarget>,
) -> Result<Document, Problem> {
    reason(&request.reason)?;
    let target = target(&request.kind, &request.name)?.pausable().map_err(Problem::invalid)?;
    shared.parts.store.pause(&target, &request.reason).await?;
    Ok(deed(&target, "is paused"))
}

/// Resume what was paused
#[utoipa::path(
    post, path = "/api/v1/pauses/resume", tag = "limits", security(("token" = ["operator"])),
    request_body = TargetRequest,
    responses((status = 200, description = "It is not paused", body = TargetDeed))
)]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Json { value: request, .. }: Json<TargetRequest>,
) -> Result<Document, Problem> {
    let target = target(&request.kind, &request.name)?.pausable().map_err(Problem::invalid)?;
    if !shared.parts.store.resume(&target).await? {
        return Err(Problem::conflict(format!("{target} is not paused")));
    }
    Ok(deed(&target, "goes on"))
}

/// List limits
///
/// With what runs under them.
#[utoipa::path(
    get, path = "/api/v1/limits", tag = "limits", security(("token" = ["viewer"])),
    responses((status = 200, description = "The limits", body = LimitList))
)]
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    let limits = shared.parts.store.limits_in_force().await?;
    let items = limits.iter().map(document::limit).collect();
    Ok(Document::ok(object([("items", Value::Array(items))])))
}

/// Limit a queue, a task, a key or everything
///
/// Acts at once, in all workers of celeriac together; it stands before a limit that the application states.
#[utoipa::path(
    post, path = "/api/v1/limits", tag = "limits", security(("token" = ["operator"])),
    request_body = LimitRequest,
    responses((status = 200, description = "It is limited", body = TargetDeed))
)]
pub(crate) async fn set(
    State(shared): State<Arc<Shared>>,
    Json { value: request, .. }: Json<LimitRequest>,
) -> Result<Document, Problem> {
    let target = target(&request.kind, &request.name)?;
    let rates = match request.rates.len() {
        0 => Vec::new(),
        count if count > RATES_MAX => {
            return Err(Problem::invalid(format!("at most {RATES_MAX} rates hold together")));
        }
        _ => parse_rates(&request.rates.join(",")).map_err(Problem::invalid)?,
    };
    let rule = LimitRule {
        target: target.clone(),
        per_key: request.per_key,
        rates,
        concurrency: request.concurrency,
        origin: RuleOrigin::Operator,
    };
    operate::set_limit(&*shared.parts.store, rule).await?;
    Ok(deed(&target, "is limited"))
}

/// Take a limit away
///
/// One that the application states holds again.
#[utoipa::path(
    post, path = "/api/v1/limits/remove", tag = "limits", security(("token" = ["operator"])),
    request_body = TargetRequest,
    responses((status = 200, description = "The limit is gone", body = TargetDeed))
)]
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    Json { value: request, .. }: Json<TargetRequest>,
) -> Result<Document, Problem> {
    let target = target(&request.kind, &request.name)?;
    if !shared.parts.store.remove_limit(&target, RuleOrigin::Operator).await? {
        return Err(Problem::conflict(format!("no limit was set for {target}"))
            .hint("limits that the application states change with the application"));
    }
    Ok(deed(&target, "has no limit that an operator set"))
}
