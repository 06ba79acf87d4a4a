//! The report on a file: plain data, and one HTML page that needs nothing else.
//!
//! The page loads nothing and runs no script (its own content security policy says so); every
//! text from the file is escaped. Tested in `report/tests.rs`.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::chart::{SMALL_PLOT, box_plot, missing_bar, share_bar};
use super::column::{ColumnProfile, Scalar};
use super::html::{bytes, count, escape, foreign, integer, number, percent};
use super::kind::ColumnKind;

mod card;
mod finding;

use card::card;
use finding::findings;

const STYLE: &str = include_str!("report/style.css");

/// Profile of a whole file; its JSON is the machine-readable report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// File name, as it is shown.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Encoding by its WHATWG name.
    pub encoding: String,
    /// The character between fields.
    pub delimiter: char,
    /// Number of records.
    pub rows: usize,
    /// Profiles in the order of the header.
    pub columns: Vec<ColumnProfile>,
    /// Labels and values about how the report was made: workers, durations, broker.
    pub facts: Vec<(String, String)>,
}

impl Report {
    /// Returns the report as one HTML page without scripts or outside resources.
    pub fn to_html(&self) -> String {
        fmt::from_fn(|out| {
            self.write_head(out)?;
            self.write_tiles(out)?;
            self.write_findings(out)?;
            self.write_overview(out)?;
            out.write_str("<section aria-labelledby=\"columns\"><h2 id=\"columns\">Columns</h2>")?;
            out.write_str("<p class=\"hint\">Box plots: the box holds the middle half of the ")?;
            out.write_str("values, the bar is the median, the diamond the mean. Whiskers end at ")?;
            out.write_str("the range or at 1.5 × the box, dots are the furthest outliers.</p>")?;
            out.write_str("<div class=\"cards\">")?;
            for (index, column) in self.columns.iter().enumerate() {
                card(index, column).fmt(out)?;
            }
            out.write_str("</div></section>")?;
            self.write_facts(out)?;
            out.write_str("</main></body></html>\n")
        })
        .to_string()
    }

    fn write_head(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>{} – column profile</title><style>{STYLE}</style></head><body><main>",
            escape(&self.file)
        )?;
        write!(
            out,
            "<header><p class=\"kicker\">Column profile</p><h1>{}</h1>\
             <p class=\"lead\">{} <span>{}</span> <span>{}</span></p></header>",
            foreign(&self.file),
            bytes(self.bytes),
            escape(&self.encoding),
            delimiter_words(self.delimiter)
        )
    }

    fn write_tiles(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.rows * self.columns.len();
        let nulls: usize = self.columns.iter().map(|column| column.nulls).sum();
        let complete = self.columns.iter().filter(|column| column.nulls == 0).count();
        out.write_str("<dl class=\"tiles\">")?;
        let mut tile = |label: &str, value: &dyn Display, note: &dyn Display| {
            write!(out, "<div><dt>{label}</dt><dd>{value}<small>{note}</small></dd></div>")
        };
        tile("Rows", &count(self.rows), &"below the header")?;
        tile("Columns", &count(self.columns.len()), &self.kind_counts())?;
        let of_cells =
            fmt::from_fn(|out| write!(out, "{} of {} cells", count(nulls), count(cells)));
        tile("Missing", &percent(nulls, cells), &of_cells)?;
        let of_columns =
            fmt::from_fn(|out| write!(out, "of {} columns", count(self.columns.len())));
        tile("Without gaps", &count(complete), &of_columns)?;
        out.write_str("</dl>")
    }

    fn kind_counts(&self) -> impl Display {
        fmt::from_fn(|out| {
            let mut separator = "";
            for kind in KINDS {
                let number = self.columns.iter().filter(|column| column.kind == kind).count();
                if number > 0 {
                    write!(out, "{separator}{} {kind}", count(number))?;
                    separator = ", ";
                }
            }
            Ok(())
        })
    }

    fn write_findings(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = findings(&self.columns);
        if groups.is_empty() {
            return Ok(());
        }
        out.write_str(
            "<section aria-labelledby=\"findings\"><h2 id=\"findings\">Worth a look</h2>",
        )?;
        out.write_str("<ul class=\"findings\">")?;
        for group in &groups {
            group.fmt(out)?;
        }
        out.write_str("</ul></section>")
    }

    fn write_overview(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "<section aria-labelledby=\"overview\"><h2 id=\"overview\">Overview</h2>\
             <div class=\"scroll\" role=\"region\" aria-labelledby=\"overview\" tabindex=\"0\">\
             <table><caption class=\"unseen\">One row for each column of the file</caption>\
             <thead><tr><th scope=\"col\" class=\"figure\">#</th><th scope=\"col\">Column</th>\
             <th scope=\"col\">Type</th><th scope=\"col\">Missing</th>\
             <th scope=\"col\" class=\"figure\">Distinct</th><th scope=\"col\">Smallest</th>\
             <th scope=\"col\">Largest</th><th scope=\"col\">Distribution</th></tr></thead><tbody>",
        )?;
        for (index, column) in self.columns.iter().enumerate() {
            let position = index + 1;
            write!(
                out,
                "<tr><td class=\"figure quiet\">{position}</td>\
                 <th scope=\"row\"><a href=\"#column-{position}\">{}</a></th><td>{}</td>\
                 <td>{}</td><td class=\"figure\">{}</td><td class=\"edge\">{}</td>\
                 <td class=\"edge\">{}</td><td class=\"shape\">{}</td></tr>",
                foreign(&column.name),
                badge(column.kind),
                missing_bar(column),
                count(column.distinct),
                scalar(column.min.as_ref()),
                scalar(column.max.as_ref()),
                shape(column)
            )?;
        }
        out.write_str("</tbody></table></div></section>")
    }

    fn write_facts(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.facts.is_empty() {
            return Ok(());
        }
        out.write_str("<footer aria-labelledby=\"facts\"><h2 id=\"facts\">How this was made</h2>")?;
        out.write_str("<dl class=\"facts\">")?;
        for (label, value) in &self.facts {
            write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label), foreign(value))?;
        }
        out.write_str("</dl></footer>")
    }
}

/// All kinds in the order in which the page counts them.
const KINDS: [ColumnKind; 7] = [
    ColumnKind::Integer,
    ColumnKind::Float,
    ColumnKind::Boolean,
    ColumnKind::Date,
    ColumnKind::Datetime,
    ColumnKind::Text,
    ColumnKind::Empty,
];

/// Writes the kind as a coloured label.
fn badge(kind: ColumnKind) -> impl Display {
    fmt::from_fn(move |out| write!(out, "<span class=\"badge {kind}\">{kind}</span>"))
}

/// Writes a smallest or largest value.
fn scalar(value: Option<&Scalar>) -> impl Display {
    fmt::from_fn(move |out| match value {
        None => out.write_str("<span class=\"quiet\" aria-label=\"none\">–</span>"),
        Some(Scalar::Integer(value)) => integer(*value).fmt(out),
        Some(Scalar::Float(value)) => number(*value).fmt(out),
        Some(Scalar::Text(value)) => {
            write!(
                out,
                "<span class=\"clip\" title=\"{}\">{}</span>",
                escape(value),
                foreign(value)
            )
        }
    })
}

/// Writes the small picture of the overview.
fn shape(column: &ColumnProfile) -> impl Display {
    fmt::from_fn(move |out| {
        if column.kind.is_numeric() {
            box_plot(column, SMALL_PLOT).fmt(out)
        } else if column.distinct > 1 && column.distinct == column.present() {
            out.write_str("<span class=\"quiet\">all different</span>")
        } else {
            share_bar(column).fmt(out)
        }
    })
}

/// Returns what separates the fields, in words.
fn delimiter_words(delimiter: char) -> &'static str {
    match delimiter {
        ',' => "separated by commas",
        ';' => "separated by semicolons",
        '\t' => "separated by tabs",
        '|' => "separated by vertical bars",
        _ => "separated by a custom character",
    }
}

#[cfg(test)]
mod tests;
