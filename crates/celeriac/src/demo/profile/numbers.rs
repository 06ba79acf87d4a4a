//! Number spelling and statistics: exact sums, quartiles, outliers.
//!
//! Results are finite or absent, because JSON has no infinity. Every sum is correctly rounded, so
//! the order of the values never shows. Tested here and in `column/tests.rs`.

use serde::{Deserialize, Serialize};

use super::column::EXAMPLES_MAX;

/// Values far outside the middle half of a numeric column (Tukey's fences).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outliers {
    /// Number of values below `lower_fence` or above `upper_fence`.
    pub count: usize,
    /// First quartile minus 1.5 times the distance between the quartiles.
    pub lower_fence: f64,
    /// Third quartile plus 1.5 times the distance between the quartiles.
    pub upper_fence: f64,
    /// Up to [`EXAMPLES_MAX`] different outliers, furthest beyond its fence first.
    pub examples: Vec<f64>,
}

/// Statistics of a column of numbers.
#[derive(Debug)]
pub(super) struct NumberStats {
    pub(super) mean: f64,
    pub(super) standard_deviation: Option<f64>,
    pub(super) quartiles: [f64; 3],
    pub(super) outliers: Outliers,
}

/// Parses an optional sign and digits that fit 64 bits, without leading zeros.
pub(super) fn parse_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    (is_digits(digits) && has_plain_start(digits)).then(|| text.parse().ok()).flatten()
}

/// Parses a finite decimal number: integer, decimal point, exponent.
///
/// Stricter than [`str::parse`]: no `inf`, no `NaN`, no `007.5`, and digits without point and
/// exponent must fit 64 bits, because a longer one is an identifier that a float would mangle.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    if exponent.is_some_and(|it| !is_digits(it.strip_prefix(['+', '-']).unwrap_or(it))) {
        return None;
    }
    let is_mantissa = match mantissa.split_once('.') {
        Some((whole, "")) => is_digits(whole) && has_plain_start(whole),
        Some((whole, part)) => {
            is_digits(part) && (whole.is_empty() || is_digits(whole) && has_plain_start(whole))
        }
        None if exponent.is_none() => return parse_integer(text).map(|integer| integer as f64),
        None => is_digits(mantissa) && has_plain_start(mantissa),
    };
    is_mantissa.then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_plain_start(digits: &str) -> bool {
    digits == "0" || !digits.starts_with('0')
}

/// Computes the statistics of finite numbers in ascending order; `None` without any.
pub(super) fn summarize(sorted: &[f64]) -> Option<NumberStats> {
    let (&first, &last) = (sorted.first()?, sorted.last()?);
    let scale = safe_scale(first.abs().max(last.abs()));
    let count = sorted.len() as f64;
    let scaled = || sorted.iter().map(|value| value * scale);
    let mean = exact_sum(scaled()) / count;
    let quartiles = [1, 2, 3].map(|nth| quartile(sorted, nth));
    Some(NumberStats {
        mean: mean / scale,
        standard_deviation: deviation(scaled, mean, count)
            .map(|deviation| deviation / scale)
            .filter(|deviation| deviation.is_finite()),
        quartiles,
        outliers: find_outliers(sorted, quartiles[0], quartiles[2]),
    })
}

/// Returns a power of two that keeps sums and squares of numbers up to `largest` in range.
///
/// Multiplying by it is exact, so ordinary numbers (scale 1) and extreme ones get equal care.
fn safe_scale(largest: f64) -> f64 {
    if largest > 2_f64.powi(450) {
        2_f64.powi(-600)
    } else if largest < 2_f64.powi(-400) && largest > 0.0 {
        2_f64.powi(600)
    } else {
        1.0
    }
}

/// Returns the sample standard deviation, `None` for fewer than two values.
///
/// Two passes with the correction for the rounding of the mean (T. Chan et al., 1983).
fn deviation<I: Iterator<Item = f64>>(
    values: impl Fn() -> I,
    mean: f64,
    count: f64,
) -> Option<f64> {
    if count < 2.0 {
        return None;
    }
    let squares = exact_sum(values().map(|value| (value - mean) * (value - mean)));
    let drift = exact_sum(values().map(|value| value - mean));
    Some(((squares - drift * drift / count).max(0.0) / (count - 1.0)).sqrt())
}

/// Adds finite numbers with one rounding at the end, like Python's `math.fsum`.
///
/// Keeps the sum as parts whose digits do not overlap (Shewchuk, 1997). The caller keeps the
/// numbers small enough that no part overflows.
fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut parts: Vec<f64> = Vec::new();
    for value in values {
        let mut carry = value;
        let mut kept = 0;
        for index in 0..parts.len() {
            let (large, small) = if carry.abs() < parts[index].abs() {
                (parts[index], carry)
            } else {
                (carry, parts[index])
            };
            let sum = large + small;
            let rest = small - (sum - large);
            if rest != 0.0 {
                parts[kept] = rest;
                kept += 1;
            }
            carry = sum;
        }
        parts.truncate(kept);
        parts.push(carry);
    }
    round_parts(&parts)
}

/// Rounds non-overlapping parts, smallest first, to the nearest number.
fn round_parts(parts: &[f64]) -> f64 {
    let mut descending = parts.iter().rev().copied();
    let mut sum = descending.next().unwrap_or(0.0);
    for part in descending.by_ref() {
        let before = sum;
        sum = before + part;
        let rest = part - (sum - before);
        if rest == 0.0 {
            continue;
        }
        // The rest may be exactly half a unit: then the next part's sign decides the rounding.
        let next = descending.next().unwrap_or(0.0);
        let doubled = rest * 2.0;
        let nudged = sum + doubled;
        let is_half = (nudged - sum).to_bits() == doubled.to_bits();
        return if is_half && next * rest > 0.0 { nudged } else { sum };
    }
    sum
}

/// Returns a quartile by linear interpolation between the closest ranks.
///
/// The "inclusive" method: the smallest value is the 0th and the largest the 4th quartile. The
/// expression is the one of Python's `statistics.quantiles`, so that fences agree to the last bit.
fn quartile(sorted: &[f64], nth: usize) -> f64 {
    let position = nth * (sorted.len() - 1);
    let (below, quarter) = (sorted[position / 4], (position % 4) as f64);
    let above = sorted[(position / 4 + 1).min(sorted.len() - 1)];
    let weighted = below * (4.0 - quarter) + above * quarter;
    if weighted.is_finite() {
        weighted / 4.0
    } else {
        below * (1.0 - quarter / 4.0) + above * (quarter / 4.0)
    }
}

fn find_outliers(sorted: &[f64], q1: f64, q3: f64) -> Outliers {
    let reach = (1.5 * (q3 - q1)).min(f64::MAX);
    let (lower, upper) = ((q1 - reach).max(f64::MIN), (q3 + reach).min(f64::MAX));
    let low = &sorted[..sorted.partition_point(|&value| value < lower)];
    let high = &sorted[sorted.partition_point(|&value| value <= upper)..];
    let mut candidates: Vec<f64> = low.iter().chain(high).copied().collect();
    candidates.dedup();
    let beyond = |value: f64| {
        if value < lower { lower - value } else { value - upper }
    };
    // Stable, so equal distances stay in ascending order.
    candidates.sort_by(|left, right| beyond(*right).total_cmp(&beyond(*left)));
    candidates.truncate(EXAMPLES_MAX);
    Outliers {
        count: low.len() + high.len(),
        lower_fence: lower,
        upper_fence: upper,
        examples: candidates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_plain_spellings_for_numbers() {
        for (text, integer, float) in [
            ("0", Some(0), Some(0.0)),
            ("-12", Some(-12), Some(-12.0)),
            ("+7", Some(7), Some(7.0)),
            ("9223372036854775807", Some(i64::MAX), Some(9_223_372_036_854_775_807.0)),
            ("9223372036854775808", None, None),
            ("9223372036854775808.0", None, Some(9_223_372_036_854_775_808.0)),
            ("007", None, None),
            ("00.5", None, None),
            ("1.", None, Some(1.0)),
            (".5", None, Some(0.5)),
            ("-.5e-1", None, Some(-0.05)),
            ("6E23", None, Some(6e23)),
            ("1e400", None, None),
            (".", None, None),
            ("1e", None, None),
            ("1e+", None, None),
            ("e5", None, None),
            ("+-1", None, None),
            ("", None, None),
            ("1,5", None, None),
            ("1_000", None, None),
            ("inf", None, None),
            ("0x10", None, None),
            ("١", None, None),
        ] {
            assert_eq!(parse_integer(text), integer, "{text}");
            assert_eq!(parse_float(text), float, "{text}");
        }
    }

    #[test]
    fn adds_without_losing_small_parts() {
        let check = |values: &[f64], expected: f64| {
            assert_eq!(exact_sum(values.iter().copied()).to_bits(), expected.to_bits());
        };
        check(&[], 0.0);
        check(&[0.1; 10], 1.0);
        check(&[1e16, 1.0, -1e16], 1.0);
        check(&[1e100, 1.0, -1e100, 1e-100], 1.0);
        // Half a unit in the last place, decided by a part far below: math.fsum gives the same.
        check(&[1e16, 1.0, 1e-16], 10_000_000_000_000_002.0);
        check(&[1e16, 1.0, -1e-16], 10_000_000_000_000_000.0);
    }

    #[test]
    fn stays_finite_at_the_edge_of_the_range() {
        let stats = summarize(&[f64::MIN, 0.0, f64::MAX]).expect("three values");
        assert!(stats.mean.abs() < f64::EPSILON);
        assert!(stats.quartiles.iter().all(|quartile| quartile.is_finite()));
        assert!(stats.outliers.lower_fence.is_finite() && stats.outliers.upper_fence.is_finite());
        let tiny = summarize(&[1e-300, 3e-300]).expect("two values");
        assert!((tiny.mean / 2e-300 - 1.0).abs() < 1e-12);
        let deviation = tiny.standard_deviation.expect("two values have a deviation");
        assert!((deviation / 2_f64.sqrt() / 1e-300 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn keeps_the_deviation_of_close_values_far_from_zero() {
        let stats = summarize(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]).expect("three values");
        assert!((stats.standard_deviation.expect("three values") - 1.0).abs() < 1e-12);
    }
}
