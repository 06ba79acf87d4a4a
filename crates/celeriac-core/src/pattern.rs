//! What is found by the name of a task: exact names first, then globs and regular expressions in order.

use crate::error::StoreError;
use globset::{Glob, GlobMatcher};
use regex::Regex;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Pattern {
    Glob(GlobMatcher),
    Regex(Regex),
}

/// Values by patterns of names.
#[derive(Clone, Debug)]
pub struct Patterns<T> {
    exact: BTreeMap<String, T>,
    patterns: Vec<(Pattern, T)>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), patterns: Vec::new() }
    }
}

impl<T> Patterns<T> {
    /// Adds a value. `pattern` is an exact name, a glob (`reports.*`), or a regular expression between
    /// slashes (`/^reports\.(daily|weekly)$/`). Exact names win; patterns are tried in order.
    ///
    /// # Errors
    /// `Invalid` when the glob or the regular expression does not parse; `what` it belongs to is named.
    pub fn add(&mut self, what: &str, pattern: &str, value: T) -> Result<(), StoreError> {
        let refuse = |kind: &str, error: String| {
            StoreError::invalid(format!("{what} {pattern:?} is not a valid {kind}: {error}"))
        };
        let expression = pattern
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'))
            .filter(|e| !e.is_empty());
        if let Some(expression) = expression {
            let regex = Regex::new(expression)
                .map_err(|error| refuse("regular expression", error.to_string()))?;
            self.patterns.push((Pattern::Regex(regex), value));
        } else if pattern.contains(['*', '?', '[']) {
            let glob = Glob::new(pattern).map_err(|error| refuse("glob", error.to_string()))?;
            self.patterns.push((Pattern::Glob(glob.compile_matcher()), value));
        } else {
            self.exact.insert(pattern.to_owned(), value);
        }
        Ok(())
    }

    /// The value of the first pattern that a name matches.
    pub fn find(&self, name: &str) -> Option<&T> {
        self.exact.get(name).or_else(|| {
            let matches = |pattern: &Pattern| match pattern {
                Pattern::Glob(glob) => glob.is_match(name),
                Pattern::Regex(regex) => regex.is_match(name),
            };
            self.patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, value)| value)
        })
    }
}

/// Names of exceptions, as a task's additions give them: `ValueError`, `requests.exceptions.Timeout`,
/// `requests.*`.
#[derive(Clone, Debug, Default)]
pub struct ExceptionNames(Vec<(String, GlobMatcher)>);

impl PartialEq for ExceptionNames {
    fn eq(&self, other: &Self) -> bool {
        self.names().eq(other.names())
    }
}

impl ExceptionNames {
    /// Reads one name and adds it.
    ///
    /// # Errors
    /// What is accepted.
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        let wrong = || {
            format!(
                "{name:?} is no exception; write ValueError, requests.exceptions.Timeout, or a glob \
                 such as requests.*"
            )
        };
        // Python's globs and ours mean the same as long as only these letters are in them.
        let usual = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '*' | '?');
        if name.is_empty() || !name.chars().all(usual) {
            return Err(wrong());
        }
        let glob = Glob::new(name).map_err(|_| wrong())?;
        self.0.push((name.to_owned(), glob.compile_matcher()));
        Ok(())
    }

    /// The names as they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an exception is among them. Built-in ones go by their bare names too.
    pub fn has(&self, module: &str, name: &str) -> bool {
        let dotted = format!("{module}.{name}");
        let bare = matches!(module, "" | "builtins").then_some(name);
        self.0
            .iter()
            .any(|(_, glob)| glob.is_match(&dotted) || bare.is_some_and(|n| glob.is_match(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_win_and_patterns_go_by_their_order() {
        let mut table = Patterns::default();
        for (pattern, value) in [("a.*", 1), ("/^a\\.b/", 2), ("a.b", 3), ("/x$/", 4)] {
            table.add("task", pattern, value).unwrap();
        }
        for (name, expected) in
            [("a.b", Some(3)), ("a.bc", Some(1)), ("b.x", Some(4)), ("b.y", None)]
        {
            assert_eq!(table.find(name).copied(), expected, "{name}");
        }
        let error = table.add("task", "/(/", 5).unwrap_err().to_string();
        assert!(error.contains("task \"/(/\" is not a valid regular expression"), "{error}");
    }

    #[test]
    fn exceptions_go_by_their_dotted_names_and_builtin_ones_by_bare_names() {
        let mut names = ExceptionNames::default();
        for name in ["ValueError", "requests.*", "*.Ours"] {
            names.add(name).unwrap();
        }
        for (module, name, expected) in [
            ("builtins", "ValueError", true),
            ("app.errors", "ValueError", false),
            ("requests.exceptions", "Timeout", true),
            ("app.errors", "Ours", true),
            ("builtins", "KeyError", false),
        ] {
            assert_eq!(names.has(module, name), expected, "{module}.{name}");
        }
        for wrong in ["", "a b", "{a,b}", "[ab]"] {
            assert!(names.add(wrong).unwrap_err().contains("no exception"), "{wrong}");
        }
    }
}
