//! What `celeriac doctor` prints.

use super::broker::{self, Looked};
use crate::cli::output::{Output, object, plural};
use celeriac_core::doctor::{Finding, Severity};
use celeriac_core::store::Step;
use celeriac_wire::{Map, Value};

/// All that was found.
#[derive(Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    versions: Vec<(&'static str, String)>,
    /// How many files were read, and whether there were more.
    files: Option<(u64, bool)>,
    broker: Option<(String, Vec<Step>, Option<String>)>,
}

impl Report {
    #[cfg(target_os = "linux")]
    pub(super) fn add_application(&mut self, examined: &super::application::Examined) {
        self.files = Some((examined.files, examined.cut));
        let Some(loaded) = &examined.loaded else { return };
        let hello = loaded.hello();
        self.versions.extend([
            ("Python", hello.python.clone()),
            ("Celery", hello.celery.clone()),
            ("kombu", hello.kombu.clone()),
            ("redis-py", hello.redis.clone().unwrap_or_else(|| "not installed".to_owned())),
        ]);
    }

    pub(super) fn add_broker(&mut self, looked: Looked) {
        let summary = looked.facts.as_ref().map(broker::summary);
        if let Some(facts) = &looked.facts {
            self.versions.push(("broker", facts.server.clone()));
        }
        self.broker = Some((looked.location, looked.steps, summary));
        self.findings.extend(looked.findings);
    }

    /// Prints it: for people grouped by how bad things are, with a last line that sums up.
    pub(super) fn print(&self, output: Output) {
        output.value(&self.json());
        if output.is_json() {
            return;
        }
        let mut versions = vec![format!("celeriac {}", env!("CARGO_PKG_VERSION"))];
        versions.extend(self.versions.iter().map(|(name, version)| match *name {
            "broker" => version.clone(),
            _ => format!("{name} {version}"),
        }));
        output.line(versions.join(", "));
        if let Some((location, steps, summary)) = &self.broker {
            output.line(format!("\nbroker {location}"));
            for step in steps {
                let mark = if step.failed.is_none() { "ok    " } else { "FAILED" };
                output.line(format!("  {:8} {mark} {}", step.name, step.told));
            }
            if let Some(summary) = summary {
                output.line(format!("  {summary}"));
            }
        }
        let mut last = None;
        for finding in &self.findings {
            if last.replace(finding.severity()) != Some(finding.severity()) {
                output.line(format!("\n{}s", finding.severity()));
            }
            output.line(format!("  {}  {}", finding.code.name, finding.place));
            output.line(format!("      {}", finding.what));
            output.line(format!("      why: {}", finding.code.why));
            output.line(format!("      fix: {}", finding.fix));
        }
        output.line(format!("\n{}", self.sum()));
    }

    fn count(&self, severity: Severity) -> u64 {
        self.findings.iter().filter(|finding| finding.severity() == severity).count() as u64
    }

    fn sum(&self) -> String {
        let files = match self.files {
            Some((files, cut)) => {
                let more = if cut { ", and there is more than was read" } else { "" };
                format!("; {} read{more}", plural(files, "file"))
            }
            None => String::new(),
        };
        if self.findings.is_empty() {
            return format!("nothing found{files}");
        }
        let counts = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|severity| plural(self.count(severity), severity.as_str()));
        format!("{}{files}", counts.join(", "))
    }

    fn json(&self) -> Value {
        let mut versions = Map::from([("celeriac", Value::from(env!("CARGO_PKG_VERSION")))]);
        for (name, version) in &self.versions {
            versions.insert(*name, version.as_str());
        }
        let (location, steps) = match &self.broker {
            Some((location, steps, _)) => {
                (Value::from(location.as_str()), steps.iter().map(broker::step_json).collect())
            }
            None => (Value::Null, Value::Array(Vec::new())),
        };
        object([
            ("versions", Value::Object(versions)),
            ("broker", location),
            ("steps", steps),
            ("findings", self.findings.iter().map(finding_json).collect()),
            ("errors", Value::from(self.count(Severity::Error) as i64)),
            ("warnings", Value::from(self.count(Severity::Warning) as i64)),
            ("notes", Value::from(self.count(Severity::Note) as i64)),
            ("files", self.files.map_or(Value::Null, |(files, _)| Value::from(files as i64))),
            ("cut", Value::from(self.files.is_some_and(|(_, cut)| cut))),
        ])
    }
}

fn finding_json(finding: &Finding) -> Value {
    object([
        ("code", Value::from(finding.code.name)),
        ("severity", Value::from(finding.severity().as_str())),
        ("place", Value::from(finding.place.as_str())),
        ("what", Value::from(finding.what.as_str())),
        ("why", Value::from(finding.code.why)),
        ("fix", Value::from(finding.fix.as_str())),
        ("traps", finding.code.traps.iter().map(|trap| Value::from(*trap)).collect()),
    ])
}
