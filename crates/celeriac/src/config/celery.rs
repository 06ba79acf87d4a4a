//! Celery's own settings, which an app has: what becomes of each under celeriac.

#![cfg_attr(
    not(all(target_os = "linux", feature = "cli")),
    allow(dead_code, reason = "apps are run by the command line, on Linux")
)]

mod table;

use super::keys::KEYS;
use super::source::{Raw, Source, nearest};
use super::{CeleryOverride, Settings};
use crate::pool::{PythonPool, StartMethod};
use celeriac_wire::Value;
use std::fmt::Write as _;
use table::TABLE;

/// A setting of Celery.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its name since Celery 4.
    pub(crate) name: &'static str,
    /// Its names before.
    pub(crate) old: &'static [&'static str],
    /// Its default, as JSON.
    default: &'static str,
    pub(crate) role: Role,
    /// What it does, or why it does nothing.
    pub(crate) text: &'static str,
}

/// Who acts on a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The worker.
    Worker,
    /// The beat.
    Beat,
    /// Celery, in the children and in whoever sends and reads.
    Celery,
    /// celeriac; Celery does not know it.
    Ours,
    /// Another program, or another broker.
    Elsewhere,
    /// Nobody.
    Idle,
}

/// Celery's names of the settings that the worker itself acts on, and ours.
const OURS: [(&str, &str); 13] = [
    ("worker_pool_start_method", "start_method"),
    ("worker_pool", "python_pool"),
    ("task_default_queue", "default_queue"),
    ("worker_concurrency", "concurrency"),
    ("task_soft_time_limit", "soft_time_limit"),
    ("task_time_limit", "time_limit"),
    ("worker_max_tasks_per_child", "max_tasks_per_child"),
    ("worker_max_memory_per_child", "max_memory_per_child"),
    ("task_send_sent_event", "sent_events"),
    ("worker_enable_remote_control", "remote_control"),
    ("result_expires", "result_expires"),
    ("result_extended", "result_extended"),
    ("worker_soft_shutdown_timeout", "grace"),
];

/// Our key for a setting of Celery.
pub(crate) fn our_key(name: &str) -> Option<&'static str> {
    let same = ["broker_url", "result_backend"].map(|name| (name, name));
    same.iter().chain(&OURS).find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

/// Our key for a setting of Celery, and its value as our settings write it; `None` leaves our default.
pub(crate) fn as_ours(name: &str, value: &Value) -> Option<(&'static str, String)> {
    let (_, ours) = OURS.iter().find(|(theirs, _)| *theirs == name)?;
    let text = match value {
        Value::Bool(on) => on.to_string(),
        Value::String(text) => text.clone(),
        Value::Number(_) => value.as_f64()?.to_string(),
        // Results that never expire; our word for it is 0.
        Value::Null if name == "result_expires" => "0".to_owned(),
        _ => return None,
    };
    let text = match name {
        // As many as there are CPUs, which is our default too.
        "worker_concurrency" if matches!(text.as_str(), "auto" | "0") => return None,
        // The worker does not start with another, and says why.
        "worker_pool" if text.parse::<PythonPool>().is_err() => return None,
        "worker_pool_start_method" if text.parse::<StartMethod>().is_err() => return None,
        // Celery counts in KiB.
        "worker_max_memory_per_child" => format!("{text}KiB"),
        // No time at all is Celery's default: it waits for ever.
        "worker_soft_shutdown_timeout" if text == "0" => return None,
        _ => text,
    };
    Some((ours, text))
}

/// Takes the settings of bodies, which are Celery's alone where there is an app: it knows formats that
/// native tasks do not have, such as pickle.
pub(super) fn take_bodies(raw: &mut Raw) -> Vec<CeleryOverride> {
    let mut taken = Vec::new();
    for key in KEYS {
        let theirs = find(key.name).filter(|known| known.role == Role::Celery);
        let (text, source) = raw.find(key.name);
        let Some(known) = theirs.filter(|_| source.overrules_app()) else { continue };
        let value = if known.name == "accept_content" {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
        } else {
            Value::from(text)
        };
        // What stands in `[override]` is there once more, as it was written.
        if !matches!(source, Source::Override { .. }) {
            taken.push((known.name, value, source.clone()));
        }
        raw.set(key.name, (key.default)(), Source::Default);
    }
    taken
}

impl Role {
    /// One word, for programs and for the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Beat => "beat",
            Self::Celery => "celery",
            Self::Ours => "celeriac",
            Self::Elsewhere => "elsewhere",
            Self::Idle => "no effect",
        }
    }
}

impl Known {
    /// Whether a value is Celery's default: setting it changes nothing.
    pub(crate) fn is_default(&self, value: &Value) -> bool {
        match Value::parse(self.default.as_bytes()) {
            // 1 and 1.0 are one number in Python.
            Ok(default) => match (default.as_f64(), value.as_f64()) {
                (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
                _ => default == *value,
            },
            Err(_) => false,
        }
    }
}

/// A setting by its name of today.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    TABLE.binary_search_by_key(&name, |known| known.name).ok().map(|at| &TABLE[at])
}

/// All settings, by name.
pub(crate) fn all() -> &'static [Known] {
    TABLE
}

/// The known name that is most like an unknown one: an older one for an older one.
pub(crate) fn like(name: &str) -> Option<&'static str> {
    let old = || TABLE.iter().flat_map(|known| known.old.iter().copied());
    let new = || TABLE.iter().map(|known| known.name);
    if name.chars().any(char::is_uppercase) { nearest(name, old()) } else { nearest(name, new()) }
}

/// One line of `celeriac config show` about a setting of a Celery app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CeleryRow {
    /// Celery's name.
    pub(crate) key: String,
    /// The value in force, secrets masked.
    pub(crate) value: String,
    /// Where it comes from.
    pub(crate) source: String,
    /// What it does, or why it does nothing.
    pub(crate) effect: String,
    /// Who acts on it, in a word.
    pub(crate) acts: &'static str,
}

impl Settings {
    /// Where the value of a key comes from.
    pub(crate) fn source_of(&self, key: &str) -> Option<&Source> {
        self.sources.iter().find(|(name, _)| *name == key).map(|(_, source)| source)
    }

    /// Settings of Celery that the operator overrules.
    pub(crate) fn celery_overrides(&self) -> &[CeleryOverride] {
        &self.celery
    }

    /// The same settings with options of the broker in its URL.
    pub(crate) fn with_broker_options(mut self, url: String) -> Self {
        for row in self.rows.iter_mut().filter(|row| row.key == "broker_url") {
            row.value = celeriac_stores::redacted(&url);
        }
        self.broker_url.value = url;
        self
    }
}

/// The part of `docs/reference/settings.md` that is about an app's own settings.
pub(super) fn reference() -> String {
    let mut page = String::from(
        "\n## Settings of a Celery app\n\n\
         With `-A` the app's own settings hold, under the names that it gives them (those of Celery 3 \
         too).\nWhat the app sets, and what becomes of it, is listed by `celeriac -A proj config show`; \
         `--all` adds Celery's defaults.\n\n\
         `[override]` may name them as well as the keys above: `task_acks_late = true` there overrules \
         the app, in the worker and in its tasks.\n\
         Environment and flags overrule it too. With an app `task_serializer`, `task_compression` and \
         `accept_content` are Celery's alone, which has formats that native tasks have not.\n\n\
         | acts on it | |\n|---|---|\n\
         | worker | celeriac, as Celery's worker would |\n\
         | beat | celeriac's beat, as Celery's would |\n\
         | celery | Celery itself, in the children and in whoever sends and reads |\n\
         | celeriac | celeriac only: Celery has no such setting |\n\
         | elsewhere | another program or another broker; nothing here, as under Celery |\n\
         | no effect | nobody; the worker says so when it starts |\n\n\
         A worker does not start with a value that it cannot keep: a pool that is not one of \
         these, a consumer class, `priority_steps` or `sep` of the broker.\n\n\
         | setting | before Celery 4 | acts on it | what |\n|---|---|---|---|\n",
    );
    for known in TABLE {
        let old: Vec<String> = known.old.iter().map(|name| format!("`{name}`")).collect();
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            known.name,
            old.join(", "),
            known.role.word(),
            known.text
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_our_settings_write_them() {
        for (name, value, expected) in [
            ("worker_concurrency", Value::from(4), Some("4")),
            ("worker_concurrency", Value::from("auto"), None),
            ("worker_concurrency", Value::from(0), None),
            ("task_time_limit", Value::from(1.5), Some("1.5")),
            ("task_time_limit", Value::Null, None),
            ("task_default_queue", Value::from("jobs"), Some("jobs")),
            ("task_send_sent_event", Value::from(true), Some("true")),
            ("worker_max_memory_per_child", Value::from(12_000), Some("12000KiB")),
            ("worker_soft_shutdown_timeout", Value::from(0.0), None),
            ("worker_soft_shutdown_timeout", Value::from(10.0), Some("10")),
            ("result_expires", Value::from(3600.0), Some("3600")),
            ("result_expires", Value::Null, Some("0")),
            ("task_acks_late", Value::from(true), None),
        ] {
            let text = as_ours(name, &value).map(|(_, text)| text);
            assert_eq!(text.as_deref(), expected, "{name} = {value:?}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_can_be_read() {
        assert!(TABLE.is_sorted_by(|one, other| one.name < other.name));
        for known in TABLE {
            assert!(Value::parse(known.default.as_bytes()).is_ok(), "{}", known.name);
            assert!(!known.text.is_empty() && !known.text.ends_with('.'), "{}", known.name);
        }
    }

    #[test]
    fn names_are_found_and_near_ones_are_named() {
        assert_eq!(find("task_acks_late").map(|known| known.role), Some(Role::Celery));
        assert_eq!(find("task_retry_backoff").map(|known| known.role), Some(Role::Ours));
        assert!(find("task_ack_late").is_none());
        assert_eq!(like("task_ack_late"), Some("task_acks_late"));
        assert_eq!(like("CELERYD_CONCURENCY"), Some("CELERYD_CONCURRENCY"));
        assert_eq!(like("project_name"), None);
    }

    #[test]
    fn defaults_are_known_whatever_the_type_of_the_number() {
        let known = |name| find(name).unwrap();
        assert!(known("worker_prefetch_multiplier").is_default(&Value::from(4)));
        assert!(known("worker_prefetch_multiplier").is_default(&Value::from(4.0)));
        assert!(!known("worker_prefetch_multiplier").is_default(&Value::from(1)));
        assert!(known("worker_pool").is_default(&Value::from("prefork")));
        assert!(known("worker_timer").is_default(&Value::Null));
    }
}
