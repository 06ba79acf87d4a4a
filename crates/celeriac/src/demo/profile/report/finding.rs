//! What a reader should check first, drawn from the profiles.

use std::fmt::{self, Display};

use super::super::column::ColumnProfile;
use super::super::html::{count, foreign};

/// Columns named in one finding; the rest is counted.
const NAMES_MAX: usize = 8;

/// A statement and the columns that it holds for.
#[derive(Debug)]
pub(super) struct Finding<'a> {
    statement: &'static str,
    /// Positions from 1, names, and a detail in brackets.
    columns: Vec<(usize, &'a str, String)>,
}

/// Returns the findings that hold for any column, the gravest first.
pub(super) fn findings(columns: &[ColumnProfile]) -> Vec<Finding<'_>> {
    let collect = |statement, holds: &dyn Fn(&ColumnProfile) -> Option<String>| Finding {
        statement,
        columns: columns
            .iter()
            .enumerate()
            .filter_map(|(index, column)| Some((index + 1, column.name.as_str(), holds(column)?)))
            .collect(),
    };
    [
        collect("No values at all", &|column| (column.distinct == 0).then(String::new)),
        collect("More than a fifth missing", &|column| {
            let is_sparse = column.distinct > 0 && column.nulls * 5 > column.rows;
            is_sparse.then(|| format!("{:.0}%", column.nulls as f64 * 100.0 / column.rows as f64))
        }),
        collect("The same value everywhere", &|column| {
            (column.distinct == 1 && column.present() > 1).then(String::new)
        }),
        collect("Possible key: no two alike", &|column| {
            let is_key = column.distinct == column.rows && column.rows > 1;
            (is_key && !is_measured(column)).then(String::new)
        }),
        collect("Outliers", &|column| {
            let outliers = column.outliers.as_ref().filter(|outliers| outliers.count > 0)?;
            Some(count(outliers.count).to_string())
        }),
    ]
    .into_iter()
    .filter(|finding| !finding.columns.is_empty())
    .collect()
}

/// Returns whether the values are measurements, which differ by nature.
fn is_measured(column: &ColumnProfile) -> bool {
    column.kind == super::ColumnKind::Float
}

impl Display for Finding<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<li><b>{}</b> ", self.statement)?;
        for (position, name, detail) in self.columns.iter().take(NAMES_MAX) {
            write!(out, "<a href=\"#column-{position}\">{}", foreign(name))?;
            if !detail.is_empty() {
                write!(out, " <small>{detail}</small>")?;
            }
            out.write_str("</a> ")?;
        }
        match self.columns.len().saturating_sub(NAMES_MAX) {
            0 => out.write_str("</li>"),
            more => write!(out, "<span class=\"quiet\">and {} more</span></li>", count(more)),
        }
    }
}
