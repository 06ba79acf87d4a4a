//! A schedule in words, for people.

use super::crontab::{Crontab, Fields};
use super::zone::Zone;
use super::{Interval, Schedule, SolarEvent};
use jiff::Timestamp;

/// How many times of a day a sentence names one by one.
const NAMED_MAX: u32 = 6;

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const EVERY_DAY: u8 = 0b111_1111;
const WEEKDAYS: u8 = 0b011_1110;
const ALL_DAYS: u32 = u32::MAX - 1;
const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
const ALL_HOURS: u32 = (1 << 24) - 1;

impl Schedule {
    /// When it runs, in words: `every weekday at 09:00 Europe/Berlin`, `every 30 seconds`, `at sunrise in
    /// 52.5, 13.4`.
    pub fn sentence(&self, zone: &Zone) -> String {
        match self {
            Self::Interval(interval) => interval_sentence(interval, zone),
            Self::Crontab(crontab) => crontab_sentence(crontab, zone),
            Self::Solar(solar) => {
                let event = event_words(solar.event());
                format!("at {event} in {}, {}", solar.latitude(), solar.longitude())
            }
            Self::Once(at) => format!("once at {}", moment(*at, zone)),
        }
    }
}

fn interval_sentence(interval: &Interval, zone: &Zone) -> String {
    let every = interval.every();
    let seconds = every.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let whole = units.iter().find(|(unit, _)| {
        every.subsec_nanos() == 0 && seconds >= *unit && seconds.is_multiple_of(*unit)
    });
    let words = match whole {
        Some((unit, name)) if seconds == *unit => format!("every {name}"),
        Some((unit, name)) => format!("every {} {name}s", seconds / unit),
        None => format!("every {} seconds", every.as_secs_f64()),
    };
    if !interval.is_relative() {
        return words;
    }
    match seconds {
        86_400.. => format!("{words}, at midnight {zone}"),
        3600.. => format!("{words}, at the full hour {zone}"),
        60.. => format!("{words}, at the full minute"),
        _ => words,
    }
}

fn event_words(event: SolarEvent) -> &'static str {
    match event {
        SolarEvent::DawnAstronomical => "astronomical dawn",
        SolarEvent::DawnNautical => "nautical dawn",
        SolarEvent::DawnCivil => "civil dawn",
        SolarEvent::Sunrise => "sunrise",
        SolarEvent::SolarNoon => "solar noon",
        SolarEvent::Sunset => "sunset",
        SolarEvent::DuskCivil => "civil dusk",
        SolarEvent::DuskNautical => "nautical dusk",
        SolarEvent::DuskAstronomical => "astronomical dusk",
    }
}

fn moment(at: Timestamp, zone: &Zone) -> String {
    let shown = zone.timezone().to_datetime(at);
    let (date, time) = (shown.date(), shown.time());
    if time.second() == 0 && time.subsec_nanosecond() == 0 {
        format!("{date} {:02}:{:02} {zone}", time.hour(), time.minute())
    } else {
        format!("{date} {time} {zone}")
    }
}

fn crontab_sentence(crontab: &Crontab, zone: &Zone) -> String {
    let fields = crontab.fields();
    let days = days(crontab);
    let times = fields.minutes.count_ones() * fields.hours.count_ones();
    if fields.hours != ALL_HOURS && times <= NAMED_MAX {
        let days = days.unwrap_or_else(|| "every day".to_owned());
        return format!("{days} at {} {zone}", listed(&named_times(fields)));
    }
    let often = often(crontab);
    let days = days.map(|days| match days.strip_prefix("every day ") {
        Some(months) => format!(" {months}"),
        None if days.starts_with("every ") => format!(" on {days}"),
        None => format!(" {days}"),
    });
    // The same everywhere: most zones differ by whole hours.
    if days.is_none() && fields.hours == ALL_HOURS {
        return often;
    }
    format!("{often}{} {zone}", days.unwrap_or_default())
}

fn named_times(fields: &Fields) -> Vec<String> {
    let minutes = || (0..60).filter(|minute| fields.minutes >> minute & 1 == 1);
    let hours = (0..24).filter(|hour| fields.hours >> hour & 1 == 1);
    hours.flat_map(|hour| minutes().map(move |minute| format!("{hour:02}:{minute:02}"))).collect()
}

/// How often it runs within a day.
fn often(crontab: &Crontab) -> String {
    let fields = crontab.fields();
    let hours = fields.hours;
    let hour_step = even_step(u64::from(hours), 24);
    let single = fields.minutes == 1;
    let minutes = match even_step(fields.minutes, 60) {
        _ if single && hours == ALL_HOURS => return "every hour".to_owned(),
        _ if single => match hour_step {
            Some(step) => return format!("every {step} hours"),
            None => return format!("every full hour in hours {}", crontab.hour()),
        },
        Some(1) => "every minute".to_owned(),
        Some(step) => format!("every {step} minutes"),
        None if fields.minutes.is_power_of_two() => {
            format!("every hour at minute {}", fields.minutes.trailing_zeros())
        }
        None => format!("every hour at minutes {}", numbers(fields.minutes, crontab.minute())),
    };
    if hours == ALL_HOURS { minutes } else { format!("{minutes} in hours {}", crontab.hour()) }
}

/// The step of a set that has every so manieth of all numbers, and ends evenly.
fn even_step(set: u64, count: u32) -> Option<u32> {
    let step = (1..count).find(|step| set >> step & 1 == 1)?;
    let even = count.is_multiple_of(step);
    let all = (0..count).step_by(step as usize).fold(0_u64, |all, number| all | 1 << number);
    (even && all == set).then_some(step)
}

/// The days it runs on; `None` for all.
fn days(crontab: &Crontab) -> Option<String> {
    let fields = crontab.fields();
    let months: Vec<&str> = (0..12)
        .filter(|month| fields.months >> (month + 1) & 1 == 1)
        .map(|month| MONTHS[month])
        .collect();
    let weekdays = weekdays(fields.weekdays);
    if fields.days == ALL_DAYS {
        if fields.months == ALL_MONTHS {
            return weekdays;
        }
        let days = weekdays.unwrap_or_else(|| "every day".to_owned());
        return Some(format!("{days} in {}", listed(&months)));
    }
    let months =
        if fields.months == ALL_MONTHS { "every month".to_owned() } else { listed(&months) };
    let single = fields.days.is_power_of_two();
    let days = if single {
        format!("day {}", fields.days.trailing_zeros())
    } else {
        format!("days {}", numbers(u64::from(fields.days), crontab.day_of_month()))
    };
    Some(match weekdays {
        None => format!("on {days} of {months}"),
        Some(weekdays) if single => format!("{weekdays} that is {days} of {months}"),
        Some(weekdays) => format!("{weekdays} that is one of {days} of {months}"),
    })
}

/// Few numbers one by one, more as they were written.
fn numbers(set: u64, written: &str) -> String {
    // `1-7` is shorter than its numbers.
    if set.count_ones() > NAMED_MAX || written.contains(['-', '*']) {
        return written.to_owned();
    }
    let numbers: Vec<String> =
        (0..60).filter(|number| set >> number & 1 == 1).map(|number| number.to_string()).collect();
    listed(&numbers)
}

fn weekdays(set: u8) -> Option<String> {
    if set == EVERY_DAY {
        return None;
    }
    if set == WEEKDAYS {
        return Some("every weekday".to_owned());
    }
    // A week begins on Monday.
    let order = [1, 2, 3, 4, 5, 6, 0];
    let names: Vec<&str> =
        order.into_iter().filter(|day| set >> day & 1 == 1).map(|day| DAYS[day]).collect();
    Some(format!("every {}", listed(&names)))
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}
