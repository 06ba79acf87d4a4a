//! Log lines on stderr, as text or JSON.

use crate::config::Settings;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
