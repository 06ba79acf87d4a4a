//! The `celeriac` binary: the command line, with the demo's tasks as the only ones of its own.

use std::process::ExitCode;

#[expect(
    clippy::print_stderr,
    reason = "without settings there is no command line to speak for it"
)]
fn main() -> ExitCode {
    let settings = celeriac::config::Settings::resolve(celeriac::config::Inputs::default());
    match settings {
        Ok(settings) => celeriac::App::with_settings(settings)
            .tasks(celeriac::demo::task_defs())
            .state(celeriac::demo::Tables::default())
            .run(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}
