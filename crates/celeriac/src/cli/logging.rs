//! Log lines on stderr, as text or JSON.

use crate::config::Settings;
use celeriac_core::Clock as _;
use celeriac_runtime::SystemClock;
use jiff::tz::TimeZone;
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines of text look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dress {
    /// With the time in UTC and the level.
    Plain,
    /// As Celery's own, among which they stand.
    Celery,
}

/// Starts logging, at `quiet` unless a level was asked for.
pub(super) fn start(settings: &Settings, quiet: LevelFilter, dress: Dress) {
    let asked = settings.log_level.value.to_ascii_lowercase();
    let level = match asked.as_str() {
        "debug" => LevelFilter::DEBUG,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "critical" | "fatal" => LevelFilter::ERROR,
        _ if settings.log_level.is_default() => quiet,
        _ => LevelFilter::INFO,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).parse_lossy("");
    if crate::pool::is_child() {
        return for_the_worker(filter);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = if settings.log_format.value == "json" {
        builder.json().flatten_event(true).try_init()
    } else if dress == Dress::Celery {
        builder.with_ansi(false).event_format(CeleryLines).try_init()
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).try_init()
    };
    // An application that has its own subscriber keeps it.
    let _already_set = started;
}

/// A child's lines are read by its worker, which adds the time: stdout at INFO, stderr at WARN.
fn for_the_worker(filter: EnvFilter) {
    let writer = std::io::stderr.with_max_level(tracing::Level::WARN).or_else(std::io::stdout);
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false)
        .with_ansi(false)
        .without_time()
        .try_init();
    // An application that has its own subscriber keeps it.
    let _already_set = started;
}

/// Celery's `worker_log_format` of its main process (celery 5.7.0 `app/defaults.py`), in local time.
struct CeleryLines;

impl<S, N> FormatEvent<S, N> for CeleryLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        let now = SystemClock.wall().to_zoned(TimeZone::system());
        write!(writer, "[{}: {level}/MainProcess] ", now.strftime("%Y-%m-%d %H:%M:%S,%3f"))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
