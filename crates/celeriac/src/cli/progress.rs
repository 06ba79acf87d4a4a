//! What stderr shows while a command works: for people at a terminal only.

use super::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// How often what cannot be counted shows that it goes on.
const TICK: Duration = Duration::from_millis(100);

/// A bar for work of which is known how much there is, and which may take longer than a second.
pub(super) fn bar(output: Output, total: u64) -> ProgressBar {
    styled(output, ProgressBar::new(total), "{bar:40} {pos}/{len} {eta}")
}

/// What is done, and for how long, where nobody can say how much is left. Shown until it is cleared.
pub(super) fn busy(output: Output, what: impl Into<String>) -> ProgressBar {
    let bar = styled(output, ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}");
    bar.set_message(what.into());
    if !bar.is_hidden() {
        bar.tick();
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// Of a template of its own.
pub(super) fn styled(output: Output, bar: ProgressBar, template: &str) -> ProgressBar {
    // Without a terminal on stderr the bar hides itself.
    if output.is_json() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
