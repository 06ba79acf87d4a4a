//! Python's text of a float.

use std::fmt::Write as _;

/// Prints a float as Python's `float.__repr__`, with JSON's names for the special values.
///
/// The shortest digits that read back equal; an exponent below 1e-4 and from 1e16 on, with at
/// least two digits (Python 3.11 Python/pystrtod.c `format_float_short`, code `'r'`).
pub(crate) fn repr(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Rust's `{:e}` prints the same shortest digits: `d.ddde-7`.
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let mut text = String::with_capacity(24);
    text.push_str(sign);
    if !(-4..16).contains(&exponent) {
        text.push_str(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a String cannot fail.
        _ = write!(text, "e{sign}{:02}", exponent.unsigned_abs());
    } else if exponent < 0 {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
        text.push_str(&digits);
    } else {
        let whole = exponent as usize + 1;
        text.extend(digits.chars().chain(std::iter::repeat('0')).take(whole));
        text.push('.');
        match digits.get(whole..) {
            Some(fraction) if !fraction.is_empty() => text.push_str(fraction),
            _ => text.push('0'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::repr;

    #[test]
    fn prints_like_python() {
        // Each right side was printed by Python 3.11.7 `repr`.
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (0.0001, "0.0001"),
            (0.000_12, "0.00012"),
            (0.000_01, "1e-05"),
            (1e-7, "1e-07"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (1e16, "1e+16"),
            (1.234e16, "1.234e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (1_795_226_008.261_473, "1795226008.261473"),
            (0.014_199_358_000_041_684, "0.014199358000041684"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, expected) in table {
            assert_eq!(repr(number), expected);
        }
    }
}
