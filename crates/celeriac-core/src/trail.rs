//! What a running task has sent: Celery's trail, kept as `children` of its result.

use crate::store::Plan;
use celeriac_wire::{Message, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// The most tasks that a result lists as its children; further ones are sent and not listed. Celery
/// lists all of them, which makes the result of a task that sends a million some 50 MB.
pub const CHILDREN_MAX: usize = 1000;

/// The children of one run, in the order in which they were sent. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trail(Arc<Mutex<Vec<Value>>>);

impl Trail {
    /// Adds result tuples (wire specification 4.2) while there is room.
    pub fn add(&self, children: Vec<Value>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CHILDREN_MAX.saturating_sub(all.len());
        all.extend(children.into_iter().take(room));
    }

    /// All so far.
    pub fn children(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The result tuples of what a plan sends: a task is `[[id, null], null]`, the members of a group are
/// one `[[group, null], [member, …]]` (celery 5.7.0 result.py `as_tuple`).
pub fn children_of(plan: &Plan) -> Vec<Value> {
    let own = plan.publish.iter().map(|one| &one.message);
    let messages: Vec<&Message> =
        own.chain(plan.routed.iter().map(|one| &one.message)).take(CHILDREN_MAX).collect();
    let group_of = |message: &Message| message.headers.group().map(str::to_owned);
    let mut children = Vec::new();
    for same in messages.chunk_by(|a, b| group_of(a).is_some() && group_of(a) == group_of(b)) {
        let tasks = same.iter().map(|one| tuple(one.headers.id(), Value::Null));
        match same.first().and_then(|first| group_of(first)) {
            Some(group) => children.push(tuple(Some(&group), Value::Array(tasks.collect()))),
            None => children.extend(tasks),
        }
    }
    children
}

/// The result tuple of one task.
pub fn child(id: &str) -> Value {
    tuple(Some(id), Value::Null)
}

fn tuple(id: Option<&str>, children: Value) -> Value {
    let own = Value::Array(vec![id.map_or(Value::Null, Value::from), Value::Null]);
    Value::Array(vec![own, children])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueName;
    use crate::store::Outgoing;

    fn plan(ids: &[(&str, Option<&str>)]) -> Plan {
        let message = |(id, group): &(&str, Option<&str>)| {
            let mut message = Message::new("t", id, "");
            message.headers.set_group(*group);
            Outgoing::new(QueueName::celery(), message)
        };
        Plan { publish: ids.iter().map(message).collect(), ..Plan::default() }
    }

    #[test]
    fn tasks_and_groups_are_tuples_as_celery_writes_them() {
        let group = Some("g");
        let sent = plan(&[("a", None), ("b", None), ("c", group), ("d", group), ("e", Some("h"))]);
        let expected = r#"[[["a", null], null], [["b", null], null], [["g", null], [[["c", null], null],
            [["d", null], null]]], [["h", null], [[["e", null], null]]]]"#;
        let expected = Value::parse(expected.as_bytes()).unwrap();
        assert_eq!(Value::Array(children_of(&sent)), expected);
    }

    #[test]
    fn a_trail_is_bounded() {
        let trail = Trail::default();
        for _ in 0..3 {
            trail.clone().add(vec![Value::Null; CHILDREN_MAX / 2 + 1]);
        }
        assert_eq!(trail.children().len(), CHILDREN_MAX);
    }
}
