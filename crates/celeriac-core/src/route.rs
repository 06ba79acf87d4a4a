//! Which queue a call goes to: exact name, glob, regular expression, default.
//!
//! Celery's order (wire specification 1.10): the call's own queue, then the first matching route,
//! then the default queue.

use crate::error::StoreError;
use crate::priority::Level;
use crate::queue::QueueName;
use globset::{Glob, GlobMatcher};
use regex::Regex;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Pattern {
    Glob(GlobMatcher),
    Regex(Regex),
}

/// The routing table of an application.
#[derive(Clone, Debug)]
pub struct Router {
    default: QueueName,
    exact: BTreeMap<String, QueueName>,
    patterns: Vec<(Pattern, QueueName)>,
    default_level: Option<Level>,
}

impl Router {
    /// A table that sends everything to `default`.
    pub fn new(default: QueueName) -> Self {
        Self { default, exact: BTreeMap::new(), patterns: Vec::new(), default_level: None }
    }

    /// Adds a route. `pattern` is an exact task name, a glob (`reports.*`), or a regular expression
    /// between slashes (`/^reports\.(daily|weekly)$/`). Exact names win; patterns are tried in order.
    ///
    /// # Errors
    /// `Invalid` when the glob or the regular expression does not parse.
    pub fn add(&mut self, pattern: &str, queue: QueueName) -> Result<(), StoreError> {
        let refuse = |what: &str, error: String| {
            StoreError::invalid(format!("route {pattern:?} is not a valid {what}: {error}"))
        };
        let expression = pattern
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'))
            .filter(|e| !e.is_empty());
        if let Some(expression) = expression {
            let regex = Regex::new(expression)
                .map_err(|error| refuse("regular expression", error.to_string()))?;
            self.patterns.push((Pattern::Regex(regex), queue));
        } else if pattern.contains(['*', '?', '[']) {
            let glob = Glob::new(pattern).map_err(|error| refuse("glob", error.to_string()))?;
            self.patterns.push((Pattern::Glob(glob.compile_matcher()), queue));
        } else {
            self.exact.insert(pattern.to_owned(), queue);
        }
        Ok(())
    }

    /// Gives calls without a priority this level; without it they carry none, like stock messages.
    pub fn set_default_level(&mut self, level: Option<Level>) {
        self.default_level = level;
    }

    /// The level of calls that name none.
    pub fn default_level(&self) -> Option<Level> {
        self.default_level
    }

    /// The queue of a call of `task` that names none itself.
    pub fn route(&self, task: &str) -> &QueueName {
        self.matching(task).unwrap_or(&self.default)
    }

    /// The queue of the first matching route, if any.
    pub fn matching(&self, task: &str) -> Option<&QueueName> {
        self.exact.get(task).or_else(|| {
            let matches = |pattern: &Pattern| match pattern {
                Pattern::Glob(glob) => glob.is_match(task),
                Pattern::Regex(regex) => regex.is_match(task),
            };
            self.patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, queue)| queue)
        })
    }

    /// The queue for everything that matches no route.
    pub fn default_queue(&self) -> &QueueName {
        &self.default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    #[test]
    fn exact_beats_pattern_beats_default() {
        // covers: S4-10, S1-39
        let mut router = Router::new(queue("default"));
        router.add("app.collect.*", queue("collect")).unwrap();
        router.add(r"/^app\.(report|etl)\./", queue("heavy")).unwrap();
        router.add("app.collect.urgent", queue("fast")).unwrap();
        for (task, expected) in [
            ("app.collect.rss", "collect"),
            ("app.collect.urgent", "fast"),
            ("app.report.daily", "heavy"),
            ("app.etl.load", "heavy"),
            ("other", "default"),
        ] {
            assert_eq!(router.route(task).as_str(), expected, "{task}");
        }
    }

    #[test]
    fn a_broken_pattern_is_refused_with_its_text() {
        let mut router = Router::new(QueueName::celery());
        let error = router.add("/(/", QueueName::celery()).unwrap_err().to_string();
        assert!(error.contains("/(/") && error.contains("regular expression"), "{error}");
        assert!(router.add("a[", QueueName::celery()).unwrap_err().to_string().contains("glob"));
    }
}
