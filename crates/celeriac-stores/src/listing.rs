//! Pages of tasks. A store finds tasks in three places: messages, dead letters and results. Each place has
//! an order of its own and is read from a mark on; a page merges their newest, and its cursor says how far
//! the list has come in each.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use celeriac_core::StoreError;
use celeriac_core::store::{CURSOR_BYTES_MAX, TaskFilter, TaskPage, TaskView};
use celeriac_wire::Value;
use jiff::Timestamp;
use std::collections::VecDeque;

/// A task in one place.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// When it came there, as far as that is known.
    pub(crate) at: Option<Timestamp>,
    /// Where the place goes on behind it.
    pub(crate) mark: String,
    /// What is true of it.
    pub(crate) view: TaskView,
}

/// How far a list has come in each place; `None` has not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) message: Option<String>,
    pub(crate) dead: Option<String>,
    pub(crate) result: Option<String>,
}

impl Marks {
    /// Those of the page before.
    pub(crate) fn of(filter: &TaskFilter) -> Result<Self, StoreError> {
        filter.after.as_deref().map_or(Ok(Self::default()), |cursor| {
            Self::parse(cursor).ok_or_else(|| foreign(cursor))
        })
    }

    fn parse(cursor: &str) -> Option<Self> {
        let bytes =
            URL_SAFE_NO_PAD.decode(cursor).ok().filter(|_| cursor.len() <= CURSOR_BYTES_MAX)?;
        let Value::Array(marks) = Value::parse(&bytes).ok()? else { return None };
        let mut marks = marks.into_iter().map(|mark| match mark {
            Value::Null => Some(None),
            Value::String(text) => Some(Some(text)),
            _ => None,
        });
        let mut next = || marks.next().flatten();
        let parsed = Self { message: next()?, dead: next()?, result: next()? };
        marks.next().is_none().then_some(parsed)
    }

    fn print(&self) -> String {
        let text = |mark: &Option<String>| mark.as_deref().map_or(Value::Null, Value::from);
        let marks = [&self.message, &self.dead, &self.result].map(text);
        URL_SAFE_NO_PAD.encode(Value::Array(marks.into()).to_string())
    }
}

/// Refuses a cursor that no page had.
pub(crate) fn foreign(cursor: &str) -> StoreError {
    let shown: String = cursor.chars().take(80).collect();
    StoreError::invalid(format!("the cursor {shown:?} is of no list of tasks here"))
        .hint("give `next` of the page before, or leave it out to begin with the newest")
}

/// What each place has from its mark on, the newest first and at least one more than a page where it has
/// more.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) messages: Vec<Found>,
    pub(crate) dead: Vec<Found>,
    pub(crate) results: Vec<Found>,
}

impl Places {
    /// The newest of all of them, and where they go on.
    ///
    /// The order within a place is kept, whatever the times say: its mark covers all that was passed. What
    /// stands behind something older counts as new as it is, so that a retry of an old task holds up
    /// nothing.
    pub(crate) fn page(self, mut marks: Marks, count_max: usize) -> TaskPage {
        let mut places = [self.messages, self.dead, self.results].map(dated);
        let mut views = Vec::with_capacity(count_max.min(1024));
        while views.len() < count_max {
            let head = |place: &VecDeque<_>| place.front().map(|(at, _): &(_, Found)| *at);
            // Of equals the first: what waits says more than what is over.
            let newest = (0..places.len())
                .rev()
                .filter_map(|index| head(&places[index]).map(|at| (at, index)))
                .max_by_key(|(at, _)| *at);
            let Some((_, index)) = newest else { break };
            let Some((_, found)) = places[index].pop_front() else { break };
            let mark = [&mut marks.message, &mut marks.dead, &mut marks.result];
            *mark.into_iter().nth(index).expect("a mark for each place") = Some(found.mark);
            views.push(found.view);
        }
        let more = places.iter().any(|place| !place.is_empty());
        TaskPage { views, next: more.then(|| marks.print()) }
    }
}

/// Each with the newest time of itself and of what stands behind it.
fn dated(place: Vec<Found>) -> VecDeque<(Option<Timestamp>, Found)> {
    let mut newest = None;
    let mut dated = VecDeque::with_capacity(place.len());
    for found in place.into_iter().rev() {
        newest = newest.max(found.at);
        dated.push_front((newest, found));
    }
    dated
}

/// Whether a filter's name, or its beginning followed by `*`, is this task's.
#[cfg(feature = "redis")]
pub(crate) fn names(wanted: &str, task: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => task.starts_with(prefix),
        None => task == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_core::store::Phase;

    fn found(id: &str, second: i64) -> Found {
        let view = TaskView::bare(id, Phase::Done);
        let at = Some(Timestamp::from_second(second).unwrap());
        Found { at, mark: format!("mark of {id}"), view }
    }

    fn ids(page: &TaskPage) -> Vec<&str> {
        page.views.iter().map(|view| view.task_id.as_str()).collect()
    }

    #[test]
    fn a_page_takes_the_newest_of_every_place_and_says_how_far_it_came() {
        let places = Places {
            messages: vec![found("m9", 9), found("m1", 1)],
            dead: vec![found("d5", 5)],
            results: vec![found("r7", 7), found("r6", 6), found("r2", 2)],
        };
        let page = places.page(Marks::default(), 3);
        assert_eq!(ids(&page), ["m9", "r7", "r6"]);
        let filter = TaskFilter { after: page.next, ..TaskFilter::default() };
        let mark = |id: &str| Some(format!("mark of {id}"));
        let marks = Marks { message: mark("m9"), dead: None, result: mark("r6") };
        assert_eq!(Marks::of(&filter).unwrap(), marks);
    }

    #[test]
    fn the_last_page_has_no_cursor_and_an_exact_one_neither() {
        let places = || Places { dead: vec![found("a", 2), found("b", 1)], ..Places::default() };
        assert_eq!(places().page(Marks::default(), 2).next, None);
        assert_eq!(places().page(Marks::default(), 9).next, None);
        assert!(places().page(Marks::default(), 1).next.is_some());
    }

    #[test]
    fn what_is_old_holds_up_nothing_behind_it() {
        let places = Places {
            messages: vec![found("retry of yesterday", 1), found("new", 9)],
            results: vec![found("r5", 5)],
            ..Places::default()
        };
        assert_eq!(ids(&places.page(Marks::default(), 3)), ["retry of yesterday", "new", "r5"]);
    }

    #[test]
    fn foreign_cursors_are_refused() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let long = encoded(&format!("[null, null, \"{}\"]", "x".repeat(CURSOR_BYTES_MAX)));
        for cursor in ["", "1", "a b", &encoded("[1, 2, 3]"), &encoded("[null, null]"), &long] {
            let filter = TaskFilter { after: Some(cursor.to_owned()), ..TaskFilter::default() };
            assert!(Marks::of(&filter).is_err(), "{cursor}");
        }
        let four = encoded("[null, null, null, null]");
        let filter = TaskFilter { after: Some(four), ..TaskFilter::default() };
        assert!(Marks::of(&filter).is_err());
    }
}
