//! What follows a task: links, chains, groups and chords, as Celery unrolls them.
//!
//! Pure: a signature and the arguments go in, a [`Plan`] of messages, results and chord writes comes
//! out, which a store writes together with the settlement. Sources: wire specification 5.1 to 5.8
//! and 5.10, `celery/canvas.py` and `celery/app/trace.py` 5.7.

mod follow;

pub use follow::{Followed, after_chord, after_failure, after_success, members_named, watch_of};

use crate::clock;
use crate::route::{Address, Encoding, Router};
use crate::store::{ChordStart, Outgoing, Plan, Routed};
use crate::trace::TraceContext;
use celeriac_wire::codec;
use celeriac_wire::{
    Body, DeliveryInfo, Embed, FieldError, Headers, Map, Message, Signature, SignatureKind,
    TimeLimits, Value,
};
use jiff::Timestamp;
use std::time::Duration;

/// Celery's own task that returns what it is given; every worker knows it.
pub const ACCUMULATE: &str = "celery.accumulate";

/// The deepest nesting of groups, chains and chords that is unrolled.
const NESTING_MAX: usize = 64;

/// What a sender must know to turn signatures into messages.
pub struct Sender<'a> {
    /// Chooses the queue of a task that names none.
    pub router: &'a Router,
    /// Makes task and group ids.
    pub new_id: &'a mut dyn FnMut() -> String,
    /// The time of sending.
    pub now: Timestamp,
    /// `gen<pid>@<host>` of the sender, for the header `origin`.
    pub origin: &'a str,
}

impl std::fmt::Debug for Sender<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sender").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Where a message comes from in its workflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lineage<'a> {
    /// The first task of the workflow; a task without one is its own root.
    pub root_id: Option<&'a str>,
    /// The task that sends.
    pub parent_id: Option<&'a str>,
    /// The place in a trace that it is sent from; a call that names one itself keeps it.
    pub trace: Option<&'a TraceContext>,
}

/// A signature turned into messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The messages and chord starts.
    pub plan: Plan,
    /// The id whose result stands for the whole: a task's own, a chain's last, a chord's body.
    /// `None` for a group.
    pub task_id: Option<String>,
    /// The ids of a group's members, in order, and its id.
    pub group: Option<(String, Vec<String>)>,
}

/// Turns a signature, called with `args` before its own, into messages.
///
/// # Errors
/// A field of a wrong type, a signature type that is not supported, or nesting beyond 64 levels;
/// the error names the field.
#[expect(clippy::needless_pass_by_value, reason = "a signature is used up by being sent")]
pub fn apply(
    signature: Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
) -> Result<Applied, FieldError> {
    apply_at(&signature, args, lineage, sender, 0)
}

fn apply_at(
    signature: &Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
    depth: usize,
) -> Result<Applied, FieldError> {
    if depth > NESTING_MAX {
        return Err(FieldError::missing("tasks", "at most 64 levels of nested signatures"));
    }
    let depth = depth + 1;
    match signature.kind() {
        SignatureKind::Chain => apply_chain(signature, args, lineage, sender, depth),
        SignatureKind::Group => apply_group(signature, args, lineage, sender, depth),
        SignatureKind::Chord => apply_chord(signature, args, lineage, sender, depth),
        SignatureKind::Chunks => Err(FieldError::missing(
            "subtask_type",
            "a task, chain, group, chord, map or starmap; split chunks into starmaps at the sender",
        )),
        _ => apply_task(signature, args, lineage, sender),
    }
}

fn apply_task(
    signature: &Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
) -> Result<Applied, FieldError> {
    let name = signature.task().ok_or_else(|| FieldError::missing("task", "the name of a task"))?;
    // What a route gives is given as if the call had said it itself.
    let mut routed = None;
    if sender.router.matching(name).is_some() {
        let options = sender.router.options_of(name, signature.options());
        *routed.insert(signature.clone()).options_mut() = options;
    }
    let signature = routed.as_ref().unwrap_or(signature);
    let id = signature.task_id().map_or_else(|| (sender.new_id)(), str::to_owned);
    let mut all_args = if signature.is_immutable() { Vec::new() } else { args.to_vec() };
    all_args.extend_from_slice(signature.args());
    let mut embed = Embed::new();
    embed.set_callbacks(signature.links()?).set_errbacks(signature.link_errors()?);
    if let Some(chain) = signature.option("chain").as_array().filter(|chain| !chain.is_empty()) {
        embed.insert("chain", chain.to_vec());
    }
    if signature.option("chord").as_object().is_some() {
        embed.insert("chord", signature.option("chord").clone());
    }
    let mut body = Body::new(all_args, signature.kwargs().clone());
    body.embed = embed;
    let mut message = Message::new(name, &id, "");
    message.headers.set_arguments_text(&body.args, &body.kwargs);
    set_headers(&mut message.headers, signature, &id, lineage, sender)?;
    set_properties(&mut message, signature, sender)?;
    encode(&mut message, &body, signature, sender.router.encoding())?;
    let mut plan = Plan::default();
    match sender.router.address(signature.options())? {
        Address::Queue(queue) => {
            set_delivery_info(&mut message, "", queue.as_str());
            plan.publish.push(Outgoing::new(queue, message));
        }
        Address::Exchange(exchange) => {
            set_delivery_info(&mut message, &exchange.name, &exchange.routing_key);
            plan.routed.push(Routed { exchange, message });
        }
    }
    Ok(Applied { plan, task_id: Some(id), group: None })
}

/// Writes where it was published to, as kombu's virtual transports do (2.2).
fn set_delivery_info(message: &mut Message, exchange: &str, routing_key: &str) {
    let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
    message.properties.set_delivery_info(&DeliveryInfo { exchange, routing_key });
}

/// Writes the body as the call says, or the application (Celery's `serializer`, `compression`).
fn encode(
    message: &mut Message,
    body: &Body,
    signature: &Signature,
    default: Encoding,
) -> Result<(), FieldError> {
    let wrong = |name: &str, text: String| {
        FieldError::new(format!("options.{name}"), text, signature.option(name))
    };
    let serializer = match signature.option("serializer").as_str() {
        None => default.serializer,
        Some(name) => name.parse().map_err(|text| wrong("serializer", text))?,
    };
    let compression = match signature.option("compression").as_str() {
        None => default.compression,
        Some(name) => Some(name.parse().map_err(|text| wrong("compression", text))?),
    };
    codec::write(message, body, serializer, compression).map_err(|error| FieldError {
        field: "body".to_owned(),
        expected: "arguments that can be encoded".to_owned(),
        found: error.to_string(),
    })
}

fn set_headers(
    headers: &mut Headers,
    signature: &Signature,
    id: &str,
    lineage: Lineage<'_>,
    sender: &Sender<'_>,
) -> Result<(), FieldError> {
    let text = |name: &str| signature.option(name).as_str();
    headers
        .set_root_id(text("root_id").or(lineage.root_id).unwrap_or(id))
        .set_parent_id(text("parent_id").or(lineage.parent_id))
        .set_group(text("group_id"))
        .set_group_index(signature.option("group_index").as_i64())
        .set_shadow(text("shadow"))
        .set_origin(sender.origin)
        .set_retries(
            signature
                .option("retries")
                .as_u64()
                .map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        )
        .set_ignore_result(Some(signature.option("ignore_result").as_bool().unwrap_or(false)));
    let nesting = signature.option("replaced_task_nesting").as_u64().unwrap_or(0);
    headers.set_replaced_task_nesting(u32::try_from(nesting).unwrap_or(u32::MAX));
    headers.set_eta(instant(signature, "eta", "countdown", sender.now)?);
    headers.set_expires(instant(signature, "expires", "expires", sender.now)?);
    headers.set_time_limits(TimeLimits {
        hard: seconds(signature, "time_limit")?,
        soft: seconds(signature, "soft_time_limit")?,
    });
    if let Some(trace) = lineage.trace {
        trace.write(headers);
    }
    if let Some(custom) = signature.option("headers").as_object() {
        for (name, value) in custom.iter() {
            headers.insert(name, value.clone());
        }
    }
    stamp(headers, signature);
    Ok(())
}

/// Copies stamps: names in `stamped_headers`, values directly in the options (5.8).
fn stamp(headers: &mut Headers, signature: &Signature) {
    let Some(names) = signature.option("stamped_headers").as_array() else {
        return;
    };
    let mut stamps = Map::default();
    for name in names.iter().filter_map(Value::as_str) {
        stamps.insert(name, signature.option(name).clone());
    }
    headers.set_stamps(stamps);
}

/// An instant given as text, or as a number of seconds from now.
fn instant(
    signature: &Signature,
    absolute: &str,
    relative: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, FieldError> {
    if let Some(span) = signature.option(relative).as_f64() {
        return Ok(Some(shift(now, span)));
    }
    match signature.option(absolute) {
        Value::Null => Ok(None),
        value => value
            .as_str()
            .and_then(|text| celeriac_wire::parse_iso(text).ok())
            .map(Some)
            .ok_or_else(|| {
                FieldError::new(format!("options.{absolute}"), "an ISO 8601 instant", value)
            }),
    }
}

/// Moves an instant by a number of seconds, which may be negative (`expires=-5` is legal).
fn shift(now: Timestamp, seconds: f64) -> Timestamp {
    let micros = (seconds * 1e6).clamp(-1e17, 1e17) as i64;
    now.checked_add(jiff::SignedDuration::from_micros(micros)).unwrap_or(Timestamp::MAX)
}

fn seconds(signature: &Signature, name: &str) -> Result<Option<Duration>, FieldError> {
    match signature.option(name) {
        Value::Null => Ok(None),
        value => value
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Some)
            .ok_or_else(|| {
                FieldError::new(format!("options.{name}"), "a number of seconds", value)
            }),
    }
}

fn set_properties(
    message: &mut Message,
    signature: &Signature,
    sender: &Sender<'_>,
) -> Result<(), FieldError> {
    if let Some(priority) = signature.option("priority").as_u64() {
        message.properties.set_priority(u8::try_from(priority).unwrap_or(u8::MAX).min(9));
    } else if let Some(level) = sender.router.default_level() {
        message.properties.set_priority(level.ascending());
    }
    if let Some(reply_to) = signature.option("reply_to").as_str() {
        message.properties.set_reply_to(reply_to);
    }
    let expires = message.headers.expires()?;
    message.properties.set_expiration(expires.map(|expires| clock::between(sender.now, expires)));
    Ok(())
}

/// A chain is one message whose embed carries the rest in reverse (5.3).
fn apply_chain(
    signature: &Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
    depth: usize,
) -> Result<Applied, FieldError> {
    let mut steps = join_groups(splice(signature.tasks()?, depth)?)?;
    let errbacks = signature.link_errors()?;
    inherit_id(signature, steps.last_mut());
    for step in &mut steps {
        fix_id(step, sender);
        for errback in &errbacks {
            *step = step.clone().with_link_error(errback.clone());
        }
    }
    let Some(last) = steps.last_mut() else {
        return Err(FieldError::missing("kwargs.tasks", "at least one task in the chain"));
    };
    for link in signature.links()? {
        *last = last.clone().with_link(link);
    }
    copy_options(signature, last, &["chord", "group_id", "group_index"]);
    let last_id = end_id(last).map(str::to_owned);
    let mut reversed = chain_of(signature);
    let continues = !reversed.is_empty();
    let mut rest = steps.split_off(1);
    let mut first = steps.remove(0);
    copy_options(signature, &mut first, &["countdown", "eta", "root_id", "parent_id"]);
    let alone = rest.is_empty();
    rest.reverse();
    reversed.extend(rest.into_iter().map(|step| Value::Object(step.into_map())));
    if !reversed.is_empty() {
        let mut own = chain_of(&first);
        reversed.append(&mut own);
        first.options_mut().insert("chain", reversed);
    }
    let mut applied = apply_at(&first, args, lineage, sender, depth)?;
    if !continues && !alone {
        applied.task_id = last_id;
    }
    Ok(applied)
}

/// The id whose result ends a step: a chain's is that of its last task, a chord's that of its body,
/// as `freeze` of `celery/canvas.py` 5.7 does it: ids that a client has fixed, and waits for, stand,
/// whatever the id of the composite is (a chord's is the id of its header's group).
///
/// `None` for a group, and for what has no id yet.
fn end_id(step: &Signature) -> Option<&str> {
    end_id_at(step.as_map(), 0)
}

fn end_id_at(step: &Map, depth: usize) -> Option<&str> {
    let kwargs = |name: &str| step.get("kwargs").and_then(|kwargs| kwargs.get(name));
    let end = match step.get("subtask_type").and_then(Value::as_str) {
        Some("group") => return None,
        Some("chord") => kwargs("body"),
        Some("chain") => kwargs("tasks").and_then(Value::as_array).and_then(<[Value]>::last),
        _ => None,
    };
    let end = end.and_then(Value::as_object).filter(|_| depth < NESTING_MAX);
    let own = || step.get("options")?.get("task_id")?.as_str();
    end.and_then(|end| end_id_at(end, depth + 1)).or_else(own)
}

/// Gives the last step the id of the whole, unless its own is fixed.
fn inherit_id(whole: &Signature, last: Option<&mut Signature>) {
    if let Some((last, id)) = last.zip(whole.task_id())
        && end_id(last).is_none()
    {
        set_option(last, "task_id", id);
    }
}

/// Gives a step the id that its result will have, unless it has one.
fn fix_id(step: &mut Signature, sender: &mut Sender<'_>) {
    if step.kind() != SignatureKind::Group && end_id(step).is_none() {
        let id = (sender.new_id)();
        set_option(step, "task_id", id.as_str());
    }
}

/// Puts the steps of nested chains in line.
fn splice(steps: Vec<Signature>, depth: usize) -> Result<Vec<Signature>, FieldError> {
    if depth > NESTING_MAX {
        return Err(FieldError::missing("tasks", "at most 64 levels of nested signatures"));
    }
    let mut flat = Vec::with_capacity(steps.len());
    for step in steps {
        if step.kind() == SignatureKind::Chain
            && step.options().iter().all(|(_, one)| one.is_null())
        {
            flat.extend(splice(step.tasks()?, depth + 1)?);
        } else {
            flat.push(step);
        }
    }
    Ok(flat)
}

/// A group followed by a step is a chord with that step as its body.
fn join_groups(steps: Vec<Signature>) -> Result<Vec<Signature>, FieldError> {
    let mut joined: Vec<Signature> = Vec::with_capacity(steps.len());
    for step in steps {
        match joined.last() {
            Some(last) if last.kind() == SignatureKind::Group => {
                let header =
                    joined.pop().map(|group| group.tasks()).transpose()?.unwrap_or_default();
                joined.push(Signature::chord(header, step));
            }
            _ => joined.push(step),
        }
    }
    Ok(joined)
}

/// A group is its members' messages and nothing else (5.4).
fn apply_group(
    signature: &Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
    depth: usize,
) -> Result<Applied, FieldError> {
    let chain = chain_of(signature);
    if let Some((next, rest)) = chain.split_last() {
        let mut body = Signature::from_value(next.clone())?;
        if !rest.is_empty() {
            body.options_mut().insert("chain", rest.to_vec());
        }
        let mut chord = Signature::chord(signature.tasks()?, body);
        copy_options(signature, &mut chord, &["root_id", "parent_id"]);
        return apply_at(&chord, args, lineage, sender, depth);
    }
    let group = signature.task_id().map_or_else(|| (sender.new_id)(), str::to_owned);
    // The end of a chain in a header: its members are parts of that chord, which their sender has counted.
    let outer = signature.group_id().filter(|_| signature.option("chord").as_object().is_some());
    let joined = outer.unwrap_or(&group).to_owned();
    let mut applied = Applied::default();
    let mut ids = Vec::new();
    for (index, mut member) in flatten_groups(signature.tasks()?, depth)?.into_iter().enumerate() {
        set_option(&mut member, "group_id", joined.as_str());
        member.options_mut().insert("group_index", index as i64);
        copy_options(signature, &mut member, &["countdown", "eta", "expires", "priority", "queue"]);
        copy_options(signature, &mut member, &["chord", "root_id"]);
        for errback in signature.link_errors()? {
            member = member.with_link_error(errback);
        }
        let one = apply_at(&member, args, lineage, sender, depth)?;
        ids.extend(one.task_id);
        applied.plan.extend(one.plan);
    }
    applied.group = Some((group, ids));
    Ok(applied)
}

/// Members of nested groups become members of the outer one.
fn flatten_groups(members: Vec<Signature>, depth: usize) -> Result<Vec<Signature>, FieldError> {
    if depth > NESTING_MAX {
        return Err(FieldError::missing("tasks", "at most 64 levels of nested signatures"));
    }
    let mut flat = Vec::with_capacity(members.len());
    for member in members {
        if member.kind() == SignatureKind::Group {
            flat.extend(flatten_groups(member.tasks()?, depth + 1)?);
        } else {
            flat.push(member);
        }
    }
    Ok(flat)
}

/// A chord is its header's messages, each carrying the body, and a count of parts (5.5, 4.8).
fn apply_chord(
    signature: &Signature,
    args: &[Value],
    lineage: Lineage<'_>,
    sender: &mut Sender<'_>,
    depth: usize,
) -> Result<Applied, FieldError> {
    let header = flatten_groups(signature.chord_header()?, depth)?;
    let body = signature
        .chord_body()?
        .ok_or_else(|| FieldError::missing("kwargs.body", "the signature of a chord's body"))?;
    let mut body = prepare_chord_body(signature, body, sender, depth)?;
    if header.is_empty() {
        return apply_at(&body, &[Value::Array(Vec::new())], lineage, sender, depth);
    }
    let group = (sender.new_id)();
    let chain_in_body = body.option("chain").as_array().and_then(<[Value]>::first);
    let last_id = match chain_in_body {
        Some(last) => Signature::from_value(last.clone())
            .ok()
            .and_then(|last| end_id(&last).map(str::to_owned)),
        None => end_id(&body).map(str::to_owned),
    };
    copy_options(signature, &mut body, &["root_id"]);
    let carried = Value::Object(body.into_map());
    let mut applied = Applied { task_id: last_id, ..Applied::default() };
    let size = u32::try_from(header.len()).unwrap_or(u32::MAX);
    for (index, member) in header.into_iter().enumerate() {
        let mut member = if ends_in_group(&member, 0) { collected(&member) } else { member };
        set_option(&mut member, "group_id", group.as_str());
        member.options_mut().insert("group_index", index as i64);
        member.options_mut().insert("chord", carried.clone());
        copy_options(signature, &mut member, &["countdown", "eta", "root_id"]);
        applied.plan.extend(apply_at(&member, args, lineage, sender, depth)?.plan);
    }
    applied.plan.chords.push(ChordStart { group, size });
    Ok(applied)
}

/// Whether a signature's end is a group, whose members would be so many parts of a chord.
fn ends_in_group(signature: &Signature, depth: usize) -> bool {
    let end = match signature.kind() {
        SignatureKind::Group => return true,
        SignatureKind::Chain => signature.tasks().unwrap_or_default().pop(),
        SignatureKind::Chord => signature.chord_body().ok().flatten(),
        _ => None,
    };
    depth < NESTING_MAX && end.is_some_and(|end| ends_in_group(&end, depth + 1))
}

/// A member of a header that ends in a group, with a step that makes one result of that group: the
/// task that Celery has for it.
fn collected(member: &Signature) -> Signature {
    let mut step = Signature::new(ACCUMULATE);
    step.kwargs_mut().insert("index", 0);
    Signature::chain(vec![member.clone(), step])
}

/// Gives the body its id, what an outer chord wants of it, and the chord's own continuation.
fn prepare_chord_body(
    chord: &Signature,
    body: Signature,
    sender: &mut Sender<'_>,
    depth: usize,
) -> Result<Signature, FieldError> {
    let mut outer = chain_of(chord);
    let mut steps = if body.kind() == SignatureKind::Chain {
        outer.extend(chain_of(&body));
        steps_of_body(&body, depth)?
    } else {
        vec![body]
    };
    if steps.is_empty() {
        return Err(FieldError::missing("kwargs.body", "at least one task in the chord's body"));
    }
    inherit_id(chord, steps.last_mut());
    for step in &mut steps {
        fix_id(step, sender);
        for errback in chord.link_errors()? {
            *step = step.clone().with_link_error(errback);
        }
    }
    if let Some(last) = steps.last_mut() {
        copy_options(chord, last, &["chord", "group_id", "group_index"]);
        for link in chord.links()? {
            *last = last.clone().with_link(link);
        }
    }
    let rest = steps.split_off(1);
    let mut first = steps.remove(0);
    let mut reversed = outer;
    reversed.extend(rest.into_iter().rev().map(|step| Value::Object(step.into_map())));
    reversed.extend(chain_of(&first));
    if !reversed.is_empty() {
        first.options_mut().insert("chain", reversed);
    }
    Ok(first)
}

/// The steps of a chain that is a body, with what was asked of the chain asked of them. Whoever counts the
/// last part fails the body and its `chain`, and would not look into a chain that is one step.
fn steps_of_body(chain: &Signature, depth: usize) -> Result<Vec<Signature>, FieldError> {
    let mut steps = join_groups(splice(chain.tasks()?, depth)?)?;
    for errback in chain.link_errors()? {
        for step in &mut steps {
            *step = step.clone().with_link_error(errback.clone());
        }
    }
    if let Some(last) = steps.last_mut() {
        for link in chain.links()? {
            *last = last.clone().with_link(link);
        }
        copy_options(chain, last, &["chord", "group_id", "group_index"]);
    }
    inherit_id(chain, steps.last_mut());
    if let Some(first) = steps.first_mut() {
        let told = ["task_id", "link", "link_error", "chord", "group_id", "group_index", "chain"];
        let others: Vec<_> = chain.options().keys().filter(|name| !told.contains(name)).collect();
        copy_options(chain, first, &others);
    }
    Ok(steps)
}

/// What runs after a signature, in reverse, as its options carry it.
fn chain_of(signature: &Signature) -> Vec<Value> {
    signature.option("chain").as_array().map(<[Value]>::to_vec).unwrap_or_default()
}

fn set_option(signature: &mut Signature, name: &str, value: &str) {
    signature.options_mut().insert(name, value);
}

fn copy_options(from: &Signature, to: &mut Signature, names: &[&str]) {
    for name in names {
        let value = from.option(name);
        if !value.is_null() && to.option(name).is_null() {
            let value = value.clone();
            to.options_mut().insert(*name, value);
        }
    }
}

#[cfg(test)]
mod tests;
