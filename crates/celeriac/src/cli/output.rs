//! Where commands print: tables and JSON on stdout, everything else on stderr.

use super::exit::Failed;
use celeriac_core::dead::Attempt;
use celeriac_core::document::strict;
pub(crate) use celeriac_core::document::{object, time};
use celeriac_wire::{Map, Value};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// How a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a line for people; nothing with `--json`.
    pub(crate) fn line(self, text: impl AsRef<str>) {
        if !self.json {
            write_stdout(text.as_ref());
        }
    }

    /// Prints a value for programs; nothing without `--json`.
    pub(crate) fn value(self, value: &Value) {
        if self.json {
            write_stdout(&strict(value).to_string());
        }
    }

    /// Prints a list: a table for people, one JSON array for programs.
    pub(crate) fn list(self, header: &[&str], rows: Vec<(Vec<String>, Value)>, empty: &str) {
        if self.json {
            self.value(&Value::Array(rows.into_iter().map(|(_, value)| value).collect()));
        } else if rows.is_empty() {
            write_stdout(empty);
        } else {
            let mut table = plain_table();
            table.set_header(header);
            table.add_rows(rows.into_iter().map(|(cells, _)| cells));
            write_stdout(&table.to_string());
        }
    }

    /// Prints named facts: two columns for people, one JSON object for programs.
    pub(crate) fn facts(self, facts: &[(&str, String)], value: &Value) {
        if self.json {
            self.value(value);
            return;
        }
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, text) in facts {
            let mut lines = text.lines();
            write_stdout(&format!("{name:width$}  {}", lines.next().unwrap_or_default()));
            for line in lines {
                write_stdout(&format!("{:width$}  {line}", ""));
            }
        }
    }

    /// Says on stderr with which cursor a list goes on; stdout is the list.
    pub(crate) fn next(self, cursor: &str) {
        if self.json {
            write_stderr(&object([("next", Value::from(cursor))]).to_string());
        } else {
            write_stderr(&format!("there are more; the next: --after {cursor}"));
        }
    }

    /// Says something on stderr.
    #[expect(clippy::unused_self, reason = "commands say everything through their output")]
    pub(crate) fn note(self, text: impl AsRef<str>) {
        write_stderr(text.as_ref());
    }

    /// Warns on stderr.
    #[expect(clippy::unused_self, reason = "commands say everything through their output")]
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        write_stderr(&format!("warning: {}", text.as_ref()));
    }

    /// Prints a failure and gives its exit code.
    pub(crate) fn fail(self, failed: &Failed) -> ExitCode {
        if self.json {
            let mut error = Map::default();
            error.insert("error", failed.message.as_str());
            error.insert("hint", failed.hint.as_deref().map_or(Value::Null, Value::from));
            error.insert("exit_code", i64::from(failed.code));
            write_stderr(&Value::Object(error).to_string());
        } else {
            write_stderr(&format!("error: {}", failed.message));
            if let Some(hint) = &failed.hint {
                write_stderr(&format!("hint: {hint}"));
            }
        }
        ExitCode::from(failed.code)
    }
}

/// A table without frames, which stays readable in a pipe.
fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A closed pipe (`celeriac … | head`) ends the output, not the command.
fn write_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _closed = writeln!(stdout, "{}", text.trim_end());
}

fn write_stderr(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _closed = writeln!(stderr, "{text}");
}

/// Asks something on stderr, without a new line.
pub(crate) fn ask(question: &str) {
    let mut stderr = std::io::stderr().lock();
    let _closed = write!(stderr, "{question}");
    let _closed = stderr.flush();
}

/// An instant for people: UTC, whole seconds.
pub(crate) fn clock(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A span for people: `850ms`, `12.3s`, `4m05s`, `3h12m`, `2d04h`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{:.1}s", span.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count with its noun: `1 message`, `2 messages`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The runs of a message, one a line.
pub(crate) fn history(attempts: &[Attempt]) -> String {
    let line = |attempt: &Attempt| {
        let (at, detail) = (clock(attempt.ended_at), cell(&attempt.detail, 120));
        format!("{at}  {}  on {}: {detail}", attempt.outcome, attempt.worker)
    };
    attempts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Text cut for a table cell.
pub(crate) fn cell(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= max && line.len() == text.trim_end().len() {
        line.to_owned()
    } else {
        let cut: String = line.chars().take(max.saturating_sub(1)).collect();
        format!("{cut}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_like_speech() {
        for (millis, shown) in [
            (850, "850ms"),
            (12_340, "12.3s"),
            (245_000, "4m05s"),
            (11_520_000, "3h12m"),
            (187_200_000, "2d04h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn cells_are_one_line_of_bounded_length() {
        assert_eq!(cell("short", 10), "short");
        assert_eq!(cell("two\nlines", 10), "two…");
        assert_eq!(cell("0123456789", 5), "0123…");
    }
}
