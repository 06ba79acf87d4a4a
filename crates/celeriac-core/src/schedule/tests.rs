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
