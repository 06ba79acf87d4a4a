//! What follows the end of a task, and the end of a chord.

use super::{Lineage, NESTING_MAX, Sender, apply};
use crate::record::Recorder;
use crate::store::{ChordDone, ChordPart, Plan};
use crate::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use celeriac_wire::{
    Embed, ExceptionInfo, FieldError, Headers, Signature, SignatureKind, State, Value,
};

/// What follows success: callbacks, the next step of the chain, the chord part (5.10 step 4).
///
/// # Errors
/// A malformed signature in the embed; the task counts as failed then, as in Celery.
pub fn after_success(
    headers: &Headers,
    embed: &Embed,
    value: &Value,
    sender: &mut Sender<'_>,
) -> Result<Plan, FieldError> {
    let id = headers.id().unwrap_or_default();
    let trace = TraceContext::of_run(headers);
    let lineage = after(headers, id, trace.as_ref());
    let args = [value.clone()];
    let mut plan = Plan::default();
    for callback in embed.callbacks()? {
        plan.extend(apply(callback, &args, lineage, sender)?.plan);
    }
    let mut chain = embed.chain()?;
    if let Some(mut next) = chain.pop() {
        if !chain.is_empty() {
            let rest: Vec<Value> =
                chain.into_iter().map(|step| Value::Object(step.into_map())).collect();
            next.options_mut().insert("chain", rest);
        }
        plan.extend(apply(next, &args, lineage, sender)?.plan);
    }
    plan.parts.extend(part_of(headers, embed.chord()?, State::Success, value.clone()));
    Ok(plan)
}

/// What a task sends when it has ended.
fn after<'a>(headers: &'a Headers, id: &'a str, trace: Option<&'a TraceContext>) -> Lineage<'a> {
    Lineage { root_id: headers.root_id().or(Some(id)), parent_id: Some(id), trace }
}

/// What follows a final failure or a revocation (5.10 step 6): the chord part, the rest of the
/// chain marked alike, and for a failure the errbacks.
pub fn after_failure(
    headers: &Headers,
    embed: &Embed,
    state: &State,
    exception: &ExceptionInfo,
    recorder: &Recorder<'_>,
    sender: &mut Sender<'_>,
) -> Plan {
    let id = headers.id().unwrap_or_default();
    let mut plan = Plan::default();
    let chord = embed.chord().ok().flatten();
    plan.parts.extend(part_of(headers, chord, state.clone(), exception.to_value()));
    for step in embed.chain().unwrap_or_default() {
        plan.extend(fail_step(&step, state, exception, recorder, 0));
    }
    if *state == State::Failure {
        let trace = TraceContext::of_run(headers);
        let lineage = after(headers, id, trace.as_ref());
        for errback in embed.errbacks().unwrap_or_default() {
            // An errback that cannot be sent must not undo the failure it reports.
            if let Ok(applied) = apply(errback, &[Value::from(id)], lineage, sender) {
                plan.extend(applied.plan);
            }
        }
    }
    plan
}

/// Marks a step that will never run, and what hangs on it.
///
/// Celery stores only failures here and leaves the rest of a revoked chain PENDING for ever; a
/// waiting client would hang, so revocation is passed on as well.
fn fail_step(
    step: &Signature,
    state: &State,
    exception: &ExceptionInfo,
    recorder: &Recorder<'_>,
    depth: usize,
) -> Plan {
    let mut plan = Plan::default();
    if depth > NESTING_MAX {
        return plan;
    }
    if let Some(id) = step.task_id() {
        plan.results.push(recorder.failed(id, step.task(), state.clone(), exception));
        let chord = Signature::from_value(step.option("chord").clone()).ok();
        if let (Some(body), Some(group)) = (chord, step.group_id()) {
            plan.parts.push(ChordPart {
                group: group.to_owned(),
                index: step.option("group_index").as_i64().unwrap_or(0),
                task_id: id.to_owned(),
                state: state.clone(),
                result: exception.to_value(),
                body,
            });
        }
    }
    let inner = match step.kind() {
        SignatureKind::Chord => step.chord_body().ok().flatten().into_iter().collect(),
        SignatureKind::Chain | SignatureKind::Group => step.tasks().unwrap_or_default(),
        _ => Vec::new(),
    };
    for step in inner {
        plan.extend(fail_step(&step, state, exception, recorder, depth + 1));
    }
    plan
}

fn part_of(
    headers: &Headers,
    body: Option<Signature>,
    state: State,
    result: Value,
) -> Option<ChordPart> {
    Some(ChordPart {
        group: headers.group()?.to_owned(),
        index: headers.group_index().unwrap_or(0),
        task_id: headers.id()?.to_owned(),
        state,
        result,
        body: traced(body?, headers),
    })
}

/// The body with the trace of a member of the header: whoever sends the body knows no other message.
fn traced(mut body: Signature, headers: &Headers) -> Signature {
    let Some(trace) = TraceContext::of_run(headers) else { return body };
    let mut custom = body.option("headers").as_object().cloned().unwrap_or_default();
    if custom.contains_key(TRACEPARENT) {
        return body;
    }
    custom.insert(TRACEPARENT, trace.to_string());
    if let Some(state) = trace.state() {
        custom.insert(TRACESTATE, state);
    }
    body.options_mut().insert("headers", Value::Object(custom));
    body
}

/// What follows a complete chord: its body, or its body's failure (4.8 step 2, 5.10 step 8).
pub fn after_chord(done: &ChordDone, recorder: &Recorder<'_>, sender: &mut Sender<'_>) -> Plan {
    let Some(first) = done.parts.first() else {
        return Plan::default();
    };
    let body = first.body.clone();
    let failed = done.parts.iter().find(|part| part.state != State::Success);
    let exception = match failed {
        None => {
            let results: Vec<Value> = done.parts.iter().map(|part| part.result.clone()).collect();
            let lineage = Lineage { parent_id: Some(&first.task_id), ..Lineage::default() };
            match apply(body.clone(), &[Value::Array(results)], lineage, sender) {
                Ok(applied) => return applied.plan,
                Err(error) => chord_error(format!("the body cannot be sent: {error}")),
            }
        }
        Some(part) => {
            let cause = ExceptionInfo::from_value(&part.result)
                .map_or_else(|_| celeriac_wire::value_repr(&part.result), |cause| cause.summary());
            chord_error(format!("Dependency {} raised {cause}", part.task_id))
        }
    };
    fail_body(&body, &exception, recorder, sender)
}

fn chord_error(text: String) -> ExceptionInfo {
    ExceptionInfo::new("celery.exceptions", "ChordError", vec![Value::from(text)])
}

fn fail_body(
    body: &Signature,
    exception: &ExceptionInfo,
    recorder: &Recorder<'_>,
    sender: &mut Sender<'_>,
) -> Plan {
    let mut plan = fail_step(body, &State::Failure, exception, recorder, 0);
    for step in body.option("chain").as_array().unwrap_or_default() {
        if let Ok(step) = Signature::from_value(step.clone()) {
            plan.extend(fail_step(&step, &State::Failure, exception, recorder, 0));
        }
    }
    let id = body.task_id().unwrap_or_default();
    let root_id = body.option("root_id").as_str();
    let lineage = Lineage { root_id, parent_id: Some(id), ..Lineage::default() };
    for errback in body.link_errors().unwrap_or_default() {
        // As above: the report must not undo the failure.
        if let Ok(applied) = apply(errback, &[Value::from(id)], lineage, sender) {
            plan.extend(applied.plan);
        }
    }
    plan
}
