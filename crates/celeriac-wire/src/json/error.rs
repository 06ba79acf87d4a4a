//! Why a JSON text or value was refused.

use std::fmt;

use crate::limits::FOUND_CHARS_MAX;

/// Why a JSON text could not be parsed, or a value not be turned into a type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is not JSON.
    Syntax {
        /// Byte offset of the first byte that does not fit.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A value has the wrong type or is out of range.
    Mismatch {
        /// Where, as `key[1].other`; empty for the value itself.
        path: String,
        /// What was wanted, as `an integer`.
        expected: String,
        /// What was there, as `the string "x"`.
        found: String,
    },
    /// A value is of the right type, but not acceptable.
    Invalid {
        /// Where, as `key[1].other`; empty for the value itself.
        path: String,
        /// What is wrong with it.
        message: String,
    },
}

impl JsonError {
    pub(crate) fn mismatch(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Mismatch { path: String::new(), expected: expected.into(), found: found.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { path: String::new(), message: message.into() }
    }

    /// Returns where in the value the error is; empty for the value itself or a syntax error.
    pub fn path(&self) -> &str {
        match self {
            Self::Syntax { .. } => "",
            Self::Mismatch { path, .. } | Self::Invalid { path, .. } => path,
        }
    }

    /// Prefixes the path with a key or a longer path such as `args[1]`.
    ///
    /// A syntax error has no path and stays as it is.
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        if let Self::Mismatch { path, .. } | Self::Invalid { path, .. } = &mut self {
            if !path.is_empty() && !path.starts_with('[') {
                path.insert(0, '.');
            }
            path.insert_str(0, prefix);
        }
        self
    }

    /// Prefixes the path with an array index.
    #[must_use]
    pub fn at_index(self, index: usize) -> Self {
        self.at(&format!("[{index}]"))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path().is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        match self {
            Self::Syntax { offset, problem } => write!(f, "not JSON at byte {offset}: {problem}"),
            Self::Mismatch { expected, found, .. } => {
                write!(f, "expected {expected}, found {found}")
            }
            Self::Invalid { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for JsonError {}

impl serde::ser::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::invalid(message.to_string())
    }
}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::invalid(message.to_string())
    }

    fn invalid_type(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::mismatch(expected_words(&expected.to_string()), found_words(found))
    }

    fn invalid_value(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::mismatch(expected_words(&expected.to_string()), found_words(found))
    }

    fn invalid_length(len: usize, expected: &dyn serde::de::Expected) -> Self {
        Self::mismatch(expected.to_string(), format!("{len} elements"))
    }
}

/// Cuts a text for an error message.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Turns serde's name of a Rust type into words for whoever sent the value.
fn expected_words(expected: &str) -> String {
    let words = match expected {
        "i8" => "an integer from -128 to 127",
        "u8" => "an integer from 0 to 255",
        "i16" => "an integer from -32768 to 32767",
        "u16" => "an integer from 0 to 65535",
        "i32" | "i64" | "i128" | "isize" => "an integer",
        "u32" | "u64" | "u128" | "usize" => "an integer of 0 or more",
        "f32" | "f64" => "a number",
        "a boolean" => "a bool",
        "a sequence" => "an array",
        "a map" => "an object",
        "unit" => "null",
        _ => {
            return expected
                .strip_prefix("struct ")
                .map_or_else(|| expected.to_owned(), |name| format!("an object ({name})"));
        }
    };
    words.to_owned()
}

fn found_words(found: serde::de::Unexpected<'_>) -> String {
    use serde::de::Unexpected;
    match found {
        Unexpected::Bool(flag) => format!("the bool {flag}"),
        Unexpected::Unsigned(number) => format!("the integer {number}"),
        Unexpected::Signed(number) => format!("the integer {number}"),
        Unexpected::Float(number) => format!("the number {}", super::float::repr(number)),
        Unexpected::Str(text) => format!("the string {:?}", cut(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}
