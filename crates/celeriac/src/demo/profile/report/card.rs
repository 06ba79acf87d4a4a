//! The part of the page about one column.

use std::fmt::{self, Display};

use super::super::chart::{LARGE_PLOT, box_plot, missing_bar, value_bars};
use super::super::column::ColumnProfile;
use super::super::html::{count, foreign, number};
use super::super::kind::ColumnKind;
use super::super::numbers::Outliers;
use super::{badge, scalar};

/// Writes the card of the column at `index`.
pub(super) fn card(index: usize, column: &ColumnProfile) -> impl Display {
    fmt::from_fn(move |out| {
        let position = index + 1;
        write!(
            out,
            "<article class=\"card\" id=\"column-{position}\" aria-labelledby=\"name-{position}\">\
             <h3 id=\"name-{position}\">{} {}</h3>",
            foreign(&column.name),
            badge(column.kind)
        )?;
        if column.kind.is_numeric() {
            box_plot(column, LARGE_PLOT).fmt(out)?;
        }
        write_figures(column, out)?;
        if let Some(outliers) = &column.outliers {
            write_outliers(outliers, out)?;
        }
        if !column.top_values.is_empty() && !column.kind.is_numeric() {
            let is_unique = column.distinct > 1 && column.distinct == column.present();
            let title = if is_unique { "Examples" } else { "Most frequent" };
            write!(out, "<h4>{title}</h4>{}", value_bars(column))?;
        }
        write_missing(column, out)?;
        out.write_str("</article>")
    })
}

fn write_figures(column: &ColumnProfile, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_dated = matches!(column.kind, ColumnKind::Date | ColumnKind::Datetime);
    let layout = match column.outliers {
        _ if is_dated => " long",
        Some(_) if has_wide_numbers(column) => " wide",
        _ => "",
    };
    write!(out, "<dl class=\"figures{layout}\">")?;
    let mut figure = |label: &str, value: &dyn Display| {
        write!(out, "<div><dt>{label}</dt><dd>{value}</dd></div>")
    };
    if column.kind.is_numeric() {
        figure("Min", &scalar(column.min.as_ref()))?;
        for (label, value) in [("Q1", column.q1), ("Median", column.median), ("Q3", column.q3)] {
            figure(label, &optional(value))?;
        }
        figure("Max", &scalar(column.max.as_ref()))?;
        figure("Mean", &optional(column.mean))?;
        figure("Std dev", &optional(column.standard_deviation))?;
    } else if let Some(lengths) = &column.lengths {
        figure("Shortest", &count(lengths.min))?;
        figure("Mean length", &number(lengths.mean))?;
        figure("Longest", &count(lengths.max))?;
    } else if is_dated {
        figure("First", &scalar(column.min.as_ref()))?;
        figure("Last", &scalar(column.max.as_ref()))?;
    }
    figure("Distinct", &count(column.distinct))?;
    out.write_str("</dl>")
}

/// Returns whether the figures need two columns instead of four.
fn has_wide_numbers(column: &ColumnProfile) -> bool {
    [column.mean, column.standard_deviation, column.q1, column.q3]
        .into_iter()
        .flatten()
        .any(|value| number(value).to_string().chars().count() > 9)
}

fn optional(value: Option<f64>) -> impl Display {
    fmt::from_fn(move |out| match value {
        Some(value) => number(value).fmt(out),
        None => out.write_str("–"),
    })
}

fn write_outliers(outliers: &Outliers, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    if outliers.count == 0 {
        return Ok(());
    }
    write!(
        out,
        "<p class=\"note\"><b>{} {}</b> outside {} … {}: ",
        count(outliers.count),
        if outliers.count == 1 { "outlier" } else { "outliers" },
        number(outliers.lower_fence),
        number(outliers.upper_fence)
    )?;
    for (index, &value) in outliers.examples.iter().enumerate() {
        write!(out, "{}{}", if index == 0 { "" } else { ", " }, number(value))?;
    }
    out.write_str(if outliers.count > outliers.examples.len() { ", …</p>" } else { "</p>" })
}

fn write_missing(column: &ColumnProfile, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    if column.nulls == 0 {
        return out.write_str("<p class=\"gaps quiet\">No missing values</p>");
    }
    write!(out, "<p class=\"gaps\"><span>Missing {}</span>", count(column.nulls))?;
    missing_bar(column).fmt(out)?;
    for token in &column.null_tokens {
        let label = if token.value.is_empty() { "empty cell" } else { &token.value };
        write!(out, "<code>{} × {}</code>", foreign(label), count(token.count))?;
    }
    out.write_str("</p>")
}
