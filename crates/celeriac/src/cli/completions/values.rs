//! The values that a store knows: names of queues, tasks and workers, numbers of dead letters.

use super::super::output::{cell, plural};
use crate::app::App;
use crate::config::Settings;
use celeriac_core::StoreError;
use celeriac_core::store::{DeadFilter, Page, Store};
use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A person waits at the prompt: what is not known by then is not offered.
const DEADLINE: Duration = Duration::from_millis(300);
/// The most dead letters that are offered, oldest first.
const LETTERS_MAX: usize = 100;
/// The longest text beside a value, in characters.
const TEXT_CHARS_MAX: usize = 60;

/// A value and what shells show beside it.
type Offer = (String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Queues,
    Tasks,
    Workers,
    Letters,
}

impl Kind {
    /// What an argument takes, by its name; `section` is the first word of its command.
    fn of(section: Option<&str>, argument: &Arg) -> Option<Self> {
        let shown = argument.get_value_names().and_then(|names| Some(names.first()?.as_str()));
        match (section, argument.get_id().as_str(), shown) {
            (Some("dead"), "id" | "ids" | "number", _) => Some(Self::Letters),
            (Some("queue"), "from" | "to", _) | (_, _, Some("QUEUE" | "QUEUES")) => {
                Some(Self::Queues)
            }
            (_, "task", _) | (_, _, Some("TASKS")) => Some(Self::Tasks),
            (_, _, Some("NODES")) => Some(Self::Workers),
            _ => None,
        }
    }
}

/// Adds values of the store to the arguments of a command and of those below it.
pub(super) fn offer(command: Command, section: Option<&str>, values: &Arc<Values>) -> Command {
    let add = |argument: Arg| match Kind::of(section, &argument) {
        None => argument,
        Some(kind) => {
            let values = Arc::clone(values);
            let offered = move |current: &OsStr| values.candidates(kind, current);
            argument.add(ArgValueCompleter::new(offered))
        }
    };
    command.mut_args(add).mut_subcommands(|below| {
        let name = below.get_name().to_owned();
        offer(below, Some(section.unwrap_or(&name)), values)
    })
}

/// Where values come from: the application, and what the words on the line say of its store.
#[derive(Clone)]
pub(super) struct Values {
    app: App,
    folder: Option<PathBuf>,
    config: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
    has_python: bool,
}

impl Values {
    pub(super) fn new(app: App, words: &[String]) -> Self {
        let broker = option(words, Some("-b"), "--broker");
        Self {
            app,
            folder: option(words, None, "--workdir").map(PathBuf::from),
            config: option(words, None, "--config").map(PathBuf::from),
            flags: broker.map(|url| ("broker_url", url)).into_iter().collect(),
            has_python: option(words, Some("-A"), "--app").is_some(),
        }
    }

    /// What begins with the current word; names of queues and workers may follow others after a comma.
    fn candidates(&self, kind: Kind, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        let comma = match kind {
            Kind::Queues | Kind::Workers => current.rfind(',').map_or(0, |at| at + 1),
            Kind::Tasks | Kind::Letters => 0,
        };
        let (before, begun) = current.split_at(comma);
        let found = self.find(kind).into_iter().filter(|(value, _)| value.starts_with(begun));
        let candidate = |(value, text): Offer| {
            let text = Some(cell(&text, TEXT_CHARS_MAX)).filter(|text| !text.is_empty());
            CompletionCandidate::new(format!("{before}{value}")).help(text.map(Into::into))
        };
        found.map(candidate).collect()
    }

    /// What the program knows itself, and what the store answers in time.
    fn find(&self, kind: Kind) -> Vec<Offer> {
        let (tell, told) = mpsc::channel();
        let place = self.clone();
        // Opening a store may block for longer than a person waits; the process ends without it.
        std::thread::spawn(move || {
            let _too_late = tell.send(place.ask(kind).unwrap_or_default());
        });
        let mut found = told.recv_timeout(DEADLINE).unwrap_or_default();
        if kind == Kind::Tasks && !self.has_python {
            let own =
                self.app.task_defs().iter().map(|task| (task.name().to_owned(), String::new()));
            found.extend(own);
            found.sort();
            found.dedup_by(|one, other| one.0 == other.0);
        }
        found
    }

    /// Asks the store; `None` when there is none, or it does not answer.
    fn ask(&self, kind: Kind) -> Option<Vec<Offer>> {
        if let Some(folder) = &self.folder {
            std::env::set_current_dir(folder).ok()?;
        }
        let own = self.has_python.then(Vec::new);
        let program = self.app.program_settings();
        let settings =
            Settings::load_with_app(program, own, self.flags.clone(), self.config.as_deref());
        let settings = settings.ok()?;
        let broker = &settings.broker_url;
        // Only its Python knows the broker of an application that nobody names one for.
        let unknown = self.has_python && broker.is_default();
        if unknown || celeriac_stores::exists(&broker.value) == Some(false) {
            return None;
        }
        let app = self.app.clone().replace_settings(settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async { fetch(&*app.store().await.ok()?, kind).await.ok() })
    }
}

async fn fetch(store: &dyn Store, kind: Kind) -> Result<Vec<Offer>, StoreError> {
    Ok(match kind {
        Kind::Queues => {
            let queues = store.queues().await?.into_iter();
            queues.map(|queue| (queue.name, format!("{} ready", queue.ready))).collect()
        }
        Kind::Tasks => {
            let mut tasks: BTreeMap<String, u64> = BTreeMap::new();
            for node in store.nodes().await?.into_iter().filter(|node| node.alive) {
                for task in node.info.tasks {
                    *tasks.entry(task).or_default() += 1;
                }
            }
            tasks.into_iter().map(|(task, count)| (task, plural(count, "worker"))).collect()
        }
        Kind::Workers => {
            let alive = store.nodes().await?.into_iter().filter(|node| node.alive);
            alive.map(|node| (node.info.name, node.info.pool)).collect()
        }
        Kind::Letters => {
            let page = Page { after: 0, count_max: LETTERS_MAX };
            let letters = store.dead_list(&DeadFilter::default(), page).await?.into_iter();
            let text = |letter: &celeriac_core::dead::DeadLetter| {
                let task = letter.message.headers.task().unwrap_or_default();
                format!("{task} {}", letter.reason.as_str())
            };
            letters.map(|letter| (letter.number.to_string(), text(&letter))).collect()
        }
    })
}

/// The value that an option has among words: `-b URL`, `-bURL`, `--broker URL`, `--broker=URL`.
fn option(words: &[String], short: Option<&str>, long: &str) -> Option<String> {
    let mut found = None;
    let mut words = words.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == long || Some(word.as_str()) == short {
            found = words.next().cloned();
        } else if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='))
        {
            found = Some(value.to_owned());
        } else if let Some(value) = short.and_then(|short| word.strip_prefix(short)) {
            found = Some(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_every_spelling() {
        for (line, expected) in [
            ("c -b u queue", Some("u")),
            ("c queue -bu peek", Some("u")),
            ("c --broker u --broker=v", Some("v")),
            ("c --brokers u", None),
            ("c -- -b u", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(option(&words, Some("-b"), "--broker").as_deref(), expected, "{line}");
        }
    }

    /// An argument that is renamed must not lose its values unseen.
    #[test]
    fn the_arguments_that_name_things_are_known() {
        let root = crate::cli::command();
        for (path, argument, kind) in [
            ("queue peek", "queue", Kind::Queues),
            ("queue move", "from", Kind::Queues),
            ("dead replay", "to", Kind::Queues),
            ("purge", "queues", Kind::Queues),
            ("worker", "queues", Kind::Queues),
            ("call", "task", Kind::Tasks),
            ("dead list", "task", Kind::Tasks),
            ("limit set", "task", Kind::Tasks),
            ("queue move", "tasks", Kind::Tasks),
            ("inspect", "destination", Kind::Workers),
            ("status", "destination", Kind::Workers),
            ("dead show", "id", Kind::Letters),
            ("dead edit", "number", Kind::Letters),
            ("dead discard", "ids", Kind::Letters),
        ] {
            let command = path.split(' ').fold(&root, |at, name| at.find_subcommand(name).unwrap());
            let found = command.get_arguments().find(|one| one.get_id() == argument).unwrap();
            assert_eq!(Kind::of(path.split(' ').next(), found), Some(kind), "{path} {argument}");
        }
        let migrate = root.find_subcommand("migrate").unwrap();
        let url = migrate.get_arguments().find(|one| one.get_id() == "destination").unwrap();
        assert_eq!(Kind::of(Some("migrate"), url), None);
    }
}
