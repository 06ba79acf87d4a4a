//! Where a value comes from, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Nobody set it.
    #[default]
    Default,
    /// What this machine has.
    Found {
        /// Where.
        place: &'static str,
    },
    /// The program itself, e.g. `App::at`.
    Program,
    /// The settings file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// The Python application.
    App {
        /// Celery's name of the setting.
        name: String,
    },
    /// The `.env` file.
    DotEnv {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// An environment variable.
    Env {
        /// The variable.
        name: String,
    },
    /// The section `[override]` of the settings file.
    Override {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// A flag.
    Flag {
        /// The setting's key, which is the flag's name with dashes.
        key: &'static str,
    },
}

impl Source {
    /// Whether it is stronger than what a Celery app says itself.
    pub(crate) fn overrules_app(&self) -> bool {
        match self {
            Self::Default
            | Self::Found { .. }
            | Self::Program
            | Self::File { .. }
            | Self::App { .. } => false,
            // Applications use it for other things too.
            Self::Env { name } | Self::DotEnv { name, .. } => name != "REDIS_URL",
            Self::Override { .. } | Self::Flag { .. } => true,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Found { place } => write!(formatter, "found in {place}"),
            Self::Program => formatter.write_str("the program"),
            Self::File { path, line } => write!(formatter, "{}, line {line}", path.display()),
            Self::App { name } => write!(formatter, "the application's {name}"),
            Self::DotEnv { name, path } => write!(formatter, "{} {name}", path.display()),
            Self::Env { name } => write!(formatter, "environment {name}"),
            Self::Override { path, line } => {
                write!(formatter, "{} [override], line {line}", path.display())
            }
            Self::Flag { key } => write!(formatter, "flag --{}", key.replace('_', "-")),
        }
    }
}

/// A value with its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

impl<T> Setting<T> {
    /// Whether nobody set it.
    pub fn is_default(&self) -> bool {
        self.source == Source::Default
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Values as they were written, before they are understood.
#[derive(Debug, Default)]
pub(super) struct Raw(BTreeMap<&'static str, (String, Source)>);

impl Raw {
    /// Sets a value; a later call wins.
    pub(super) fn set(&mut self, key: &'static str, value: String, source: Source) {
        self.0.insert(key, (value, source));
    }

    pub(super) fn find(&self, key: &'static str) -> (&str, &Source) {
        match self.0.get(key) {
            Some((value, source)) => (value, source),
            None => ("", &Source::Default),
        }
    }

    /// Understands a value; an error names its source and repeats it.
    pub(super) fn parse<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Setting<T>, ConfigError> {
        let (text, source) = self.find(key);
        match parse(text) {
            Ok(value) => Ok(Setting { value, source: source.clone() }),
            Err(wanted) => Err(ConfigError::new(format!("{source}: {key} = {text:?}: {wanted}"))),
        }
    }
}

/// The known name that is most like an unknown one, if any is near: at most one letter in three
/// differs.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count().div_ceil(3).min(4);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
        .filter(|(differences, _)| *differences <= most)
        .min_by_key(|(differences, _)| *differences)
        .map(|(_, candidate)| candidate)
}
