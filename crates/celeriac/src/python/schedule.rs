//! The entries of a Celery app.

use celeriac_core::beat::Entry;
use celeriac_core::schedule::Zone;
use celeriac_runtime::pool::python::Hello;

/// What an app gives a beat.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The entries.
    pub(crate) entries: Vec<Entry>,
    /// Those that only Celery's beat can send, by name, with the reason.
    pub(crate) refused: Vec<(String, String)>,
}

/// The entries of an app, on its clock.
pub(crate) fn schedule(hello: &Hello, zone: &Zone) -> Found {
    let mut found = Found::default();
    for one in &hello.schedule {
        match &one.refused {
            Some(why) => found.refused.push((one.name.clone(), why.clone())),
            None => match Entry::from_value(&one.entry, zone) {
                Ok(entry) => found.entries.push(entry),
                Err(error) => found.refused.push((one.name.clone(), error.to_string())),
            },
        }
    }
    found
}

/// The zone of an app's clock (its `timezone`; the machine's where `enable_utc` is off).
///
/// # Errors
/// It has none that is known here; the text says what to do.
pub(crate) fn zone(hello: &Hello) -> Result<Zone, String> {
    let name = hello.zone.as_deref().ok_or_else(|| {
        "the time zone of the app is the machine's, which has no name; set `timezone` in the app, or TZ"
            .to_owned()
    })?;
    Zone::named(name).map_err(|error| format!("the app's timezone: {error}"))
}
