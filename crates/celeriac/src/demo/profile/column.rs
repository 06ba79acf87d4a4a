//! The statistics of one column.
//!
//! Every cell is trimmed of white space first; all that follows concerns the trimmed texts.
//! The definitions are restated in `tests/data/profile_reference.py`; change both together.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::date::{parse_date, parse_datetime};
use super::kind::ColumnKind;
use super::numbers::{self, Outliers, parse_float, parse_integer};

/// Texts that stand for a missing value, besides the empty cell. Case matters.
pub const NULL_TOKENS: [&str; 12] =
    ["", "#N/A", "-", "?", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"];

/// Most entries in a list of values: top values, outliers.
pub const EXAMPLES_MAX: usize = 5;

/// Characters kept of a text (name, minimum, maximum, top value); a longer one ends in `…`.
pub const VALUE_CHARS_MAX: usize = 200;

/// Cells between two calls of the progress function.
pub const PROGRESS_ROWS: usize = 100;

/// A smallest or largest value: a number for numeric columns, else a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Value of an integer column.
    Integer(i64),
    /// Value of a float column.
    Float(f64),
    /// Value of a text, date or datetime column, cut to [`VALUE_CHARS_MAX`] characters.
    Text(String),
}

/// A value and how many cells hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCount {
    /// The value, cut to [`VALUE_CHARS_MAX`] characters.
    pub value: String,
    /// Number of cells.
    pub count: usize,
}

/// Lengths of the values of a text column in Unicode scalar values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextLengths {
    /// Length of the shortest value.
    pub min: usize,
    /// Length of the longest value.
    pub max: usize,
    /// Mean length over all values that are not null.
    pub mean: f64,
}

/// Everything the report says about one column; the result of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnProfile {
    /// Column name.
    pub name: String,
    /// Inferred type of the values that are not null.
    #[serde(rename = "type")]
    pub kind: ColumnKind,
    /// Number of cells, nulls included.
    pub rows: usize,
    /// Number of cells whose trimmed text is one of [`NULL_TOKENS`].
    pub nulls: usize,
    /// The tokens found, most frequent first, then by text.
    pub null_tokens: Vec<ValueCount>,
    /// Number of different texts that are not null (`1` and `1.0` differ).
    pub distinct: usize,
    /// Smallest value: by number, by time, or by code points; absent for boolean and empty.
    pub min: Option<Scalar>,
    /// Largest value, in the same order as `min`.
    pub max: Option<Scalar>,
    /// Arithmetic mean of a numeric column.
    pub mean: Option<f64>,
    /// Sample standard deviation (divisor n − 1) of a numeric column with two values or more.
    pub standard_deviation: Option<f64>,
    /// First quartile of a numeric column: linear interpolation, "inclusive".
    pub q1: Option<f64>,
    /// Median of a numeric column.
    pub median: Option<f64>,
    /// Third quartile of a numeric column.
    pub q3: Option<f64>,
    /// Up to [`EXAMPLES_MAX`] values: most frequent first, then by text.
    pub top_values: Vec<ValueCount>,
    /// Far values of a numeric column.
    pub outliers: Option<Outliers>,
    /// Lengths of a text column.
    pub lengths: Option<TextLengths>,
}

impl ColumnProfile {
    /// Computes the profile of a column.
    ///
    /// Calls `progress` with the number of cells read so far, every [`PROGRESS_ROWS`] cells and
    /// at the end; the caller decides which calls are worth an event. Keeps the different values
    /// in memory, and for a numeric column eight bytes a cell.
    pub fn compute<'a>(
        name: &str,
        values: impl Iterator<Item = &'a str>,
        progress: &mut dyn FnMut(usize),
    ) -> Self {
        let tally = Tally::count(values, progress);
        let kind = ColumnKind::infer(&tally.values);
        let mut profile = Self {
            name: name.to_owned(),
            kind,
            rows: tally.rows,
            nulls: tally.null_tokens.iter().map(|token| token.count).sum(),
            null_tokens: tally.null_tokens,
            distinct: tally.values.len(),
            min: None,
            max: None,
            mean: None,
            standard_deviation: None,
            q1: None,
            median: None,
            q3: None,
            top_values: most_frequent(&tally.values),
            outliers: None,
            lengths: None,
        };
        match kind {
            ColumnKind::Integer => {
                profile
                    .set_range(&tally.values, parse_integer, |integer, _| Scalar::Integer(integer));
                profile.set_numbers(&tally.values);
            }
            ColumnKind::Float => profile.set_numbers(&tally.values),
            ColumnKind::Date => profile.set_range(&tally.values, parse_date, keep_text),
            ColumnKind::Datetime => profile.set_range(&tally.values, parse_datetime, keep_text),
            ColumnKind::Text => {
                profile.set_range(&tally.values, |_| Some(()), keep_text);
                profile.lengths = measure(&tally.values);
            }
            ColumnKind::Boolean | ColumnKind::Empty => {}
        }
        profile
    }

    /// Returns the number of cells that hold a value.
    pub fn present(&self) -> usize {
        self.rows.saturating_sub(self.nulls)
    }

    fn set_range<K: Ord + Copy>(
        &mut self,
        values: &[(&str, usize)],
        key: impl Fn(&str) -> Option<K>,
        scalar: impl Fn(K, &str) -> Scalar,
    ) {
        let keyed = || values.iter().filter_map(|&(text, _)| Some((key(text)?, text)));
        self.min = keyed().min().map(|(key, text)| scalar(key, text));
        self.max = keyed().max().map(|(key, text)| scalar(key, text));
    }

    fn set_numbers(&mut self, values: &[(&str, usize)]) {
        let mut numbers: Vec<f64> = values
            .iter()
            .filter_map(|&(text, count)| Some((parse_float(text)?, count)))
            .flat_map(|(number, count)| std::iter::repeat_n(number, count))
            .collect();
        numbers.sort_unstable_by(f64::total_cmp);
        let Some(stats) = numbers::summarize(&numbers) else {
            return;
        };
        self.min = self.min.take().or_else(|| numbers.first().copied().map(Scalar::Float));
        self.max = self.max.take().or_else(|| numbers.last().copied().map(Scalar::Float));
        self.mean = Some(stats.mean);
        self.standard_deviation = stats.standard_deviation;
        [self.q1, self.median, self.q3] = stats.quartiles.map(Some);
        self.outliers = Some(stats.outliers);
    }
}

/// How often each text occurs.
struct Tally<'a> {
    rows: usize,
    null_tokens: Vec<ValueCount>,
    /// Different values that are not null, in the order of their texts.
    values: Vec<(&'a str, usize)>,
}

impl<'a> Tally<'a> {
    fn count(values: impl Iterator<Item = &'a str>, progress: &mut dyn FnMut(usize)) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut rows = 0;
        for value in values {
            *counts.entry(value.trim()).or_default() += 1;
            rows += 1;
            if rows % PROGRESS_ROWS == 0 {
                progress(rows);
            }
        }
        if rows % PROGRESS_ROWS != 0 || rows == 0 {
            progress(rows);
        }
        let nulls: Vec<(&str, usize)> = NULL_TOKENS
            .into_iter()
            .filter_map(|token| counts.remove(token).map(|count| (token, count)))
            .collect();
        let mut values: Vec<_> = counts.into_iter().collect();
        values.sort_unstable();
        Self { rows, null_tokens: by_frequency(nulls), values }
    }
}

/// Returns the first entries by falling count, then by text.
fn most_frequent(values: &[(&str, usize)]) -> Vec<ValueCount> {
    let mut top = values.to_vec();
    if top.len() > EXAMPLES_MAX {
        top.select_nth_unstable_by_key(EXAMPLES_MAX, |&(text, count)| (Reverse(count), text));
        top.truncate(EXAMPLES_MAX);
    }
    by_frequency(top)
}

fn by_frequency(mut counts: Vec<(&str, usize)>) -> Vec<ValueCount> {
    counts.sort_unstable_by_key(|&(text, count)| (Reverse(count), text));
    counts
        .into_iter()
        .map(|(text, count)| ValueCount { value: cut(text, VALUE_CHARS_MAX), count })
        .collect()
}

fn keep_text<K>(_: K, text: &str) -> Scalar {
    Scalar::Text(cut(text, VALUE_CHARS_MAX))
}

fn measure(values: &[(&str, usize)]) -> Option<TextLengths> {
    let lengths = || values.iter().map(|&(text, count)| (text.chars().count(), count));
    let total: usize = lengths().map(|(length, count)| length * count).sum();
    let present: usize = lengths().map(|(_, count)| count).sum();
    Some(TextLengths {
        min: lengths().map(|(length, _)| length).min()?,
        max: lengths().map(|(length, _)| length).max()?,
        mean: total as f64 / present as f64,
    })
}

/// Returns the text, or its first characters and an ellipsis if it has more than `chars_max`.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
