//! Tables that Celery 5.7.0 and ephem wrote (`testdata/tables.py`).

use super::*;
use std::collections::BTreeMap;

/// How far an event may be from ephem's, in seconds.
const SOLAR_SECONDS_MAX: i64 = 60;

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

#[test]
fn crontabs_run_when_celerys_run() {
    let mut zones = BTreeMap::new();
    let mut differences: BTreeMap<&str, u32> = BTreeMap::new();
    let mut same = 0;
    for row in rows(include_str!("../testdata/crontab.tsv")) {
        let [line, name, last, next] = row[..] else { panic!("{row:?}") };
        let zone = zones.entry(name).or_insert_with(|| zone(name));
        let (last, next) = (at(last), at(next));
        let found = |dst| crontab(line).next(last, zone, dst).unwrap();
        let usual = found(DstRule::default());
        if usual == next {
            same += 1;
            continue;
        }
        let difference = if next <= last {
            // Celery computes on the wall and forgets which of two hours it is in: its next run is one
            // of the first of them, which has passed.
            "after a run in a repeated hour, Celery runs at once"
        } else if found(DstRule { repeat: Repeat::First, ..DstRule::default() }) == next {
            "Celery runs hourly entries once in a repeated hour"
        } else if found(DstRule { gap: Gap::Skip, ..DstRule::default() }) == next {
            "after a start within the length of a gap after it, Celery forgets what was moved"
        } else {
            panic!("{line} {name} after {last}: Celery {next}, we {usual}");
        };
        *differences.entry(difference).or_default() += 1;
    }
    let expected = [
        ("Celery runs hourly entries once in a repeated hour", 1),
        ("after a run in a repeated hour, Celery runs at once", 8),
        ("after a start within the length of a gap after it, Celery forgets what was moved", 1),
    ];
    assert_eq!((same, differences), (650, BTreeMap::from(expected)));
}

#[test]
fn relative_intervals_run_when_celerys_run() {
    let mut zones = BTreeMap::new();
    for row in rows(include_str!("../testdata/relative.tsv")) {
        let [every, name, last, next] = row[..] else { panic!("{row:?}") };
        let zone = zones.entry(name).or_insert_with(|| zone(name));
        let interval = Interval::from_seconds(every.parse().unwrap(), true).unwrap();
        let last = at(last);
        assert_eq!(interval.next(last, last, zone), Some(at(next)), "{row:?}");
    }
}

/// What Celery takes only because it does not look at all of a part, or at the field.
const STRICTER: [(&str, &str); 9] = [
    ("mon", "minute"),
    ("jan", "day_of_week"),
    ("sun", "hour"),
    ("*/5-3", "minute"),
    ("1-5-7", "minute"),
    ("1-5/2/3", "minute"),
    ("+5", "minute"),
    ("1_0", "minute"),
    ("*/5 x", "minute"),
];

#[test]
fn fields_are_read_as_celery_reads_them() {
    let mut stricter = Vec::new();
    for row in rows(include_str!("../testdata/crontab_errors.tsv")) {
        let [text, field, celery] = row[..] else { panic!("{row:?}") };
        let given = |name| if name == field { text } else { "*" };
        let (day, month) = match text.split_once(' ') {
            Some(date) if field == "date" => date,
            _ => (given("day_of_month"), given("month_of_year")),
        };
        let read = Crontab::parse(given("minute"), given("hour"), given("day_of_week"), day, month);
        match read {
            Err(error) if celery != "error" => stricter.push((text, field, error)),
            Err(error) => assert!(error.to_string().contains(';'), "no hint: {error}"),
            Ok(read) if field != "date" => assert_eq!(numbers(&read, field), celery, "{row:?}"),
            Ok(_) => assert_eq!(celery, "ok", "{row:?}"),
        }
    }
    let stricter: Vec<_> = stricter.iter().map(|(text, field, _)| (*text, *field)).collect();
    assert_eq!(stricter, STRICTER);
}

fn numbers(crontab: &Crontab, field: &str) -> String {
    let fields = crontab.fields();
    let set = match field {
        "minute" => fields.minutes,
        "hour" => u64::from(fields.hours),
        "day_of_week" => u64::from(fields.weekdays),
        "day_of_month" => u64::from(fields.days),
        _ => u64::from(fields.months),
    };
    let numbers: Vec<String> =
        (0..60).filter(|number| set >> number & 1 == 1).map(|number| number.to_string()).collect();
    numbers.join(",")
}

#[test]
fn the_sun_stands_where_ephem_sees_it() {
    let mut worst = 0;
    for row in rows(include_str!("../testdata/solar.tsv")) {
        let [event, lat, lon, after, next] = row[..] else { panic!("{row:?}") };
        let (lat, lon) = (lat.parse().unwrap(), lon.parse().unwrap());
        let solar = Solar::new(event.parse().unwrap(), lat, lon).unwrap();
        let found = solar.next(at(after)).unwrap();
        let off = (found.as_second() - at(next).as_second()).abs();
        assert!(off <= SOLAR_SECONDS_MAX, "{row:?}: {found}");
        worst = worst.max(off);
    }
    println!("worst: {worst} s");
}

/// The table of the specification of Celery's behaviour in Europe/Berlin, 8.4.
#[test]
fn changes_of_the_clock_are_celerys_but_for_the_repeated_hour() {
    let zone = zone("Europe/Berlin");
    let runs = |line: &str, from: &str, until: &str| {
        let crontab = crontab(line);
        let mut last = at(from);
        let mut shown = Vec::new();
        while let Some(next) =
            crontab.next(last, &zone, DstRule::default()).filter(|n| *n < at(until))
        {
            shown.push(next.to_zoned(zone.timezone().clone()).strftime("%H:%M%:::z").to_string());
            last = next;
        }
        shown.join(" ")
    };
    let spring = |line| runs(line, "2026-03-28T23:59:00Z", "2026-03-29T04:00:00Z");
    let autumn = |line| runs(line, "2026-10-24T22:59:00Z", "2026-10-25T03:00:00Z");
    assert_eq!(spring("30 2 * * *"), "03:30+02");
    assert_eq!(autumn("30 2 * * *"), "02:30+02");
    assert_eq!(spring("15 3 * * *"), "03:15+02");
    assert_eq!(autumn("15 3 * * *"), "03:15+01");
    assert_eq!(spring("*/30 1-3 * * *"), "01:00+01 01:30+01 03:00+02 03:30+02");
    let first_pass = "01:00+02 01:30+02 02:00+02 02:30+02 03:00+01 03:30+01";
    assert_eq!(autumn("*/30 1-3 * * *"), first_pass);
    // Celery leaves out the second.
    assert_eq!(autumn("0 * * * *"), "01:00+02 02:00+02 02:00+01 03:00+01");
    assert_eq!(spring("0 * * * *"), "01:00+01 03:00+02 04:00+02 05:00+02");
}

/// The rows of the same table that are intervals.
#[test]
fn intervals_are_elapsed_time_whatever_the_clock_does() {
    let zone = zone("Europe/Berlin");
    let six = Interval::from_seconds(21_600.0, true).unwrap();
    let next =
        |interval: &Interval, after: &str| interval.next(at(after), at(after), &zone).unwrap();
    // 22:00, then 04:00 or 03:00 of a night that has five or seven hours until 04:00.
    assert_eq!(next(&six, "2026-03-28T21:00:00Z"), at("2026-03-29T03:00:00Z"));
    assert_eq!(next(&six, "2026-10-24T20:00:00Z"), at("2026-10-25T02:00:00Z"));
    let day = Interval::from_seconds(86_400.0, false).unwrap();
    assert_eq!(next(&day, "2026-03-28T20:00:00Z"), at("2026-03-29T20:00:00Z"));
    assert_eq!(next(&day, "2026-10-24T20:00:00Z"), at("2026-10-25T20:00:00Z"));
    let midnight = Interval::from_seconds(86_400.0, true).unwrap();
    assert_eq!(next(&midnight, "2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z"));
}
