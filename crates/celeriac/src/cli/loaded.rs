//! The Python application of a command: `-A`.

use super::exit::Failed;
use crate::app::App;
use crate::config::Settings;
use crate::config::celery::CeleryRow;
use std::path::Path;

#[cfg(target_os = "linux")]
pub(super) use on_linux::{Loaded, examine, load};

/// What a program gives itself, or a flag says: a key and its value.
type Given = Vec<(&'static str, String)>;

#[cfg(target_os = "linux")]
mod on_linux {
    use super::{App, CeleryRow, Failed, Given, Path, Settings};
    use crate::python::{self, Purpose};
    use celeriac_runtime::pool::python::{Hello, LoadError, PythonApp};

    /// A Python application that was imported, and its name.
    #[derive(Clone)]
    pub(in crate::cli) struct Loaded(pub(in crate::cli) PythonApp, String);

    /// Has Python import the application; `runs`: as its worker does, and not only to look at it;
    /// `of_schedule`: it says what a beat needs, too.
    pub(in crate::cli) async fn load(
        name: &str,
        settings: &Settings,
        runs: bool,
        of_schedule: bool,
    ) -> Result<Loaded, Failed> {
        let purpose = if runs { Purpose::Run } else { Purpose::Look };
        import(name, settings, purpose, of_schedule)
            .await
            .map(|app| Loaded(app, name.to_owned()))
            .map_err(|error| {
                let failed = Failed::configuration(told(&error));
                match error.hint {
                    Some(hint) => failed.hint(hint),
                    None => failed,
                }
            })
    }

    /// Has Python import the application and read its files, whether or not it can be imported.
    pub(in crate::cli) async fn examine(
        name: &str,
        settings: &Settings,
    ) -> Result<Loaded, LoadError> {
        import(name, settings, Purpose::Examine, false)
            .await
            .map(|app| Loaded(app, name.to_owned()))
    }

    async fn import(
        name: &str,
        settings: &Settings,
        purpose: Purpose,
        of_schedule: bool,
    ) -> Result<PythonApp, LoadError> {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        if purpose == Purpose::Run {
            call_it_worker(&mut arguments);
        }
        python::load(name, settings, arguments, purpose, of_schedule).await
    }

    /// What an application sees of `up` is Celery's `worker`: many look for that word among their arguments.
    fn call_it_worker(arguments: &mut [String]) {
        let mut words = arguments.iter_mut();
        while let Some(word) = words.next() {
            let takes_next = word.starts_with("--") && !word.contains('=') && word != "--json"
                || word.starts_with('-') && word.len() == 2;
            if takes_next {
                words.next();
            } else if !word.starts_with('-') {
                if word == "up" {
                    "worker".clone_into(word);
                }
                return;
            }
        }
    }

    fn told(error: &LoadError) -> String {
        let traceback =
            error.traceback.as_ref().map_or_else(String::new, |text| format!("\n{text}"));
        format!("{}{traceback}", error.text)
    }

    impl Loaded {
        /// What Python said of it.
        pub(in crate::cli) fn hello(&self) -> &Hello {
            self.0.hello()
        }

        /// What `-A` calls it.
        pub(in crate::cli) fn name(&self) -> &str {
            &self.1
        }

        /// An application of ours whose entries' calls have what the tasks say of themselves.
        pub(in crate::cli) fn with_task_options(&self, app: App) -> App {
            app.with_task_options(python::task_options(self.0.hello()))
        }

        /// The same application, imported once more.
        pub(in crate::cli) async fn again(&self, settings: &Settings) -> Result<PythonApp, String> {
            import(&self.1, settings, Purpose::Run, false).await.map_err(|error| told(&error))
        }

        /// The settings in force, with the application's.
        pub(in crate::cli) fn settings(
            &self,
            program: Given,
            flags: Given,
            config: Option<&Path>,
        ) -> Result<Settings, Failed> {
            let hello = self.0.hello();
            let own = python::app_settings(hello);
            let settings = Settings::load_with_app(program, Some(own), flags, config)?;
            let url = python::store_url(hello, &settings).map_err(Failed::configuration)?;
            let settings = settings.with_broker_options(url);
            Ok(settings.with_task_queues(python::bindings(hello)?))
        }

        /// The application's own settings: those that it changes, or all of Celery's.
        pub(in crate::cli) fn rows(&self, settings: &Settings, all: bool) -> Vec<CeleryRow> {
            python::rows(self.0.hello(), settings, all)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_application_under_up_sees_a_worker() {
            for (line, seen) in [
                ("-A proj up -Q up", "-A proj worker -Q up"),
                ("-A up --json -lup --broker=up up", "-A up --json -lup --broker=up worker"),
                ("--workdir up -A proj worker up", "--workdir up -A proj worker up"),
                ("-A proj", "-A proj"),
            ] {
                let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                call_it_worker(&mut words);
                assert_eq!(words.join(" "), seen);
            }
        }
    }
}

/// There are no Python applications here.
#[cfg(not(target_os = "linux"))]
pub(super) enum Loaded {}

#[cfg(not(target_os = "linux"))]
impl Loaded {
    pub(super) fn settings(
        &self,
        _program: Given,
        _flags: Given,
        _config: Option<&Path>,
    ) -> Result<Settings, Failed> {
        match *self {}
    }

    pub(super) fn rows(&self, _settings: &Settings, _all: bool) -> Vec<CeleryRow> {
        match *self {}
    }

    pub(super) fn with_task_options(&self, _app: App) -> App {
        match *self {}
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn load(
    name: &str,
    _settings: &Settings,
    _runs: bool,
    _of_schedule: bool,
) -> Result<Loaded, Failed> {
    Err(Failed::usage(format!("-A {name}: Python applications run on Linux only"))
        .hint("use `celery` here, and celeriac where the application is deployed"))
}
