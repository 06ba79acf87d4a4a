//! An entry of a schedule: what runs, when, and what holds for it.
//!
//! Its document is what stores keep, `--json` shows and HTTP takes. The names of Celery's own fields
//! (`task`, `schedule`, `args`, `kwargs`, `options`; wire specification 8.1) are Celery's.

use crate::schedule::{DstRule, Gap, Repeat, Schedule, Zone};
use celeriac_wire::{Map, Signature, Value, parse_iso};
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// The longest name of an entry, in bytes.
pub const ENTRY_NAME_BYTES_MAX: usize = 200;
/// The most occurrences that `misfire = all` makes up for.
const CATCH_UP_MAX: u32 = 10_000;
/// How late an occurrence may be sent without counting as missed, unless the entry says so: longer than
/// a fail-over takes.
const GRACE: Duration = Duration::from_secs(15);
/// The longest time that an entry may give: ten years.
const SPAN_MAX: Duration = Duration::from_hours(24 * 3660);

/// Why something is no entry, and what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EntryError(pub String);

impl From<crate::schedule::ScheduleError> for EntryError {
    fn from(error: crate::schedule::ScheduleError) -> Self {
        Self(error.to_string())
    }
}

/// What becomes of occurrences that passed while nobody sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misfire {
    /// They are not sent.
    Skip,
    /// All of them together are sent once, at once (Celery beat).
    #[default]
    Once,
    /// The latest of them are sent one by one, at most so many.
    All(u32),
}

/// What happens when an occurrence is due and an earlier one still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is sent (Celery beat).
    #[default]
    Allow,
    /// It is not sent.
    Skip,
    /// One waits until the earlier one has ended; further ones are not sent.
    QueueOne,
    /// The earlier one is revoked and terminated, and it is sent.
    CancelPrevious,
}

impl Overlap {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Allow, "allow"),
        (Self::Skip, "skip"),
        (Self::QueueOne, "queue-one"),
        (Self::CancelPrevious, "cancel-previous"),
    ];

    /// Its name in documents.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(one, _)| *one == self).map_or("allow", |(_, name)| name)
    }
}

/// Who fires an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `beat`, or the name of another scheduler, which asks for each occurrence before it runs it.
    pub name: String,
    /// Grows with every change of the owner; a scheduler that knows an older one is refused.
    pub epoch: u64,
}

impl Owner {
    /// The name of celeriac's own beat.
    pub const BEAT: &'static str = "beat";
}

impl Default for Owner {
    fn default() -> Self {
        Self { name: Self::BEAT.to_owned(), epoch: 1 }
    }
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// It was added by a command, over HTTP, by a program, or imported.
    Store,
    /// The Python application's `beat_schedule`.
    App,
    /// `celeriac.toml`.
    Config,
    /// A Rust application's `App::beat`.
    Program,
    /// A file or database of record, by `celeriac schedule sync`.
    Sync,
    /// RedBeat's keys, which are shared with it.
    RedBeat,
}

impl SourceKind {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Store, "store"),
        (Self::App, "app"),
        (Self::Config, "config"),
        (Self::Program, "program"),
        (Self::Sync, "sync"),
        (Self::RedBeat, "redbeat"),
    ];

    /// Its name in documents.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(one, _)| *one == self).map_or("store", |(_, name)| name)
    }
}

/// Where an entry comes from, and what it was there.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Where from.
    pub kind: SourceKind,
    /// What it was there when it was taken over, if it is static: an entry that differs from it was
    /// changed since, and the source does not overwrite it.
    pub original: Option<Box<Value>>,
}

impl Default for Source {
    fn default() -> Self {
        Self { kind: SourceKind::Store, original: None }
    }
}

/// An entry of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name, unique in the store.
    pub name: String,
    /// The task's name.
    pub task: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Named arguments.
    pub kwargs: Map,
    /// Options of Celery's `apply_async`: `queue`, `priority`, `expires`, `headers` and so on.
    pub options: Map,
    /// When it is due.
    pub schedule: Schedule,
    /// The zone of its wall clock.
    pub zone: Zone,
    /// It is not due before this.
    pub start: Option<Timestamp>,
    /// It is not due after this.
    pub end: Option<Timestamp>,
    /// Each occurrence is sent up to so much later, by chance that is the same on every beat.
    pub jitter: Duration,
    /// What becomes of missed occurrences.
    pub misfire: Misfire,
    /// How late an occurrence may be sent without counting as missed.
    pub misfire_grace: Duration,
    /// What happens when an earlier occurrence still runs.
    pub overlap: Overlap,
    /// How many occurrences may wait or run at a time; `None`: any number if overlap is allowed, else one.
    pub max_instances: Option<u32>,
    /// What holds at changes of the clock.
    pub dst: DstRule,
    /// Whether it is not paused.
    pub enabled: bool,
    /// For people.
    pub description: String,
    /// Where it comes from.
    pub source: Source,
    /// Who fires it.
    pub owner: Owner,
}

/// The fields of a document.
const FIELDS: [&str; 22] = [
    "name",
    "task",
    "args",
    "kwargs",
    "options",
    "schedule",
    "zone",
    "start",
    "end",
    "jitter",
    "misfire",
    "misfire_limit",
    "misfire_grace",
    "overlap",
    "max_instances",
    "dst_gap",
    "dst_repeat",
    "enabled",
    "description",
    "source",
    "owner",
    "owner_epoch",
];

impl Entry {
    /// An entry that runs a task by a schedule, everything else as Celery has it.
    ///
    /// # Errors
    /// A name or a task that is empty or too long, or has control characters.
    pub fn new(name: &str, task: &str, schedule: Schedule, zone: Zone) -> Result<Self, EntryError> {
        check_name("an entry's name", name)?;
        check_name("a task's name", task)?;
        Ok(Self {
            name: name.to_owned(),
            task: task.to_owned(),
            args: Vec::new(),
            kwargs: Map::default(),
            options: Map::default(),
            schedule,
            zone,
            start: None,
            end: None,
            jitter: Duration::ZERO,
            misfire: Misfire::default(),
            misfire_grace: GRACE,
            overlap: Overlap::default(),
            max_instances: None,
            dst: DstRule::default(),
            enabled: true,
            description: String::new(),
            source: Source::default(),
            owner: Owner::default(),
        })
    }

    /// Whether a beat of ours fires it.
    pub fn is_ours(&self) -> bool {
        self.owner.name == Owner::BEAT
    }

    /// How many occurrences may wait or run at a time; `None`: any number.
    pub fn instances_max(&self) -> Option<usize> {
        let bound = self.max_instances.map(|bound| bound as usize);
        if self.overlap == Overlap::Allow { bound } else { Some(bound.unwrap_or(1)) }
    }

    /// The first occurrence after an instant, within its start and end.
    pub fn next(&self, after: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        // The start itself may be an occurrence.
        let before_start = self.start.map(|start| start - jiff::SignedDuration::from_micros(1));
        let after = before_start.map_or(after, |start| after.max(start));
        let next = self.schedule.next(after, anchor, &self.zone, self.dst)?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    /// What is sent for an occurrence.
    pub fn signature(&self, task_id: &str) -> Signature {
        let mut signature = Signature::new(&self.task)
            .with_args(self.args.clone())
            .with_kwargs(self.kwargs.clone());
        let mut headers =
            self.options.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
        // As `ScheduleEntry` of celery/beat.py 5.7 has it; the other is ours.
        headers.insert("celery_beat_task", true);
        headers.insert("celeriac_entry", self.name.as_str());
        *signature.options_mut() = self.options.clone();
        signature.with_option("headers", headers).with_option("task_id", task_id)
    }

    /// Whether two entries are due at the same times.
    pub fn same_times(&self, other: &Self) -> bool {
        self.schedule == other.schedule
            && self.zone == other.zone
            && self.dst == other.dst
            && self.start == other.start
            && self.end == other.end
    }

    /// As a document: every field, times as ISO 8601, durations in seconds.
    pub fn to_value(&self) -> Value {
        let mut map = self.definition();
        map.insert("enabled", self.enabled);
        map.insert("source", self.source.kind.as_str());
        if let Some(original) = &self.source.original {
            map.insert("original", (**original).clone());
        }
        map.insert("owner", self.owner.name.as_str());
        map.insert("owner_epoch", self.owner.epoch);
        Value::Object(map)
    }

    /// The part of it that a source of entries gives.
    pub fn definition(&self) -> Map {
        let instant = |at: Option<Timestamp>| at.map_or(Value::Null, |at| at.to_string().into());
        let mut map = Map::new();
        map.insert("name", self.name.as_str());
        map.insert("task", self.task.as_str());
        map.insert("args", self.args.clone());
        map.insert("kwargs", self.kwargs.clone());
        map.insert("options", self.options.clone());
        map.insert("schedule", self.schedule.to_value());
        map.insert("zone", self.zone.name());
        map.insert("start", instant(self.start));
        map.insert("end", instant(self.end));
        map.insert("jitter", self.jitter.as_secs_f64());
        let (misfire, limit) = match self.misfire {
            Misfire::Skip => ("skip", None),
            Misfire::Once => ("once", None),
            Misfire::All(limit) => ("all", Some(limit)),
        };
        map.insert("misfire", misfire);
        map.insert("misfire_limit", limit.map_or(Value::Null, Value::from));
        map.insert("misfire_grace", self.misfire_grace.as_secs_f64());
        map.insert("overlap", self.overlap.as_str());
        map.insert("max_instances", self.max_instances.map_or(Value::Null, Value::from));
        map.insert("dst_gap", if self.dst.gap == Gap::Shift { "shift" } else { "skip" });
        let repeat = match self.dst.repeat {
            Repeat::Auto => "auto",
            Repeat::First => "first",
            Repeat::Last => "last",
            Repeat::Both => "both",
        };
        map.insert("dst_repeat", repeat);
        map.insert("description", self.description.as_str());
        map
    }

    /// Reads a document; what it does not say is as in [`Entry::new`], its zone is `zone` then.
    ///
    /// # Errors
    /// An unknown field, a field of the wrong type or without sense; the text names it.
    pub fn from_value(value: &Value, zone: &Zone) -> Result<Self, EntryError> {
        let fields = Fields::of(value)?;
        let schedule = fields.given("schedule").ok_or_else(|| {
            EntryError(
                "an entry needs a schedule, such as {\"type\": \"interval\", \"every\": 60}"
                    .to_owned(),
            )
        })?;
        let zone = match fields.text("zone")? {
            Some(name) => Zone::named(name)?,
            None => zone.clone(),
        };
        let mut entry = Self::new(
            fields.text("name")?.unwrap_or_default(),
            fields.text("task")?.unwrap_or_default(),
            Schedule::from_value(schedule)?,
            zone,
        )?;
        if let Some(args) = fields.given("args") {
            entry.args = args.as_array().ok_or_else(|| wrong("args", "a list", args))?.to_vec();
        }
        entry.kwargs = fields.object("kwargs")?;
        entry.options = fields.object("options")?;
        entry.start = fields.instant("start")?;
        entry.end = fields.instant("end")?;
        entry.jitter = fields.span("jitter")?.unwrap_or_default();
        entry.misfire_grace = fields.span("misfire_grace")?.unwrap_or(GRACE);
        entry.misfire = fields.misfire()?;
        entry.overlap = fields.one_of("overlap", &Overlap::ALL)?.unwrap_or_default();
        entry.max_instances = fields.count("max_instances", CATCH_UP_MAX)?;
        let gaps = [(Gap::Shift, "shift"), (Gap::Skip, "skip")];
        entry.dst.gap = fields.one_of("dst_gap", &gaps)?.unwrap_or(Gap::Shift);
        let repeats = [
            (Repeat::Auto, "auto"),
            (Repeat::First, "first"),
            (Repeat::Last, "last"),
            (Repeat::Both, "both"),
        ];
        entry.dst.repeat = fields.one_of("dst_repeat", &repeats)?.unwrap_or(Repeat::Auto);
        if let Some(enabled) = fields.given("enabled") {
            entry.enabled =
                enabled.as_bool().ok_or_else(|| wrong("enabled", "true or false", enabled))?;
        }
        fields.text("description")?.unwrap_or_default().clone_into(&mut entry.description);
        entry.source.kind = fields.one_of("source", &SourceKind::ALL)?.unwrap_or(SourceKind::Store);
        entry.source.original = fields.given("original").map(|value| Box::new(value.clone()));
        if let Some(owner) = fields.text("owner")? {
            owner.clone_into(&mut entry.owner.name);
        }
        if let Some(epoch) = fields.given("owner_epoch") {
            entry.owner.epoch =
                epoch.as_u64().ok_or_else(|| wrong("owner_epoch", "a whole number", epoch))?;
        }
        entry.check()?;
        Ok(entry)
    }

    /// Whether its fields make sense together.
    ///
    /// # Errors
    /// It ends before it begins, or may not run at all.
    pub fn check(&self) -> Result<(), EntryError> {
        check_name("an entry's name", &self.name)?;
        check_name("a task's name", &self.task)?;
        check_name("an owner's name", &self.owner.name)?;
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(EntryError(format!("it ends at {end}, before its start at {start}")));
        }
        if self.options.get("task_id").is_some() {
            return Err(EntryError(
                "options.task_id: each occurrence has an id of its own".to_owned(),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} {}", self.name, self.task, self.schedule.sentence(&self.zone))
    }
}

fn check_name(what: &str, name: &str) -> Result<(), EntryError> {
    if name.is_empty() {
        return Err(EntryError(format!("{what} is missing")));
    }
    if name.len() > ENTRY_NAME_BYTES_MAX {
        let length = name.len();
        return Err(EntryError(format!(
            "{what} has {length} bytes, at most {ENTRY_NAME_BYTES_MAX} are allowed"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(EntryError(format!("{what} has control characters: {name:?}")));
    }
    Ok(())
}

fn wrong(field: &str, expected: &str, found: &Value) -> EntryError {
    EntryError(format!("{field}: {expected} is expected, not {}", found.describe()))
}

/// The fields of a document, read with words about what is wrong.
struct Fields<'a>(&'a Map);

impl<'a> Fields<'a> {
    fn of(value: &'a Value) -> Result<Self, EntryError> {
        let map = value.as_object().ok_or_else(|| {
            EntryError(format!("an entry is an object, not {}", value.describe()))
        })?;
        let known = |name: &str| FIELDS.contains(&name) || name == "original";
        match map.keys().find(|name| !known(name)) {
            None => Ok(Self(map)),
            Some(unknown) => Err(EntryError(format!(
                "{unknown}: an entry has no such field; it may have {}",
                FIELDS.join(", ")
            ))),
        }
    }

    fn given(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, EntryError> {
        self.given(name)
            .map(|value| value.as_str().ok_or_else(|| wrong(name, "a text", value)))
            .transpose()
    }

    fn object(&self, name: &str) -> Result<Map, EntryError> {
        match self.given(name) {
            None => Ok(Map::default()),
            Some(value) => {
                value.as_object().cloned().ok_or_else(|| wrong(name, "an object", value))
            }
        }
    }

    fn instant(&self, name: &str) -> Result<Option<Timestamp>, EntryError> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let read = value.as_str().and_then(|text| parse_iso(text).ok());
        let read =
            read.ok_or_else(|| wrong(name, "an instant such as 2026-12-31T23:00:00Z", value));
        read.map(Some)
    }

    fn span(&self, name: &str) -> Result<Option<Duration>, EntryError> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let span = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match span.filter(|span| *span <= SPAN_MAX) {
            Some(span) => Ok(Some(span)),
            None => Err(wrong(name, "a number of seconds, at most ten years", value)),
        }
    }

    fn count(&self, name: &str, max: u32) -> Result<Option<u32>, EntryError> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        match count.filter(|count| (1..=max).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(wrong(name, &format!("a number from 1 to {max}"), value)),
        }
    }

    fn one_of<T: Copy>(
        &self,
        name: &str,
        known: &[(T, &'static str)],
    ) -> Result<Option<T>, EntryError> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let one = known.iter().find(|(_, word)| value.as_str() == Some(word));
        one.map(|(one, _)| Some(*one)).ok_or_else(|| {
            let words: Vec<&str> = known.iter().map(|(_, word)| *word).collect();
            wrong(name, &format!("one of {}", words.join(", ")), value)
        })
    }

    fn misfire(&self) -> Result<Misfire, EntryError> {
        let limit = self.count("misfire_limit", CATCH_UP_MAX)?;
        let words = [(0, "skip"), (1, "once"), (2, "all")];
        match (self.one_of("misfire", &words)?, limit) {
            (Some(2), limit) => Ok(Misfire::All(limit.unwrap_or(CATCH_UP_MAX))),
            (_, Some(_)) => {
                Err(EntryError("misfire_limit: it only goes with misfire = all".to_owned()))
            }
            (Some(0), None) => Ok(Misfire::Skip),
            _ => Ok(Misfire::Once),
        }
    }
}
