//! Answers `ping` of Celery's remote control (celery/beat.py 5.7, `BeatPidbox`), so that `celery inspect
//! ping -d celerybeat@host` tells whether a beat works.
//!
//! Every other request is left to workers. A beat that has not done its work for some time stays silent,
//! which is the only thing that a probe notices.

use super::{BeatParts, BeatStatus};
use celeriac_core::StoreError;
use celeriac_core::clock::between;
use celeriac_core::control::is_addressed;
use celeriac_core::store::Requests;
use celeriac_wire::{ControlReply, ControlRequest, Map, Value};
use std::time::Duration;
use tokio::sync::watch;

/// How long a failed listener waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until it is dropped. `age_max`: how long ago the beat may have worked; zero for any time.
pub(super) async fn answer(
    parts: &BeatParts,
    age_max: Duration,
    status: watch::Receiver<BeatStatus>,
) {
    let node = parts.name.split(' ').next().unwrap_or_default();
    loop {
        let heard = match parts.store.listen(node).await {
            Ok(mut requests) => listen(parts, node, age_max, &status, &mut *requests).await,
            Err(error) => error,
        };
        tracing::warn!(error = %heard, "beat: remote control is interrupted, listening anew");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Answers until there is nothing to be heard.
async fn listen(
    parts: &BeatParts,
    node: &str,
    age_max: Duration,
    status: &watch::Receiver<BeatStatus>,
    requests: &mut dyn Requests,
) -> StoreError {
    loop {
        let request = match requests.next().await {
            Ok(request) => request,
            Err(error) => return error,
        };
        let is_ours = request.method() == Some("ping") && is_addressed(&request, node) == Ok(true);
        if !is_ours {
            continue;
        }
        let worked = status.borrow().worked_at;
        let age = worked.map(|worked| between(worked, parts.clock.wall()));
        if age.is_none_or(|age| !age_max.is_zero() && age > age_max) {
            let age = age.unwrap_or_default().as_secs_f64();
            tracing::warn!("beat: a ping is not answered, the last look was {age:.1} s ago");
            continue;
        }
        pong(parts, node, &request).await;
    }
}

async fn pong(parts: &BeatParts, node: &str, request: &ControlRequest) {
    let Some(to) = request.reply_to() else { return };
    let pong = Value::Object(Map::from([("ok", Value::from("pong"))]));
    let mut reply = ControlReply::new(request.ticket(), node, pong);
    reply.clock = request.clock + 1;
    if let Err(error) = parts.store.reply(&to, &reply).await {
        tracing::warn!(%error, "beat: cannot reply to a ping");
    }
}
