//! Time zones whose rules are part of the program: two beats on different machines agree.

use super::ScheduleError;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The longest name of a zone, in bytes; IANA's longest has 32.
pub const ZONE_NAME_BYTES_MAX: usize = 64;
/// Until when a zone keeps its changes in a table: 2100-01-01. Later ones are computed, which is slower.
const TABLE_UNTIL: i64 = 4_102_444_800;
/// How alike a name must be to be suggested for a wrong one.
const ALIKE: f64 = 0.7;
/// The shortest text that may be a city alone; `CEST` is not like `Australia/West`.
const CITY_BYTES: usize = 5;
/// Before and after all time, with room for an offset.
const ALWAYS: i64 = i64::MAX / 4;

/// Only the bundled rules: zone files of the system may be of another year.
static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone with its IANA name. A clone shares everything.
#[derive(Clone)]
pub struct Zone(Arc<Rules>);

struct Rules {
    name: String,
    timezone: TimeZone,
    /// When each offset begins, in seconds since the epoch; the first one began at the beginning.
    changes: Vec<(i64, i64)>,
    /// When the last one of the table ends.
    end: i64,
}

/// A stretch of time in which a zone has one offset. All in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: i64,
    /// Exclusive.
    pub(super) end: i64,
    /// East of Greenwich is positive.
    pub(super) offset: i64,
    /// The offset of the span before this one.
    pub(super) before: i64,
    /// The offset of the span after this one.
    pub(super) after: i64,
}

impl Zone {
    /// The zone of an IANA name (`Europe/Berlin`), in any case of its letters.
    ///
    /// Reads some hundred changes of offset: keep a zone that is needed more than once.
    ///
    /// # Errors
    /// When there is none of this name; the nearest one is suggested.
    pub fn named(name: &str) -> Result<Self, ScheduleError> {
        let unknown = |hint: String| {
            let shown: String = name.chars().take(ZONE_NAME_BYTES_MAX).collect();
            ScheduleError::new(format!("{shown:?} is no time zone; {hint}"))
        };
        let usual = "write an IANA name such as \"Europe/Berlin\" or \"UTC\"";
        if name.is_empty() || name.len() > ZONE_NAME_BYTES_MAX {
            return Err(unknown(usual.to_owned()));
        }
        let Ok(timezone) = DATABASE.get(name) else {
            let near = nearest(name).map(|near| format!("did you mean {near:?}?"));
            return Err(unknown(near.unwrap_or_else(|| usual.to_owned())));
        };
        let name = timezone.iana_name().unwrap_or(name).to_owned();
        Ok(Self::of(name, timezone))
    }

    /// Coordinated universal time, the zone of an app that names none.
    pub fn utc() -> Self {
        Self::of("UTC".to_owned(), TimeZone::UTC)
    }

    /// Every name that [`Self::named`] knows.
    pub fn names() -> impl Iterator<Item = String> {
        DATABASE.available().map(|name| name.to_string())
    }

    /// The IANA name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The rules, for what shows times to people.
    pub fn timezone(&self) -> &TimeZone {
        &self.0.timezone
    }

    fn of(name: String, timezone: TimeZone) -> Self {
        let mut offset = offset_at(&timezone, Timestamp::MIN);
        let mut changes = vec![(-ALWAYS, offset)];
        let mut end = ALWAYS;
        for change in timezone.following(Timestamp::MIN) {
            let at = change.timestamp().as_second();
            let next = i64::from(change.offset().seconds());
            if next == offset {
                continue;
            }
            if at > TABLE_UNTIL {
                end = at;
                break;
            }
            changes.push((at, next));
            offset = next;
        }
        Self(Arc::new(Rules { name, timezone, changes, end }))
    }

    /// The span that a second since the epoch lies in.
    pub(super) fn span(&self, at: i64) -> Span {
        let rules = &*self.0;
        if at >= rules.end {
            return self.computed_span(at);
        }
        let next = rules.changes.partition_point(|(start, _)| *start <= at);
        let (start, offset) = rules.changes[next.max(1) - 1];
        let before = if next > 1 { rules.changes[next - 2].1 } else { offset };
        let (end, after) = match rules.changes.get(next) {
            Some((end, after)) => (*end, *after),
            None if rules.end == ALWAYS => (ALWAYS, offset),
            None => (rules.end, self.offset_at_second(rules.end)),
        };
        Span { start, end, offset, before, after }
    }

    /// A span after those of the table.
    fn computed_span(&self, at: i64) -> Span {
        let timezone = &self.0.timezone;
        let offset = self.offset_at_second(at);
        let instant = Timestamp::from_second(at).unwrap_or(Timestamp::MAX);
        // The change at `at` itself begins the span.
        let upto = Timestamp::from_second(at + 1).unwrap_or(Timestamp::MAX);
        let start = timezone
            .preceding(upto)
            .next()
            .map_or(-ALWAYS, |change| change.timestamp().as_second());
        let next = timezone.following(instant).next();
        let end = next.as_ref().map_or(ALWAYS, |change| change.timestamp().as_second());
        let after = next.map_or(offset, |change| i64::from(change.offset().seconds()));
        Span { start, end, offset, before: self.offset_at_second(start - 1), after }
    }

    fn offset_at_second(&self, at: i64) -> i64 {
        let instant = Timestamp::from_second(at).unwrap_or(if at < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        });
        offset_at(&self.0.timezone, instant)
    }

    /// The second since the epoch at which a clock on the wall shows this: the first of two, and moved
    /// forward by the length of a gap.
    pub(super) fn second_of(&self, wall: DateTime) -> Option<i64> {
        let instant = self.0.timezone.to_ambiguous_timestamp(wall).compatible().ok()?;
        Some(instant.as_second())
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Zone({})", self.0.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.name)
    }
}

fn offset_at(timezone: &TimeZone, at: Timestamp) -> i64 {
    i64::from(timezone.to_offset(at).seconds())
}

/// The name of a zone that a wrong one was probably meant to be.
fn nearest(wrong: &str) -> Option<String> {
    let wrong = wrong.to_lowercase().replace(' ', "_");
    let likeness = |name: &str| {
        let longer = name.len().max(wrong.len()) as f64;
        // No text is more alike than its length allows; this spares most comparisons.
        let shorter = name.len().min(wrong.len()) as f64;
        if shorter < ALIKE * longer {
            return 0.0;
        }
        strsim::normalized_damerau_levenshtein(name, &wrong)
    };
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        // "Berlin" alone is near enough.
        let city = name.rsplit('/').next().filter(|_| wrong.len() >= CITY_BYTES);
        likeness(&name).max(city.map_or(0.0, likeness))
    };
    let scored = Zone::names().map(|name| (likeness(&name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))?;
    (best.0 >= ALIKE).then_some(best.1)
}
