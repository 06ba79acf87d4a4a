//! Random crontabs and intervals, at random instants; the same in every run.

use super::oracle::{Fields, compare, rules, runs, walk};
use super::*;
use jiff::civil::Date;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::RngSeed;
use std::collections::BTreeSet;

/// A field as text, and its numbers by hand; none for all.
type Written = (String, Vec<i8>);

fn config(cases: u32) -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(2026);
    ProptestConfig { cases, failure_persistence: None, rng_seed, ..Default::default() }
}

fn field(min: i8, max: i8, words: &'static [&'static str]) -> impl Strategy<Value = Written> {
    let all: Vec<i8> = (min..=max).collect();
    let written = move |number: i8, as_word: bool| match words.get((number - min) as usize) {
        Some(word) if as_word => (*word).to_owned(),
        _ => number.to_string(),
    };
    let range = move |from: i8, until: i8| {
        let end = if until < from { until + (max - min + 1) } else { until };
        let wrapped =
            move |number: i8| if number > max { number - (max - min + 1) } else { number };
        (from..=end).map(wrapped).collect::<Vec<i8>>()
    };
    prop_oneof![
        3 => Just(("*".to_owned(), Vec::new())),
        2 => (1..=max, any::<bool>()).prop_map(move |(step, _)| {
            (format!("*/{step}"), (min..=max).step_by(step as usize).collect())
        }),
        2 => (min..=max, min..=max, 1_i8..9, any::<bool>()).prop_map(move |(from, until, step, word)| {
            let text = format!("{}-{}", written(from, word), written(until, word));
            let text = if step == 1 { text } else { format!("{text}/{step}") };
            (text, range(from, until).into_iter().step_by(step as usize).collect())
        }),
        4 => (subsequence(all, 1..4), any::<bool>()).prop_map(move |(numbers, word)| {
            let texts: Vec<String> = numbers.iter().map(|number| written(*number, word)).collect();
            (texts.join(","), numbers)
        }),
    ]
}

const DAYS: &[&str] = &["sun", "Monday", "tue", "WED", "thursday", "fri", "sat"];
const MONTHS: &[&str] = &[
    "jan", "february", "mar", "Apr", "may", "jun", "july", "aug", "SEP", "oct", "nov", "december",
];

fn five() -> impl Strategy<Value = [Written; 5]> {
    let days = prop_oneof![2 => Just(("*".to_owned(), Vec::new())), 1 => field(1, 31, &[])];
    let months = prop_oneof![2 => Just(("*".to_owned(), Vec::new())), 1 => field(1, 12, MONTHS)];
    let weekdays = prop_oneof![1 => Just(("*".to_owned(), Vec::new())), 1 => field(0, 6, DAYS)];
    (field(0, 59, &[]), field(0, 23, &[]), days, months, weekdays)
        .prop_map(|(minute, hour, day, month, weekday)| [minute, hour, day, month, weekday])
}

fn line(five: &[Written; 5]) -> String {
    five.each_ref().map(|(text, _)| text.as_str()).join(" ")
}

fn zone_name() -> impl Strategy<Value = &'static str> {
    select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Antarctica/Troll",
        "America/Havana",
    ])
}

/// Midnight of a day from 1975 to 2150, or an hour before a change of the clock after it.
fn instant(day: i64, change: bool, zone: &Zone) -> i64 {
    let midnight = Timestamp::from_second(day * 86_400).unwrap();
    let next = zone.timezone().following(midnight).next().filter(|_| change);
    next.map_or(midnight.as_second(), |change| change.timestamp().as_second() - 3600)
}

const DAYS_OF_1975_TO_2150: std::ops::Range<i64> = 1826..65_744;

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn two_days_are_as_the_walker_sees_them(
        five in five(),
        day in DAYS_OF_1975_TO_2150,
        change in any::<bool>(),
        name in zone_name(),
        rule in 0..8_usize,
    ) {
        let Ok(crontab) = Crontab::from_string(&line(&five)) else { return Ok(()) };
        let zone = zone(name);
        let [minutes, hours, days, months, weekdays] = five.each_ref().map(|(_, set)| set.as_slice());
        let fields = Fields { minutes, hours, weekdays, days, months };
        let from = instant(day, change, &zone);
        let window = (from, from + 2 * 86_400);
        let dst = rules().nth(rule).unwrap();
        let expected = runs(&walk(zone.timezone(), window.0, window.1), &fields, dst);
        // `Auto` asks for the hours, not for how they are written.
        let every_hour = (0..24).all(|hour| hours.contains(&hour));
        if dst.repeat != Repeat::Auto || !every_hour {
            compare(&crontab, &zone, dst, window, &expected);
        }
        let instant = |second| Timestamp::from_second(second).unwrap();
        let schedule = Schedule::Crontab(crontab);
        let (after, until) = (instant(from - 1), instant(window.1));
        let count = |max| schedule.count(after, until, after, &zone, dst, max);
        let mut last = after;
        let mut found = 0;
        while let Some(next) = schedule.next(last, after, &zone, dst).filter(|next| *next <= until) {
            prop_assert_eq!(schedule.previous(next, after, &zone, dst), Some(next));
            if found > 0 {
                let just_before = instant(next.as_second() - 1);
                prop_assert_eq!(schedule.previous(just_before, after, &zone, dst), Some(last));
            }
            last = next;
            found += 1;
        }
        prop_assert_eq!(count(u32::MAX), found);
        prop_assert_eq!(count(3), found.min(3));
    }

    #[test]
    fn rare_days_are_found_day_by_day(five in five(), day in DAYS_OF_1975_TO_2150) {
        let read = Crontab::from_string(&line(&five));
        let has = |set: &[i8], number: i8| set.is_empty() || set.contains(&number);
        let [_, _, days, months, weekdays] = five.each_ref().map(|(_, set)| set.as_slice());
        let on = |date: &Date| {
            let weekday = date.weekday().to_sunday_zero_offset();
            has(days, date.day()) && has(months, date.month()) && has(weekdays, weekday)
        };
        let Ok(crontab) = read else {
            // No year has such a date.
            let mut year = Date::constant(2024, 1, 1).series(jiff::Span::new().days(1)).take(366);
            prop_assert!(!year.any(|date| has(days, date.day()) && has(months, date.month())));
            return Ok(());
        };
        let zone = Zone::utc();
        let start = Timestamp::from_second(day * 86_400).unwrap();
        let date = |at: Timestamp| jiff::tz::Offset::UTC.to_datetime(at).date();
        // The last minute of a day: the next occurrence is on another.
        let after = Timestamp::from_second(start.as_second() - 1).unwrap();
        let expected = date(start).series(jiff::Span::new().days(1)).find(on);
        let found = crontab.next(after, &zone, DstRule::default());
        prop_assert_eq!(found.map(date), expected);
        let back = crontab.previous(after, &zone, DstRule::default());
        let expected = date(after).series(jiff::Span::new().days(-1)).find(on);
        prop_assert_eq!(back.map(date), expected);
    }

    #[test]
    fn what_is_written_is_read(five in five(), every in 1_000_i64..200_000_000_000, at in any::<i32>()) {
        let Ok(crontab) = Crontab::from_string(&line(&five)) else { return Ok(()) };
        prop_assert_eq!(crontab.to_string(), line(&five));
        let again = Crontab::from_string(&crontab.to_string());
        prop_assert_eq!(again.as_ref(), Ok(&crontab));
        let every = std::time::Duration::from_micros(every as u64);
        let event = SolarEvent::ALL[at.unsigned_abs() as usize % 9];
        let (lat, lon) = (f64::from(at) / 3e7, f64::from(at) / 1.3e7);
        let all = [
            Schedule::Crontab(crontab),
            Schedule::Interval(Interval::new(every, at % 2 == 0).unwrap()),
            Schedule::Solar(Solar::new(event, lat, lon).unwrap()),
            Schedule::Once(Timestamp::new(i64::from(at), at % 999_999_999).unwrap()),
        ];
        for schedule in all {
            let written = schedule.to_value().to_bytes();
            let read = celeriac_wire::Value::parse(&written).unwrap();
            let again = Schedule::from_value(&read);
            prop_assert_eq!(again.as_ref(), Ok(&schedule));
            prop_assert!(!schedule.sentence(&Zone::utc()).is_empty());
        }
    }

    #[test]
    fn nothing_makes_the_parsers_panic(text in "[0-9a-z*/,@ -]{0,40}|.{0,40}", at in any::<i64>()) {
        let read = Crontab::from_string(&text).or_else(|_| Crontab::parse(&text, "*", "*", "*", "*"));
        let _known = Zone::named(&text).is_ok();
        let Ok(crontab) = read else { return Ok(()) };
        let zone = Zone::utc();
        let range = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
        let at = Timestamp::from_second(at.clamp(*range.start(), *range.end())).unwrap();
        let next = crontab.next(at, &zone, DstRule::default());
        prop_assert!(next.is_none_or(|next| next > at));
        let previous = crontab.previous(at, &zone, DstRule::default());
        prop_assert!(previous.is_none_or(|previous| previous <= at));
    }

    #[test]
    fn intervals_keep_their_grid(
        every in 1_i64..400_000,
        relative in any::<bool>(),
        day in DAYS_OF_1975_TO_2150,
        change in any::<bool>(),
        ahead in -400_000_i64..4_000_000,
        name in zone_name(),
    ) {
        let zone = zone(name);
        let dst = DstRule::default();
        let interval = Interval::from_seconds(every as f64, relative).unwrap();
        let schedule = Schedule::Interval(interval);
        let second = |second| Timestamp::from_second(second).unwrap();
        let anchor = second(instant(day, change, &zone) + every % 1000);
        let after = second(anchor.as_second() + ahead);
        let next = schedule.next(after, anchor, &zone, dst).unwrap();
        prop_assert!(next > after);
        prop_assert_eq!(schedule.previous(next, anchor, &zone, dst), Some(next));
        let just_before = second(next.as_second() - 1);
        prop_assert_eq!(schedule.next(just_before, anchor, &zone, dst), Some(next));
        let before = schedule.previous(just_before, anchor, &zone, dst);
        prop_assert!(before.is_none_or(|before| before <= after));
        // From the first occurrence on, one after another, and the counts of it.
        let mut seen = BTreeSet::new();
        let mut last = anchor;
        for _ in 0..20 {
            last = schedule.next(last, anchor, &zone, dst).unwrap();
            seen.insert(last);
        }
        prop_assert_eq!(seen.len(), 20);
        prop_assert_eq!(schedule.count(anchor, last, anchor, &zone, dst, 100), 20);
        if !relative {
            prop_assert_eq!(last, second(anchor.as_second() + 20 * every));
        }
    }
}
