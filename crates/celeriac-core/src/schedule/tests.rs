//! Against Celery, ephem and a walker that looks at every minute.

mod celery;
mod oracle;
mod random;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn crontab(line: &str) -> Crontab {
    Crontab::from_string(line).unwrap()
}

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

fn next(line: &str, after: &str, name: &str) -> Option<Timestamp> {
    crontab(line).next(at(after), &zone(name), DstRule::default())
}

#[test]
fn rare_days_are_found_and_days_that_never_come_are_refused() {
    let never = Crontab::from_string("0 0 30 2 *").unwrap_err().to_string();
    assert_eq!(
        never,
        "day_of_month \"30\" never occurs in month_of_year \"2\"; choose another day or add a month that \
         has it"
    );
    assert!(Crontab::from_string("0 0 31 4,jun,9,11 *").is_err());
    // 2100 is no leap year.
    assert_eq!(next("0 0 29 2 *", "2096-02-29T00:00:00Z", "UTC"), Some(at("2104-02-29T00:00:00Z")));
    // The longest wait of all: forty years.
    assert_eq!(
        next("0 0 29 2 mon", "2072-03-01T00:00:00Z", "Europe/Berlin"),
        Some(at("2112-02-28T23:00:00Z"))
    );
    let last = crontab("0 0 29 2 mon");
    let last =
        last.previous(at("2112-02-28T22:59:59Z"), &zone("Europe/Berlin"), DstRule::default());
    assert_eq!(last, Some(at("2072-02-28T23:00:00Z")));
}

#[test]
fn the_calendar_ends() {
    let schedule = Schedule::Crontab(crontab("* * * * *"));
    let (zone, dst) = (Zone::utc(), DstRule::default());
    assert_eq!(schedule.next(Timestamp::MAX, Timestamp::MIN, &zone, dst), None);
    assert_eq!(schedule.previous(Timestamp::MIN, Timestamp::MIN, &zone, dst), None);
    for name in ["Pacific/Kiritimati", "Pacific/Niue", "America/New_York"] {
        let zone = Zone::named(name).unwrap();
        for schedule in [
            schedule.clone(),
            Schedule::Interval(Interval::from_seconds(86_400.0, true).unwrap()),
            Schedule::Interval(Interval::from_seconds(7200.0, true).unwrap()),
            Schedule::Interval(Interval::new(EVERY_MAX, false).unwrap()),
            Schedule::Solar(Solar::new(SolarEvent::Sunset, 60.0, 179.0).unwrap()),
        ] {
            for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                for anchor in [Timestamp::MIN, Timestamp::MAX] {
                    assert!(schedule.next(at, anchor, &zone, dst).is_none_or(|next| next > at));
                    let previous = schedule.previous(at, anchor, &zone, dst);
                    assert!(previous.is_none_or(|previous| previous <= at));
                }
            }
        }
    }
}

#[test]
fn intervals_do_not_drift() {
    let interval = Schedule::Interval(Interval::from_seconds(30.0, false).unwrap());
    let (zone, dst) = (Zone::utc(), DstRule::default());
    let anchor = at("2026-11-22T08:00:00.25Z");
    let next = |after| interval.next(at(after), anchor, &zone, dst).unwrap();
    assert_eq!(next("2026-11-22T08:00:00.25Z"), at("2026-11-22T08:00:30.25Z"));
    assert_eq!(next("2026-11-22T08:00:30.25Z"), at("2026-11-22T08:01:00.25Z"));
    assert_eq!(next("2026-11-22T08:00:37Z"), at("2026-11-22T08:01:00.25Z"));
    // The anchor itself is no occurrence, and nothing is before it.
    assert_eq!(next("2026-01-01T00:00:00Z"), at("2026-11-22T08:00:30.25Z"));
    assert_eq!(interval.previous(anchor, anchor, &zone, dst), None);
    let count = |after, until, max| interval.count(at(after), at(until), anchor, &zone, dst, max);
    assert_eq!(count("2026-11-22T08:00:30.25Z", "2026-11-22T08:02:00.25Z", 100), 3);
    assert_eq!(count("2000-01-01T00:00:00Z", "2026-11-23T08:00:00.25Z", 10_000), 2880);
    assert_eq!(count("2000-01-01T00:00:00Z", "2126-11-23T08:00:00.25Z", 7), 7);
    assert_eq!(count("2026-11-23T08:00:00Z", "2026-11-22T08:00:00Z", 7), 0);
}

#[test]
fn relative_days_begin_at_midnight_even_where_there_is_none() {
    let zone = zone("Africa/Cairo");
    let interval = Interval::from_seconds(86_400.0, true).unwrap();
    let next = |after| interval.next(at(after), at("2026-04-20T10:00:00Z"), &zone).unwrap();
    // Midnight of 24 April 2026 is left out, so it is 01:00; that of 30 October comes once.
    assert_eq!(next("2026-04-22T23:00:00Z"), at("2026-04-23T22:00:00Z"));
    assert_eq!(next("2026-04-23T22:00:00Z"), at("2026-04-24T21:00:00Z"));
    assert_eq!(next("2026-10-28T21:00:00Z"), at("2026-10-29T22:00:00Z"));
}

#[test]
fn bounds_of_intervals_are_told() {
    let error = |every| Interval::from_seconds(every, false).unwrap_err().to_string();
    for every in [f64::NAN, f64::INFINITY, -1.0, 1e12] {
        assert!(
            error(every).ends_with("choose one from 0.001 s to 36525 days"),
            "{}",
            error(every)
        );
    }
    assert_eq!(
        error(0.000_9),
        "an interval of 900µs is out of range; choose one from 1 ms to 36525 days"
    );
    assert!(Interval::from_seconds(0.001, true).is_ok());
    assert!(Interval::from_seconds(EVERY_MAX.as_secs_f64(), false).is_ok());
}

#[test]
fn the_sun_does_not_rise_in_the_polar_night() {
    // Tromsø: the sun is gone from the end of November to the middle of January, and stays up in June.
    let sunrise = Solar::new(SolarEvent::Sunrise, 69.65, 18.96).unwrap();
    let next = |after| sunrise.next(at(after)).unwrap().to_string();
    assert_eq!(&next("2026-12-01T00:00:00Z")[..7], "2027-01");
    assert_eq!(&next("2026-06-01T00:00:00Z")[..7], "2026-07");
    let last = sunrise.previous(at("2026-12-21T00:00:00Z")).unwrap();
    assert_eq!(&last.to_string()[..7], "2026-11");
    assert_eq!(sunrise.previous(last), Some(last));
    // At the pole once a year, and the highest point is every day.
    let pole = Solar::new(SolarEvent::Sunrise, 90.0, 0.0).unwrap();
    assert_eq!(&pole.next(at("2026-01-01T00:00:00Z")).unwrap().to_string()[..7], "2026-03");
    let noon = Solar::new(SolarEvent::SolarNoon, 90.0, 0.0).unwrap();
    assert_eq!(&noon.next(at("2026-01-01T00:00:00Z")).unwrap().to_string()[..13], "2026-01-01T12");
}

#[test]
fn zones_are_those_of_the_program() {
    assert!(Zone::names().count() > 400);
    assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
    assert_eq!(zone("UTC"), Zone::utc());
    let error = |name: &str| Zone::named(name).unwrap_err().to_string();
    let berlin = "did you mean \"Europe/Berlin\"?";
    assert_eq!(error("Europe/Berln"), format!("\"Europe/Berln\" is no time zone; {berlin}"));
    assert_eq!(error("berlin"), format!("\"berlin\" is no time zone; {berlin}"));
    let usual = "write an IANA name such as \"Europe/Berlin\" or \"UTC\"";
    assert_eq!(error("CEST"), "\"CEST\" is no time zone; did you mean \"CET\"?");
    assert_eq!(error("Mars"), format!("\"Mars\" is no time zone; {usual}"));
    assert_eq!(error(""), format!("\"\" is no time zone; {usual}"));
    assert_eq!(error(&"é".repeat(5000)).chars().count(), usual.len() + 64 + 20);
}

#[test]
fn macros_are_crontabs() {
    for (name, line) in [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        (" @Weekly ", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ] {
        assert_eq!(crontab(name).to_string(), line);
    }
    let error = |line: &str| Crontab::from_string(line).unwrap_err().to_string();
    assert_eq!(
        error("@reboot"),
        "\"@reboot\" is not known; write one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, \
         @annually, or five fields"
    );
    assert_eq!(
        error("0 0 * *"),
        "\"0 0 * *\" has not five fields; write minute, hour, day of the month, month and day of the week \
         with a space between, such as \"30 9 * * mon-fri\""
    );
    assert!(error(&format!("{} * * * *", "1,".repeat(300))).contains("longer than 512 bytes"));
}

#[test]
fn schedules_are_told_in_words() {
    let zone = zone("Europe/Berlin");
    for (line, words) in [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "every hour at minute 15"),
        ("5,20 * * * *", "every hour at minutes 5 and 20"),
        ("*/7 * * * *", "every hour at minutes */7"),
        ("0 */2 * * *", "every 2 hours Europe/Berlin"),
        ("0 9 * * mon-fri", "every weekday at 09:00 Europe/Berlin"),
        ("30 2 * * *", "every day at 02:30 Europe/Berlin"),
        ("0 0,12 * * 0,6", "every Saturday and Sunday at 00:00 and 12:00 Europe/Berlin"),
        ("*/5 9-17 * * mon-fri", "every 5 minutes in hours 9-17 on every weekday Europe/Berlin"),
        ("0 8-18 * * *", "every full hour in hours 8-18 Europe/Berlin"),
        ("*/10 * * 6 *", "every 10 minutes in June Europe/Berlin"),
        ("0 0 * 12 fri", "every Friday in December at 00:00 Europe/Berlin"),
        ("30 4 1,15 * *", "on days 1 and 15 of every month at 04:30 Europe/Berlin"),
        ("0 0 1 jan,jul *", "on day 1 of January and July at 00:00 Europe/Berlin"),
        (
            "0 0 1-7 * mon",
            "every Monday that is one of days 1-7 of every month at 00:00 Europe/Berlin",
        ),
        ("0 0 13 * fri", "every Friday that is day 13 of every month at 00:00 Europe/Berlin"),
    ] {
        assert_eq!(Schedule::Crontab(crontab(line)).sentence(&zone), words, "{line}");
    }
    for (every, relative, words) in [
        (30.0, false, "every 30 seconds"),
        (1.0, false, "every second"),
        (0.5, false, "every 0.5 seconds"),
        (5400.0, false, "every 90 minutes"),
        (86_400.0, false, "every day"),
        (172_800.0, true, "every 2 days, at midnight Europe/Berlin"),
        (3600.0, true, "every hour, at the full hour Europe/Berlin"),
        (60.0, true, "every minute, at the full minute"),
    ] {
        let interval = Interval::from_seconds(every, relative).unwrap();
        assert_eq!(Schedule::Interval(interval).sentence(&zone), words);
    }
    let solar = Solar::new(SolarEvent::Sunrise, 52.5, 13.4).unwrap();
    assert_eq!(Schedule::Solar(solar).sentence(&zone), "at sunrise in 52.5, 13.4");
    let once = Schedule::Once(at("2026-12-24T17:00:00Z"));
    assert_eq!(once.sentence(&zone), "once at 2026-12-24 18:00 Europe/Berlin");
}

#[test]
fn schedules_are_read_from_json() {
    let read =
        |text: &str| Schedule::from_value(&celeriac_wire::Value::parse(text.as_bytes()).unwrap());
    let written = |text: &str| read(text).unwrap().to_value().to_string();
    let crontab = r#"{"type": "crontab", "minute": "*/5", "hour": "*", "day_of_week": "*", "day_of_month": "*", "#;
    let crontab = format!("{crontab}\"month_of_year\": \"*\"}}");
    assert_eq!(written(r#"{"type": "crontab", "minute": "*/5", "name": "x"}"#), crontab);
    assert_eq!(written(&crontab), crontab);
    let numbers =
        written(r#"{"type": "crontab", "minute": 5, "hour": [1, 13], "day_of_week": null}"#);
    assert!(
        numbers.starts_with(r#"{"type": "crontab", "minute": "5", "hour": "1,13", "#),
        "{numbers}"
    );
    let interval = r#"{"type": "interval", "every": 30.0, "relative": false}"#;
    assert_eq!(written(r#"{"type": "interval", "every": 30}"#), interval);
    let solar = r#"{"type": "solar", "event": "sunrise", "lat": 52.5, "lon": 13.4}"#;
    assert_eq!(written(solar), solar);
    let once = r#"{"type": "once", "at": "2026-12-24T18:00:00Z"}"#;
    assert_eq!(written(r#"{"type": "once", "at": "2026-12-24T19:00:00+01:00"}"#), once);
    for (text, error) in [
        ("[]", "a schedule is an object with a type, not "),
        ("{}", "type is missing; write text"),
        (
            r#"{"type": "rrule"}"#,
            "type \"rrule\" is not known; write interval, crontab, solar or once",
        ),
        (r#"{"type": "interval", "every": "5"}"#, "every is "),
        (r#"{"type": "interval", "every": 0}"#, "an interval of 0ns is out of range; "),
        (r#"{"type": "interval", "every": 1, "relative": 1}"#, "relative is "),
        (
            r#"{"type": "crontab", "minute": 60}"#,
            "minute \"60\": 60 is out of range; write 0 to 59",
        ),
        (r#"{"type": "crontab", "minute": 1.5}"#, "minute is "),
        (r#"{"type": "crontab", "minute": []}"#, "minute \"\": a part between two commas is empty"),
        (
            r#"{"type": "solar", "event": "noon"}"#,
            "\"noon\" is no event of the sun; write one of dawn_",
        ),
        (
            r#"{"type": "solar", "event": "sunset", "lat": 91, "lon": 0}"#,
            "lat 91 is out of range; ",
        ),
        (
            r#"{"type": "once", "at": "tomorrow"}"#,
            "at \"tomorrow\" is no moment; write one with its zone",
        ),
    ] {
        let found = read(text).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
}

#[test]
fn rules_are_words() {
    assert_eq!("skip".parse(), Ok(Gap::Skip));
    for repeat in [Repeat::Auto, Repeat::First, Repeat::Last, Repeat::Both] {
        assert_eq!(repeat.as_str().parse(), Ok(repeat));
    }
    let error = "once".parse::<Repeat>().unwrap_err().to_string();
    assert_eq!(
        error,
        "\"once\" is no rule for a time that comes twice; write auto, first, last, both"
    );
}
