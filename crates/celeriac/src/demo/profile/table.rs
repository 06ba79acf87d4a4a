//! Reads a CSV file of unknown encoding and delimiter into one compact table.
//!
//! Strict on purpose: a record with too many or too few fields, or a quote that is left open, is
//! an error that names the line, never a silently shifted column. Blank lines are skipped.
//! Memory: the text of all cells once, plus four bytes a cell.

use std::collections::HashSet;

use thiserror::Error;

use super::column::{VALUE_CHARS_MAX, cut};
use super::encoding::decode;
use super::structure::{detect_delimiter, line_at, measure_record, skip_line_ends};

/// Largest file and widest table that [`Table::read`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Bytes of the file; 256 MiB by default.
    pub bytes_max: usize,
    /// Columns of the header; 2 000 by default.
    pub columns_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, columns_max: 2_000 }
    }
}

/// Why a file is not a table; the fault is always in the file or in the limits.
///
/// Lines count from 1 as in a text editor, so a record inside quotes may span several.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The file has no bytes, or blank lines only.
    #[error("the file is empty: expected a header line and at least one record below it")]
    Empty,
    /// The file ends behind its header.
    #[error(
        "the file has a header (columns: {columns}) but no records: add data below line {line}, or \
         a header line above it if that line is data"
    )]
    NoRows {
        /// Columns of the header.
        columns: usize,
        /// Line of the header.
        line: usize,
    },
    /// The file is not text.
    #[error("the file is not CSV text but {looks_like}: export its data as CSV (UTF-8) first")]
    Binary {
        /// What the first bytes say it is.
        looks_like: &'static str,
    },
    /// The bytes are not valid in the encoding that the file announces or resembles.
    #[error("line {line} is not valid {encoding}: save the file as UTF-8 and try again")]
    Malformed {
        /// First line with a broken character.
        line: usize,
        /// Encoding that was tried.
        encoding: &'static str,
    },
    /// A record has another number of fields than the header.
    #[error(
        "line {line} has {fields} field{}, the header has {columns} (delimiter {}): put values \
         that contain the delimiter in double quotes, and remove titles above the header{}",
        if *fields == 1 { "" } else { "s" },
        delimiter_name(*delimiter),
        if *lines > 1 { format!("; the record spans {lines} lines, so a quote may be missing") }
        else { String::new() }
    )]
    Ragged {
        /// Line where the record starts.
        line: usize,
        /// Lines that the record covers.
        lines: usize,
        /// Fields of the record.
        fields: usize,
        /// Columns of the header.
        columns: usize,
        /// Delimiter that was detected.
        delimiter: char,
    },
    /// A quoted field is still open at the end of the file.
    #[error(
        "the double quote that opens a value in line {line} is never closed: close it, or write a \
         quote that belongs to the value as two quotes inside a quoted value"
    )]
    UnterminatedQuote {
        /// Line of the opening quote.
        line: usize,
    },
    /// The file is larger than the limit.
    #[error(
        "the file has {bytes} bytes, the limit is {bytes_max}: take a sample of its lines, or \
         raise the limit"
    )]
    TooLarge {
        /// Bytes of the file (of its text, if only the decoded text is too large).
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The header is wider than the limit.
    #[error(
        "the header has {columns} columns, the limit is {columns_max} (delimiter {}): check that \
         the first line is the header, or select fewer columns",
        delimiter_name(*delimiter)
    )]
    TooManyColumns {
        /// Columns of the header.
        columns: usize,
        /// The limit.
        columns_max: usize,
        /// Delimiter that was detected.
        delimiter: char,
    },
    /// The CSV reader failed on decoded text, which it cannot by its contract.
    #[error("the CSV reader failed near line {line} ({detail}): please report this as a bug")]
    Internal {
        /// Line where the record starts.
        line: usize,
        /// What the reader said.
        detail: String,
    },
}

/// A table of texts with a header; every record has as many cells as the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Encoding by its WHATWG name, such as `UTF-8` or `windows-1252`.
    pub encoding: String,
    /// Whether the encoding is a guess (no byte order mark and not valid UTF-8).
    pub encoding_is_guess: bool,
    /// The character between fields.
    pub delimiter: char,
    /// Column names: trimmed, cut to [`VALUE_CHARS_MAX`] characters, never empty, all different.
    pub header: Vec<String>,
    /// Number of records below the header.
    pub rows: usize,
    /// All cells, row by row, without anything between them.
    text: String,
    /// Offset in `text` behind each cell.
    ends: Vec<u32>,
}

impl Table {
    /// Reads a whole file.
    ///
    /// The encoding comes from a byte order mark (UTF-8, UTF-16), else it is UTF-8 if the bytes
    /// are valid, else a guess. The delimiter is the one of comma, semicolon, tab and `|` that
    /// splits the first 100 records most evenly. The first record is the header; a repeated name
    /// becomes `name_2`, an empty one `column_3`.
    pub fn read(bytes: &[u8], limits: &TableLimits) -> Result<Self, TableError> {
        if bytes.len() > limits.bytes_max {
            let bytes_max = limits.bytes_max;
            return Err(TableError::TooLarge { bytes: bytes.len(), bytes_max });
        }
        let decoded = decode(bytes)?;
        if decoded.text.trim().is_empty() {
            return Err(TableError::Empty);
        }
        let mut source = Source::new(&decoded.text);
        let Some(names) = source.next_record()?.cloned() else {
            return Err(TableError::Empty);
        };
        source.check_width(names.len(), limits)?;
        let mut table = Self {
            encoding: decoded.encoding.to_owned(),
            encoding_is_guess: decoded.is_guess,
            delimiter: char::from(source.delimiter),
            header: unique_names(&names),
            rows: 0,
            text: String::with_capacity(decoded.text.len()),
            ends: Vec::new(),
        };
        while let Some(record) = source.next_record()? {
            table.push(record, limits)?;
        }
        if table.rows == 0 {
            let line = line_at(&decoded.text, skip_line_ends(&decoded.text, 0));
            return Err(TableError::NoRows { columns: table.header.len(), line });
        }
        table.text.shrink_to_fit();
        table.ends.shrink_to_fit();
        Ok(table)
    }

    /// Returns the cells of a column from the first record to the last, exactly as in the file.
    ///
    /// Yields nothing if the header has no such column.
    pub fn column(&self, index: usize) -> impl Iterator<Item = &str> {
        let rows = if index < self.header.len() { self.rows } else { 0 };
        (0..rows).map(move |row| self.cell(row * self.header.len() + index))
    }

    fn cell(&self, position: usize) -> &str {
        let start = if position == 0 { 0 } else { self.ends[position - 1] as usize };
        &self.text[start..self.ends[position] as usize]
    }

    fn push(&mut self, record: &csv::StringRecord, limits: &TableLimits) -> Result<(), TableError> {
        for field in record {
            self.text.push_str(field);
            let bytes_max = limits.bytes_max.min(u32::MAX as usize);
            let end = u32::try_from(self.text.len())
                .map_err(|_| TableError::TooLarge { bytes: self.text.len(), bytes_max })?;
            self.ends.push(end);
        }
        self.rows += 1;
        Ok(())
    }
}

/// The records of a text, each checked against the width of the first one.
struct Source<'a> {
    text: &'a str,
    delimiter: u8,
    reader: csv::Reader<&'a [u8]>,
    record: csv::StringRecord,
    /// Where the record before the next one ends.
    start: usize,
    columns: Option<usize>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        let delimiter = detect_delimiter(text);
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let record = csv::StringRecord::new();
        Self { text, delimiter, reader, record, start: 0, columns: None }
    }

    fn next_record(&mut self) -> Result<Option<&csv::StringRecord>, TableError> {
        self.start = self.reader.position().byte() as usize;
        let is_record = self.reader.read_record(&mut self.record).map_err(|error| {
            let line = line_at(self.text, self.start);
            TableError::Internal { line, detail: error.to_string() }
        })?;
        if !is_record {
            return Ok(None);
        }
        let fields = self.record.len();
        let columns = *self.columns.get_or_insert(fields);
        if self.reader.position().byte() as usize >= self.text.len() {
            // csv 1.4.0 takes the end of the file for the closing quote.
            self.check_quotes()?;
        }
        if fields != columns {
            return Err(self.ragged(fields, columns));
        }
        Ok(Some(&self.record))
    }

    fn check_quotes(&self) -> Result<(), TableError> {
        let shape = measure_record(self.text, self.start, self.delimiter);
        match shape.and_then(|(shape, _)| shape.open_quote) {
            Some(offset) => Err(TableError::UnterminatedQuote { line: line_at(self.text, offset) }),
            None => Ok(()),
        }
    }

    fn check_width(&self, columns: usize, limits: &TableLimits) -> Result<(), TableError> {
        let columns_max = limits.columns_max;
        if columns > columns_max {
            let delimiter = char::from(self.delimiter);
            return Err(TableError::TooManyColumns { columns, columns_max, delimiter });
        }
        Ok(())
    }

    fn ragged(&self, fields: usize, columns: usize) -> TableError {
        let line = line_at(self.text, skip_line_ends(self.text, self.start));
        let end = measure_record(self.text, self.start, self.delimiter)
            .map_or(self.start, |(_, end)| end);
        let lines = line_at(self.text, end) - line + 1;
        TableError::Ragged { line, lines, fields, columns, delimiter: char::from(self.delimiter) }
    }
}

/// Makes every name non-empty and different from all others, original names first.
fn unique_names(record: &csv::StringRecord) -> Vec<String> {
    let wanted: Vec<String> = record
        .iter()
        .enumerate()
        .map(|(index, name)| match name.trim() {
            "" => format!("column_{}", index + 1),
            name => cut(name, VALUE_CHARS_MAX),
        })
        .collect();
    let originals: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut taken = HashSet::with_capacity(wanted.len());
    let mut names = Vec::with_capacity(wanted.len());
    for name in &wanted {
        let mut unique = name.clone();
        let mut number = 2;
        while taken.contains(&unique) || (number > 2 && originals.contains(unique.as_str())) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        taken.insert(unique.clone());
        names.push(unique);
    }
    names
}

/// Returns the delimiter as people call it.
fn delimiter_name(delimiter: char) -> String {
    match delimiter {
        '\t' => "tab".to_owned(),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests;
