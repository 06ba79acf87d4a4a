//! What follows the end of a task, and the end of a chord.

use super::{Lineage, NESTING_MAX, Sender, apply};
use crate::record::Recorder;
use crate::store::{ChordDone, ChordPart, ChordWatch, Plan};
use crate::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::trail::{child, children_of};
use celeriac_wire::{
    Embed, ExceptionInfo, FieldError, Headers, Signature, SignatureKind, State, Value,
};

/// What follows a success.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// What is written.
    pub plan: Plan,
    /// What is sent, as Celery lists it: the `children` of the task's result.
    pub children: Vec<Value>,
}

impl Followed {
    fn send(
        &mut self,
        next: Signature,
        value: &Value,
        lineage: Lineage<'_>,
        sender: &mut Sender<'_>,
    ) -> Result<(), FieldError> {
        let is_task = !matches!(
            next.kind(),
            SignatureKind::Chain | SignatureKind::Group | SignatureKind::Chord
        );
        let applied = apply(next, std::slice::from_ref(value), lineage, sender)?;
        match applied.task_id.as_deref().filter(|_| is_task) {
            // The last step of a chain in a header has a group, and is none.
            Some(id) => self.children.push(child(id)),
            None => self.children.extend(children_of(&applied.plan)),
        }
        self.plan.extend(applied.plan);
        Ok(())
    }
}

/// What follows success: callbacks, the next step of the chain, the chord part (5.10 step 4).
///
/// # Errors
/// A malformed signature in the embed; the task counts as failed then, as in Celery.
pub fn after_success(
    headers: &Headers,
    embed: &Embed,
    value: &Value,
    sender: &mut Sender<'_>,
) -> Result<Followed, FieldError> {
    let id = headers.id().unwrap_or_default();
    let trace = TraceContext::of_run(headers);
    let lineage = after(headers, id, trace.as_ref());
    let mut followed = Followed::default();
    for callback in together(embed.callbacks()?) {
        followed.send(callback, value, lineage, sender)?;
    }
    let mut chain = embed.chain()?;
    if let Some(mut next) = chain.pop() {
        if !chain.is_empty() {
            let rest: Vec<Value> =
                chain.into_iter().map(|step| Value::Object(step.into_map())).collect();
            next.options_mut().insert("chain", rest);
        }
        followed.send(next, value, lineage, sender)?;
    }
    let part = part_of(headers, embed.chord()?, State::Success, value.clone());
    followed.plan.parts.extend(part);
    Ok(followed)
}

/// Several callbacks: groups on their own, and then all others as one group (`trace.py` 5.7).
fn together(callbacks: Vec<Signature>) -> Vec<Signature> {
    if callbacks.len() < 2 {
        return callbacks;
    }
    let (mut all, others): (Vec<_>, Vec<_>) =
        callbacks.into_iter().partition(|one| one.kind() == SignatureKind::Group);
    if !others.is_empty() {
        all.push(Signature::group(others));
    }
    all
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
        plan.extend(call_errbacks(embed.errbacks().unwrap_or_default(), Some(id), lineage, sender));
    }
    plan
}

/// Calls errbacks with the id of what has failed, as members of one group (5.7).
fn call_errbacks(
    errbacks: Vec<Signature>,
    id: Option<&str>,
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
) -> Plan {
    let mut plan = Plan::default();
    if errbacks.is_empty() {
        return plan;
    }
    let group = (sender.new_id)();
    for (index, mut errback) in errbacks.into_iter().enumerate() {
        errback.options_mut().insert("group_id", group.as_str());
        errback.options_mut().insert("group_index", index as i64);
        // An errback that cannot be sent must not undo the failure it reports.
        let failed = id.map_or(Value::Null, Value::from);
        if let Ok(applied) = apply(errback, &[failed], lineage, sender) {
            plan.extend(applied.plan);
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
        body: rooted(traced(body?, headers), headers),
    })
}

/// What is remembered of a chord whose member Celery's tracer has counted: its body, should it never be
/// complete.
pub fn watch_of(headers: &Headers, embed: &Embed) -> Option<ChordWatch> {
    let (group, body) = (headers.group()?.to_owned(), embed.chord().ok()??);
    Some(ChordWatch { group, body: rooted(traced(body, headers), headers) })
}

/// The body in the workflow of a member of the header, if it is not in one already.
fn rooted(mut body: Signature, headers: &Headers) -> Signature {
    if body.option("root_id").is_null()
        && let Some(root) = headers.root_id()
    {
        body.options_mut().insert("root_id", root);
    }
    body
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
    let (exception, cause) = match failed {
        None => {
            let lineage = Lineage { parent_id: Some(&first.task_id), ..Lineage::default() };
            match apply(body.clone(), &[results_of(done)], lineage, sender) {
                Ok(applied) => return applied.plan,
                Err(error) => (chord_error(format!("the body cannot be sent: {error}")), None),
            }
        }
        Some(part) => {
            let cause = ExceptionInfo::from_value(&part.result).ok();
            let text = match &cause {
                Some(cause) => cause.summary(),
                None => celeriac_wire::value_repr(&part.result),
            };
            (chord_error(format!("Dependency {} raised {text}", part.task_id)), cause)
        }
    };
    if body.kind() == SignatureKind::Group {
        let exception = cause.unwrap_or(exception);
        return fail_group_body(&body, &exception, recorder, sender);
    }
    fail_body(&body, &exception, recorder, sender)
}

/// The results of a header: in the order of its members, or nested as its sender has said.
fn results_of(done: &ChordDone) -> Value {
    let nested = done.layout.as_ref().and_then(|layout| {
        let mut used = 0;
        let results = nest(layout, &done.parts, &mut used, 0)?;
        (used == done.parts.len()).then_some(results)
    });
    let flat = || done.parts.iter().map(|part| part.result.clone()).collect();
    nested.unwrap_or_else(|| Value::Array(flat()))
}

/// The results of a group's result tuple, `[[id, parent], [member, …]]`, or that of a task's
/// `[[id, parent], null]`; `None` if one is not there.
fn nest(tuple: &Value, parts: &[ChordPart], used: &mut usize, depth: usize) -> Option<Value> {
    let [own, members] = tuple.as_array()? else { return None };
    if depth > NESTING_MAX {
        return None;
    }
    if let Some(members) = members.as_array() {
        let inner = members.iter().map(|member| nest(member, parts, used, depth + 1));
        return Some(Value::Array(inner.collect::<Option<_>>()?));
    }
    let id = own.as_array().and_then(<[Value]>::first).unwrap_or(own).as_str()?;
    *used += 1;
    parts.iter().find(|part| part.task_id == id).map(|part| part.result.clone())
}

/// How many members a chord's saved header names, where more are named than have ended. Celery 5.4 has a
/// group at the end of a header's chain set the size of the whole chord to its own (`group._apply_tasks`),
/// and waits for the others when it joins the results.
pub fn members_named(done: &ChordDone) -> Option<u32> {
    let named = leaves(done.layout.as_ref()?, 0)?;
    u32::try_from(named).ok().filter(|_| named > done.parts.len())
}

/// The tasks in a result tuple; `None` if it is none, or nests too deep.
fn leaves(tuple: &Value, depth: usize) -> Option<usize> {
    let [_own, members] = tuple.as_array()? else { return None };
    match members.as_array() {
        Some(_) if depth > NESTING_MAX => None,
        Some(members) => members.iter().map(|member| leaves(member, depth + 1)).sum(),
        None => Some(1),
    }
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
    let id = body.task_id();
    let errbacks = body.link_errors().unwrap_or_default();
    let called = call_errbacks(errbacks, id, of_body(id), sender);
    let children = children_of(&called);
    if let Some(own) =
        plan.results.first_mut().filter(|own| id.is_some() && own.meta.task_id() == id)
        && !children.is_empty()
    {
        own.meta.set_children(Some(children));
    }
    plan.extend(called);
    plan
}

/// A body that never ran is its own root for its errbacks (`chord_error_from_stack` 5.7).
fn of_body(id: Option<&str>) -> Lineage<'_> {
    Lineage { root_id: id, parent_id: id, ..Lineage::default() }
}

/// Each member of a group that is a body fails with what failed in the header, and calls its own
/// errbacks and those of the group (`_handle_group_chord_error` 5.7).
fn fail_group_body(
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
    let shared = body.link_errors().unwrap_or_default();
    for member in body.tasks().unwrap_or_default() {
        let mut errbacks = member.link_errors().unwrap_or_default();
        errbacks.extend(
            shared.iter().filter(|one| !errbacks.contains(one)).cloned().collect::<Vec<_>>(),
        );
        let id = member.task_id();
        plan.extend(call_errbacks(errbacks, id, of_body(id), sender));
    }
    plan
}
