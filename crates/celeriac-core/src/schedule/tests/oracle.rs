//! A walker that looks at every minute around every change of every clock, and knows nothing of spans.

use super::*;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use std::collections::BTreeSet;

/// How far around a change is looked, in minutes.
const AROUND: i64 = 180;

/// Numbers of a field that were expanded by hand; empty for all.
pub(super) struct Fields<'f> {
    pub(super) minutes: &'f [i8],
    pub(super) hours: &'f [i8],
    pub(super) weekdays: &'f [i8],
    pub(super) days: &'f [i8],
    pub(super) months: &'f [i8],
}

impl Fields<'_> {
    fn match_wall(&self, wall: DateTime) -> bool {
        let has = |set: &[i8], number: i8| set.is_empty() || set.contains(&number);
        has(self.minutes, wall.minute())
            && has(self.hours, wall.hour())
            && has(self.weekdays, wall.date().weekday().to_sunday_zero_offset())
            && has(self.days, wall.day())
            && has(self.months, wall.month())
    }

    fn takes_both(&self, rule: Repeat) -> bool {
        rule == Repeat::Both || rule == Repeat::Auto && self.hours.is_empty()
    }
}

/// A minute of the walk: an instant, and the time on the wall if it shows one that this instant stands
/// for or is moved to.
pub(super) struct Step {
    instant: i64,
    wall: DateTime,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Once,
    First,
    Second,
    Moved,
}

/// Every minute from one instant to another, and every time on the wall that is left out there.
pub(super) fn walk(timezone: &TimeZone, from: i64, until: i64) -> Vec<Step> {
    let mut steps = Vec::new();
    for instant in (from..=until).step_by(60) {
        let stamp = Timestamp::from_second(instant).unwrap();
        let offset = timezone.to_offset(stamp);
        let wall = offset.to_datetime(stamp);
        let kind = match timezone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Fold { before, .. } if before == offset => Kind::First,
            AmbiguousOffset::Fold { .. } => Kind::Second,
            _ => Kind::Once,
        };
        steps.push(Step { instant, wall, kind });
    }
    // Times that are left out show on no clock: walk the wall too, a day longer than any gap.
    let first = timezone.to_offset(Timestamp::from_second(from).unwrap());
    for wall in (from - AROUND * 60..=until + AROUND * 60).step_by(60) {
        let wall = first.to_datetime(Timestamp::from_second(wall).unwrap());
        let ambiguous = timezone.to_ambiguous_timestamp(wall);
        if let AmbiguousOffset::Gap { before, .. } = ambiguous.offset() {
            let instant = before.to_timestamp(wall).unwrap().as_second();
            if (from..=until).contains(&instant) {
                steps.push(Step { instant, wall, kind: Kind::Moved });
            }
        }
    }
    steps
}

/// The instants of a walk at which a crontab runs.
pub(super) fn runs(steps: &[Step], fields: &Fields<'_>, dst: DstRule) -> BTreeSet<i64> {
    let both = fields.takes_both(dst.repeat);
    let taken = |kind| match kind {
        Kind::Once => true,
        Kind::First => both || dst.repeat != Repeat::Last,
        Kind::Second => both || dst.repeat == Repeat::Last,
        Kind::Moved => dst.gap == Gap::Shift,
    };
    let matching = steps.iter().filter(|step| taken(step.kind) && fields.match_wall(step.wall));
    matching.map(|step| step.instant).collect()
}

pub(super) fn rules() -> impl Iterator<Item = DstRule> {
    let repeats = [Repeat::Auto, Repeat::First, Repeat::Last, Repeat::Both];
    let rule = move |gap| repeats.map(|repeat| DstRule { gap, repeat });
    [Gap::Shift, Gap::Skip].into_iter().flat_map(rule)
}

const ALL: Fields<'static> =
    Fields { minutes: &[], hours: &[], weekdays: &[], days: &[], months: &[] };

fn crontabs() -> Vec<(&'static str, Fields<'static>)> {
    vec![
        ("* * * * *", ALL),
        ("30 2 * * *", Fields { minutes: &[30], hours: &[2], ..ALL }),
        ("0 * * * *", Fields { minutes: &[0], ..ALL }),
        ("*/30 1-3 * * *", Fields { minutes: &[0, 30], hours: &[1, 2, 3], ..ALL }),
        ("15 3 * * sun", Fields { minutes: &[15], hours: &[3], weekdays: &[0], ..ALL }),
        ("0,29,59 2 * * *", Fields { minutes: &[0, 29, 59], hours: &[2], ..ALL }),
        ("0,59 0 * * *", Fields { minutes: &[0, 59], hours: &[0], ..ALL }),
        ("45 23-1 * * *", Fields { minutes: &[45], hours: &[23, 0, 1], ..ALL }),
        ("*/20 */1 * * *", Fields { minutes: &[0, 20, 40], ..ALL }),
        ("7,37 */2 * 3,10 *", {
            let hours = &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22];
            Fields { minutes: &[7, 37], hours, months: &[3, 10], ..ALL }
        }),
        ("10 2 * * sat-sun", Fields { minutes: &[10], hours: &[2], weekdays: &[6, 0], ..ALL }),
        ("50-10/10 2,3 25-31 * *", {
            let minutes = &[50, 0, 10];
            Fields { minutes, hours: &[2, 3], days: &[25, 26, 27, 28, 29, 30, 31], ..ALL }
        }),
        ("59 23 31 * *", Fields { minutes: &[59], hours: &[23], days: &[31], ..ALL }),
    ]
}

/// Compares `next`, `previous` and `count` with a walk, through the whole of it.
pub(super) fn compare(
    crontab: &Crontab,
    zone: &Zone,
    dst: DstRule,
    (from, until): (i64, i64),
    expected: &BTreeSet<i64>,
) {
    let instant = |second| Timestamp::from_second(second).unwrap();
    let mut found = BTreeSet::new();
    let mut last = instant(from - 1);
    while let Some(next) = crontab.next(last, zone, dst).filter(|next| *next <= instant(until)) {
        assert!(next > last, "{crontab} {zone} {dst:?}: {next} after {last}");
        found.insert(next.as_second());
        last = next;
    }
    assert_eq!(&found, expected, "{crontab} {zone} {dst:?} from {}", instant(from));
    let mut back = BTreeSet::new();
    let mut last = instant(until);
    while let Some(previous) = crontab.previous(last, zone, dst).filter(|at| *at >= instant(from)) {
        back.insert(previous.as_second());
        last = instant(previous.as_second() - 1);
    }
    assert_eq!(back, found, "{crontab} {zone} {dst:?} back from {}", instant(until));
}

/// Every zone of the bundled rules; those whose clocks change alike are looked at once.
#[test]
fn every_change_of_every_clock_until_2030_is_walked() {
    let (start, end) = (at("2024-01-01T00:00:00Z"), at("2031-01-01T00:00:00Z"));
    let mut walked = BTreeSet::new();
    let mut changes = 0;
    let crontabs: Vec<_> =
        crontabs().into_iter().map(|(line, fields)| (crontab(line), fields)).collect();
    for name in Zone::names() {
        let zone = Zone::named(&name).unwrap();
        let timezone = zone.timezone();
        for change in timezone.following(start).take_while(|change| change.timestamp() < end) {
            let second = change.timestamp().as_second();
            let before = timezone.to_offset(Timestamp::from_second(second - 1).unwrap());
            if !walked.insert((second, before.seconds(), change.offset().seconds())) {
                continue;
            }
            changes += 1;
            let window = (second - AROUND * 60, second + AROUND * 60);
            let steps = walk(timezone, window.0, window.1);
            for (crontab, fields) in &crontabs {
                for dst in rules() {
                    compare(crontab, &zone, dst, window, &runs(&steps, fields, dst));
                }
            }
        }
    }
    assert!(changes > 100, "{changes}");
    println!("{changes} changes");
}

/// The walker itself, by hand.
#[test]
fn the_walker_knows_the_nights_of_berlin() {
    let timezone = zone("Europe/Berlin").timezone().clone();
    let half_past_two = Fields { minutes: &[30], hours: &[2], ..ALL };
    let shown = |day: &str, dst| {
        let middle = at(day).as_second();
        let steps = walk(&timezone, middle - 7200, middle + 7200);
        let runs = runs(&steps, &half_past_two, dst);
        let minutes: Vec<i64> = runs.into_iter().map(|run| (run - middle) / 60).collect();
        minutes
    };
    let rule = |gap, repeat| DstRule { gap, repeat };
    assert_eq!(shown("2026-03-29T01:00:00Z", rule(Gap::Shift, Repeat::Auto)), [30]);
    assert_eq!(shown("2026-03-29T01:00:00Z", rule(Gap::Skip, Repeat::Auto)), [0; 0]);
    assert_eq!(shown("2026-10-25T01:00:00Z", rule(Gap::Shift, Repeat::Auto)), [-30]);
    assert_eq!(shown("2026-10-25T01:00:00Z", rule(Gap::Shift, Repeat::Last)), [30]);
    assert_eq!(shown("2026-10-25T01:00:00Z", rule(Gap::Shift, Repeat::Both)), [-30, 30]);
}
