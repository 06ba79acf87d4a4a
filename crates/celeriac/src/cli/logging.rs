//! Log lines on stderr, as text or JSON.

use crate::config::Settings;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

/// Starts logging, at `quiet` unless a level was asked for.
pub(super) fn start(settings: &Settings, quiet: LevelFilter) {
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
