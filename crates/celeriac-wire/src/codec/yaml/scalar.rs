//! Plain scalars of YAML 1.1, as `PyYAML` 6 resolves (`resolver.py`) and builds
//! (`constructor.py`, `SafeConstructor`) them.

use std::fmt::Write as _;

use crate::json::{Number, Special, Value};

/// The value of a plain scalar; an error names what looks like a type and is none.
pub(super) fn read(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" => return Ok(Value::from(f64::NAN)),
        _ => {}
    }
    // The first characters by which the resolver finds a number or a time.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(Value::from(text));
    }
    if let Some(value) = timestamp(text) {
        return value.map(|special| special.to_value());
    }
    let (negative, digits) = match text.split_at_checked(1) {
        Some(("-", rest)) => (true, rest),
        Some(("+", rest)) => (false, rest),
        _ => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Ok(Value::from(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    if let Some(number) = integer(digits) {
        let number = number?;
        let sign = if negative && number != "0" { "-" } else { "" };
        let number = Number::parse(&format!("{sign}{number}"));
        return number.map(Value::from).ok_or_else(|| format!("the integer {text:?}"));
    }
    Ok(match float(digits) {
        Some(number) => Value::from(if negative { -number } else { number }),
        None => Value::from(text),
    })
}

/// Whether a text is one that [`read`] takes for a time.
pub(super) fn is_timestamp(text: &str) -> bool {
    matches!(timestamp(text), Some(Ok(_)))
}

/// The decimal text of an integer without its sign; nothing for what is none.
fn integer(text: &str) -> Option<Result<String, String>> {
    let all = |digits: &str, is: fn(&char) -> bool| {
        !digits.is_empty() && digits.chars().all(|c| c == '_' || is(&c))
    };
    let radix = |digits: &str, radix: u32| {
        let number = u128::from_str_radix(&digits.replace('_', ""), radix);
        Some(number.map(|number| number.to_string()).map_err(|_| format!("the integer {text:?}")))
    };
    if let Some(digits) =
        text.strip_prefix("0b").filter(|digits| all(digits, |c| matches!(c, '0' | '1')))
    {
        return radix(digits, 2);
    }
    if let Some(digits) =
        text.strip_prefix("0x").filter(|digits| all(digits, char::is_ascii_hexdigit))
    {
        return radix(digits, 16);
    }
    if text == "0" {
        return Some(Ok(text.to_owned()));
    }
    if let Some(digits) =
        text.strip_prefix('0').filter(|digits| all(digits, |c| matches!(c, '0'..='7')))
    {
        return radix(digits, 8);
    }
    if !text.starts_with(|c: char| matches!(c, '1'..='9')) {
        return None;
    }
    if all(text, char::is_ascii_digit) {
        return Some(Ok(text.replace('_', "")));
    }
    let (first, rest) = text.split_once(':')?;
    if !all(first, char::is_ascii_digit) || !rest.split(':').all(is_sixtieth) {
        return None;
    }
    let parts = std::iter::once(first).chain(rest.split(':'));
    let sum = parts
        .map(|part| part.replace('_', "").parse::<u128>().ok())
        .try_fold(0_u128, |sum, part| sum.checked_mul(60)?.checked_add(part?));
    Some(sum.map(|sum| sum.to_string()).ok_or_else(|| format!("the integer {text:?}")))
}

/// One or two digits, below 60.
fn is_sixtieth(part: &str) -> bool {
    match part.as_bytes() {
        [one] | [b'0'..=b'5', one] => one.is_ascii_digit(),
        _ => false,
    }
}

/// A float without its sign: it has a dot, and a sign in its exponent.
fn float(text: &str) -> Option<f64> {
    let (whole, rest) = text.split_once('.')?;
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    if whole.contains(':') {
        let (first, places) = whole.split_once(':')?;
        let right = first.starts_with(|c: char| c.is_ascii_digit())
            && digits(first)
            && places.split(':').all(is_sixtieth)
            && digits(rest);
        if !right {
            return None;
        }
        let last = format!("{}.{}", places.rsplit(':').next()?, rest.replace('_', ""));
        let mut parts = std::iter::once(first).chain(places.split(':')).collect::<Vec<_>>();
        parts.pop();
        let sum = parts.into_iter().try_fold(0.0, |sum, part| {
            Some(sum * 60.0 + part.replace('_', "").parse::<f64>().ok()?)
        })?;
        return Some(sum * 60.0 + last.parse::<f64>().ok()?);
    }
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let has_digit = if whole.is_empty() { starts(fraction) } else { starts(whole) };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let rest = exponent.strip_prefix(['+', '-']).unwrap_or_default();
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit())
    });
    if !has_digit || !digits(whole) || !digits(fraction) || !exponent_fits {
        return None;
    }
    let plain = format!("0{whole}.{fraction}0").replace('_', "");
    let exponent = exponent.map_or_else(String::new, |exponent| format!("e{exponent}"));
    format!("{plain}{exponent}").parse().ok()
}

/// A date or a time in ISO 8601's manner; nothing for what does not look like one, an error for
/// what looks like one and is none.
fn timestamp(text: &str) -> Option<Result<Special, String>> {
    let mut rest = text;
    let year = number(&mut rest, 4, 4)?;
    let month = after(&mut rest, "-").then(|| number(&mut rest, 1, 2))??;
    let day_text = after(&mut rest, "-").then_some(rest)?;
    let day = number(&mut rest, 1, 2)?;
    let wrong = || format!("the time {text:?}");
    let date = |year, month, day| {
        jiff::civil::Date::new(year as i16, month as i8, day as i8).map_err(|_| wrong())
    };
    if rest.is_empty() {
        // A date alone has two digits each.
        if text.len() != 10 || day_text.len() != 2 {
            return None;
        }
        return Some(date(year, month, day).map(|date| Special::Date(date.to_string())));
    }
    let blank = |c: char| matches!(c, ' ' | '\t');
    if rest.starts_with(['T', 't']) {
        rest = &rest[1..];
    } else if rest.starts_with(blank) {
        rest = rest.trim_start_matches(blank);
    } else {
        return None;
    }
    let hour = number(&mut rest, 1, 2)?;
    let minute = after(&mut rest, ":").then(|| number(&mut rest, 2, 2))??;
    let second = after(&mut rest, ":").then(|| number(&mut rest, 2, 2))??;
    let mut fraction = "";
    if after(&mut rest, ".") {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        (fraction, rest) = rest.split_at(end);
    }
    rest = rest.trim_start_matches(blank);
    let offset = offset(rest)?;
    let built = (|| {
        let date = date(year, month, day)?;
        let time = jiff::civil::Time::new(hour as i8, minute as i8, second as i8, 0);
        let time = time.map_err(|_| wrong())?;
        let mut iso = format!("{date}T{time}");
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        if micros.chars().any(|c| c != '0') {
            let _infallible = write!(iso, ".{micros}");
        }
        iso.push_str(&offset);
        Ok(Special::DateTime(iso))
    })();
    Some(built)
}

/// `Z` or hours and minutes, as `isoformat` writes them; empty for none.
fn offset(text: &str) -> Option<String> {
    match text {
        "" => return Some(String::new()),
        "Z" => return Some("+00:00".to_owned()),
        _ => {}
    }
    let sign = text.get(..1).filter(|sign| matches!(*sign, "+" | "-"))?;
    let mut rest = &text[1..];
    let hours = number(&mut rest, 1, 2)?;
    let _colon = after(&mut rest, ":");
    let minutes = if rest.is_empty() { 0 } else { number(&mut rest, 2, 2)? };
    let sign = if hours == 0 && minutes == 0 { "+" } else { sign };
    (rest.is_empty() && hours < 24 && minutes < 60)
        .then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

/// Takes so many digits from the front.
fn number(rest: &mut &str, low: usize, high: usize) -> Option<u32> {
    let digits = rest.bytes().take(high).take_while(u8::is_ascii_digit).count();
    if digits < low {
        return None;
    }
    let (taken, left) = rest.split_at(digits);
    *rest = left;
    taken.parse().ok()
}

/// Takes a text from the front if it is there.
fn after(rest: &mut &str, text: &str) -> bool {
    match rest.strip_prefix(text) {
        Some(left) => {
            *rest = left;
            true
        }
        None => false,
    }
}
