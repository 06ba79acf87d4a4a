//! What is known of a store: the way there, and what is found.

use super::unreachable;
use crate::app::App;
use crate::remote::Ask;
use celeriac_core::StoreError;
use celeriac_core::doctor::{Finding, check_store};
use celeriac_core::store::{Diagnose, Step, StoreFacts};
use celeriac_wire::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// What looking brought.
pub(super) struct Looked {
    pub(super) location: String,
    pub(super) steps: Vec<Step>,
    pub(super) facts: Option<StoreFacts>,
    pub(super) findings: Vec<Finding>,
    pub(super) store: Option<Box<dyn Diagnose>>,
}

/// Goes to the application's store and looks at it.
pub(super) async fn look(app: &App, idle: Duration, asks: bool) -> Looked {
    let url = &app.settings().broker_url.value;
    let location = url.split(';').map(celeriac_stores::redacted).collect::<Vec<_>>().join(";");
    let mut looked =
        Looked { location, steps: Vec::new(), facts: None, findings: Vec::new(), store: None };
    let store = match celeriac_stores::diagnose(url, app.resources()) {
        Ok(store) => store,
        Err(error) => {
            let step = failed_step("URL", &error);
            looked.findings.extend(of_step(&looked.location, &step));
            looked.steps.push(step);
            return looked;
        }
    };
    looked.steps = store.reach().await;
    if let Some(finding) = looked.steps.last().and_then(|step| of_step(&looked.location, step)) {
        looked.findings.push(finding);
        return looked;
    }
    match store.facts(idle).await {
        Ok(facts) => {
            let asked = if asks && facts.strangers > 0 { consumed(app).await } else { Ok(None) };
            let asked = asked.unwrap_or_else(|error| {
                tracing::warn!(%error, "Celery's workers cannot be asked");
                None
            });
            looked.findings = check_store(&facts, &looked.location, asked.as_ref());
            looked.facts = Some(facts);
        }
        Err(error) => {
            let step = failed_step("LOOK", &error);
            looked.findings.extend(of_step(&looked.location, &step));
            looked.steps.push(step);
        }
    }
    looked.store = Some(store);
    looked
}

fn failed_step(name: &'static str, error: &StoreError) -> Step {
    let fix =
        error.hint_text().unwrap_or("look at the URL: its parts are in docs/reference/settings.md");
    Step { name, told: format!("{error}."), failed: Some(format!("{fix}.")), took: Duration::ZERO }
}

fn of_step(location: &str, step: &Step) -> Option<Finding> {
    let fix = step.failed.clone()?;
    Some(unreachable(location, format!("{}: {}", step.name, step.told), fix))
}

/// The queues that workers say they consume.
async fn consumed(app: &App) -> crate::Result<Option<BTreeSet<String>>> {
    let replies = app.remote().await?.ask("active_queues", Map::default(), &Ask::default()).await?;
    let queues = replies.iter().flat_map(|(_, queues)| queues.as_array().unwrap_or_default());
    Ok(Some(queues.filter_map(|one| one.get("name")?.as_str().map(str::to_owned)).collect()))
}

/// A fact for people.
pub(super) fn summary(facts: &StoreFacts) -> String {
    let waiting: u64 = facts.queues.iter().map(celeriac_core::store::QueueFacts::total).sum();
    let cut = if facts.cut { " (there is more than was looked at)" } else { "" };
    format!(
        "{}, {waiting} waiting in {} queues, {} of celeriac's workers, {} other listeners{cut}",
        facts.server,
        facts.queues.len(),
        facts.nodes,
        facts.strangers
    )
}

/// A step for programs.
pub(super) fn step_json(step: &Step) -> Value {
    Value::Object(Map::from([
        ("step", Value::from(step.name)),
        ("ok", Value::from(step.failed.is_none())),
        ("told", Value::from(step.told.as_str())),
        ("fix", step.failed.as_deref().map_or(Value::Null, Value::from)),
        ("ms", Value::from(step.took.as_millis() as i64)),
    ]))
}
