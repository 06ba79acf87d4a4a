//! Turns the bytes of a text file into a string: byte order mark, UTF-8, or a guess.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};

use super::structure::line_at;
use super::table::TableError;

/// Bytes shown to the detector, counted from the first that is not ASCII.
const GUESS_BYTES_MAX: usize = 4 << 20;

/// First bytes of files that are often mistaken for CSV.
const SIGNATURES: [(&[u8], &str); 7] = [
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook (.xlsx)"),
    (b"\xD0\xCF\x11\xE0", "an old Excel workbook (.xls)"),
    (b"\x1F\x8B", "a gzip archive"),
    (b"\x28\xB5\x2F\xFD", "a Zstandard archive"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\0", "a SQLite database"),
    (b"%PDF-", "a PDF document"),
];

/// Text without its byte order mark, and how it was read.
#[derive(Debug)]
pub(super) struct Decoded<'a> {
    /// The text, borrowed when the file is UTF-8 already.
    pub(super) text: Cow<'a, str>,
    /// Name of the encoding as the WHATWG standard spells it.
    pub(super) encoding: &'static str,
    /// Whether the encoding was inferred from the bytes' statistics.
    pub(super) is_guess: bool,
}

/// Decodes a whole file; refuses binary files and bytes that contradict the byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, TableError> {
    if let Some((_, looks_like)) = SIGNATURES.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(TableError::Binary { looks_like });
    }
    let decoded = if let Some((encoding, mark_bytes)) = Encoding::for_bom(bytes) {
        decode_as(encoding, &bytes[mark_bytes..], false)?
    } else if bytes.contains(&0) {
        return Err(TableError::Binary { looks_like: "a binary file (it has NUL bytes)" });
    } else if let Ok(text) = str::from_utf8(bytes) {
        Decoded { text: Cow::Borrowed(text), encoding: UTF_8.name(), is_guess: false }
    } else {
        decode_as(guess(bytes), bytes, true)?
    };
    if decoded.text.contains('\0') {
        return Err(TableError::Binary { looks_like: "a binary file (it has NUL characters)" });
    }
    Ok(decoded)
}

fn decode_as<'a>(
    encoding: &'static Encoding,
    bytes: &'a [u8],
    is_guess: bool,
) -> Result<Decoded<'a>, TableError> {
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        return Ok(Decoded { text, encoding: encoding.name(), is_guess });
    }
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    let broken = text.find(char::REPLACEMENT_CHARACTER).unwrap_or(0);
    Err(TableError::Malformed { line: line_at(&text, broken), encoding: encoding.name() })
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    let first = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(0);
    let sample = &bytes[first..bytes.len().min(first + GUESS_BYTES_MAX)];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    detector.guess(None, Utf8Detection::Deny)
}
