use super::*;

fn read(bytes: &[u8]) -> Table {
    Table::read(bytes, &TableLimits::default()).expect("the bytes are a table")
}

fn refuse(bytes: &[u8]) -> TableError {
    Table::read(bytes, &TableLimits::default()).expect_err("the bytes are no table")
}

fn cells(table: &Table, index: usize) -> Vec<&str> {
    table.column(index).collect()
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(to_bytes).collect()
}

#[test]
fn reads_every_announced_encoding() {
    let text = "name,town\nZoë,Łódź\n";
    for (bytes, encoding) in [
        (text.as_bytes().to_vec(), "UTF-8"),
        (format!("\u{feff}{text}").into_bytes(), "UTF-8"),
        (utf16(text, u16::to_le_bytes), "UTF-16LE"),
        (utf16(text, u16::to_be_bytes), "UTF-16BE"),
    ] {
        let table = read(&bytes);
        assert_eq!((table.encoding.as_str(), table.encoding_is_guess), (encoding, false));
        assert_eq!(table.header, ["name", "town"]);
        assert_eq!(cells(&table, 1), ["Łódź"]);
    }
}

#[test]
fn guesses_a_western_code_page() {
    let table = read(b"Stra\xdfe;Gr\xf6\xdfe\nM\xfcnchner Stra\xdfe;1,5\nCaf\xe9 \x80 5;2,5\n");
    assert_eq!((table.encoding.as_str(), table.encoding_is_guess), ("windows-1252", true));
    assert_eq!(table.header, ["Straße", "Größe"]);
    assert_eq!(cells(&table, 0), ["Münchner Straße", "Café € 5"]);
}

#[test]
fn refuses_bytes_that_contradict_the_mark() {
    let error = refuse(b"\xef\xbb\xbfa,b\n1,2\n3,\xff\n");
    assert_eq!(error, TableError::Malformed { line: 3, encoding: "UTF-8" });
}

#[test]
fn chooses_the_delimiter_that_splits_evenly() {
    for (text, delimiter, header) in [
        ("a,b\n1,2\n", ',', vec!["a", "b"]),
        ("a;b\n1,5;2,5\n3,5;4\n", ';', vec!["a", "b"]),
        ("Weight, kg;Height, cm\n1,5;2,5\n", ';', vec!["Weight, kg", "Height, cm"]),
        ("a\tb\n1,2\t3,4\n", '\t', vec!["a", "b"]),
        ("a|b|c\n1|2|3\n", '|', vec!["a", "b", "c"]),
        ("\"a;b\",c\n\"1;2\",3\n", ',', vec!["a;b", "c"]),
        ("id,note; text\n1,a; b\n", ',', vec!["id", "note; text"]),
        ("only\n1\n2\n", ',', vec!["only"]),
    ] {
        let table = read(text.as_bytes());
        assert_eq!((table.delimiter, table.header), (delimiter, to_owned(&header)), "{text}");
    }
}

fn to_owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn keeps_quoted_newlines_quotes_and_delimiters() {
    let table = read(b"a,b\r\n\"one\r\ntwo\",\"say \"\"hi\"\", then\"\r\n\r\nx,\r\n");
    assert_eq!(table.rows, 2);
    assert_eq!(cells(&table, 0), ["one\r\ntwo", "x"]);
    assert_eq!(cells(&table, 1), ["say \"hi\", then", ""]);
    assert_eq!(cells(&table, 2), [""; 0]);
}

#[test]
fn makes_names_unique_without_renaming_later_ones() {
    let table = read(b"a, a ,,a_2,\n1,2,3,4,5\n");
    assert_eq!(table.header, ["a", "a_3", "column_3", "a_2", "column_5"]);
}

#[test]
fn refuses_what_is_no_table() {
    let long = format!("a\n{}", "x".repeat(100));
    let limits = TableLimits { bytes_max: 50, columns_max: 2 };
    for (error, expected) in [
        (refuse(b""), "the file is empty"),
        (refuse(b"\r\n \n"), "the file is empty"),
        (refuse(b"\xef\xbb\xbf"), "the file is empty"),
        (refuse(b"\na,b\n"), "columns: 2) but no records: add data below line 2"),
        (refuse(b"a,b\n1,\0\n"), "a binary file (it has NUL bytes)"),
        (refuse(b"PK\x03\x04rest"), "an Excel workbook (.xlsx): export its data as CSV"),
        (refuse(&utf16("a,b\n1,\0\n", u16::to_le_bytes)), "it has NUL characters"),
        (refuse(b"a,b\n1,2\n\n1,2,3\n"), "line 4 has 3 fields, the header has 2 (delimiter `,`)"),
        (refuse(b"a\tb\r1\t2\r1\r"), "line 3 has 1 field, the header has 2 (delimiter tab)"),
        (refuse(b"a,b\n\"1\n2\n3\"\n"), "the record spans 3 lines, so a quote may be missing"),
        (
            Table::read(long.as_bytes(), &limits).expect_err("too large"),
            "the file has 102 bytes, the limit is 50",
        ),
        (
            Table::read(b"a,b,c\n1,2,3\n", &limits).expect_err("too wide"),
            "the header has 3 columns, the limit is 2",
        ),
    ] {
        assert!(error.to_string().contains(expected), "{error}\nexpected: {expected}");
    }
}

#[test]
fn finds_the_line_of_a_quote_left_open() {
    for (text, line) in [
        ("a,b\n1,2\n3,\"open\n5,6\n", Some(3)),
        ("a,b\n1,\"fine\"\n\"two\nlines\",\"open", Some(4)),
        ("a,b\n1,\"open \"\"", Some(2)),
        ("\"a,b\n1,2\n", Some(1)),
        ("a,b\n1,\"closed\"", None),
        ("a,b\n1,\"closed \"\"\"", None),
        ("a,b\n1,in\"side\n", None),
        ("a,b\n1,\"\"", None),
    ] {
        let result = Table::read(text.as_bytes(), &TableLimits::default());
        let expected = line.map(|line| TableError::UnterminatedQuote { line });
        assert_eq!(result.err(), expected, "{text}");
    }
}
