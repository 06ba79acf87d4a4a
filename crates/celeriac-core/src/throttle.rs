//! Rate and concurrency limits: their words, what they apply to, and the arithmetic of a rate. Pure.
//!
//! A limit that holds in the whole store is a [`LimitRule`]; a worker's own rate (Celery's
//! `rate_limit`) is a [`Rate`] that only this worker counts ([`Spread`]).

use crate::queue::QueueName;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The most grants of a rate with a burst: each is a row until its time is over.
pub const BURST_MAX: u32 = 10_000;
/// The most rules, and the most pauses, of a store: each publish and fetch looks at all of them.
pub const RULES_MAX: usize = 1000;
/// How many rates one rule may name.
pub const RATES_MAX: usize = 8;
/// The longest key of a message, in bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// A worker that wakes up late by this share of the period loses nothing of its rate.
const LATE_SHARE: u32 = 100;
/// … but by no more than this.
const LATE_MAX: Duration = Duration::from_millis(100);

/// The header that carries a message's key: the tenant, account or device that limits are counted for.
pub const KEY_HEADER: &str = "celeriac_key";

/// So many in such a time.
///
/// Read as Celery reads it (`celery/utils/time.py` 5.7, `rate`): `10` and `10/s` are ten a second,
/// `100/m`, `1000/h`; also `5000/d` and `3/10s`. They are spread evenly, as Celery's token bucket of
/// capacity one does. `100/m burst` lets them come at once. Either way there are never more than
/// `count` in any span of that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time; not zero.
    pub per: Duration,
    /// Whether they may come all at once.
    pub burst: bool,
}

/// The longest period of a rate: one that can be read again as it is shown.
const PERIOD_MAX: Duration = Duration::from_secs(u32::MAX as u64);

impl Rate {
    /// Reads a rate; `None` for one that limits nothing (`0`, as in Celery).
    ///
    /// # Errors
    /// What is wrong with the text, and what is accepted.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let wrong =
            || format!("{text:?} is no rate; write 10/s, 100/m, 1000/h, 5000/d, or `100/m burst`");
        let trimmed = text.trim();
        let (numbers, burst) = match trimmed.strip_suffix("burst") {
            Some(numbers) => (numbers.trim_end(), true),
            None => (trimmed, false),
        };
        let (count, unit) = numbers.split_once('/').unwrap_or((numbers, "s"));
        let count: f64 = count.trim().parse().map_err(|_| wrong())?;
        let per = period(unit.trim()).ok_or_else(wrong)?;
        if !count.is_finite() || count < 0.0 || count > f64::from(u32::MAX) {
            return Err(wrong());
        }
        if count == 0.0 {
            return Ok(None);
        }
        // Half a task a second is one in two seconds.
        let rate = if count.fract() == 0.0 {
            Self { count: count as u32, per, burst }
        } else {
            let per =
                Duration::try_from_secs_f64(per.as_secs_f64() / count).map_err(|_| wrong())?;
            Self { count: 1, per, burst }
        };
        if rate.per.is_zero() {
            return Err(wrong());
        }
        if rate.per > PERIOD_MAX {
            return Err(format!("{text:?}: one in more than {} s", PERIOD_MAX.as_secs()));
        }
        if burst && rate.count > BURST_MAX {
            return Err(format!("{text:?}: a burst has at most {BURST_MAX} tasks"));
        }
        Ok(Some(rate))
    }

    /// How late the next one may be asked for without slowing the rate.
    fn lateness(self) -> Duration {
        (self.per / LATE_SHARE).min(LATE_MAX)
    }

    /// The time between two that are spread evenly, in microseconds.
    ///
    /// With a lateness `l`, the k-th of a run comes no earlier than `(k - 1) * interval - l` after the
    /// first; so that the one after `count` falls outside `per`, the interval is `(per + l) / count`.
    fn interval(self) -> i64 {
        let micros = (self.per + self.lateness()).as_micros().div_ceil(u128::from(self.count));
        i64::try_from(micros).unwrap_or(i64::MAX / 4)
    }
}

fn period(unit: &str) -> Option<Duration> {
    let digits = unit.find(|c: char| !c.is_ascii_digit())?;
    let times: u32 = if digits == 0 { 1 } else { unit[..digits].parse().ok()? };
    let seconds = match &unit[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Duration::from_secs(seconds).checked_mul(times)
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = (self.per.subsec_nanos() == 0).then_some(self.per.as_secs());
        match whole {
            Some(1) => write!(formatter, "{}/s", self.count)?,
            Some(60) => write!(formatter, "{}/m", self.count)?,
            Some(3600) => write!(formatter, "{}/h", self.count)?,
            Some(86_400) => write!(formatter, "{}/d", self.count)?,
            Some(seconds) => write!(formatter, "{}/{seconds}s", self.count)?,
            // Made from a fraction: one in `per`.
            None => write!(formatter, "{}/s", 1.0 / self.per.as_secs_f64())?,
        }
        if self.burst { formatter.write_str(" burst") } else { Ok(()) }
    }
}

/// Reads several rates that hold together: `100/m burst, 1000/h burst`.
///
/// # Errors
/// The first that is none or limits nothing, or too many.
pub fn parse_rates(text: &str) -> Result<Vec<Rate>, String> {
    let mut rates = Vec::new();
    for part in text.split(',') {
        rates.push(part.parse()?);
    }
    if rates.len() > RATES_MAX {
        return Err(format!(
            "{text:?} has {} rates, at most {RATES_MAX} hold together",
            rates.len()
        ));
    }
    Ok(rates)
}

/// Where an evenly spread rate stands: the time before which the next one would be early (GCRA, the
/// generic cell rate algorithm of ITU-T I.371), in microseconds of the clock that counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread(pub i64);

impl Spread {
    /// When the next one may go.
    pub fn next(self, rate: Rate) -> i64 {
        self.0.saturating_sub(i64::try_from(rate.lateness().as_micros()).unwrap_or(0))
    }

    /// How many may go at `now`.
    pub fn free(self, rate: Rate, now: i64) -> usize {
        let ahead = now.saturating_sub(self.next(rate));
        if ahead < 0 {
            return 0;
        }
        // Time that passed unused is not saved up beyond the lateness.
        let lateness = i64::try_from(rate.lateness().as_micros()).unwrap_or(0);
        usize::try_from(ahead.min(lateness) / rate.interval())
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }

    /// Where it stands at `now` if the clock was set back since the last one went: never further ahead
    /// than one that went as early as it may.
    pub fn at_most(self, rate: Rate, now: i64) -> Self {
        let lateness = i64::try_from(rate.lateness().as_micros()).unwrap_or(0);
        Self(self.0.min(now.saturating_add(lateness).saturating_add(rate.interval())))
    }

    /// Where it stands after one went at `now`.
    pub fn after_one(self, rate: Rate, now: i64) -> Self {
        Self(self.0.max(now).saturating_add(rate.interval()))
    }
}

/// What a limit or a pause is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Everything in the store.
    Everything,
    /// One queue.
    Queue(String),
    /// All messages of one task name, in every queue.
    Task(String),
    /// All messages of one key, whatever their task; `*` means each key for itself.
    Key(String),
}

impl Target {
    /// Its kind in tables: `everything`, `queue`, `task`, `key`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Queue(_) => "queue",
            Self::Task(_) => "task",
            Self::Key(_) => "key",
        }
    }

    /// Its name in tables; empty for everything.
    pub fn name(&self) -> &str {
        match self {
            Self::Everything => "",
            Self::Queue(name) | Self::Task(name) | Self::Key(name) => name,
        }
    }

    /// What a person means by a kind and a name.
    ///
    /// # Errors
    /// What is wrong with them, and what is accepted.
    pub fn named(kind: &str, name: &str) -> Result<Self, String> {
        let target = Self::of(kind, name).ok_or_else(|| {
            format!("there is no kind {kind:?}; write queue, task, key or everything")
        })?;
        match (&target, name.is_empty()) {
            (Self::Everything, false) => Err(format!("everything has no name, not {name:?}")),
            (Self::Queue(_) | Self::Task(_) | Self::Key(_), true) => {
                Err(format!("the {kind} has no name"))
            }
            _ => Ok(target),
        }
    }

    /// What is paused or resumed: a pause of each key by itself would be one of all keys.
    ///
    /// # Errors
    /// What to write instead.
    pub fn pausable(self) -> Result<Self, String> {
        match self {
            Self::Key(name) if name == "*" => {
                Err("each key for itself is for limits; name one key".to_owned())
            }
            target => Ok(target),
        }
    }

    /// From a kind and a name; `None` for an unknown kind.
    pub fn of(kind: &str, name: &str) -> Option<Self> {
        let name = name.to_owned();
        Some(match kind {
            "everything" => Self::Everything,
            "queue" => Self::Queue(name),
            "task" => Self::Task(name),
            "key" => Self::Key(name),
            _ => return None,
        })
    }
}

impl From<&QueueName> for Target {
    fn from(queue: &QueueName) -> Self {
        Self::Queue(queue.as_str().to_owned())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => formatter.write_str("everything"),
            _ => write!(formatter, "{} {}", self.kind(), self.name()),
        }
    }
}

/// Who made a rule; the operator's stands before the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleOrigin {
    /// A task's own options.
    Application,
    /// `celeriac limit set`.
    Operator,
}

impl RuleOrigin {
    /// Its word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Operator => "operator",
        }
    }
}

/// A limit that holds for all workers of a store together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// What it limits.
    pub target: Target,
    /// Whether each key has the limit for itself.
    pub per_key: bool,
    /// How many may start; all of them hold.
    pub rates: Vec<Rate>,
    /// How many may run at once; `None` is no limit.
    pub concurrency: Option<u32>,
    /// Who made it.
    pub origin: RuleOrigin,
}

impl LimitRule {
    /// Whether it limits nothing, so that it only takes an older rule away.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.concurrency.is_none()
    }

    /// The name under which a message of this task, queue and key is counted; `None` when the rule is
    /// not about it.
    pub fn counter(&self, queue: &str, task: &str, key: &str) -> Option<String> {
        let (applies, each_key) = match &self.target {
            Target::Everything => (true, self.per_key),
            Target::Queue(name) => (name == queue, self.per_key),
            Target::Task(name) => (name == task, self.per_key),
            Target::Key(name) => (!key.is_empty() && (name == "*" || name == key), true),
        };
        if !applies {
            return None;
        }
        let name = match &self.target {
            // A rule for all keys and one for this key count the same messages.
            Target::Key(_) => "key".to_owned(),
            other => other.to_string(),
        };
        Some(if each_key { format!("{name} of {key}") } else { name })
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)?.ok_or_else(|| format!("{text:?} limits nothing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn rates_are_read_as_celery_reads_them() {
        for (text, count, seconds, burst, shown) in [
            ("10", 10, 1, false, "10/s"),
            ("10/s", 10, 1, false, "10/s"),
            (" 100/m ", 100, 60, false, "100/m"),
            ("1000/h burst", 1000, 3600, true, "1000/h burst"),
            ("0.5/s", 1, 2, false, "1/2s"),
            ("3/10s", 3, 10, false, "3/10s"),
            ("7/d", 7, 86_400, false, "7/d"),
        ] {
            let rate = Rate::parse(text).unwrap().unwrap();
            assert_eq!(rate, Rate { count, per: Duration::from_secs(seconds), burst }, "{text}");
            assert_eq!(rate.to_string(), shown);
            assert_eq!(Rate::parse(shown).unwrap(), Some(rate));
        }
        assert_eq!(Rate::parse("0/s").unwrap(), None);
        for wrong in ["", "x", "10/y", "-1/s", "inf/s", "10/0s", "20000/m burst", "10/s/s"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_rates("100/m burst, 1000/h burst").unwrap().len(), 2);
    }

    #[test]
    fn a_period_that_could_not_be_read_again_is_refused() {
        assert!(Rate::parse("0.0000000001/s").unwrap_err().contains("4294967295"));
        assert!(Rate::parse("1/4294967295d").is_err());
        let longest = Rate::parse("1/4294967295s").unwrap().unwrap();
        assert_eq!(Rate::parse(&longest.to_string()).unwrap(), Some(longest));
    }

    /// Whoever asks as often as possible, however late now and then, never gets more than the rate
    /// in any window, and gets nearly all of it.
    #[test]
    fn a_spread_rate_holds_in_every_window() {
        let mut random = 7u64;
        for text in ["50/s", "1/s", "1000/s", "100/m", "3/10s"] {
            let rate: Rate = text.parse().unwrap();
            let per = i64::try_from(rate.per.as_micros()).unwrap();
            let (mut spread, mut now, mut gone) = (Spread(0), 1_000 * SECOND, Vec::new());
            let end = now + 20 * per;
            while now < end {
                for _ in 0..spread.free(rate, now) {
                    gone.push(now);
                    spread = spread.after_one(rate, now);
                }
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let late = i64::try_from(random >> 33).unwrap() % (per / 200).clamp(1, SECOND / 20);
                now = (spread.next(rate).max(now + 1)) + late;
            }
            let count = rate.count as usize;
            for window in gone.windows(count + 1) {
                assert!(window[count] - window[0] >= per, "{text}: {} in a window", count + 1);
            }
            assert!(gone.len() * 100 >= 20 * count * 95, "{text}: only {} went", gone.len());
        }
    }

    /// Looking at a rate all the time does not loosen it.
    #[test]
    fn a_look_changes_nothing_unless_the_clock_was_set_back() {
        for text in ["50/s", "1/s", "1000/s", "100/m"] {
            let rate: Rate = text.parse().unwrap();
            let (mut spread, mut now) = (Spread(0), 1_000 * SECOND);
            for _ in 0..100 {
                now = now.max(spread.next(rate));
                spread = spread.after_one(rate, now);
                assert_eq!(spread.at_most(rate, now), spread, "{text}");
            }
            let back = now - 500 * SECOND;
            assert!(spread.at_most(rate, back).next(rate) <= back + rate.interval(), "{text}");
        }
    }

    #[test]
    fn rules_count_what_they_are_about() {
        let rule = |target, per_key| LimitRule {
            target,
            per_key,
            rates: Vec::new(),
            concurrency: Some(1),
            origin: RuleOrigin::Operator,
        };
        let task = Target::Task("mail".into());
        for (target, per_key, expected) in [
            (task.clone(), false, Some("task mail")),
            (task, true, Some("task mail of acme")),
            (Target::Task("other".into()), false, None),
            (Target::Queue("q".into()), false, Some("queue q")),
            (Target::Key("*".into()), false, Some("key of acme")),
            (Target::Key("acme".into()), false, Some("key of acme")),
            (Target::Key("other".into()), false, None),
            (Target::Everything, false, Some("everything")),
        ] {
            let counter = rule(target.clone(), per_key).counter("q", "mail", "acme");
            assert_eq!(counter.as_deref(), expected, "{target}");
        }
        assert_eq!(rule(Target::Key("*".into()), false).counter("q", "mail", ""), None);
    }

    #[test]
    fn targets_round_trip() {
        for target in [
            Target::Everything,
            Target::Queue("q".into()),
            Target::Task("t".into()),
            Target::Key("k".into()),
        ] {
            assert_eq!(Target::of(target.kind(), target.name()), Some(target));
        }
        assert_eq!(Target::of("other", ""), None);
    }
}
