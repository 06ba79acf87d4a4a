//! Entries of a schedule and what was fired of them.

use super::time;
use crate::operate::entries::Kept;
use crate::store::{Lead, Occurrence, Phase};
use celeriac_wire::{Map, Value};

/// An entry with its state.
pub fn entry(kept: &Kept) -> Value {
    let (entry, state) = (&kept.entry, &kept.state);
    let mut fields = entry.definition();
    fields.insert("enabled", entry.enabled);
    fields.insert("source", entry.source.kind.as_str());
    fields.insert("owner", entry.owner.name.as_str());
    fields.insert("owner_epoch", entry.owner.epoch);
    fields.insert("sentence", entry.schedule.sentence(&entry.zone));
    fields.insert("status", status(kept));
    fields.insert("next", time(if entry.enabled { state.due } else { None }));
    fields.insert("queued", time(state.queued));
    fields.insert("last_due", time(state.last_due));
    fields.insert("last_fired", time(state.last_fired));
    fields.insert("runs", state.runs);
    fields.insert("version", kept.version);
    Value::Object(fields)
}

/// One word for an entry: whether it is waited for.
pub fn status(kept: &Kept) -> &'static str {
    match (&kept.entry, kept.state.due) {
        (entry, _) if !entry.enabled => "paused",
        (entry, _) if !entry.is_ours() => "elsewhere",
        (_, None) => "ended",
        (_, Some(_)) => "scheduled",
    }
}

/// An occurrence, and where its task is, if that was looked up.
pub fn occurrence(one: &Occurrence, phase: Option<&Phase>) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    let task_id = one.task_id.as_deref().map_or(Value::Null, Value::from);
    let outcome = one.outcome.as_ref().map_or(Value::Null, |state| state.as_str().into());
    let mut fields = Map::new();
    fields.insert("due", time(Some(one.due)));
    fields.insert("fired", time(Some(one.fired)));
    fields.insert("drift", one.drift().as_secs_f64());
    fields.insert("kind", one.kind.as_str());
    fields.insert("count", one.count);
    fields.insert("task_id", task_id);
    fields.insert("outcome", outcome);
    fields.insert("note", text(&one.note));
    if let Some(phase) = phase {
        fields.insert("phase", phase.as_str());
    }
    Value::Object(fields)
}

/// Who leads the beats.
pub fn leader(lead: Option<&Lead>) -> Value {
    let Some(lead) = lead else { return Value::Null };
    let mut fields = Map::new();
    fields.insert("name", lead.holder.as_str());
    fields.insert("epoch", lead.epoch);
    fields.insert("until", time(Some(lead.until)));
    Value::Object(fields)
}
