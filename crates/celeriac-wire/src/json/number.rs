//! Numbers that keep their exact text.

use std::fmt;

use super::float;

/// Longest text stored without an allocation; every `i64` and `u64` fits.
const INLINE_BYTES_MAX: usize = 22;

/// A JSON number, kept as its exact text.
///
/// Python's integers are unbounded and `1.50` may be meant as such, so a relayed number is never
/// converted (spec 1.6). `NaN`, `Infinity` and `-Infinity` are numbers here, as in Python.
#[derive(Clone)]
pub struct Number(Text);

#[derive(Clone)]
enum Text {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Heap(Box<str>),
}

impl Number {
    /// Reads a number in JSON's grammar or one of Python's three tokens.
    pub fn parse(text: &str) -> Option<Self> {
        if matches!(text, "NaN" | "Infinity" | "-Infinity")
            || super::parse::number_length(text.as_bytes()) == Some(text.len())
        {
            Some(Self::from_text(text))
        } else {
            None
        }
    }

    /// Stores a text that is known to be a number.
    pub(super) fn from_text(text: &str) -> Self {
        let mut bytes = [0; INLINE_BYTES_MAX];
        match bytes.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(text.as_bytes());
                Self(Text::Inline { len: text.len() as u8, bytes })
            }
            None => Self(Text::Heap(text.into())),
        }
    }

    /// Returns the exact text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Inline { len, bytes } => bytes
                .get(..usize::from(*len))
                .and_then(|text| std::str::from_utf8(text).ok())
                .unwrap_or_default(),
            Text::Heap(text) => text,
        }
    }

    /// Returns whether the text is that of a Python `int`: no fraction, exponent or special name.
    pub fn is_integer(&self) -> bool {
        self.as_str().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    }

    /// Returns the integer if it is one and fits; `1.0` is not an integer.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_str().parse().ok()
    }

    /// Returns the integer if it is one and fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_str().parse().ok()
    }

    /// Returns the integer if it is one and fits.
    pub fn as_i128(&self) -> Option<i128> {
        self.as_str().parse().ok()
    }

    /// Returns the integer if it is one and fits.
    pub fn as_u128(&self) -> Option<u128> {
        self.as_str().parse().ok()
    }

    /// Returns the nearest float; overflow gives an infinity, as in Python.
    pub fn as_f64(&self) -> Option<f64> {
        match self.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Number {}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({})", self.as_str())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl From<$type> for Number {
            fn from(number: $type) -> Self {
                Self::from_text(&number.to_string())
            }
        }
    )*};
}
from_integer!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, usize);

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::from_text(&float::repr(number))
    }
}

impl From<f32> for Number {
    /// Uses the shortest digits of the `f32`, so `0.1_f32` is `0.1`.
    fn from(number: f32) -> Self {
        Self::from(number.to_string().parse::<f64>().unwrap_or_else(|_| f64::from(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn keeps_the_text_and_converts_only_what_fits() {
        let big = "123456789012345678901234567890123456789012345678901234567890";
        for text in ["0", "-0", "1.50", "1E5", "1e+16", "NaN", "-Infinity", big] {
            assert_eq!(Number::parse(text).expect(text).as_str(), text);
        }
        for text in ["", "-", "01", "1.", ".5", "+1", "0x1", "nan", "1e", "1 ", "--1"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        let number = |text| Number::parse(text).expect(text);
        assert_eq!(number("1.0").as_i64(), None);
        assert_eq!(number("18446744073709551615").as_u64(), Some(u64::MAX));
        assert_eq!(number("18446744073709551615").as_i64(), None);
        assert_eq!(number("1e999").as_f64(), Some(f64::INFINITY));
        assert_eq!(number(big).as_i128(), None);
        assert_eq!(Number::from(0.1_f32).as_str(), "0.1");
        assert_eq!(Number::from(i64::MIN).as_str(), "-9223372036854775808");
        assert_eq!(Number::from(f32::NAN).as_str(), "NaN");
        assert_eq!(Number::from(f32::INFINITY).as_str(), "Infinity");
    }
}
