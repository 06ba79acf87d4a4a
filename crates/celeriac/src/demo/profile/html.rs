//! Pieces of HTML text: escaping, numbers, shares. Knows nothing about reports.

use std::fmt::{self, Display, Write as _};

/// Writes a text so that it is safe between tags and inside quoted attributes.
///
/// Control characters become signs: a line break in a cell must be seen, and an escape character
/// must not reach a terminal that shows the source.
pub(super) fn escape(text: &str) -> impl Display {
    fmt::from_fn(move |out| {
        for character in text.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\r' => out.write_char('↵')?,
                '\t' => out.write_char('⇥')?,
                '\u{7f}' => out.write_char('\u{2421}')?,
                '\0'..='\u{1f}' => {
                    out.write_char(char::from_u32(0x2400 + u32::from(character)).unwrap_or(' '))?;
                }
                other => out.write_char(other)?,
            }
        }
        Ok(())
    })
}

/// Writes a text of the file, isolated from the direction of the text around it.
pub(super) fn foreign(text: &str) -> impl Display {
    fmt::from_fn(move |out| write!(out, "<bdi>{}</bdi>", escape(text)))
}

/// Writes a whole number with commas between thousands from 10 000 on, so that years stay years.
pub(super) fn integer(value: i64) -> impl Display {
    fmt::from_fn(move |out| {
        out.write_str(if value < 0 { "−" } else { "" })?;
        grouped(&value.unsigned_abs().to_string(), out)
    })
}

fn grouped(digits: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len() > 4 && (digits.len() - index).is_multiple_of(3) {
            out.write_char(',')?;
        }
        out.write_char(digit)?;
    }
    Ok(())
}

/// Writes a count like [`integer`].
pub(super) fn count(value: usize) -> impl Display {
    integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Writes a number with five significant digits or so, very large and small ones as powers.
pub(super) fn number(value: f64) -> impl Display {
    fmt::from_fn(move |out| {
        let size = value.abs();
        if value.fract() == 0.0 && size < 1e15 {
            return integer(value as i64).fmt(out);
        }
        if !(1e-4..1e15).contains(&size) {
            return out.write_str(&format!("{value:.3e}").replace('-', "−"));
        }
        let decimals = match size {
            100_000.0.. => 0,
            100.0.. => 2,
            1.0.. => 3,
            0.01.. => 4,
            _ => 6,
        };
        let rounded = format!("{size:.decimals$}");
        let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
        out.write_str(if value < 0.0 { "−" } else { "" })?;
        grouped(whole, out)?;
        match fraction.trim_end_matches('0') {
            "" => Ok(()),
            digits => write!(out, ".{digits}"),
        }
    })
}

/// Writes `part` of `whole` in per cent; what is neither none nor all never rounds to it.
pub(super) fn percent(part: usize, whole: usize) -> impl Display {
    fmt::from_fn(move |out| {
        let share = width(part, whole);
        match share {
            _ if part == 0 => out.write_str("0%"),
            _ if part == whole => out.write_str("100%"),
            ..0.1 => out.write_str("&lt;0.1%"),
            99.9.. => out.write_str("&gt;99.9%"),
            ..9.95 => write!(out, "{share:.1}%"),
            _ => write!(out, "{share:.0}%"),
        }
    })
}

/// Returns `part` of `whole` in per cent for a CSS width.
pub(super) fn width(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Writes a size in decimal units.
pub(super) fn bytes(value: u64) -> impl Display {
    fmt::from_fn(move |out| match value {
        0..1_000 => write!(out, "{value} bytes"),
        1_000..1_000_000 => write!(out, "{:.1} kB", value as f64 / 1e3),
        1_000_000..1_000_000_000 => write!(out, "{:.1} MB", value as f64 / 1e6),
        _ => write!(out, "{:.2} GB", value as f64 / 1e9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_markup_quotes_and_controls() {
        assert_eq!(
            escape("<a b='c' d=\"e\">&").to_string(),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;"
        );
        assert_eq!(escape("a\nb\u{1b}[0m").to_string(), "a↵b␛[0m");
    }

    #[test]
    fn writes_numbers_for_people() {
        for (value, expected) in [
            (0.0, "0"),
            (2007.0, "2007"),
            (-1_234_567.0, "−1,234,567"),
            (4_201.754_386, "4201.75"),
            (44_383_145_499.3, "44,383,145,499"),
            (-24.694_54, "−24.695"),
            (0.5, "0.5"),
            (0.001_234_5, "0.001234"),
            (1.5e-7, "1.500e−7"),
            (1e20, "1.000e20"),
        ] {
            assert_eq!(number(value).to_string(), expected);
        }
    }

    #[test]
    fn never_rounds_a_share_to_none_or_all() {
        assert_eq!(percent(0, 10).to_string(), "0%");
        assert_eq!(percent(1, 100_000).to_string(), "&lt;0.1%");
        assert_eq!(percent(99_999, 100_000).to_string(), "&gt;99.9%");
        assert_eq!(percent(3, 344).to_string(), "0.9%");
        assert_eq!(percent(0, 0).to_string(), "0%");
    }
}
