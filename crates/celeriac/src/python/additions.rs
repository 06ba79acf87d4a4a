//! What the operator's `[tasks]` add to the tasks of an app.

use crate::config::Settings;
use celeriac_core::pattern::Patterns;
use celeriac_runtime::TaskPolicy;
use celeriac_runtime::pool::python::{Hello, PythonTask};
use celeriac_wire::Map;

/// Adds to a task's policy what the worker does; the answer is what its children do.
pub(super) fn add(
    name: &str,
    task: &PythonTask,
    settings: &Settings,
    policy: &mut TaskPolicy,
) -> Option<Map> {
    let own = settings.tasks().of(name)?;
    let retries = !(task.autoretry && own.leaves_own_retries());
    let theirs = task.max_retries.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    let most = own.retry_policy().filter(|_| retries).map_or(theirs, |policy| policy.max_retries);
    let members = own.for_children(retries);
    own.add_limits_to(policy, most);
    members
}

/// What the operator is told when a worker starts: sections that do less than they say.
pub(crate) fn warnings(hello: &Hello, settings: &Settings) -> Vec<String> {
    let tasks = settings.tasks();
    let kept = hello.tasks.iter().filter(|(name, task)| {
        task.autoretry && tasks.of(name).is_some_and(|own| own.leaves_own_retries())
    });
    let mut told: Vec<String> = kept
        .map(|(name, _)| {
            format!(
                "the retries of [tasks] have no effect on {name}, which has an autoretry_for of its own; \
                 say it in [override.tasks] to overrule that"
            )
        })
        .collect();
    for section in tasks.sections() {
        let mut alone = Patterns::default();
        let pattern = &section.pattern;
        if alone.add("task", pattern, ()).is_ok()
            && !hello.tasks.keys().any(|name| alone.find(name).is_some())
        {
            told.push(format!("{}: the app has no task {pattern}", section.source));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;
    use celeriac_wire::{Value, from_value};
    use std::path::PathBuf;

    fn hello(autoretry: bool) -> Hello {
        let task = format!(
            r#"{{"acks_late": false, "reject_on_worker_lost": false, "ignore_result": false,
                "max_retries": 3, "autoretry": {autoretry}}}"#
        );
        let task: PythonTask = from_value(Value::parse(task.as_bytes()).unwrap()).unwrap();
        let mut hello = crate::python::review::tests::hello("{}", "{}");
        hello.tasks.insert("t".to_owned(), task);
        hello
    }

    #[test]
    fn a_task_keeps_its_own_retries_unless_they_are_overruled() {
        for (section, autoretry, has_retry, told) in [
            ("tasks.t", false, true, 0),
            ("tasks.t", true, false, 1),
            ("override.tasks.t", true, true, 0),
        ] {
            let text =
                format!("[{section}]\nmax_retries = 5\ndead_letter = \"when-retries-end\"\n");
            let file = Some((PathBuf::from("celeriac.toml"), text));
            let settings = Settings::resolve(Inputs { file, ..Inputs::default() }).unwrap();
            let (hello, mut policy) = (hello(autoretry), TaskPolicy::default());
            let members = add("t", &hello.tasks["t"], &settings, &mut policy);
            assert_eq!(members.is_some(), has_retry, "{section} {autoretry}");
            // Its retries end with the schedule that holds.
            let last = if has_retry { 5 } else { 3 };
            assert!(
                policy.dead_letters.keeps(last, []) && !policy.dead_letters.keeps(last - 1, [])
            );
            assert_eq!(warnings(&hello, &settings).len(), told, "{section} {autoretry}");
        }
    }

    #[test]
    fn a_section_without_a_task_is_told() {
        let file =
            Some((PathBuf::from("celeriac.toml"), "[tasks.\"x.*\"]\nmax_retries = 5\n".into()));
        let settings = Settings::resolve(Inputs { file, ..Inputs::default() }).unwrap();
        let told = warnings(&hello(false), &settings);
        assert_eq!(told, ["celeriac.toml, line 1: the app has no task x.*"]);
    }
}
