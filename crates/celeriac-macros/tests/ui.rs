//! What the compiler says when `#[task]` is used wrongly. The words are in `tests/ui/*.stderr`;
//! `TRYBUILD=overwrite cargo t -p celeriac-macros` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn macro_errors() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail(format!("{HERE}/tests/ui/*.rs"));
}

/// The contents of all files of a folder whose names end so.
fn contents(folder: &str, end: &str) -> String {
    let files = std::fs::read_dir(Path::new(HERE).join(folder)).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let wanted = paths.filter(|path| path.to_str().unwrap().ends_with(end));
    wanted.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// What is said in the text literals of a source file that stand where errors are made, up to what is
/// filled in.
fn said(source: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for place in ["Error::new(", "Error::new_spanned(", "let text ="] {
        for (at, _) in source.match_indices(place) {
            let rest = &source[at + place.len()..];
            let statement = &rest[..rest.find(';').unwrap_or(rest.len())];
            let Some((_, literal)) = statement.split_once('"') else { continue };
            // Up to its end, or to what is filled in; a line that goes on loses its indentation.
            let mut text = String::new();
            let mut letters = literal.chars().peekable();
            while let Some(letter) = letters.next() {
                match letter {
                    '"' | '{' => break,
                    '\\' if letters.peek() == Some(&'\n') => {
                        while letters.next_if(|next| next.is_whitespace()).is_some() {}
                    }
                    '\\' => text.extend(letters.next()),
                    letter => text.push(letter),
                }
            }
            texts.push(text);
        }
    }
    texts
}

/// Nothing that the macro can say is unseen.
#[test]
fn every_macro_error_is_seen() {
    let source = contents("src", ".rs");
    let seen = contents("tests/ui", ".stderr");
    let texts = said(&source);
    assert!(texts.len() > 30, "{texts:?}");
    let unseen: Vec<&String> = texts.iter().filter(|text| !seen.contains(text.trim())).collect();
    assert!(unseen.is_empty(), "add cases to tests/ui for {unseen:#?}");
}
