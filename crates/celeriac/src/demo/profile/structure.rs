//! Where fields, records and lines end, without reading their text.
//!
//! Follows the state machine of csv-core 0.1 (`reader.rs`, `transition_nfa`): a quote opens only
//! at the start of a field, `""` inside quotes is a quote, blank lines are no records.
//! Tested in `table/tests.rs`.

use std::cmp::Reverse;

/// Delimiters that are recognised; on equal merit the earlier one is taken.
///
/// The comma is last: a file that a rarer character splits evenly into columns is hardly ever
/// separated by commas, while decimal commas are common in files with semicolons.
pub(super) const DELIMITERS: [u8; 4] = [b'\t', b';', b'|', b','];

/// Records that are looked at to choose the delimiter.
pub(super) const SAMPLE_RECORDS_MAX: usize = 100;

/// Fields of one record, and the quote that is open at its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RecordShape {
    /// Number of fields.
    pub(super) fields: usize,
    /// Fields of the record that begin with a space.
    pub(super) fields_after_space: usize,
    /// Byte offset of a quote that nothing closes, counted from the start of the text.
    pub(super) open_quote: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

/// Measures the record that starts at or after `start`; `None` when only blank lines are left.
///
/// Returns the offset behind the record too.
pub(super) fn measure_record(
    text: &str,
    start: usize,
    delimiter: u8,
) -> Option<(RecordShape, usize)> {
    let bytes = text.as_bytes();
    let begin = skip_line_ends(text, start);
    if begin >= bytes.len() {
        return None;
    }
    let mut shape = RecordShape { fields: 1, ..RecordShape::default() };
    let mut state = State::FieldStart;
    let mut quote_at = begin;
    for (offset, &byte) in bytes.iter().enumerate().skip(begin) {
        state = match (state, byte) {
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) | (State::QuoteInQuoted, b'"') => State::Quoted,
            (State::FieldStart, b'"') => {
                quote_at = offset;
                State::Quoted
            }
            (_, b'\r' | b'\n') => return Some((shape, offset)),
            (_, byte) if byte == delimiter => {
                shape.fields += 1;
                State::FieldStart
            }
            (State::FieldStart, b' ') => {
                shape.fields_after_space += 1;
                State::Plain
            }
            _ => State::Plain,
        };
    }
    shape.open_quote = (state == State::Quoted).then_some(quote_at);
    Some((shape, bytes.len()))
}

/// Chooses the delimiter under which most records have as many fields as the first one.
///
/// A tie goes to the one whose fields do not begin with a space (as in prose), then to the one
/// with more fields, then to the order of [`DELIMITERS`]. Without any candidate it is a comma.
pub(super) fn detect_delimiter(text: &str) -> u8 {
    DELIMITERS
        .into_iter()
        .enumerate()
        .filter_map(|(order, delimiter)| {
            let (share, is_tight, fields) = merit(text, delimiter)?;
            Some(((share, is_tight, fields, Reverse(order)), delimiter))
        })
        .max()
        .map_or(b',', |(_, delimiter)| delimiter)
}

/// Returns the share of agreeing records in 1/1000, whether no field of the header begins with a
/// space, and the number of fields.
fn merit(text: &str, delimiter: u8) -> Option<(usize, bool, usize)> {
    let (header, mut end) = measure_record(text, 0, delimiter)?;
    if header.fields < 2 {
        return None;
    }
    let (mut records, mut agreeing) = (1, 1);
    while records < SAMPLE_RECORDS_MAX {
        let Some((record, next)) = measure_record(text, end, delimiter) else {
            break;
        };
        records += 1;
        agreeing += usize::from(record.fields == header.fields);
        end = next;
    }
    Some((agreeing * 1000 / records, header.fields_after_space == 0, header.fields))
}

/// Returns the first offset at or after `start` that is not part of a line end.
pub(super) fn skip_line_ends(text: &str, start: usize) -> usize {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    start + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Returns the 1-based number of the line that holds `offset`; `\n`, `\r\n` and `\r` end lines.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let bytes = text.as_bytes();
    1 + bytes
        .iter()
        .enumerate()
        .take(offset)
        .filter(|&(at, &byte)| {
            byte == b'\n' || (byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
        })
        .count()
}
