//! Small pictures of a column: box plot, bars. Plain SVG and CSS widths, no script.

use std::fmt::{self, Display};

use super::column::{ColumnProfile, Scalar};
use super::html::{count, escape, foreign, number, percent, width};

/// Size of a box plot in its own units.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlotSize {
    width: f64,
    height: f64,
    radius: f64,
}

/// Box plot of a column's own card.
pub(super) const LARGE_PLOT: PlotSize = PlotSize { width: 360.0, height: 44.0, radius: 3.0 };

/// Box plot of a row in the overview.
pub(super) const SMALL_PLOT: PlotSize = PlotSize { width: 140.0, height: 20.0, radius: 2.0 };

/// Writes a box plot: box between the quartiles, whiskers to the last value within the fences at
/// most, a diamond at the mean, a dot for each example of an outlier.
pub(super) fn box_plot(column: &ColumnProfile, size: PlotSize) -> impl Display {
    fmt::from_fn(move |out| {
        let (Some(low), Some(high)) = (bound(column.min.as_ref()), bound(column.max.as_ref()))
        else {
            return Ok(());
        };
        let (Some(q1), Some(median), Some(q3)) = (column.q1, column.median, column.q3) else {
            return Ok(());
        };
        let (width, height) = (size.width, size.height);
        write!(
            out,
            "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"Box plot of {}: {} to {}, quartiles {}, {}, {}\">",
            escape(&column.name),
            number(low),
            number(high),
            number(q1),
            number(median),
            number(q3)
        )?;
        let axis = Axis { low, high, size };
        let (left, right) = column.outliers.as_ref().map_or((low, high), |outliers| {
            (outliers.lower_fence.max(low), outliers.upper_fence.min(high))
        });
        axis.write_box([left, q1, median, q3, right], out)?;
        axis.write_marks(column, out)?;
        out.write_str("</svg>")
    })
}

/// Where the numbers of a column lie in its picture.
struct Axis {
    low: f64,
    high: f64,
    size: PlotSize,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        // Halves, because the span of the widest columns is larger than the largest number.
        let span = self.high / 2.0 - self.low / 2.0;
        let share = if span > 0.0 { (value / 2.0 - self.low / 2.0) / span } else { 0.5 };
        let pad = self.size.radius + 1.0;
        pad + share.clamp(0.0, 1.0) * (self.size.width - 2.0 * pad)
    }

    /// Writes the whiskers' ends, the box and the median from five ascending numbers.
    fn write_box(&self, numbers: [f64; 5], out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, q1, median, q3, right] = numbers.map(|value| self.place(value));
        let at = |share: f64| self.size.height * share;
        write!(
            out,
            "<path class=\"whisker\" d=\"M{left:.1} {middle:.1}H{q1:.1}M{q3:.1} {middle:.1}\
             H{right:.1}M{left:.1} {top:.1}V{bottom:.1}M{right:.1} {top:.1}V{bottom:.1}\"/>",
            middle = at(0.5),
            top = at(0.32),
            bottom = at(0.68)
        )?;
        write!(
            out,
            "<rect class=\"box\" x=\"{q1:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
             height=\"{:.1}\" rx=\"2\"/><path class=\"median\" d=\"M{median:.1} \
             {top:.1}V{:.1}\"/>",
            (q3 - q1).max(1.0),
            at(0.6),
            at(0.8),
            top = at(0.2)
        )
    }

    /// Writes the mean and the outliers.
    fn write_marks(&self, column: &ColumnProfile, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, r) = (self.size.height / 2.0, self.size.radius);
        if let Some(mean) = column.mean {
            let left = self.place(mean) - r;
            write!(
                out,
                "<path class=\"mean\" d=\"M{left:.1} {middle:.1}l{r} {r}l{r} -{r}l-{r} -{r}z\"/>"
            )?;
        }
        for &value in column.outliers.as_ref().map_or(&[][..], |it| &it.examples) {
            let x = self.place(value);
            write!(out, "<circle class=\"outlier\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"{r}\"/>")?;
        }
        Ok(())
    }
}

fn bound(scalar: Option<&Scalar>) -> Option<f64> {
    match scalar? {
        Scalar::Integer(value) => Some(*value as f64),
        Scalar::Float(value) => Some(*value),
        Scalar::Text(_) => None,
    }
}

/// Writes the most frequent values as labelled bars, each in relation to all values present.
pub(super) fn value_bars(column: &ColumnProfile) -> impl Display {
    fmt::from_fn(move |out| {
        let present = column.present();
        out.write_str("<ul class=\"values\">")?;
        for top in &column.top_values {
            write!(
                out,
                "<li><span class=\"value\" title=\"{}\">{}</span><span class=\"amount\">{} \
                 <small>{}</small></span><span class=\"bar\" aria-hidden=\"true\"><i \
                 style=\"width:{:.2}%\"></i></span></li>",
                escape(&top.value),
                foreign(&top.value),
                count(top.count),
                percent(top.count, present),
                width(top.count, present)
            )?;
        }
        out.write_str("</ul>")
    })
}

/// Writes one bar that is divided among the most frequent values; the rest stays blank.
pub(super) fn share_bar(column: &ColumnProfile) -> impl Display {
    fmt::from_fn(move |out| {
        let present = column.present();
        out.write_str("<span class=\"shares\" aria-hidden=\"true\">")?;
        for top in &column.top_values {
            write!(
                out,
                "<i style=\"width:{:.2}%\" title=\"{}: {}\"></i>",
                width(top.count, present),
                escape(&top.value),
                percent(top.count, present)
            )?;
        }
        out.write_str("</span>")
    })
}

/// Writes the share of missing cells as a bar with its number.
pub(super) fn missing_bar(column: &ColumnProfile) -> impl Display {
    fmt::from_fn(move |out| {
        let level = if column.nulls * 5 > column.rows { " high" } else { "" };
        write!(
            out,
            "<span class=\"missing{level}\"><span class=\"bar\" aria-hidden=\"true\"><i \
             style=\"width:{:.2}%\"></i></span><span>{}</span></span>",
            width(column.nulls, column.rows),
            percent(column.nulls, column.rows)
        )
    })
}
