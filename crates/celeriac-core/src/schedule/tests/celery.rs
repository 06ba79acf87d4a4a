//! Tables that Celery 5.7 and ephem wrote (`testdata/tables.py`).

use super::*;
use std::collections::BTreeMap;

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

fn zones() -> impl FnMut(&str) -> Zone {
    let mut known: BTreeMap<String, Zone> = BTreeMap::new();
    move |name| known.entry(name.to_owned()).or_insert_with(|| Zone::named(name).unwrap()).clone()
}

#[test]
fn explore() {
    let mut zone = zones();
    let mut n = 0;
    for row in rows(include_str!("../testdata/crontab.tsv")) {
        let [line, name, last, next] = row[..] else { panic!("{row:?}") };
        let zone = zone(name);
        let found = crontab(line).next(at(last), &zone, DstRule::default()).unwrap();
        if found != at(next) {
            let l = |t: Timestamp| t.to_zoned(zone.timezone().clone()).to_string();
            println!("{line:20} last {} celery {} ours {}", l(at(last)), l(at(next)), l(found));
            n += 1;
        }
    }
    println!("crontab: {n}");
    n = 0;
    for row in rows(include_str!("../testdata/relative.tsv")) {
        let [every, name, last, next] = row[..] else { panic!("{row:?}") };
        let zone = zone(name);
        let interval = Interval::from_seconds(every.parse().unwrap(), true).unwrap();
        let last = at(last);
        let found = interval.next(last, last, &zone).unwrap();
        if found != at(next) {
            let l = |t: Timestamp| t.to_zoned(zone.timezone().clone()).to_string();
            println!("{every:8} last {} celery {} ours {}", l(last), l(at(next)), l(found));
            n += 1;
        }
    }
    println!("relative: {n}");
    let mut worst = BTreeMap::new();
    for row in rows(include_str!("../testdata/solar.tsv")) {
        let [event, lat, lon, after, next] = row[..] else { panic!("{row:?}") };
        let solar =
            Solar::new(event.parse().unwrap(), lat.parse().unwrap(), lon.parse().unwrap()).unwrap();
        let found = solar.next(at(after)).unwrap();
        let off = found.as_second() - at(next).as_second();
        if off.abs() > 20 {
            println!("{row:?} {found} {off}");
        } else {
            let e: &mut i64 = worst.entry(event).or_default();
            *e = (*e).max(off.abs());
        }
    }
    println!("{worst:?}");
    for row in rows(include_str!("../testdata/crontab_errors.tsv")) {
        let [text, field, celery] = row[..] else { panic!("{row:?}") };
        let v = |name: &str| if field == name { text } else { "*" };
        let found = Crontab::parse(
            v("minute"),
            v("hour"),
            v("day_of_week"),
            v("day_of_month"),
            v("month_of_year"),
        );
        println!(
            "{text:?} {field} {celery} {}",
            found.map_or_else(|e| e.to_string(), |f| f.to_string())
        );
    }
}
